"""Operations on the colors of a whole batch of images, each by the rule of Pillow's operation of that name.

Every function takes uint8 `[n, H, W, C]` with C of 1 or 3, treats each image by itself and returns the same
shape and type. Operations whose rule depends on an image's histogram look the levels up in one table per
image and channel; the others are arithmetic on the levels, which on a CPU costs a fraction of a look-up.
"""

import numpy as np
import tensorflow as tf

from mpl_tf.data.batches import batch_size

# What red, green and blue contribute to gray (ITU-R BT.601), and Pillow's version with 16 fractional bits.
LUMA = (0.299, 0.587, 0.114)
LUMA_ONE = 2**16
LUMA_WEIGHTS = tuple(round(LUMA_ONE * weight) for weight in LUMA)


def autocontrast(images: tf.Tensor) -> tf.Tensor:
    """Stretches each channel linearly until its darkest level is 0 and its lightest 255.

    Args:
        images: uint8 `[n, H, W, C]`.

    Returns:
        uint8 `[n, H, W, C]`. A channel of a single level stays as it is.
    """
    # float64 because Pillow's table is built in it and then truncated.
    darkest = tf.expand_dims(tf.cast(tf.reduce_min(images, axis=(1, 2)), tf.float64), -1)
    lightest = tf.expand_dims(tf.cast(tf.reduce_max(images, axis=(1, 2)), tf.float64), -1)
    levels = np.arange(256, dtype=np.float64)
    scale = 255.0 / tf.maximum(lightest - darkest, 1.0)
    stretched = tf.clip_by_value(levels * scale + (-darkest * scale), 0.0, 255.0)
    return look_up(images, tf.cast(tf.where(lightest > darkest, stretched, levels), tf.uint8))


def equalize(images: tf.Tensor) -> tf.Tensor:
    """Maps each channel's levels so that they are about equally frequent.

    Args:
        images: uint8 `[n, H, W, C]`.

    Returns:
        uint8 `[n, H, W, C]`. A channel with too few pixels outside its lightest level stays as it is.
    """
    counts = histogram(images)
    darker = tf.cumsum(counts, axis=-1, exclusive=True)
    # The pixels that are not of the lightest level: the last exclusive sum that still grew.
    not_lightest = tf.reduce_max(tf.where(counts > 0, darker, 0), axis=-1, keepdims=True)
    step = not_lightest // 255
    spread = tf.minimum((step // 2 + darker) // tf.maximum(step, 1), 255)
    return look_up(images, tf.cast(tf.where(step > 0, spread, np.arange(256, dtype=np.int32)), tf.uint8))


def invert(images: tf.Tensor) -> tf.Tensor:
    """Replaces every level by 255 minus it.

    Args:
        images: uint8 `[n, H, W, C]`.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    return tf.bitwise.invert(images)


def posterize(images: tf.Tensor, bits: int) -> tf.Tensor:
    """Keeps the upper bits of every level.

    Args:
        images: uint8 `[n, H, W, C]`.
        bits: how many of the 8 bits stay, 1 … 8.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    return tf.bitwise.bitwise_and(images, tf.constant(256 - 2 ** (8 - bits), tf.uint8))


def solarize(images: tf.Tensor, threshold: int) -> tf.Tensor:
    """Inverts the levels from a threshold on.

    Args:
        images: uint8 `[n, H, W, C]`.
        threshold: the lowest level that is inverted, 0 … 255.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    # A mask, because tf.where on every pixel takes five times as long.
    mask = tf.cast(images >= tf.constant(threshold, tf.uint8), tf.uint8) * tf.constant(255, tf.uint8)
    return tf.bitwise.bitwise_xor(images, mask)


def solarize_add(images: tf.Tensor, addition: int, threshold: int = 128) -> tf.Tensor:
    """Adds a constant to the levels below a threshold.

    Args:
        images: uint8 `[n, H, W, C]`.
        addition: what is added, 0 or more; results stop at 255.
        threshold: the lowest level that stays as it is, 0 … 255.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    levels = tf.cast(images, tf.int32)
    brightened = levels + addition * tf.cast(levels < threshold, tf.int32)
    return tf.cast(tf.minimum(brightened, 255), tf.uint8)


def saturate(images: tf.Tensor, factor: float) -> tf.Tensor:
    """Moves the colors away from gray (Pillow's Color); images of one channel stay as they are.

    Args:
        images: uint8 `[n, H, W, C]`.
        factor: 0 gives gray, 1 the image, more than 1 stronger colors.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    if images.shape[-1] == 1:
        return images
    return blend(gray(images, channels=3), images, factor)


def contrast(images: tf.Tensor, factor: float) -> tf.Tensor:
    """Moves the levels away from the image's mean gray.

    The released code divides the number of pixels by 256 where it means the mean, so that it moves 32-pixel images
    away from 4; this is Pillow's rule.

    Args:
        images: uint8 `[n, H, W, C]`.
        factor: 0 gives the mean gray, 1 the image, more than 1 stronger contrast.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    mean = tf.reduce_mean(tf.cast(gray(images), tf.float64), axis=(1, 2, 3), keepdims=True)
    return blend(tf.floor(mean + 0.5), images, factor)


def brightness(images: tf.Tensor, factor: float) -> tf.Tensor:
    """Multiplies the levels.

    Args:
        images: uint8 `[n, H, W, C]`.
        factor: 0 gives black, 1 the image, more than 1 a lighter one.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    return blend(0.0, images, factor)


def sharpness(images: tf.Tensor, factor: float) -> tf.Tensor:
    """Moves the levels away from those of a smoothed image; the outermost pixels stay as they are.

    Args:
        images: uint8 `[n, H, W, C]`, H and W at least 3.
        factor: 0 gives the smoothed image, 1 the image, more than 1 a sharper one.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    height, width, channels = images.shape[1:]
    # Rows of W · C levels, because long rows are cut faster than pixels.
    pixels = tf.reshape(images, [-1, height, width * channels])
    # Pillow's SMOOTH: weights 1 around a 5, divided by 13. At most 13 · 255, which int16 holds.
    levels = tf.cast(pixels, tf.int16)
    rows = levels[:, :-2] + levels[:, 1:-1] + levels[:, 2:]
    around = rows[:, :, : -2 * channels] + rows[:, :, channels:-channels] + rows[:, :, 2 * channels :]
    total = tf.cast(around + 4 * levels[:, 1:-1, channels:-channels], tf.float32)
    inside = blend(tf.floor(total / 13.0 + 0.5), pixels[:, 1:-1, channels:-channels], factor)
    inside = tf.concat([pixels[:, 1:-1, :channels], inside, pixels[:, 1:-1, -channels:]], axis=2)
    return tf.reshape(tf.concat([pixels[:, :1], inside, pixels[:, -1:]], axis=1), tf.shape(images))


def blend(start: tf.Tensor, images: tf.Tensor, factor: float) -> tf.Tensor:
    """Goes from `start` through the images and beyond, as Pillow does: in float32, cut off at 0 and 255, truncated.

    The released code does not cut off before it converts to uint8, so that there levels over 255 wrap.

    Args:
        start: any real type, broadcastable to `images`, 0 … 255.
        images: uint8, any shape.
        factor: 0 gives `start`, 1 the images.

    Returns:
        uint8, the shape of `images`.
    """
    start = tf.cast(start, tf.float32)
    levels = start + factor * (tf.cast(images, tf.float32) - start)
    return tf.cast(tf.clip_by_value(levels, 0.0, 255.0), tf.uint8)


def gray(images: tf.Tensor, channels: int = 1) -> tf.Tensor:
    """Converts to gray by Pillow's weights (ITU-R 601).

    Args:
        images: uint8 `[n, H, W, C]`.
        channels: how many equal channels to return for images of three; those of one keep it.

    Returns:
        float32 `[n, H, W, channels]`, whole numbers in 0 … 255.
    """
    levels = tf.cast(images, tf.float32)
    if images.shape[-1] == 1:
        return levels
    # A product whose columns are alike, because broadcasting over the channels takes several times as long. Every
    # partial sum is an integer below 2²⁴, hence exact in float32.
    weights = tf.tile([[float(weight)] for weight in LUMA_WEIGHTS], [1, channels])
    weighted = tf.linalg.matmul(tf.reshape(levels, [-1, 3]), weights)
    rounded = tf.floor((weighted + LUMA_ONE / 2) / LUMA_ONE)
    return tf.reshape(rounded, [-1, *images.shape[1:3], channels])


def histogram(images: tf.Tensor) -> tf.Tensor:
    """Counts the levels of each image and channel.

    Args:
        images: uint8 `[n, H, W, C]`.

    Returns:
        int32 `[n, C, 256]`.
    """
    entries = batch_size(images) * images.shape[-1] * 256
    levels = tf.reshape(_table_index(images), [-1])
    # Not tf.math.bincount, whose size depends on what it counts, and which XLA therefore refuses.
    counts = tf.raw_ops.DenseBincount(input=levels, size=entries, weights=tf.constant([], tf.int32))
    return tf.reshape(counts, [-1, images.shape[-1], 256])


def look_up(images: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """Replaces every level by its entry in the table of its image and channel.

    Args:
        images: uint8 `[n, H, W, C]`.
        tables: uint8 `[n, C, 256]`.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    # As int32, of which TensorFlow takes single entries faster than of uint8, and gather_nd faster than gather.
    entries = tf.reshape(tf.cast(tables, tf.int32), [-1])
    found = tf.gather_nd(entries, tf.expand_dims(_table_index(images), -1))
    return tf.reshape(tf.cast(found, tf.uint8), tf.shape(images))


def _table_index(images) -> tf.Tensor:
    """Where each pixel's entry lies in the row of all tables `[n, C, 256]`: int32 `[n, H, W · C]`."""
    height, width, channels = images.shape[1:]
    first = tf.reshape(tf.range(batch_size(images) * channels) * 256, [-1, 1, channels])
    levels = tf.reshape(images, [-1, height, width * channels])
    return tf.cast(levels, tf.int32) + tf.tile(first, [1, 1, width])
