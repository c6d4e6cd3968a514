"""Noise of a sensor, of few photons, and of broken pixels."""

import numpy as np


def gaussian(image: np.ndarray, generator: np.random.Generator, spread: float) -> np.ndarray:
    """Adds normal noise to every value, as a sensor does in low light.

    Args:
        image: float `[H, W, C]` in 0…1.
        generator: to draw from.
        spread: its standard deviation.
    """
    return image + spread * generator.standard_normal(image.shape)


def shot(image: np.ndarray, generator: np.random.Generator, photons: float) -> np.ndarray:
    """Counts photons: Poisson noise.

    Args:
        image: float `[H, W, C]` in 0…1.
        generator: to draw from.
        photons: how many of them a white value is, on average.
    """
    return generator.poisson(image * photons) / photons


def impulse(image: np.ndarray, generator: np.random.Generator, fraction: float) -> np.ndarray:
    """Sets some values to black or white, the color version of salt and pepper.

    Args:
        image: float `[H, W, C]` in 0…1.
        generator: to draw from.
        fraction: of the values, half of them black.
    """
    # One draw per value says both whether and which, so that a larger fraction adds to a smaller one's.
    draws = generator.random((2, *image.shape))
    return np.where(draws[0] < fraction, draws[1] < 0.5, image)
