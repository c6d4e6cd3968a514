"""The orientation tag of photographs (EXIF 2.32, section 4.6.4), read and obeyed in a TensorFlow graph.

Cameras save an image as the sensor saw it and note how the camera was held. TensorFlow's decoders ignore the note.
"""

import tensorflow as tf

from mpl_tf.data.images.formats import begins_with

TAG = 0x0112
# In a JPEG the note comes before the image, in a segment of at most 64 KiB that starts with these bytes.
_HEADER = b"Exif\0\0"
_SEARCHED = 2**17
# PNG and WebP files are chains of chunks, behind so many bytes, and a chunk with the note may be the last.
_PNG, _PNG_START = b"\x89PNG", 8
_WEBP, _WEBP_START = b"RIFF", 12
_MAX_ENTRIES = 512


def read_tag(encoded: tf.Tensor) -> tf.Tensor:
    """Finds how an image has to be turned.

    Args:
        encoded: string `[]`, an encoded image.

    Returns:
        int64 `[]`, 1 to 8; 1, upright, where the file does not say, or says nonsense.
    """
    tiff = tf.case(
        [
            (begins_with(encoded, _PNG), lambda: _chunk(encoded, b"eXIf", _PNG_START, png=True)),
            (begins_with(encoded, _WEBP), lambda: _chunk(encoded, b"EXIF", _WEBP_START, png=False)),
        ],
        default=lambda: _behind_header(encoded),
    )
    tag = _tag_in_tiff(_numbers(tiff))
    return tf.where((tag >= 1) & (tag <= 8), tag, tf.constant(1, tf.int64))


def turned_upright(image: tf.Tensor, tag: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors an image as its tag says.

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


def _numbers(encoded):
    """The bytes of a string `[]` as int64."""
    return tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int64)


def _behind_header(encoded):
    """What follows a JPEG's header of the note, string `[]`; empty where there is none."""
    start = _numbers(tf.strings.substr(encoded, 0, _SEARCHED))
    count = tf.maximum(tf.size(start) - len(_HEADER) + 1, 0)
    same = [start[place : place + count] == byte for place, byte in enumerate(_HEADER)]
    found = tf.where(tf.reduce_all(same, axis=0))[:, 0]
    return tf.cond(
        tf.size(found) > 0,
        lambda: tf.strings.substr(encoded, found[0] + len(_HEADER), _SEARCHED),
        lambda: tf.constant(b""),
    )


def _chunk(encoded, name, start, *, png):
    """The contents of the first chunk of that name, string `[]`; empty where there is none."""
    size = tf.cast(tf.strings.length(encoded), tf.int64)

    def read(place, count):
        return tf.strings.substr(encoded, place, count)

    def length(place):
        # PNG: length, name, contents, checksum. WebP: name, length, contents, a byte where their length is odd.
        numbers = _numbers(read(place if png else place + 4, 4))
        powers = range(3, -1, -1) if png else range(4)
        return tf.reduce_sum(numbers * tf.constant([256**power for power in powers], tf.int64))

    def is_other(place):
        return tf.cond(
            place + 8 <= size,
            lambda: read(place + 4 if png else place, 4) != name,
            lambda: tf.constant(False),
        )

    def behind(place):
        return (place + 8 + length(place) + (4 if png else length(place) % 2),)

    (place,) = tf.while_loop(is_other, behind, (tf.constant(start, tf.int64),))
    return tf.cond(
        place + 8 <= size,
        lambda: _without_header(read(place + 8, tf.minimum(length(place), _SEARCHED))),
        lambda: tf.constant(b""),
    )


def _without_header(note):
    """The note without JPEG's header, which some programs write into other formats too."""
    skipped = tf.where(begins_with(note, _HEADER), len(_HEADER), 0)
    return tf.strings.substr(note, skipped, _SEARCHED)


def _tag_in_tiff(tiff):
    """The tag's value in the first directory of a TIFF header, given as int64 bytes; 0 where it is not there."""
    tiff = tf.concat([tiff, tf.zeros([1], tf.int64)], axis=0)
    last = tf.size(tiff, out_type=tf.int64) - 1
    little_endian = tiff[0] == ord("I")

    def numbers(positions, size):
        positions = tf.expand_dims(positions, -1) + tf.range(size, dtype=tf.int64)
        # Places outside a file that is cut off or wrong hold a zero.
        found = tf.gather(tiff, tf.where((positions >= 0) & (positions < last), positions, last))
        found = tf.where(little_endian, tf.reverse(found, [-1]), found)
        return tf.reduce_sum(found * 256 ** tf.range(size - 1, -1, -1, dtype=tf.int64), axis=-1)

    directory = numbers(tf.constant(4, tf.int64), 4)
    count = tf.minimum(numbers(directory, 2), _MAX_ENTRIES)
    entries = directory + 2 + 12 * tf.range(count)
    matches = numbers(entries, 2) == TAG
    return tf.reduce_sum(tf.where(matches, numbers(entries + 8, 2), 0))
