"""From an encoded image to uint8 pixels of one shape: the shorter side is fitted and the middle is kept."""

import io
import os
import pathlib

import numpy as np
import tensorflow as tf

from mpl_tf.data.images import content, formats, upright
from mpl_tf.data.images.upright import Decoded


def decode(encoded: bytes, image_shape: tuple[int, ...]) -> Decoded:
    """Decodes an image, turns it upright, fits its shorter side and keeps the middle, as `upright.decode` does.

    Args:
        encoded: a whole file; HEIC too, where the package that reads it is installed.
        image_shape: `(H, W, C)`, C of 1 (gray) or 3 (RGB).

    Returns:
        A `Decoded`.

    Raises:
        Exception: of whatever type Pillow raises for a broken file; there are many.
    """
    if content.format_of(encoded[: content.HEAD_BYTES]) == content.HEIF and not content.can_read_heif():
        raise ValueError(f"it is {content.HEIF_REASON}")
    return upright.decode(encoded, image_shape)


def decode_file(source: str | os.PathLike | bytes | io.BytesIO, image_shape: tuple[int, ...]) -> np.ndarray:
    """The pixels of `decode`.

    Args:
        source: a path, the bytes of a file, or an open file.
        image_shape: as for `decode`.

    Returns:
        uint8 `[H, W, C]`.
    """
    if isinstance(source, str | os.PathLike):
        source = pathlib.Path(source).read_bytes()
    return decode(source if isinstance(source, bytes) else source.read(), image_shape).pixels


def decode_record(encoded: tf.Tensor, image_shape: tuple[int, ...], *, resize: bool) -> tf.Tensor:
    """Decodes a dataset's image with TensorFlow, in a graph.

    Args:
        encoded: string `[]`, a JPEG, PNG, GIF, BMP or WebP file.
        image_shape: `(H, W, C)` of the result.
        resize: whether to fit the shorter side and keep the middle. Otherwise the image must have that shape.

    Returns:
        uint8 `[H, W, C]`.
    """
    image = tf.io.decode_image(encoded, channels=image_shape[-1], expand_animations=False)
    image = tf.ensure_shape(image, (None, None, image_shape[-1]))
    if resize:
        image = _fitted(image, image_shape[:2])
    return tf.ensure_shape(image, image_shape)


def decode_as_file(encoded: tf.Tensor, image_shape: tuple[int, ...]) -> tf.Tensor:
    """Does what `decode_file` does with TensorFlow, in a graph: for images that people send to a server.

    Args:
        encoded: string `[]`, a JPEG, PNG, GIF, BMP or WebP file.
        image_shape: `(H, W, C)` of the result, C of 1 (gray) or 3 (RGB).

    Returns:
        uint8 `[H, W, C]`.
    """
    image = formats.decode_rgb(encoded)
    if image_shape[-1] == 1:
        image = formats.to_gray(image)
    image = formats.turn_upright(image, formats.read_orientation(encoded))
    return tf.ensure_shape(_fitted(image, image_shape[:2]), image_shape)


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
