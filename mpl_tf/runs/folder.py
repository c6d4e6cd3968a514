"""What a run leaves on disk, and how it finds its way back: flags, checkpoints, history, metrics.

    runs/<name>/flags.txt  split.json  history.csv  pseudo_label_classes.csv  checkpoints/  networks/  metrics.json
                confusion.npz  curves.png  report.html  identity.txt

Every file is written beside its place and renamed, so a killed run leaves whole files only.
"""

import contextlib
import csv
import json
import math
import pathlib
import re
import tempfile
import uuid
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import models
from mpl_tf.utils import files

STORED_CHECKPOINTS = 2


class RunFolder:
    """A run's folder, or the folder of one of its later stages.

    Args:
        path: where it is, or will be.
        writes: whether this process writes there. Of several that train together one does, and the others read.
    """

    def __init__(self, path, *, writes: bool = True):
        self.path, self.writes = pathlib.Path(path), writes

    def stage(self, name: str) -> "RunFolder":
        """The folder of a later stage, `<run>/<name>/`."""
        return RunFolder(self.path / name, writes=self.writes)

    def check_configuration(self, flags: dict, *, resume: bool = True) -> None:
        """Checks that the folder holds no other run, without writing anything.

        Args:
            flags: name → value of everything that the result depends on; None is left out.
            resume: whether a folder with the same configuration may be continued.

        Raises:
            ValueError: when the folder holds another configuration, or may not be resumed.
        """
        source = self.path / "flags.txt"
        if not source.exists():
            return
        if not resume:
            raise ValueError(
                f"The run folder {str(self.path)!r} already holds a run and resume is off: choose another "
                "run_dir, or remove the folder yourself."
            )
        known, lines = source.read_text().splitlines(), _lines(flags)
        if known != lines:
            difference = [f"{old} there" for old in known if old not in lines]
            difference += [f"{new} here" for new in lines if new not in known]
            raise ValueError(
                f"The run folder {str(self.path)!r} holds another configuration ({', '.join(difference)}): "
                "choose another run_dir, or pass the flags in its flags.txt to continue it."
            )

    def read_flags(self) -> dict[str, str]:
        """What flags.txt says, name → text; empty where there is none."""
        source = self.path / "flags.txt"
        lines = source.read_text("utf-8").splitlines() if source.exists() else []
        return dict(line.removeprefix("--").split("=", 1) for line in lines if "=" in line)

    def read_split(self) -> dict:
        """The contents of split.json; empty where there is none."""
        source = self.path / "split.json"
        return json.loads(source.read_text("utf-8")) if source.exists() else {}

    def verify_or_write_config(self, flags: dict, *, resume: bool = True) -> None:
        """Makes the folder this configuration's, as its `flags.txt`, a flagfile, says from then on.

        Args:
            flags: as for `check_configuration`.
            resume: as for `check_configuration`.

        Raises:
            ValueError: as `check_configuration`.
        """
        self.check_configuration(flags, resume=resume)
        if self.writes:
            with files.replacing(self.path / "flags.txt") as temporary:
                temporary.write_text("".join(f"{line}\n" for line in _lines(flags)))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out of the folder while the block runs; the lock dies with the process.

        Raises:
            ValueError: when another process holds it.
        """
        if not self.writes:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        message = (
            f"Another process is training in the run folder {str(self.path)!r}: wait until it has ended, or choose "
            "another run_dir."
        )
        with files.locked(self.path / ".lock", message):
            yield

    # --- checkpoints -----------------------------------------------------------------------------------

    def checkpoints(self) -> list[pathlib.Path]:
        """The checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step_*.weights.h5"))

    def save_checkpoint(self, method: keras.Model) -> pathlib.Path:
        """Saves everything that the next step depends on, and removes all but the newest checkpoints.

        Raises:
            files.DiskFullError: when there is no room; the older checkpoints are untouched.
        """
        destination = self.path / "checkpoints" / f"step_{int(method.step.numpy()):09d}.weights.h5"
        if not self.writes:
            # Every process takes part: running means are summed over all of them while they are read.
            with tempfile.TemporaryDirectory() as folder:
                method.save_weights(pathlib.Path(folder) / destination.name)
            return destination
        with files.replacing(destination) as temporary:
            # HDF5 does not survive a full disk: it may end the process.
            files.reserve(temporary, _size_on_disk(method))
            method.save_weights(temporary)
        for old in self.checkpoints()[:-STORED_CHECKPOINTS]:
            old.unlink()
        return destination

    def restore_checkpoint(self, method: keras.Model) -> None:
        """Loads the newest readable checkpoint into a compiled method; does nothing when there is none.

        A checkpoint that cannot be read is set aside with the suffix `.unreadable`, and said so.

        Raises:
            ValueError: when there are checkpoints and none can be read.
        """
        if self.writes:
            for folder in (self.path, self.path / "checkpoints", self.path / "networks"):
                files.remove_unfinished(folder)
        checkpoints = self.checkpoints()
        for checkpoint in reversed(checkpoints):
            try:
                method.load_weights(checkpoint)
                return
            except (OSError, KeyError, ValueError) as error:
                if not self.writes:
                    continue
                aside = checkpoint.with_name(f"{checkpoint.name}.unreadable")
                checkpoint.rename(aside)
                print(f"The checkpoint {checkpoint} cannot be read ({error}); it is kept as {aside.name}.")
        if checkpoints:
            raise ValueError(
                f"None of the checkpoints in {str(self.path / 'checkpoints')!r} can be read: look at the files "
                "named .unreadable there, or train again in another run_dir."
            )

    # --- who it is ------------------------------------------------------------------------------------

    def identity(self) -> str:
        """A name that no other run has, by which a run that goes on knows what it has left elsewhere."""
        source = self.path / "identity.txt"
        if not source.exists():
            with files.replacing(source) as temporary:
                temporary.write_text(f"{uuid.uuid4().hex}\n")
        return source.read_text().strip()

    # --- history and metrics ---------------------------------------------------------------------------

    def read_history(self, *, until_step: int | None = None) -> list[dict]:
        """The rows of history.csv; those of epochs after `until_step`, which a kill undid, are left out."""
        return self.read_rows("history.csv", until_step=until_step)

    def write_history(self, rows: list[dict]) -> None:
        """Writes history.csv; columns are the union of all rows', in the order they first appear."""
        self.write_rows("history.csv", rows)

    def read_rows(self, name: str, *, until_step: int | None = None) -> list[dict]:
        """The rows of a CSV file with a column `step`, as `read_history`; none where there is no file."""
        source = self.path / name
        if not source.exists():
            return []
        with source.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [row for row in rows if until_step is None or int(row["step"]) <= until_step]

    def write_rows(self, name: str, rows: list[dict]) -> None:
        """Writes a CSV file, as `write_history`."""
        if not self.writes:
            return
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with files.replacing(self.path / name) as temporary, temporary.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)

    def read_metrics(self) -> dict | None:
        """The contents of metrics.json, which the end of a run writes; None before that."""
        source = self.path / "metrics.json"
        return json.loads(source.read_text("utf-8")) if source.exists() else None

    def write_metrics(self, metrics: dict) -> None:
        """Writes metrics.json, and what it holds of confusion matrices into confusion.npz, to those already there."""
        write_metrics(self.path / "metrics.json", metrics)

    def read_confusions(self) -> dict[str, np.ndarray]:
        """The confusion matrices of confusion.npz, int `[K, K]`, by names such as `"validation/student"`."""
        return _read_matrices(self.path / "confusion.npz")

    def save_network(self, role: str, network: keras.Model) -> None:
        """Saves `networks/<role>.keras`."""
        if not self.writes:
            return
        with files.replacing(self.path / "networks" / f"{role}.keras") as temporary:
            models.save(network, temporary)

    def load_network(self, role: str) -> keras.Model:
        """Loads `networks/<role>.keras`, not compiled."""
        return models.load(self.path / "networks" / f"{role}.keras")


def write_metrics(path: pathlib.Path, metrics: dict) -> None:
    """Writes numbers as JSON, and the confusion matrices among them into `confusion.npz` beside it.

    A matrix of 1,000 classes has a million numbers, which nobody reads in a JSON file.

    Args:
        path: of the file, `….json`. Matrices of another prefix than metrics.json's are `<prefix>.confusion.npz`.
        metrics: dicts in dicts; a matrix is what the key `"confusion"` has.
    """
    small, matrices = _without_matrices(metrics)
    if matrices:
        destination = _matrices_path(path)
        with files.replacing(destination) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **(_read_matrices(destination) | matrices))
    text = json.dumps(small, indent=1)
    # A list of numbers on one line.
    text = re.sub(r"\[\n([^\[\]{}]*?)\n\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    with files.replacing(path) as temporary:
        temporary.write_text(f"{text}\n", "utf-8")


def _matrices_path(path):
    return path.with_name("confusion.npz") if path.stem == "metrics" else path.with_suffix(".confusion.npz")


def _read_matrices(path):
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def _without_matrices(metrics, prefix=()):
    """The numbers without the confusion matrices, and these by the names of the dicts that they were in."""
    small, matrices = {}, {}
    for key, value in metrics.items():
        if key == "confusion":
            matrices["/".join(prefix)] = np.asarray(value)
        elif isinstance(value, dict):
            small[key], inner = _without_matrices(value, (*prefix, key))
            matrices |= inner
        else:
            small[key] = value
    return small, matrices


def _lines(flags: dict) -> list[str]:
    return [f"--{name}={value}" for name, value in sorted(flags.items()) if value is not None]


def _size_on_disk(method):
    """An upper bound in bytes: the numbers, and what HDF5 adds to each array."""
    optimizers = [getattr(method, f"{role}_optimizer", None) for role in method.roles]
    variables = [
        *method.variables,
        *(v for optimizer in optimizers if optimizer for v in optimizer.variables),
    ]
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size + 4096 for v in variables)
