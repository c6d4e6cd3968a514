"""Sequences of images that change a little from frame to frame, as in ImageNet-P, for images of any size.

Hendrycks, Dietterich 2019, arXiv 1903.12261, publish parameters for 224 pixels (ImageNet-P) and for 32 pixels
(CIFAR-10-P); as with the corruptions the nearer set is taken and lengths are scaled. These are the ten sequences
that the paper's mean flip rate is over, at its first level of difficulty.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from mpl_tf.evaluation.robustness import corruptions
from mpl_tf.evaluation.robustness.effects import blur, noise, warp, weather
from mpl_tf.utils.validation import check_choice

# Published side of an image → perturbation → parameters. Lengths are in pixels of that side.
PARAMETERS = {
    32: {
        "gaussian_noise": (0.02,),
        "shot_noise": (700,),
        "motion_blur": (6, 1.8, 9, 21),
        "zoom_blur": (0.004,),
        "snow": (2, 10, 2),
        "brightness": (0.015,),
        "translate": (range(-7, 9),),
        "rotate": (1.0,),
        "tilt": (0.75,),
        "scale": (0.7, 0.02),
    },
    224: {
        "gaussian_noise": (0.03,),
        "shot_noise": (300,),
        "motion_blur": (10, 3, 4, 31),
        "zoom_blur": (0.004,),
        "snow": (3, 14, 4),
        "brightness": (0.02,),
        "translate": (range(-20, 21),),
        "rotate": (1.0,),
        "tilt": (1.0,),
        "scale": (0.4, 0.025),
    },
}
NAMES = tuple(PARAMETERS[32])
# Their frames are not in an order: each is compared with the first, which is clean, not with the one before.
NOISES = ("gaussian_noise", "shot_noise")

_FRAMES = 31
_STREAM = 2


def perturb(images: np.ndarray, name: str, *, index: np.ndarray, seed: int = 0) -> np.ndarray:
    """Makes a sequence of each image.

    Args:
        images: uint8 or float `[n, H, W, C]` in 0…255, C of 1 (gray) or 3 (RGB).
        name: one of `NAMES`.
        index: int `[n]`, a number for each image, at least 0; with `seed` it fixes the random numbers.
        seed: at least 0.

    Returns:
        uint8 `[n, F, H, W, C]`; F is 31 but for "translate" (16 or 41) and "motion_blur" (21 or 31).

    Raises:
        ValueError: for an unknown name, or what are no images.
    """
    check_choice("name", name, NAMES)
    images, index = corruptions.checked_images(images, index)
    side = min(images.shape[1:3])
    published = corruptions.published_side(side)
    make_frames, parameters = _SEQUENCES[name], PARAMETERS[published][name]
    sequences = []
    for image, number in zip(images, index, strict=True):
        generator = np.random.default_rng((seed, _STREAM, NAMES.index(name), number))
        frames = make_frames(image / 255.0, generator, side / published, *parameters)
        sequences.append([corruptions.to_levels(frame) for frame in frames])
    return np.array(sequences)


def _gaussian_noise(image, generator, scale, spread) -> Iterator[np.ndarray]:
    yield image
    for _ in range(1, _FRAMES):
        yield noise.gaussian(image, generator, spread)


def _shot_noise(image, generator, scale, photons):
    yield image
    for _ in range(1, _FRAMES):
        yield noise.shot(image, generator, photons)


def _motion_blur(image, generator, scale, radius, sigma, degrees, frames):
    """The camera's direction turns."""
    for frame in range(frames):
        yield blur.motion(image, radius * scale, sigma * scale, degrees * (frame - frames + 1))


def _zoom_blur(image, generator, scale, step):
    """The shutter stays open while the camera comes nearer."""
    total = image
    yield total
    for frame in range(1, _FRAMES):
        total = total + warp.project(image, warp.scaling(1.0 + step * frame), edge="nearest")
        yield total / (frame + 1)


def _snow(image, generator, scale, size, radius, sigma):
    """The wind turns."""
    flakes = weather.snowflakes(image.shape[:2], generator, 0.05, 0.3, size * scale, 0.5)
    for frame in range(_FRAMES):
        yield weather.snow(image, flakes, radius * scale, sigma * scale, 4.0 * frame - 150.0, 0.85)


def _brightness(image, generator, scale, step):
    for frame in range(_FRAMES):
        yield weather.brightness(image, step * (frame - _FRAMES // 2))


def _translate(image, generator, scale, pixels):
    for offset in pixels:
        yield warp.project(image, warp.translation(offset * scale))


def _rotate(image, generator, scale, degrees):
    for frame in range(_FRAMES):
        yield warp.project(image, warp.rotation(degrees * (frame - _FRAMES // 2)))


def _tilt(image, generator, scale, degrees):
    diagonal = math.hypot(*image.shape[:2])
    for frame in range(_FRAMES):
        yield warp.project(image, warp.tilt(degrees * (frame - _FRAMES // 2), diagonal))


def _scale(image, generator, scale, smallest, step):
    for frame in range(_FRAMES):
        yield warp.project(image, warp.scaling(smallest + step * frame))


_SEQUENCES: dict[str, Callable[..., Iterator[np.ndarray]]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": _snow,
    "brightness": _brightness,
    "translate": _translate,
    "rotate": _rotate,
    "tilt": _tilt,
    "scale": _scale,
}
