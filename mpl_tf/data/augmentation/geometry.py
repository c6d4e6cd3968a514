"""Operations on the positions of a whole batch of pixels.

Every move says for each pixel of the result from which row and column of the image it is taken: the nearest
one, or a fill color where that lies outside. All pixels are then taken by one gather whose unit is a pixel with its
channels; on a CPU that is faster than TensorFlow's own projective warp. Pixel centers are at whole numbers.
Images are `[n, H, W, C]` with static H, W and C; their type stays. What follows from these sizes alone is computed by
NumPy, and a single constant of the graph.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mpl_tf.data.batches import batch_size

GRAY = 128

# The level of pixels from outside: one for all channels, or one for each.
Fill = int | tuple[int, ...]


def rotate(images: tf.Tensor, degrees: tf.Tensor, *, fill: Fill = GRAY) -> tf.Tensor:
    """Turns each image around its center.

    Args:
        images: uint8 or float32 `[n, H, W, C]`.
        degrees: float32 `[n]`, counterclockwise.
        fill: the level of pixels from outside, one for all channels or one for each.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _positions(images)
    row_center, column_center = (images.shape[1] - 1) / 2, (images.shape[2] - 1) / 2
    radians = _per_image(degrees) * (math.pi / 180.0)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    down, right = rows - row_center, columns - column_center
    source_row = (cosine * down + row_center) + sine * right
    source_column = (column_center - sine * down) + cosine * right
    return take_pixels(images, _nearest(source_row), _nearest(source_column), fill=fill)


def shear_x(images: tf.Tensor, slope: tf.Tensor, *, fill: Fill = GRAY) -> tf.Tensor:
    """Moves each row sideways in proportion to its distance from the first.

    Args:
        images: uint8 or float32 `[n, H, W, C]`.
        slope: float32 `[n]`, columns per row; positive moves to the left.
        fill: the level of pixels from outside, one for all channels or one for each.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _positions(images)
    return take_pixels(images, _as_int32(rows), _nearest(columns + _per_image(slope) * rows), fill=fill)


def shear_y(images: tf.Tensor, slope: tf.Tensor, *, fill: Fill = GRAY) -> tf.Tensor:
    """Moves each column up or down in proportion to its distance from the first.

    Args:
        images: uint8 or float32 `[n, H, W, C]`.
        slope: float32 `[n]`, rows per column; positive moves up.
        fill: the level of pixels from outside, one for all channels or one for each.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _positions(images)
    return take_pixels(images, _nearest(rows + _per_image(slope) * columns), _as_int32(columns), fill=fill)


def translate_x(images: tf.Tensor, pixels: tf.Tensor, *, fill: Fill = GRAY) -> tf.Tensor:
    """Moves each image sideways.

    Args:
        images: uint8 or float32 `[n, H, W, C]`.
        pixels: float32 `[n]`; positive moves to the left.
        fill: the level of pixels from outside, one for all channels or one for each.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _positions(images)
    return take_pixels(images, _as_int32(rows), _nearest(columns + _per_image(pixels)), fill=fill)


def translate_y(images: tf.Tensor, pixels: tf.Tensor, *, fill: Fill = GRAY) -> tf.Tensor:
    """Moves each image up or down.

    Args:
        images: uint8 or float32 `[n, H, W, C]`.
        pixels: float32 `[n]`; positive moves up.
        fill: the level of pixels from outside, one for all channels or one for each.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _positions(images)
    return take_pixels(images, _nearest(rows + _per_image(pixels)), _as_int32(columns), fill=fill)


def flip_and_crop(
    images: tf.Tensor, flipped: tf.Tensor, top: tf.Tensor, left: tf.Tensor, *, padding: int, fill: Fill = GRAY
) -> tf.Tensor:
    """Mirrors some images left to right, pads each with one color and cuts a piece of the old size out of it.

    Args:
        images: uint8 or float32 `[n, H, W, C]`.
        flipped: bool `[n]`, the images to mirror.
        top: int32 `[n]`, the piece's first row in the padded image, 0 … 2 · padding.
        left: int32 `[n]`, its first column, likewise.
        padding: pixels added on each side.
        fill: their level, one for all channels or one for each.

    Returns:
        The type and shape of `images`.
    """
    width = images.shape[2]
    rows, columns = (_as_int32(positions) - padding for positions in _positions(images))
    rows, columns = rows + _per_image(top), columns + _per_image(left)
    return take_pixels(images, rows, tf.where(_per_image(flipped), width - 1 - columns, columns), fill=fill)


def resized_crop(
    images: tf.Tensor,
    flipped: tf.Tensor,
    top: tf.Tensor,
    left: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
) -> tf.Tensor:
    """Cuts a box out of each image and stretches it to the image's size (bilinear), some mirrored left to right.

    The rule is that of Pillow's `resize(..., BILINEAR, box=...)` for boxes no larger than the image: pixels beside
    the box are looked at, and the outermost ones are repeated. Rows are blended first, as whole rows, then columns.

    Args:
        images: uint8 or float32 `[n, H, W, C]`.
        flipped: bool `[n]`, the images to mirror.
        top: float32 `[n]`, the box's upper edge in pixels, 0 at the image's.
        left: float32 `[n]`, its left edge, likewise.
        height: float32 `[n]`, its height in pixels, at most H - top.
        width: float32 `[n]`, its width, at most W - left.

    Returns:
        float32 `[n, H, W, C]`, not rounded.
    """
    rows, columns, channels = images.shape[1:]
    first = _first(images, rows, rank=2)
    lines = tf.reshape(images, [-1, columns * channels])
    upper, lower, weight = _neighbors(top, height, rows)

    def take_lines(row):
        return tf.cast(tf.gather(lines, first + row), tf.float32)

    blended = _interpolate(take_lines(upper), take_lines(lower), tf.expand_dims(weight, -1))
    pixels = tf.reshape(blended, [-1, channels])
    first = tf.expand_dims(first + np.arange(rows, dtype=np.int32), -1) * columns
    before, after, weight = _neighbors(left, width, columns)
    flipped = tf.expand_dims(flipped, -1)
    before, after, weight = (
        tf.where(flipped, tf.reverse(values, [1]), values) for values in (before, after, weight)
    )

    def take_columns(column):
        # gather_nd, because it takes short slices faster than gather.
        return tf.gather_nd(pixels, tf.expand_dims(first + tf.expand_dims(column, 1), -1))

    return _interpolate(take_columns(before), take_columns(after), tf.reshape(weight, [-1, 1, columns, 1]))


def cutout(
    images: tf.Tensor, row: tf.Tensor, column: tf.Tensor, half_size: int, *, fill: Fill = GRAY
) -> tf.Tensor:
    """Paints a square of each image in one color (DeVries and Taylor, arXiv 1708.04552).

    Args:
        images: uint8 `[n, H, W, C]`.
        row: int32 `[n]`, the square's center: it covers rows row − half_size … row + half_size − 1.
        column: int32 `[n]`, likewise.
        half_size: half the square's side in pixels; what lies outside the image is cut off.
        fill: the square's level, one for all channels or one for each.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    height, width, channels = images.shape[1:]
    rows = _inside(np.arange(height), row, half_size)
    columns = _inside(np.repeat(np.arange(width), channels), column, half_size)
    square = tf.expand_dims(rows, 2) * tf.expand_dims(columns, 1)
    # Bits, because tf.where on every pixel takes several times as long.
    square = tf.reshape(square * tf.constant(255, tf.uint8), tf.shape(images))
    kept = tf.bitwise.bitwise_and(images, tf.bitwise.invert(square))
    return tf.bitwise.bitwise_or(kept, tf.bitwise.bitwise_and(square, _levels(fill, images)))


def take_pixels(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, *, fill: Fill = GRAY) -> tf.Tensor:
    """Builds images from pixels of the given positions.

    Args:
        images: any type, `[n, H, W, C]`.
        rows: int32, broadcastable to [n, H, W]; outside 0 … H − 1 means `fill`.
        columns: int32, broadcastable to [n, H, W]; outside 0 … W − 1 means `fill`.
        fill: the level of pixels from outside, one for all channels or one for each.

    Returns:
        The type and shape of `images`.
    """
    height, width, channels = images.shape[1:]
    # A rim of one pixel, to whose first or last row and column everything outside is sent.
    rimmed = _rimmed(images, fill)
    first = _first(images, (height + 2) * (width + 2), rank=3)
    rows = (tf.clip_by_value(rows, -1, height) + 1) * (width + 2) + first
    columns = tf.clip_by_value(columns, -1, width) + 1
    # gather_nd, because it takes short slices faster than gather.
    return tf.gather_nd(tf.reshape(rimmed, [-1, channels]), tf.expand_dims(rows + columns, -1))


def checked_fill(fill: Any, channels: int | None = None) -> Fill:
    """A fill as functions of this module take it.

    Args:
        fill: a whole number in `[0, 255]`, or one for each channel.
        channels: of the images; None where they are not known yet.

    Returns:
        An int where all channels get the same, else a tuple of C ints.

    Raises:
        ValueError: for anything else.
    """
    levels = tuple(fill) if isinstance(fill, Sequence) and not isinstance(fill, str) else (fill,)
    right = all(isinstance(level, numbers.Integral) and not isinstance(level, bool) for level in levels)
    if not levels or not right or not all(0 <= level <= 255 for level in levels):
        raise ValueError(
            f"fill is {fill!r}; expected a level in 0…255 such as 128, or one for each channel such as (0, 0, 0)."
        )
    if channels is not None and len(levels) not in (1, channels):
        raise ValueError(
            f"fill is {fill!r}, {len(levels)} levels for images of {channels} channel(s); pass one level, or one for "
            "each channel."
        )
    levels = tuple(int(level) for level in levels)
    return levels[0] if len(set(levels)) == 1 else levels


def _rimmed(images, fill: Fill) -> tf.Tensor:
    """The images with one pixel of `fill` added on each side."""
    fill = checked_fill(fill, images.shape[-1])
    if isinstance(fill, int):
        return tf.pad(
            images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=tf.constant(fill, images.dtype)
        )
    count, (height, width, channels) = tf.shape(images)[0], images.shape[1:]
    color = tf.constant(fill, images.dtype)
    side = tf.broadcast_to(color, [count, height, 1, channels])
    line = tf.broadcast_to(color, [count, 1, width + 2, channels])
    return tf.concat([line, tf.concat([side, images, side], axis=2), line], axis=1)


def _levels(fill: Fill, images) -> tf.Tensor:
    """`fill` as uint8 that broadcasts to the images: a color as a whole image, because short rows take longer."""
    fill = checked_fill(fill, images.shape[-1])
    if isinstance(fill, int):
        return tf.constant(fill, tf.uint8)
    height, width, channels = images.shape[1:]
    return tf.reshape(tf.tile(tf.constant(fill, tf.uint8), [height * width]), [height, width, channels])


def _neighbors(start, size, count: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The two pixels between which each of `count` samples of a box lies, and the second one's weight.

    Args:
        start: float32 `[n]`, the box's edge.
        size: float32 `[n]`, its length.
        count: samples, and pixels of the image, in this direction.

    Returns:
        int32 `[n, count]` twice, and float32 `[n, count]`.
    """
    step = tf.range(count, dtype=tf.float32) + 0.5
    position = start[:, tf.newaxis] + step * (size / count)[:, tf.newaxis] - 0.5
    position = tf.clip_by_value(position, 0.0, count - 1.0)
    before = tf.floor(position)
    after = tf.minimum(before + 1.0, count - 1.0)
    return tf.cast(before, tf.int32), tf.cast(after, tf.int32), position - before


def _interpolate(one, other, weight) -> tf.Tensor:
    return one + (other - one) * weight


def _positions(images) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every pixel, to broadcast: float32 `[H, 1]` and `[W]`."""
    height, width = images.shape[1:3]
    return np.arange(height, dtype=np.float32)[:, np.newaxis], np.arange(width, dtype=np.float32)


def _first(images, size: int, *, rank: int) -> tf.Tensor | np.ndarray:
    """Where each image begins in a row of them, of `size` entries each: int32 `[n, 1, …]`."""
    shape, count = [-1] + [1] * (rank - 1), batch_size(images)
    if isinstance(count, int):
        return (np.arange(count, dtype=np.int32) * np.int32(size)).reshape(shape)
    return tf.reshape(tf.range(count) * size, shape)


def _per_image(values) -> tf.Tensor:
    return tf.reshape(values, [-1, 1, 1])


def _as_int32(positions: np.ndarray) -> np.ndarray:
    return positions.astype(np.int32)


def _nearest(positions) -> tf.Tensor:
    return tf.cast(tf.floor(positions + 0.5), tf.int32)


def _inside(positions: np.ndarray, center, half_size: int) -> tf.Tensor:
    """1 where center − half_size ≤ position < center + half_size, else 0: uint8 `[n, positions]`."""
    offset = _as_int32(positions) - tf.expand_dims(center, -1)
    return tf.cast((offset >= -half_size) & (offset < half_size), tf.uint8)
