"""What processing does: less contrast, rubber sheets, large pixels and compression."""

import io

import numpy as np
from PIL import Image
from scipy import ndimage

from mpl_tf.evaluation.robustness.effects import warp


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Moves all values towards their mean.

    Args:
        pixels: float `[H, W, C]`.
        factor: on the difference to each channel's mean.
    """
    mean = pixels.mean(axis=(0, 1))
    return mean + factor * (pixels - mean)


def elastic(
    pixels: np.ndarray, generator: np.random.Generator, strength: float, smoothness: float, jitter: float
) -> np.ndarray:
    """Stretches an image as a whole and, by a smooth random field, in every place differently.

    Args:
        pixels: float `[H, W, C]`.
        generator: to draw from.
        strength: factor on the field, which is uniform noise in −1…1 before it is smoothed.
        smoothness: standard deviation of the normal distribution that smooths it.
        jitter: by how much each of three points, a third of the shorter side from the middle, moves at most
            along each axis; the affine map that follows from them is applied to all.
    """
    height, width = pixels.shape[:2]
    middle = np.array([height, width]) // 2
    corners = middle + min(height, width) // 3 * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = corners + generator.uniform(-jitter, jitter, (3, 2))
    # The affine map from where a pixel is to where it came from: [row, column, 1] @ back.
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), corners)
    fields = generator.uniform(-1.0, 1.0, (2, height, width))
    fields = strength * ndimage.gaussian_filter(
        fields, (0, smoothness, smoothness), mode="reflect", truncate=3
    )
    rows, columns = np.mgrid[:height, :width] + fields
    positions = np.stack([rows, columns, np.ones((height, width))], axis=-1) @ back
    return warp.sample(pixels, positions[..., 0], positions[..., 1], edge="reflect")


def pixelate(pixels: np.ndarray, fraction: float) -> np.ndarray:
    """Shrinks an image by averaging boxes of pixels, and enlarges it by repeating them.

    Args:
        pixels: float `[H, W, C]` in 0…1.
        fraction: of its height and width that is left in between; at least a pixel.
    """
    height, width = pixels.shape[:2]
    small = max(1, int(width * fraction)), max(1, int(height * fraction))
    image = _to_image(pixels)
    shrunk = image.resize(small, Image.Resampling.BOX)
    return _from_image(shrunk.resize((width, height), Image.Resampling.BOX), pixels.shape)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Compresses an image.

    Args:
        pixels: float `[H, W, C]` in 0…1.
        quality: Pillow's, in 1…95.
    """
    stream = io.BytesIO()
    _to_image(pixels).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        return _from_image(image, pixels.shape)


def _to_image(pixels):
    pixels = np.rint(pixels * 255.0).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)


def _from_image(image, shape):
    return np.asarray(image).reshape(shape) / 255.0
