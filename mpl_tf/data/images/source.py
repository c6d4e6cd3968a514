"""What a dataset is to a method: training images, class names and test images."""

import dataclasses

from mpl_tf.data.images.images import Images


@dataclasses.dataclass(frozen=True)
class Source:
    """What a method learns from: training images, of which some have labels, and test images.

    Attributes:
        name: of the dataset.
        class_names: one per class, in the order of the labels.
        train: images to draw labeled, unlabeled and validation images from; label -1 where unknown.
        test: held-out images, looked at once, or None.
        flip: whether a mirrored image keeps its label.
        unreadable: files that were left out because they cannot be decoded.
    """

    name: str
    class_names: tuple[str, ...]
    train: Images
    test: Images | None = None
    flip: bool = True
    unreadable: tuple[str, ...] = ()

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

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(H, W, C)` of every image, or `(D,)` of every point."""
        return self.train.image_shape

    @property
    def num_classes(self) -> int:
        """K; labels are 0…K-1."""
        return len(self.class_names)
