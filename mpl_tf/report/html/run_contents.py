"""What a run folder holds, read once for its page."""

import pathlib
import re
from collections.abc import Mapping

import keras
import numpy as np

from mpl_tf.data.run_data import RunData
from mpl_tf.report.html import samples
from mpl_tf.report.summary import measured_split
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.roles import chosen_role, role_name


class RunContents:
    """A run folder, and the run's data and networks where they are at hand.

    Args:
        path: of the folder.
        data: `RunData` of the run, or None.
        networks: role → network.

    Attributes:
        folder: `RunFolder`.
        metrics: of metrics.json; empty before the end of a run.
        split: of split.json, empty where there is none.
        flags: of flags.txt.
        measured: the split whose accuracies count, see `summary.measured_split`.
        final: the role that the run has chosen to serve.
        networks: role → network, in the order of the training.
        points: whether the examples are points in place of images.
        noun: `"image"` or `"point"`.
        class_names: None where the data are not at hand.
        predicted: what the final network says of the validation split, `samples.Predicted` or None.
    """

    def __init__(self, path: pathlib.Path, data: RunData | None, networks: Mapping[str, keras.Model]):
        if not path.is_dir():
            raise FileNotFoundError(f"There is no run folder {str(path)!r}: give the folder of a run.")
        self.folder, self.data = RunFolder(path), data
        self.metrics = self.folder.read_metrics() or {}
        self.split = self.folder.read_split()
        self.flags = self.folder.read_flags()
        self.measured = measured_split(self.metrics)
        # In the order of the training, which the files in networks/ do not have.
        order = list(self.metrics.get(self.measured, networks))
        self.networks = {role: networks[role] for role in order if role in networks} if data else {}
        self.final = chosen_role(self.metrics)
        self.points = len(data.source.image_shape) == 1 if data else self.flags.get("dataset") == "two_moons"
        self.noun = "point" if self.points else "image"
        self.class_names = data.source.class_names if data else None
        self.predicted: samples.Predicted | None = None
        if data is not None and self.final in self.networks and len(data.split.validation):
            self.predicted = samples.predict(self.networks[self.final], data, data.split.validation)

    @property
    def name(self) -> str:
        """The split's name, or else the folder's."""
        return self.metrics.get("split") or self.split.get("name") or self.folder.path.name

    @property
    def recipe(self) -> str | None:
        """What made the run, as far as its command tells."""
        found = re.search(r"recipes\.(\w+)", self.metrics.get("command", ""))
        return found[1] if found else None

    @property
    def final_name(self) -> str:
        """What the final network is called."""
        return role_name(self.final or "student")

    @property
    def confusion(self) -> np.ndarray | None:
        """Int `[K, K]`, the final network's on the validation split."""
        return self.folder.read_confusions().get(f"validation/{self.final}")

    def names_of(self, num_classes: int) -> list[str]:
        """The names of the classes, or their numbers."""
        return list(self.class_names or map(str, range(num_classes)))

    @property
    def stages(self) -> dict[str, RunFolder]:
        """Name → folder: the run itself, whose name is empty, and its stages in the order of the training."""
        found = [path.parent for path in self.folder.path.glob("*/history.csv")]
        order = {"supervised": 0, "supervised_longer": 1, "teacher": 1, "finetune": 3}
        found.sort(key=lambda path: (order.get(path.name, 2), len(path.name), path.name))
        return {"": self.folder} | {path.name: RunFolder(path) for path in found}

    def evaluation_of(self, part: str) -> tuple[str, dict[str, Mapping]] | None:
        """What `recipes.evaluate` has left of some part: the split, and role → sections; None for nothing."""
        for split in ("test", "validation"):
            roles = self.metrics.get("evaluation", {}).get(split, {})
            roles = {role: sections for role, sections in roles.items() if part in sections}
            if roles:
                return split, roles
        return None
