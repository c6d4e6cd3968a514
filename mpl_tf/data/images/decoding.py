"""From an encoded image to uint8 pixels of one shape: the shorter side is fitted and the middle is kept."""

import io
import os

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from mpl_tf.data.images import exif, formats

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_MODES = {1: "L", 3: "RGB"}


def inspect_file(path: str | os.PathLike) -> tuple[int, int]:
    """Decodes an image to find whether it can be, JPEGs at an eighth of their size.

    Only decoding finds a file that was cut off, which is how most broken images are broken.

    Args:
        path: of the image.

    Returns:
        Its height and width, turned upright.

    Raises:
        Exception: of whatever type Pillow raises for a broken file; there are many.
    """
    with Image.open(path) as image:
        width, height = image.size
        # Orientations 5 to 8 swap the sides (EXIF 2.32, section 4.6.4).
        sideways = image.getexif().get(exif.TAG, 1) >= 5
        image.draft(None, (1, 1))
        image.load()
    return (width, height) if sideways else (height, width)


def decode_file(source: str | os.PathLike | io.BytesIO, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Decodes an image with Pillow, turns it upright, fits its shorter side and keeps the middle.

    Args:
        source: a path or an open file in any format that Pillow reads. Of a moving image, the first frame.
        image_shape: `(H, W, C)`, C of 1 (gray) or 3 (RGB). Transparency is dropped.

    Returns:
        uint8 `[H, W, C]`.
    """
    height, width, channels = image_shape
    mode = _MODES[channels]
    with Image.open(source) as image:
        # JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size; twice what is wanted leaves the filter its work.
        longer = 2 * max(height, width)
        image.draft(mode, (longer, longer))
        ImageOps.exif_transpose(image, in_place=True)
        fitted = ImageOps.fit(_in_mode(image, mode), (width, height), Image.Resampling.BILINEAR)
        return np.asarray(fitted).reshape(image_shape)


def decode_record(encoded: tf.Tensor, image_shape: tuple[int, int, int], *, resize: bool) -> tf.Tensor:
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


def decode_as_file(encoded: tf.Tensor, image_shape: tuple[int, int, int]) -> tf.Tensor:
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
    image = exif.turned_upright(image, exif.read_tag(encoded))
    return tf.ensure_shape(_fitted(image, image_shape[:2]), image_shape)


def _fitted(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
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


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit gray values at 255; the upper byte is the 8-bit image.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert(mode)
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert(mode)
    return image.convert(mode)
