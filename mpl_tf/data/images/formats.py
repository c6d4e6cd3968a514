"""Encoded images of the formats that people have, decoded in a TensorFlow graph to what Pillow sees."""

import tensorflow as tf

from mpl_tf.data.augmentation import color
from mpl_tf.data.images import upright

# Of a BMP file: where its second header begins, with its own size in four bytes; the palette comes behind it.
_BMP_HEADER = 14
# Of a WebP file (RFC 9649): bits of the first byte of an extended header, and of the fifth of a lossless
# image.
_WEBP_ALPHA, _WEBP_LOSSLESS_ALPHA = 0x10, 0x10


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
    image = tf.case(
        [
            (begins_with(encoded, b"BM"), lambda: _decode_bmp(encoded)),
            (begins_with(encoded, b"RIFF"), lambda: _decode_webp(encoded)),
        ],
        default=lambda: _decode(encoded, 3),
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


# AutoGraph turns the loops and branches of the routine into those of a graph.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)])
def _orientation(encoded):
    size = tf.cast(tf.strings.length(encoded), tf.int64)
    padded = encoded + tf.constant(bytes(4))
    types = {1: tf.uint8, 2: tf.uint16, 4: tf.int32}

    def read(position, count):
        # Bytes behind the end of the file are zeros, wherever a broken note points to.
        position = tf.clip_by_value(tf.cast(position, tf.int64), 0, size)
        number = tf.io.decode_raw(
            tf.strings.substr(padded, position, count), types[count], little_endian=False
        )
        return tf.cast(number[0], tf.int64) % 2**32

    return upright.find_orientation(read, size)


def turn_upright(image: tf.Tensor, tag: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image as its orientation says.

    Args:
        image: `[H, W, C]`.
        tag: int64 `[]`, 1 to 8.

    Returns:
        `[H, W, C]`, or `[W, H, C]` for the tags 5 to 8.
    """
    image = tf.cond(tag >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    for axis, mirroring in ((1, (2, 3, 6, 7)), (0, (3, 4, 7, 8))):
        mirrored = tf.reduce_any(tag == tf.constant(mirroring, tf.int64))
        image = tf.cond(
            mirrored,
            lambda image=image, axis=axis: tf.reverse(image, [axis]),
            lambda image=image: image,
        )
    return image


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


def _decode(encoded, channels):
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def _decode_webp(encoded):
    # TensorFlow wants to be told how many channels the file has. It refuses moving images without an alpha
    # channel; when it is to find the number itself, they end the process.
    kind = tf.strings.substr(encoded, 12, 4)
    start = tf.io.decode_raw(tf.strings.substr(encoded, 20, 5) + b"\0" * 5, tf.uint8)
    extended = (kind == b"VP8X") & (tf.bitwise.bitwise_and(start[0], _WEBP_ALPHA) > 0)
    lossless = (kind == b"VP8L") & (tf.bitwise.bitwise_and(start[4], _WEBP_LOSSLESS_ALPHA) > 0)
    return tf.cond(extended | lossless, lambda: _decode(encoded, 4)[..., :3], lambda: _decode(encoded, 3))


def _decode_bmp(encoded):
    image = tf.io.decode_bmp(encoded, channels=0)
    header = tf.io.decode_raw(tf.strings.substr(encoded, _BMP_HEADER, 4), tf.int32)[0]

    def through_palette():
        # TensorFlow takes the numbers of the palette's colors, four bytes each in the order BGR, for gray.
        entries = tf.io.decode_raw(tf.strings.substr(encoded, _BMP_HEADER + header, 4 * 256), tf.uint8)
        entries = tf.concat([entries, tf.zeros([4 * 256], tf.uint8)], axis=0)[: 4 * 256]
        colors = tf.reshape(entries, [256, 4])[:, 2::-1]
        return tf.gather(colors, tf.cast(image[..., 0], tf.int32))

    return tf.cond(tf.shape(image)[-1] == 1, through_palette, lambda: image[..., :3])
