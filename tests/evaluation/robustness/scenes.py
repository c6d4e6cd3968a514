"""Real images that ship with scikit-learn, in any size."""

import functools

import numpy as np
from PIL import Image
from sklearn import datasets


def scenes(count, height, width=None, channels=3):
    """uint8 `[count, height, width, channels]`: crops of two photographs."""
    generator = np.random.default_rng(1)
    crops = []
    for number in range(count):
        side = int(generator.integers(200, 400))
        left, top = int(generator.integers(640 - side)), int(generator.integers(427 - side))
        crop = photographs()[number % 2].crop((left, top, left + side, top + side))
        crop = crop.resize((width or height, height), Image.Resampling.BOX)
        crops.append(np.asarray(crop.convert({1: "L", 3: "RGB"}[channels])))
    return np.reshape(crops, (count, height, width or height, channels))


@functools.cache
def photographs():
    return [Image.fromarray(datasets.load_sample_image(f"{name}.jpg")) for name in ("china", "flower")]


def doubled(images):
    """The same images in twice the size, each pixel as four."""
    return images.repeat(2, axis=1).repeat(2, axis=2)


def halved(images):
    """Means of boxes of two by two pixels, float `[…, height / 2, width / 2, channels]`."""
    *_, height, width, channels = images.shape
    boxes = images.reshape(*images.shape[:-3], height // 2, 2, width // 2, 2, channels)
    return boxes.astype(float).mean(axis=(-4, -2))


def digits(count):
    """uint8 `[count, 8, 8, 1]`."""
    return np.rint(datasets.load_digits().images[:count] * 255 / 16).astype(np.uint8)[..., np.newaxis]
