"""Operations on the places of a whole batch of pixels.

Every move says for each pixel of the result from which row and column of the picture it is taken: the nearest
one, or grey where that lies outside. All pixels are then taken by one gather whose unit is a pixel with its
channels; on a CPU that is faster than TensorFlow's own projective warp. Pixel centers are at whole numbers.
Pictures are [n, H, W, C] with static H, W and C; their type stays.
"""

import math

import tensorflow as tf

GREY = 128


def rotate(images, degrees, *, fill: int = GREY) -> tf.Tensor:
    """Turns each picture around its center.

    Args:
        images: uint8 or float32 [n, H, W, C].
        degrees: float32 [n], counterclockwise.
        fill: The level of pixels from outside.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _places(images)
    row_center, column_center = (images.shape[1] - 1) / 2, (images.shape[2] - 1) / 2
    radians = _per_picture(degrees) * (math.pi / 180.0)
    cosine, sine = tf.cos(radians), tf.sin(radians)
    down, right = rows - row_center, columns - column_center
    source_row = (cosine * down + row_center) + sine * right
    source_column = (column_center - sine * down) + cosine * right
    return take_pixels(images, _nearest(source_row), _nearest(source_column), fill=fill)


def shear_x(images, slope, *, fill: int = GREY) -> tf.Tensor:
    """Moves each row sideways in proportion to its distance from the first.

    Args:
        images: uint8 or float32 [n, H, W, C].
        slope: float32 [n], columns per row; positive moves to the left.
        fill: The level of pixels from outside.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _places(images)
    return take_pixels(images, _nearest(rows), _nearest(columns + _per_picture(slope) * rows), fill=fill)


def shear_y(images, slope, *, fill: int = GREY) -> tf.Tensor:
    """Moves each column up or down in proportion to its distance from the first.

    Args:
        images: uint8 or float32 [n, H, W, C].
        slope: float32 [n], rows per column; positive moves up.
        fill: The level of pixels from outside.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _places(images)
    return take_pixels(images, _nearest(rows + _per_picture(slope) * columns), _nearest(columns), fill=fill)


def translate_x(images, pixels, *, fill: int = GREY) -> tf.Tensor:
    """Moves each picture sideways.

    Args:
        images: uint8 or float32 [n, H, W, C].
        pixels: float32 [n]; positive moves to the left.
        fill: The level of pixels from outside.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _places(images)
    return take_pixels(images, _nearest(rows), _nearest(columns + _per_picture(pixels)), fill=fill)


def translate_y(images, pixels, *, fill: int = GREY) -> tf.Tensor:
    """Moves each picture up or down.

    Args:
        images: uint8 or float32 [n, H, W, C].
        pixels: float32 [n]; positive moves up.
        fill: The level of pixels from outside.

    Returns:
        The type and shape of `images`.
    """
    rows, columns = _places(images)
    return take_pixels(images, _nearest(rows + _per_picture(pixels)), _nearest(columns), fill=fill)


def flip_and_crop(images, flipped, top, left, *, padding: int, fill: int = GREY) -> tf.Tensor:
    """Mirrors some pictures left to right, pads each with grey and cuts a piece of the old size out of it.

    Args:
        images: uint8 or float32 [n, H, W, C].
        flipped: bool [n], the pictures to mirror.
        top: int32 [n], the piece's first row in the padded picture, 0 … 2 · padding.
        left: int32 [n], its first column, likewise.
        padding: Pixels added on each side.
        fill: Their level.

    Returns:
        The type and shape of `images`.
    """
    width = images.shape[2]
    rows = tf.range(images.shape[1])[:, tf.newaxis] + (_per_picture(top) - padding)
    columns = tf.range(width) + (_per_picture(left) - padding)
    return take_pixels(images, rows, tf.where(_per_picture(flipped), width - 1 - columns, columns), fill=fill)


def cutout(images, row, column, half_size: int, *, fill: int = GREY) -> tf.Tensor:
    """Paints a square of each picture grey (DeVries and Taylor, arXiv 1708.04552).

    Args:
        images: uint8 [n, H, W, C].
        row: int32 [n], the square's center: it covers rows row − half_size … row + half_size − 1.
        column: int32 [n], likewise.
        half_size: Half the square's side in pixels; what lies outside the picture is cut off.
        fill: The square's level.

    Returns:
        uint8 [n, H, W, C].
    """
    height, width, channels = images.shape[1:]
    columns = tf.repeat(_inside(width, column, half_size), channels, axis=1)
    square = _inside(height, row, half_size)[:, :, tf.newaxis] * columns[:, tf.newaxis, :]
    # Bits, because tf.where on every pixel takes several times as long.
    square = tf.reshape(square * tf.constant(255, tf.uint8), tf.shape(images))
    kept = tf.bitwise.bitwise_and(images, tf.bitwise.invert(square))
    return tf.bitwise.bitwise_or(kept, tf.bitwise.bitwise_and(square, tf.constant(fill, tf.uint8)))


def take_pixels(images, rows, columns, *, fill: int = GREY) -> tf.Tensor:
    """Builds pictures from pixels of the given places.

    Args:
        images: Any type, [n, H, W, C].
        rows: int32, broadcastable to [n, H, W]; outside 0 … H − 1 means `fill`.
        columns: int32, broadcastable to [n, H, W]; outside 0 … W − 1 means `fill`.
        fill: The level of pixels from outside.

    Returns:
        The type and shape of `images`.
    """
    height, width, channels = images.shape[1:]
    # A rim of one grey pixel, to whose first or last row and column everything outside is sent.
    rimmed = tf.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=tf.cast(fill, images.dtype))
    first = tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis] * ((height + 2) * (width + 2))
    rows = (tf.clip_by_value(rows, -1, height) + 1) * (width + 2) + first
    columns = tf.clip_by_value(columns, -1, width) + 1
    # gather_nd, because it takes short slices faster than gather.
    return tf.gather_nd(tf.reshape(rimmed, [-1, channels]), (rows + columns)[..., tf.newaxis])


def _places(images) -> tuple[tf.Tensor, tf.Tensor]:
    """Row and column of every pixel, to broadcast: float32 [H, 1] and [W]."""
    rows = tf.range(images.shape[1], dtype=tf.float32)[:, tf.newaxis]
    return rows, tf.range(images.shape[2], dtype=tf.float32)


def _per_picture(values) -> tf.Tensor:
    return values[:, tf.newaxis, tf.newaxis]


def _nearest(places) -> tf.Tensor:
    return tf.cast(tf.floor(places + 0.5), tf.int32)


def _inside(size: int, center, half_size: int) -> tf.Tensor:
    """1 where center − half_size ≤ index < center + half_size, else 0: uint8 [n, size]."""
    offset = tf.range(size) - center[:, tf.newaxis]
    return tf.cast((offset >= -half_size) & (offset < half_size), tf.uint8)
