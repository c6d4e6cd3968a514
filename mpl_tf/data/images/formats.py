"""Encoded images of the formats that people have, decoded in a TensorFlow graph to what Pillow sees."""

import functools

import numpy as np
import tensorflow as tf

from mpl_tf.data.augmentation import color
from mpl_tf.data.images import upright

# Of a BMP file: where its second header begins, with its own size in four bytes (the palette comes behind it), and
# where the number of bits per pixel is.
_BMP_HEADER, _BMP_BITS = 14, 28
# Of a WebP file (RFC 9649): where its first chunk begins, and bits of the first byte of an extended header, and of
# the fifth of a lossless image.
_WEBP_CHUNK, _WEBP_ALPHA, _WEBP_LOSSLESS_ALPHA = 12, 0x10, 0x10
# By orientation, from 1: the order of rows, columns and channels, and which of them are reversed then.
_ORDERS = ((0, 1, 2),) * 4 + ((1, 0, 2),) * 4
_REVERSED = ((False, False, False), (False, True, False), (True, True, False), (True, False, False)) * 2


def begins_with(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    """Whether a string `[]` begins with these bytes."""
    return tf.strings.substr(encoded, 0, len(start)) == start


def decode_rgb(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image; of a moving one, the first frame. Transparency is dropped.

    Args:
        encoded: string `[]`, a JPEG, PNG, GIF, BMP or WebP file. TensorFlow refuses two kinds: moving WebP
            files without an alpha channel, and BMP files of fewer than 256 colors.

    Returns:
        uint8 `[h, w, 3]`.
    """
    start = tf.strings.substr(encoded, 0, 32) + bytes(32)
    numbers = tf.io.decode_raw(start, tf.uint8)
    bmp, chunk = begins_with(start, b"BM"), tf.strings.substr(start, _WEBP_CHUNK, 4)

    def has(index, bit):
        return tf.bitwise.bitwise_and(numbers[_WEBP_CHUNK + 8 + index], bit) > 0

    # TensorFlow wants to be told how many channels a WebP file has. It refuses moving images without an alpha
    # channel; when it is to find the number itself, they end the process.
    transparent = ((chunk == b"VP8X") & has(0, _WEBP_ALPHA)) | (
        (chunk == b"VP8L") & has(4, _WEBP_LOSSLESS_ALPHA)
    )
    transparent &= begins_with(start, b"RIFF")
    bmp_kind = tf.where(numbers[_BMP_BITS] == 8, 3, 2)
    image = tf.switch_case(
        tf.where(bmp, bmp_kind, tf.cast(transparent, tf.int32)),
        [
            lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
            lambda: tf.io.decode_image(encoded, channels=4, expand_animations=False)[..., :3],
            lambda: tf.io.decode_bmp(encoded)[..., :3],
            lambda: _decode_palette(encoded),
        ],
    )
    return tf.ensure_shape(image, (None, None, 3))


def read_orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Finds how an image has to be turned, by the lines that training on folders runs in Python.

    Args:
        encoded: string `[]`, an encoded image.

    Returns:
        int64 `[]`, 1 to 8.
    """
    return _orientation(encoded)


@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _orientation(encoded):
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    int64 = functools.partial(tf.convert_to_tensor, dtype=tf.int64)

    def read(position, count, little=None):
        # Bytes behind the end of the file are zeros, wherever a broken note points to.
        position = tf.minimum(int64(position), size)
        digits = tf.io.decode_raw(tf.strings.substr(encoded, position, count), tf.uint8, fixed_length=count)
        rising = 256 ** np.arange(count)
        weights = rising[::-1] if little is None else tf.where(little, rising, rising[::-1])
        return tf.reduce_sum(tf.cast(digits, tf.int64) * weights)

    def where(condition, if_true, if_false):
        return tf.where(condition, int64(if_true), int64(if_false))

    def repeat(condition, advance, numbers):
        return tf.while_loop(condition, advance, [int64(number) for number in numbers])

    return upright.find_orientation(read, size, where=where, repeat=repeat)


def turn_upright(image: tf.Tensor, tag: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image as its orientation says.

    Args:
        image: `[H, W, C]`.
        tag: int64 `[]`, 1 to 8.

    Returns:
        `[H, W, C]`, or `[W, H, C]` for the tags 5 to 8.
    """

    def turned():
        order, reversed_ = (tf.gather(table, tag - 1) for table in (_ORDERS, _REVERSED))
        return tf.raw_ops.Reverse(tensor=tf.transpose(image, order), dims=reversed_)

    return tf.ensure_shape(tf.cond(tag == 1, lambda: image, turned), (None, None, image.shape[-1]))


def to_gray(image: tf.Tensor) -> tf.Tensor:
    """The luma of ITU-R BT.601 in 16-bit fixed point, to the bit what Pillow computes.

    Args:
        image: uint8 `[h, w, 3]`.

    Returns:
        uint8 `[h, w, 1]`.
    """
    weighted = tf.cast(image, tf.int32) * color.LUMA_WEIGHTS
    luma = tf.bitwise.right_shift(tf.reduce_sum(weighted, axis=-1, keepdims=True) + color.LUMA_ONE // 2, 16)
    return tf.cast(luma, tf.uint8)


def _decode_palette(encoded):
    # TensorFlow takes the numbers of the palette's colors, four bytes each in the order BGR, for gray.
    numbers = tf.io.decode_bmp(encoded)[..., 0]
    header = tf.io.decode_raw(tf.strings.substr(encoded, _BMP_HEADER, 4), tf.int32)[0]
    entries = tf.io.decode_raw(
        tf.strings.substr(encoded, _BMP_HEADER + header, 4 * 256), tf.uint8, fixed_length=4 * 256
    )
    return tf.gather(tf.reshape(entries, [256, 4])[:, 2::-1], tf.cast(numbers, tf.int32))
