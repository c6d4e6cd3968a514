"""Noise of a sensor, of few photons, and of broken pixels."""

import numpy as np


def gaussian(picture: np.ndarray, generator: np.random.Generator, spread: float) -> np.ndarray:
    """Adds normal noise to every value, as a sensor does in low light.

    Args:
        picture: float `[H, W, C]` in 0…1.
        generator: to draw from.
        spread: its standard deviation.
    """
    return picture + spread * generator.standard_normal(picture.shape)


def shot(picture: np.ndarray, generator: np.random.Generator, photons: float) -> np.ndarray:
    """Counts photons: Poisson noise.

    Args:
        picture: float `[H, W, C]` in 0…1.
        generator: to draw from.
        photons: how many of them a white value is, on average.
    """
    return generator.poisson(picture * photons) / photons


def impulse(picture: np.ndarray, generator: np.random.Generator, share: float) -> np.ndarray:
    """Sets some values to black or white, the color version of salt and pepper.

    Args:
        picture: float `[H, W, C]` in 0…1.
        generator: to draw from.
        share: of the values, half of them black.
    """
    # One draw per value says both whether and which, so that a larger share adds to a smaller one's.
    draws = generator.random((2, *picture.shape))
    return np.where(draws[0] < share, draws[1] < 0.5, picture)
