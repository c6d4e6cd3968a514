"""The 15 common corruptions × 5 severities of ImageNet-C, for images of any size.

Hendrycks, Dietterich 2019, arXiv 1903.12261, publish parameters for 224 pixels (ImageNet-C) and milder ones for 32
pixels (CIFAR-10-C). The set whose side is nearer, as a ratio, is taken, and its lengths are scaled to the
image's shorter side.
"""

import math
from collections.abc import Callable

import numpy as np

from mpl_tf.evaluation.robustness.effects import blur, digital, noise, weather
from mpl_tf.utils.validation import check_choice

SEVERITIES = (1, 2, 3, 4, 5)

# Published side of an image → corruption → parameters at each severity. Lengths are in pixels of that side, those
# of the elastic transform in sides.
PARAMETERS = {
    32: {
        "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "shot_noise": (500, 250, 100, 75, 50),
        "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
        "defocus_blur": (0.3, 0.4, 0.5, 1.0, 1.5),
        "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        "motion_blur": ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
        "zoom_blur": ((1.05, 0.01), (1.10, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)),
        "snow": (
            (0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        "frost": ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        "fog": ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "elastic_transform": (
            (0.0, 0.0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ),
        "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
        "jpeg_compression": (80, 65, 58, 50, 40),
    },
    224: {
        "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "shot_noise": (60, 25, 12, 5, 3),
        "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
        "defocus_blur": (3, 4, 6, 8, 10),
        "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.24, 0.02), (1.30, 0.03)),
        "snow": (
            (0.1, 0.3, 3.0, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2.0, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4.0, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "frost": ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "fog": ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "elastic_transform": (
            (2.0, 0.7, 0.1),
            (2.0, 0.08, 0.2),
            (0.05, 0.01, 0.02),
            (0.07, 0.01, 0.02),
            (0.12, 0.01, 0.02),
        ),
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (25, 18, 15, 10, 7),
    },
}
NAMES = tuple(PARAMETERS[32])

# Corruptions and perturbations of one image draw from different streams.
_STREAM = 1


def corrupt(images: np.ndarray, name: str, severity: int, *, index: np.ndarray, seed: int = 0) -> np.ndarray:
    """Corrupts a batch of images.

    What an image becomes depends on the image, `name`, `severity`, `seed` and its own number alone. All
    severities of a corruption start from the same random numbers, so that they differ by the severity.

    Args:
        images: uint8 or float `[n, H, W, C]` in 0…255, C of 1 (gray) or 3 (RGB).
        name: one of `NAMES`.
        severity: 1 to 5.
        index: int `[n]`, a number for each image, at least 0.
        seed: of the random numbers, at least 0.

    Returns:
        uint8 `[n, H, W, C]`, rounded to the nearest level.

    Raises:
        ValueError: for an unknown name or severity, or what are no images.
    """
    check_choice("name", name, NAMES)
    if severity not in SEVERITIES:
        raise ValueError(f"severity={severity!r} is unknown: pass one of {', '.join(map(str, SEVERITIES))}.")
    images, index = checked_images(images, index)
    side = min(images.shape[1:3])
    published = published_side(side)
    effect, parameters = _EFFECTS[name], PARAMETERS[published][name][severity - 1]
    parameters = parameters if isinstance(parameters, tuple) else (parameters,)
    corrupted = np.empty(images.shape, np.uint8)
    for row, (image, number) in enumerate(zip(images, index, strict=True)):
        generator = np.random.default_rng((seed, _STREAM, NAMES.index(name), number))
        corrupted[row] = to_levels(effect(image / 255.0, generator, side / published, *parameters))
    return corrupted


def published_side(side: int) -> int:
    """The side, 32 or 224, of the published parameters that are nearer as a ratio."""
    return min(PARAMETERS, key=lambda published: abs(math.log(side / published)))


def checked_images(images: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raises for what are no images, or not one number for each.

    Args:
        images: what should be `[n, H, W, C]` in 0…255.
        index: what should be `[n]`.

    Returns:
        float64 `[n, H, W, C]` and int64 `[n]`.

    Raises:
        ValueError: where they are not.
    """
    images, index = np.asarray(images, np.float64), np.asarray(index, np.int64)
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or index.shape != images.shape[:1]:
        raise ValueError(
            f"Images of the shape {images.shape} with {index.shape} numbers cannot be corrupted: pass [n, H, W, "
            "C] with C of 1 or 3, and [n]."
        )
    if images.size and not (images.min() >= 0.0 and images.max() <= 255.0):
        raise ValueError(
            f"Images have values in {images.min():g}…{images.max():g}: pass raw pixels in 0…255."
        )
    return images, index


def to_levels(image: np.ndarray) -> np.ndarray:
    """Clips and rounds an image in 0…1 to uint8 levels."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)


# --- from published parameters to effects; `scale` is the image's side over the published one ----------------


def _gaussian_noise(image, generator, scale, spread):
    return noise.gaussian(image, generator, spread)


def _shot_noise(image, generator, scale, photons):
    return noise.shot(image, generator, photons)


def _impulse_noise(image, generator, scale, fraction):
    return noise.impulse(image, generator, fraction)


def _defocus_blur(image, generator, scale, radius):
    return blur.defocus(image, radius * scale)


def _glass_blur(image, generator, scale, sigma, reach, rounds):
    return blur.glass(image, generator, sigma * scale, reach * scale, rounds)


def _motion_blur(image, generator, scale, radius, sigma):
    return blur.motion(image, radius * scale, sigma * scale, generator.uniform(-45.0, 45.0))


def _zoom_blur(image, generator, scale, largest, step):
    return blur.zoom(image, np.arange(1.0, largest + step / 2, step).tolist())


def _snow(image, generator, scale, mean, spread, size, threshold, radius, sigma, kept):
    degrees = generator.uniform(-135.0, -45.0)
    flakes = weather.snowflakes(image.shape[:2], generator, mean, spread, size * scale, threshold)
    return weather.snow(image, flakes, radius * scale, sigma * scale, degrees, kept)


def _frost(image, generator, scale, visible, ice):
    return weather.frost(image, generator, visible, ice)


def _fog(image, generator, scale, density, decay):
    return weather.fog(image, generator, density, decay)


def _brightness(image, generator, scale, change):
    return weather.brightness(image, change)


def _contrast(image, generator, scale, factor):
    return digital.contrast(image, factor)


def _elastic_transform(image, generator, scale, strength, smoothness, jitter):
    side = min(image.shape[:2])
    return digital.elastic(image, generator, strength * side, smoothness * side, jitter * side)


def _pixelate(image, generator, scale, fraction):
    return digital.pixelate(image, fraction)


def _jpeg_compression(image, generator, scale, quality):
    return digital.jpeg(image, quality)


_EFFECTS: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
}
