"""Checks of what is asked of a network, each a sentence that names the value, what was expected and what to do."""

from collections.abc import Sequence
from numbers import Integral

import keras


def check_num_classes(num_classes: int) -> None:
    """Checks that there are two classes or more.

    Raises:
        ValueError: for fewer.
    """
    if not isinstance(num_classes, Integral) or num_classes < 2:
        raise ValueError(
            f"num_classes must be a whole number of 2 or more, got {num_classes}; give a yes or no as 2 classes."
        )


def check_rate(setting: str, rate: float) -> None:
    """Checks a probability of dropping something.

    Raises:
        ValueError: when it is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"{setting} must lie in [0, 1), got {rate}; give 0 to turn it off.")


def check_shape(
    name: str,
    image_shape: Sequence[int],
    *,
    accepts_points: bool,
    smallest_side: int | None,
    rgb: bool = False,
) -> None:
    """Checks that a network takes examples of a shape.

    Args:
        name: of the network.
        image_shape: `(height, width, channels)`, or `(features,)` for points.
        accepts_points: whether the network does.
        smallest_side: of an image, in pixels; None where the network takes no images.
        rgb: whether it takes color images, and gray ones as such, only.

    Raises:
        ValueError: when it does not.
    """
    shape = tuple(image_shape)
    if len(shape) not in (1, 3) or not all(isinstance(size, Integral) and size > 0 for size in shape):
        raise ValueError(
            f"image_shape must be (height, width, channels), such as (32, 32, 3), or (features,) for points, "
            f"all whole numbers above 0, got {shape}."
        )
    if len(shape) == 1 and not accepts_points:
        raise ValueError(
            f"{name} takes images, got points with image_shape={shape}; give (height, width, channels) or "
            f"choose mlp or moons_mlp."
        )
    if len(shape) == 3 and smallest_side is None:
        raise ValueError(
            f"{name} takes points, such as image_shape=(2,), got images with image_shape={shape}; choose mlp "
            f"or convnet."
        )
    if len(shape) == 3 and keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Keras is set to channels_first, and images have their channels last here: call "
            "keras.config.set_image_data_format('channels_last'), or change image_data_format in keras.json."
        )
    if smallest_side is not None and len(shape) == 3 and min(shape[:2]) < smallest_side:
        raise ValueError(
            f"{name} takes images of at least {smallest_side}×{smallest_side} pixels, got image_shape={shape}; "
            "enlarge them or choose a smaller network, such as convnet or mlp."
        )
    if rgb and shape[2] not in (1, 3):
        raise ValueError(
            f"{name} takes images of 3 channels, or gray ones of 1, got image_shape={shape}; convert the images or "
            "choose another network, such as convnet or wrn-28-2."
        )
