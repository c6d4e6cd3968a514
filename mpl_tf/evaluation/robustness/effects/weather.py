"""Snow, frost, fog and bright light."""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from mpl_tf.data.augmentation import color
from mpl_tf.evaluation.robustness.effects import blur

# Ice on a window scatters blue light most.
_ICE = np.array([0.80, 0.92, 1.0])


def brightness(image: np.ndarray, change: float) -> np.ndarray:
    """Adds to the value V of HSV, so that hue and saturation stay.

    Args:
        image: float `[H, W, C]` in 0…1.
        change: what is added; below 0 darkens.
    """
    value = image.max(axis=-1, keepdims=True)
    changed = np.clip(value + change, 0.0, 1.0)
    # Of one hue and saturation, colors are in proportion to V; black has none and becomes gray.
    return np.where(value > 0.0, image / np.maximum(value, 1e-12) * changed, changed)


def fog(image: np.ndarray, generator: np.random.Generator, density: float, decay: float) -> np.ndarray:
    """Lays clouds over an image and darkens the sum so that its brightest value stays what it was at most.

    Args:
        image: float `[H, W, C]` in 0…1.
        generator: to draw from.
        density: of the densest cloud, in units of white.
        decay: the clouds' smoothness, above 1, see `clouds`.
    """
    brightest = image.max()
    cloudy = image + density * clouds(image.shape[:2], generator, decay)[:, :, np.newaxis]
    return cloudy * brightest / (brightest + density)


def frost(image: np.ndarray, generator: np.random.Generator, visible: float, ice: float) -> np.ndarray:
    """Lays ice crystals over an image.

    Args:
        image: float `[H, W, C]` in 0…1.
        generator: to draw from.
        visible: factor on the image.
        ice: factor on the crystals.
    """
    crystals = _crystals(image.shape[:2], generator)[:, :, np.newaxis]
    tint = _ICE if image.shape[-1] == 3 else 1.0
    return visible * image + ice * crystals * tint


def snow(
    image: np.ndarray, flakes: np.ndarray, radius: float, sigma: float, degrees: float, image_fraction: float
) -> np.ndarray:
    """Whitens an image and lets flakes fall over it, and as many turned by half a turn.

    Args:
        image: float `[H, W, C]` in 0…1.
        flakes: float `[H, W]` in 0…1, see `snowflakes`.
        radius: of the motion blur of the flakes.
        sigma: of the same.
        degrees: where they fall to.
        image_fraction: the fraction of the image that is not whitened.
    """
    falling = blur.motion(flakes[:, :, np.newaxis], radius, sigma, degrees)
    gray = (image @ color.LUMA)[:, :, np.newaxis] if image.shape[-1] == 3 else image
    whitened = image_fraction * image + (1.0 - image_fraction) * np.maximum(image, 1.5 * gray + 0.5)
    return whitened + falling + np.rot90(falling, 2)


def snowflakes(
    shape: tuple[int, int],
    generator: np.random.Generator,
    mean: float,
    spread: float,
    size: float,
    threshold: float,
) -> np.ndarray:
    """Draws flakes that hang in the air.

    Args:
        shape: `(H, W)`.
        generator: to draw from.
        mean: of the normal noise that they are the peaks of.
        spread: its standard deviation.
        size: of its grains; at least a pixel.
        threshold: that a peak must reach.

    Returns:
        float `[H, W]` in 0…1, 0 between the flakes.
    """
    size = max(1.0, size)
    grains = [math.ceil(side / size) for side in shape]
    # This enlargement keeps the highest grains as they are, which one about the pixels' centers would flatten.
    layer = ndimage.zoom(generator.normal(mean, spread, grains), size, order=1)[: shape[0], : shape[1]]
    return np.where(layer < threshold, 0.0, layer).clip(0.0, 1.0)


def clouds(shape: tuple[int, int], generator: np.random.Generator, decay: float) -> np.ndarray:
    """Adds up random grids, each twice as fine as the one before and decay² times weaker.

    Args:
        shape: `(H, W)`.
        generator: to draw from.
        decay: above 1; larger is smoother.

    Returns:
        float `[H, W]` that spans 0…1.
    """
    total = np.zeros(shape)
    for octave in range(max(1, math.ceil(math.log2(max(shape))))):
        cells = [min(2 ** (octave + 1), side) for side in shape]
        grid = generator.uniform(-1.0, 1.0, cells)
        image = Image.fromarray(grid.astype(np.float32)).resize(shape[::-1], Image.Resampling.BICUBIC)
        total += np.asarray(image, np.float64) / decay ** (2 * octave)
    total -= total.min()
    return total / max(total.max(), 1e-12)


def _crystals(shape, generator):
    """Needles of ice that grow 60° apart, dense in some positions and rare in others: float `[H, W]` in 0…1."""
    side = min(shape)
    # Grown on a larger window, so that needles from outside reach in.
    margin = side // 4 + 1
    window = shape[0] + 2 * margin, shape[1] + 2 * margin
    needles = np.zeros(window)
    for direction in generator.uniform(0.0, 60.0) + np.arange(0.0, 360.0, 60.0):
        seeds = snowflakes(window, generator, 0.0, 1.0, side / 112, 1.4)[:, :, np.newaxis]
        needles = np.maximum(needles, blur.motion(seeds, side / 12, side / 12, direction)[:, :, 0])
    needles = needles[margin:-margin, margin:-margin]
    needles /= np.quantile(needles, 0.98) or 1.0
    return (clouds(shape, generator, 1.4) * (0.4 + 1.1 * needles)).clip(0.0, 1.0)
