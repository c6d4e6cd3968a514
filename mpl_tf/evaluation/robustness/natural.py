"""Natural adversarial images from a folder, predicted as ImageNet-A's are: among the folder's classes alone.

Hendrycks, Zhao, Basart, Steinhardt, Song 2021, *Natural Adversarial Examples*, arXiv 1907.07174.
"""

import difflib
import os
from collections.abc import Sequence

from mpl_tf.data.images import folders
from mpl_tf.data.images.decoding import CROPPED, Resizing
from mpl_tf.data.images.images import Images


def load_subset(
    directory: str | os.PathLike,
    class_names: Sequence[str],
    image_shape: Sequence[int],
    *,
    resizing: Resizing = CROPPED,
    skip_unreadable: bool = False,
) -> tuple[Images, list[int]]:
    """Loads images of some of a network's classes.

    Evaluate them with `evaluate(network, evaluation_batches(images), classes=classes)`: ImageNet-A has images of
    200 of the 1000 classes, and its accuracy is that among the logits of these 200.

    Args:
        directory: holds one folder per class, named as the network's classes are.
        class_names: the network's K names, in the order of its logits.
        image_shape: `(H, W, C)` that the network takes.
        resizing: how its training images were brought to that, `Source.resizing`.
        skip_unreadable: leaves out images that cannot be decoded, with a warning, instead of refusing them.

    Returns:
        The images, labeled by positions in the second result: the classes of the folder, as indices of logits.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for a folder that is not named as a class, fewer than two classes, or what `from_folders` refuses.
    """
    if len(image_shape) != 3:
        raise ValueError(
            f"The network takes points of shape {tuple(image_shape)}, and {directory} holds images: leave the "
            "folder out."
        )
    height, width, channels = image_shape
    source = folders.from_folders(
        directory,
        image_size=(height, width),
        channels=channels,
        resize=resizing.resize,
        interpolation=resizing.interpolation,
        skip_unreadable=skip_unreadable,
    )
    positions = {name: position for position, name in enumerate(class_names)}
    for name in source.class_names:
        if name not in positions:
            nearest = difflib.get_close_matches(name, positions, n=3) or class_names[:3]
            raise ValueError(
                f"{directory} has a class folder {name!r}, and the network has no such class: name it as one of the "
                f"network's {len(class_names)} classes, such as {', '.join(map(repr, nearest))}, or remove it."
            )
    return source.train, [positions[name] for name in source.class_names]
