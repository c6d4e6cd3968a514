"""What a dataset is to a method: training images, class names and test images."""

import dataclasses

import numpy as np

from mpl_tf.data.images.decoding import CROPPED, Resizing
from mpl_tf.data.images.images import Images
from mpl_tf.data.images.reading import ReadingReport


@dataclasses.dataclass(frozen=True, repr=False)
class Source:
    """What a method learns from: training images, of which some have labels, and test images.

    Attributes:
        name: of the dataset.
        class_names: one per class, in the order of the labels.
        train: images to draw labeled, unlabeled and validation images from; label -1 where unknown.
        test: held-out images, looked at once, or None.
        flip: whether a mirrored image keeps its label.
        resizing: how images of other sizes are brought to `image_shape`, in exported models too.
        unreadable: files that were left out because they cannot be decoded.
        reading: of files, what was read, passed over and there twice; None where there were none.
        trusted: bool `[N]`, the training images whose labels somebody has checked, where all other labels are cheap:
            from crowds, rules, file names, an old model. None where nothing says which are.
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    test: Images | None = None
    flip: bool = True
    resizing: Resizing = CROPPED
    unreadable: tuple[str, ...] = ()
    reading: ReadingReport | None = None
    trusted: np.ndarray | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        if len(self.class_names) < 2:
            raise ValueError(
                f"{self.name!r} has {len(self.class_names)} class: a classifier needs at least two."
            )
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(
                f"class_names={self.class_names} repeats a name: give every class a name of its own."
            )
        if self.test is not None and self.test.image_shape != self.image_shape:
            raise ValueError(
                f"Test images of {self.name!r} have the shape {self.test.image_shape} and training images "
                f"{self.image_shape}: give both the same."
            )

        if self.trusted is not None:
            self._check_trusted()

    def _check_trusted(self) -> None:
        trusted = np.asarray(self.trusted)
        if trusted.dtype != bool or trusted.shape != (len(self.train),):
            raise ValueError(
                f"trusted is {trusted.dtype} of the shape {trusted.shape}, and there are {len(self.train)} training "
                "images: pass one bool for each."
            )
        if not trusted.any() or (self.train.true_labels[trusted] < 0).any():
            what = "an image without a label" if trusted.any() else "no image"
            raise ValueError(
                f"trusted marks {what} of {self.name!r}: mark those whose labels somebody has checked."
            )

    def __repr__(self) -> str:
        labeled = int(np.sum(self.train.labels >= 0))
        unlabeled = len(self.train) - labeled
        trusted = "" if self.trusted is None else f" ({int(self.trusted.sum()):,} of them trusted)"
        parts = [
            f"{self.num_classes} classes",
            f"{labeled:,} labeled{trusted}" + (f" and {unlabeled:,} unlabeled" if unlabeled else ""),
            *([f"{len(self.test):,} test"] if self.test is not None else []),
            "×".join(map(str, self.image_shape)),
            *([f"flip={self.flip}"] if len(self.image_shape) == 3 else []),
        ]
        return f"Source({self.name!r}: {', '.join(parts)})"

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(H, W, C)` of every image, or `(D,)` of every point."""
        return self.train.image_shape

    @property
    def num_classes(self) -> int:
        """K; labels are 0…K-1."""
        return len(self.class_names)
