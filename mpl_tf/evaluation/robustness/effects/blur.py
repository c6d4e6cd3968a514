"""Images out of focus, behind frosted glass, and from a moving camera."""

import functools
import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

from mpl_tf.evaluation.robustness.effects import warp


def defocus(image: np.ndarray, radius: float) -> np.ndarray:
    """Averages over a disk, as a lens that is not in focus does.

    Args:
        image: float `[H, W, C]`.
        radius: of the disk.
    """
    return _convolve(image, _disk(radius))


def motion(image: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
    """Smears an image along a line, most strongly at its beginning: one half of a normal distribution.

    Args:
        image: float `[H, W, C]`.
        radius: half the length of the line.
        sigma: standard deviation of the distribution.
        degrees: direction of the line, counterclockwise from the right.
    """
    # A pixel apart, as in the original, and closer where a pixel would be too coarse.
    steps = np.arange(0.0, 2.0 * radius + 1e-9, min(1.0, sigma))
    radians = math.radians(degrees)
    weights = np.exp(-(steps**2) / (2.0 * sigma**2))
    return _convolve(image, _kernel(-math.sin(radians) * steps, math.cos(radians) * steps, weights))


def zoom(image: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Averages an image and enlargements of it, as a camera that moves towards its object does.

    Args:
        image: float `[H, W, C]`.
        factors: of the enlargements.
    """
    enlarged = [warp.project(image, warp.scaling(factor), edge="nearest") for factor in factors]
    return np.mean([image, *enlarged], axis=0)


def glass(
    image: np.ndarray, generator: np.random.Generator, sigma: float, reach: float, rounds: int
) -> np.ndarray:
    """Blurs an image, lets each pixel change to one nearby, and blurs it again.

    Args:
        image: float `[H, W, C]`.
        generator: to draw from.
        sigma: standard deviation of the normal distribution that blurs.
        reach: δ, rounded; a pixel becomes one of those −δ…δ − 1 rows and columns away, as in the released code.
            Below 1 it is the fraction of the pixels that change, with a δ of 1.
        rounds: how often.
    """
    height, width, _ = image.shape
    distance, fraction = max(1, round(reach)), min(1.0, reach)
    rows, columns = np.mgrid[:height, :width]
    shuffled = ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")
    for _ in range(rounds):
        moves = generator.integers(-distance, distance, size=(2, height, width))
        moves *= generator.random((height, width)) < fraction
        shuffled = shuffled[(rows + moves[0]).clip(0, height - 1), (columns + moves[1]).clip(0, width - 1)]
    return ndimage.gaussian_filter(shuffled, (sigma, sigma, 0), mode="nearest")


def _convolve(image, kernel):
    """A convolution with an odd, square kernel; images go on beyond their edges as they are there."""
    margin = len(kernel) // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    return signal.fftconvolve(padded, kernel[:, :, np.newaxis], mode="valid", axes=(0, 1))


@functools.lru_cache(maxsize=32)
def _disk(radius):
    rows, columns = radius * np.mgrid[-1:1:33j, -1:1:33j]
    inside = rows**2 + columns**2 <= radius**2
    return _kernel(rows[inside], columns[inside], np.ones(inside.sum()))


def _kernel(rows, columns, weights):
    """Positions between pixels, each shared among the four around it, so that lengths need not be whole."""
    half = 1 + math.ceil(max(np.abs(rows).max(), np.abs(columns).max()))
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    for i, j in itertools.product((0, 1), (0, 1)):
        fraction = np.abs(1 - i - down) * np.abs(1 - j - right)
        np.add.at(kernel, (half + top + i, half + left + j), weights * fraction)
    return kernel / kernel.sum()
