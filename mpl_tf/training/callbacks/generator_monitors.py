"""What happens between the epochs of a run with a generator: its images are drawn, its collapse is told.

Apart from `monitors`, which every run has and which draws nothing: the images here need the figures of `report`.
"""

import shutil
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import report
from mpl_tf.distribute import replicas
from mpl_tf.runs.folder import RunFolder
from mpl_tf.utils import files


class WarnOnCollapse(keras.callbacks.Callback):
    """Warns, once, when a generator that is to learn has made the same image, or class, for some epochs on end.

    Args:
        balance: `class_balance`, in 0…1, below which all images count as of one class.
        distance: `pairwise_distance`, in 0…255, below which all images count as the same.
        patience: epochs on end.
    """

    def __init__(self, balance: float = 0.1, distance: float = 2.0, patience: int = 3):
        super().__init__()
        self.balance, self.distance, self.patience, self.collapsed = balance, distance, patience, 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Counts the epochs."""
        logs = {"class_balance": 1.0, "pairwise_distance": 255.0, **(logs or {})}
        balance, distance = float(logs["class_balance"]), float(logs["pairwise_distance"])
        # A dead generator has no gradient, so that this is not asked of its norm.
        learns = self.model.generator_optimizer is not None
        now = learns and (balance < self.balance or distance < self.distance)
        self.collapsed = self.collapsed + 1 if now else 0
        if self.collapsed == self.patience:
            warnings.warn(
                f"For {self.patience} epochs the generator has collapsed: the entropy of its mean prediction is "
                f"{balance:.0%} of the largest, and two of its images differ by {distance:.1f} of 255 per pixel. "
                "Raise entropy_weight, lower the generator's learning rate, give it a small generator_weight_decay, "
                "such as 1e-4, or start from another seed.",
                stacklevel=2,
            )


class DrawGenerated(keras.callbacks.Callback):
    """Draws what the generator makes of the same noise after each epoch, a row per class that the teacher sees.

    The images are `<run>/generated/epoch_000.png` and so on, and `last.png`.

    Args:
        folder: where to.
        class_names: in the order of the logits.
        count: images that are generated.
        columns: images drawn per class, the most confident ones.
        rows: classes drawn.
    """

    def __init__(
        self,
        folder: RunFolder,
        class_names: Sequence[str],
        *,
        count: int = 256,
        columns: int = 10,
        rows: int = 10,
    ):
        super().__init__()
        self.folder, self.class_names = folder.path / "generated", class_names
        self.writes = folder.writes
        self.count, self.columns, self.rows = count, columns, rows

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Draws the images."""
        # Under several processes all of them predict, and one writes.
        rows = self.classified()
        if not self.writes:
            return
        image = report.plots.save_png(report.plots.image_grid(rows), self.folder / f"epoch_{epoch:03d}.png")
        with files.replacing(self.folder / "last.png") as temporary:
            shutil.copyfile(image, temporary)

    def classified(self) -> dict:
        """Caption → images `[n, H, W, C]`, for each class that the teacher sees."""
        shape = (self.count, self.model.generator.input_shape[-1])
        noise = np.random.default_rng(0).standard_normal(shape, np.float32)
        images = replicas.predict(self.model.generator, noise)
        predictions = tf.nn.softmax(replicas.predict(self.model.teacher, images)).numpy()
        classes, rows = predictions.argmax(axis=-1), {}
        for label in np.unique(classes)[: self.rows]:
            of_class = np.flatnonzero(classes == label)
            most_confident = of_class[np.argsort(-predictions[of_class, label], kind="stable")][
                : self.columns
            ]
            caption = f"{self.class_names[label]}: {len(of_class)} of {self.count}"
            rows[caption] = images[most_confident]
        return rows
