"""From an encoded image to uint8 pixels of one shape, by Pillow and, in graphs, by TensorFlow."""

import io
import os
import pathlib

import numpy as np
import tensorflow as tf

from mpl_tf.data.images import content, formats, interpolation, upright
from mpl_tf.data.images.upright import Decoded, Resizing
from mpl_tf.utils.validation import check_choice

CROPPED = Resizing()


def checked_resizing(resize: str, interpolation: str) -> Resizing:
    """Makes a `Resizing`.

    Raises:
        ValueError: for a word that is none of `upright.RESIZES` or `upright.INTERPOLATIONS`.
    """
    check_choice("resize", resize, upright.RESIZES)
    check_choice("interpolation", interpolation, upright.INTERPOLATIONS)
    return Resizing(resize, interpolation)


def decode(encoded: bytes, image_shape: tuple[int, ...], resizing: Resizing = CROPPED) -> Decoded:
    """Decodes an image, turns it upright and brings it to a size, as `upright.decode` does.

    Args:
        encoded: a whole file; HEIC too, where the package that reads it is installed.
        image_shape: `(H, W, C)`, C of 1 (gray) or 3 (RGB).
        resizing: of images of other sizes.

    Returns:
        A `Decoded`.

    Raises:
        Exception: of whatever type Pillow raises for a broken file; there are many.
    """
    if content.format_of(encoded[: content.HEAD_BYTES]) == content.HEIF and not content.can_read_heif():
        raise ValueError(f"it is {content.HEIF_REASON}")
    return upright.decode(encoded, image_shape, *resizing)


def decode_file(
    source: str | os.PathLike | bytes | io.BytesIO, image_shape: tuple[int, ...], resizing: Resizing = CROPPED
) -> np.ndarray:
    """The pixels of `decode`.

    Args:
        source: a path, the bytes of a file, or an open file.
        image_shape: as for `decode`.
        resizing: as for `decode`.

    Returns:
        uint8 `[H, W, C]`.
    """
    if isinstance(source, str | os.PathLike):
        source = pathlib.Path(source).read_bytes()
    return decode(source if isinstance(source, bytes) else source.read(), image_shape, resizing).pixels


def decode_record(
    encoded: tf.Tensor, image_shape: tuple[int, ...], *, resizing: Resizing | None
) -> tf.Tensor:
    """Decodes a dataset's image with TensorFlow, in a graph.

    Args:
        encoded: string `[]`, a JPEG, PNG, GIF, BMP or WebP file.
        image_shape: `(H, W, C)` of the result.
        resizing: of images of other sizes; None where the image must have that shape.

    Returns:
        uint8 `[H, W, C]`.
    """
    image = tf.io.decode_image(encoded, channels=image_shape[-1], expand_animations=False)
    image = tf.ensure_shape(image, (None, None, image_shape[-1]))
    if resizing is not None:
        image = _resized(image, image_shape[:2], resizing)
    return tf.ensure_shape(image, image_shape)


def decode_as_file(
    encoded: tf.Tensor, image_shape: tuple[int, ...], resizing: Resizing = CROPPED
) -> tf.Tensor:
    """Does what `decode_file` does with TensorFlow, in a graph: for images that people send to a server.

    Args:
        encoded: string `[]`, a JPEG, PNG, GIF, BMP or WebP file.
        image_shape: `(H, W, C)` of the result, C of 1 (gray) or 3 (RGB).
        resizing: of images of other sizes.

    Returns:
        uint8 `[H, W, C]`.
    """
    image = formats.decode_rgb(encoded)
    if image_shape[-1] == 1:
        image = formats.to_gray(image)
    image = formats.turn_upright(image, formats.read_orientation(encoded))
    return tf.ensure_shape(_resized(image, image_shape[:2], resizing), image_shape)


def _resized(image: tf.Tensor, size: tuple[int, ...], resizing: Resizing) -> tf.Tensor:
    """Images of any size as `Resizing` says, uint8 `[*size, C]`."""
    if resizing == CROPPED:
        return _fitted(image, size)
    height, width = tf.unstack(tf.shape(image)[:2])
    method = resizing.interpolation
    if resizing.resize == "pad":
        inner = _inner_size((height, width), size)
        image = _interpolated(image, inner, method, cropped=False)
        before = [(side - within) // 2 for side, within in zip(size, inner, strict=True)]
        after = [side - within - first for side, within, first in zip(size, inner, before, strict=True)]
        around = [*zip(before, after, strict=True), (0, 0)]
        return tf.pad(image, around, constant_values=tf.constant(upright.PADDING, tf.uint8))
    return _interpolated(image, size, method, cropped=resizing.resize == "crop")


def _interpolated(image, size, method, *, cropped):
    if method == "nearest":
        return interpolation.take_nearest(image, size, cropped=cropped)
    sides = tf.unstack(tf.shape(image)[:2])
    return interpolation.resize(
        image, size, method, box=interpolation.middle(sides, size) if cropped else None
    )


def _inner_size(sides, size):
    """`upright.inner_size` of tensors."""

    def fitted(index):
        sides_64 = [tf.cast(side, tf.int64) for side in sides]
        other = sides_64[1 - index]
        rounded = (2 * sides_64[index] * size[1 - index] + other) // (2 * other)
        return tf.cast(tf.clip_by_value(rounded, 1, size[index]), tf.int32)

    return fitted(0), fitted(1)


def _fitted(image: tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
    """The shorter side fitted (bilinear, antialiased) and the middle kept, uint8 `[*size, C]`."""
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.reduce_max(size / sides)
    # Fitting and cropping in one, as Pillow does: crops in whole pixels of a small result would be far off.
    fitted = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=size,
        scale=[scale, scale],
        translation=(size - scale * sides) / 2,
        kernel_type="triangle",
        antialias=True,
    )[0]
    return tf.saturate_cast(tf.round(fitted), tf.uint8)


def checked_image_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Reads an image size.

    Args:
        image_size: H = W, or (H, W).

    Returns:
        (H, W).

    Raises:
        ValueError: where it is neither, or not positive.
    """
    size = np.ravel(image_size)
    if size.size not in (1, 2) or size.dtype.kind not in "iu" or size.min() < 1:
        raise ValueError(
            f"image_size={image_size!r} is no size: pass one positive number of pixels, or (height, width)."
        )
    return int(size[0]), int(size[-1])
