"""Pillow's filters for resizing, in a TensorFlow graph: what a server computes is what training computed.

`tf.image.resize` and `ScaleAndTranslate` have filters of the same names that give other numbers, by up to tens of
levels for a cubic one. Here the weights are computed as Pillow does (Resample.c), for
sides that are known only when an image comes, and applied as two matrices, with uint8 in between as there. A box is
not among them: whether a pixel on its edge counts is a matter of the last bit, which graphs and Pillow round apart.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from mpl_tf.data.images import upright


def _cubic(x: tf.Tensor) -> tf.Tensor:
    """Keys' kernel with a = -1/2 (Keys 1981, equation 15)."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, tf.zeros_like(x)))


def _sinc(x: tf.Tensor) -> tf.Tensor:
    angle = np.pi * x
    return tf.where(x == 0.0, tf.ones_like(x), tf.math.divide_no_nan(tf.sin(angle), angle))


# Radius and weight, of the distance from a pixel of the result in pixels of the coarser of both images.
_KERNELS: dict[str, tuple[float, Callable[[tf.Tensor], tf.Tensor]]] = {
    "bilinear": (1.0, lambda x: tf.maximum(1.0 - tf.abs(x), 0.0)),
    "bicubic": (2.0, lambda x: _cubic(tf.abs(x))),
    "lanczos": (
        3.0,
        lambda x: tf.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3.0), tf.zeros_like(x)),
    ),
}


def middle(sides: Sequence[tf.Tensor], size: Sequence[int]) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """The largest part in the middle of an image that has the aspect ratio of a size, `PIL.ImageOps.fit`'s.

    Args:
        sides: height and width of the image.
        size: height and width.

    Returns:
        For both sides, where the part begins and ends, float32.
    """
    height, width = (tf.cast(side, tf.float64) for side in sides)
    ratio = size[1] / size[0]
    wide = width / height >= ratio
    kept = tf.where(wide, height, width / ratio), tf.where(wide, ratio * height, width)
    starts = [(side - part) * 0.5 for side, part in zip((height, width), kept, strict=True)]
    ends = [start + part for start, part in zip(starts, kept, strict=True)]
    # Pillow keeps them in single precision, and subtracts them so.
    return [
        (tf.cast(start, tf.float32), tf.cast(end, tf.float32))
        for start, end in zip(starts, ends, strict=True)
    ]


def resize(
    image: tf.Tensor,
    size: Sequence[int | tf.Tensor],
    method: str,
    *,
    box: Sequence[tuple[tf.Tensor, tf.Tensor]] | None = None,
) -> tf.Tensor:
    """Resizes an image as `PIL.Image.Image.resize` does, first its rows and then its columns.

    Args:
        image: uint8 `[h, w, C]`.
        size: height and width of the result.
        method: `"bilinear"`, `"bicubic"` or `"lanczos"`.
        box: for both sides, where the part of the image that is resized begins and ends; None for all of it.

    Returns:
        uint8 `[*size, C]`.
    """
    sides = tf.unstack(tf.shape(image)[:2])
    if box is None:
        box = [(tf.zeros([]), tf.cast(side, tf.float32)) for side in sides]
    down, across = (
        _weights(method, side, *part, count) for side, part, count in zip(sides, box, size, strict=True)
    )
    return _rounded("oh,hwc->owc", down, _rounded("ow,hwc->hoc", across, image))


def take_nearest(image: tf.Tensor, size: Sequence[int | tf.Tensor], *, cropped: bool) -> tf.Tensor:
    """Resizes an image by its nearest pixels, `upright.nearest_index`.

    Args:
        image: uint8 `[h, w, C]`.
        size: height and width of the result.
        cropped: whether of the middle alone, or of all of the image.

    Returns:
        uint8 `[*size, C]`.
    """
    sides = [tf.cast(side, tf.int64) for side in tf.unstack(tf.shape(image)[:2])]
    counts = [tf.cast(count, tf.int64) for count in size]
    ones = tf.ones([], tf.int64)
    parts = [(side, ones) for side in sides]
    if cropped:
        (height, width), (rows, columns) = sides, counts
        wide = width * rows >= height * columns
        parts = [
            tuple(
                tf.where(wide, *pair) for pair in zip((height, ones), (rows * width, columns), strict=True)
            ),
            tuple(
                tf.where(wide, *pair) for pair in zip((columns * height, rows), (width, ones), strict=True)
            ),
        ]
    for axis, (side, part, count) in enumerate(zip(sides, parts, counts, strict=True)):
        image = tf.gather(image, upright.nearest_index(side, part, count, tf.range(count)), axis=axis)
    return image


def _rounded(equation, weights, image):
    values = tf.einsum(equation, weights, tf.cast(image, tf.float32))
    return tf.saturate_cast(tf.floor(values + 0.5), tf.uint8)


def _weights(method, side, start, end, count):
    """float32 `[count, side]`, rows that sum to 1."""
    radius, kernel = _KERNELS[method]
    start, scale = tf.cast(start, tf.float64), tf.cast(end - start, tf.float64) / tf.cast(count, tf.float64)
    width = tf.maximum(scale, 1.0)
    centers = (start + (tf.cast(tf.range(count), tf.float64) + 0.5) * scale)[:, tf.newaxis]
    index = tf.cast(tf.range(side), tf.float64)
    first = tf.floor(tf.maximum(centers - radius * width + 0.5, 0.0))
    last = tf.floor(centers + radius * width + 0.5)
    weights = kernel((index - centers + 0.5) * (1.0 / width))
    weights = tf.where((index >= first) & (index < last), weights, tf.zeros_like(weights))
    return tf.cast(weights / tf.reduce_sum(weights, axis=1, keepdims=True), tf.float32)
