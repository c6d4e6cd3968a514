"""RandAugment (N 2, M 16): ours against Pillow and keras_cv on two cores, in images per second.

Pillow applies the same 15 operations with the same probabilities in two processes, from which the batches come to
this one; the others run in `tf.data`. All take turns, so that a change in the machine's load meets each of them,
and a ratio is the median over the turns.
"""

import collections
import functools
import itertools
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

# TensorFlow is imported where it is used, so that the two processes that run Pillow start without it.
CORES = 2
TURNS = 3
SECONDS_PER_TURN = 2.0
MAGNITUDE = 16
SIZES_AND_BATCHES = ((32, 256), (224, 32))
GRAY = (128, 128, 128)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        for size, batch in SIZES_AND_BATCHES:
            contenders = {
                "mpl_tf RandAugment": tensorflow_contender("paper", size, batch),
                "Pillow, two processes": pillow_contender(pool, size, batch),
                "keras_cv.layers.RandAugment": tensorflow_contender("keras_cv", size, batch),
                "mpl_tf weak + strong view": tensorflow_contender("views", size, batch),
            }
            compare(size, batch, contenders)


def compare(size: int, batch: int, contenders: dict[str, Callable[[float], float]]) -> None:
    for run in contenders.values():
        run(0.1)
    turns = [{name: run(SECONDS_PER_TURN) for name, run in contenders.items()} for _ in range(TURNS)]
    first = next(iter(contenders))
    print(f"\n{size} x {size} x 3 pixels, batches of {batch}, {CORES} cores, {TURNS} turns")
    for name in contenders:
        rate = statistics.median(turn[name] for turn in turns)
        ratio = statistics.median(turn[first] / turn[name] for turn in turns)
        print(f"  {name:30s} {rate:9,.0f} images/s   {first} is {ratio:6.2f} times as fast")


def tensorflow_contender(kind: str, size: int, batch: int) -> Callable[[float], float]:
    import tensorflow as tf

    from mpl_tf.data.augmentation.randaugment import make_policy
    from mpl_tf.data.augmentation.views import make_views

    images = tf.constant(random_images(batch, size))
    if kind == "views":
        weak, strong = make_views((size, size, 3), magnitude=MAGNITUDE)

        def distort(position):
            weak_images = weak(images, seed=0, position=position)
            return weak_images, strong(weak_images, seed=0, position=position)
    else:
        policy = make_policy(kind, 2, MAGNITUDE)

        def distort(position):
            return policy(images, seed=0, position=position)

    positions = tf.data.Dataset.range(2**62).batch(batch, drop_remainder=True)
    dataset = positions.map(distort, num_parallel_calls=CORES).prefetch(1)
    return rate_of(lambda: iter(dataset), batch)


def pillow_contender(pool, size: int, batch: int) -> Callable[[float], float]:
    def batches():
        waiting = collections.deque()
        for seed in itertools.count():
            waiting.append(pool.apply_async(pillow_batch, (size, batch, seed)))
            if len(waiting) > 2 * CORES:
                yield waiting.popleft().get()

    return rate_of(batches, batch)


def rate_of(make_batches: Callable[[], Iterator], batch: int) -> Callable[[float], float]:
    def rate(seconds: float) -> float:
        batches = make_batches()
        for _ in range(
            2 * CORES + 1
        ):  # As many as can be in the making: from then on one is made per one taken.
            next(batches)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(batches)
            count += batch
        return count / (time.perf_counter() - start)

    return rate


def pillow_batch(size: int, batch: int, seed: int) -> np.ndarray:
    generator = random.Random(seed)
    return np.stack([np.asarray(pillow_policy(pixels, generator)) for pixels in random_images(batch, size)])


def pillow_policy(pixels: np.ndarray, generator: random.Random) -> Image.Image:
    image = Image.fromarray(pixels)
    probability = generator.uniform(0.2, 0.8)
    for _ in range(2):
        operation = generator.choice(PILLOW_OPERATIONS)
        if generator.random() < probability:
            image = operation(image, generator)
    return image


@functools.cache
def random_images(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def _affine(image, *coefficients):
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST, fillcolor=GRAY
    )


def _cutout(image, generator):
    half_size = MAGNITUDE * image.width // 80
    x, y = generator.randrange(image.width), generator.randrange(image.height)
    image = image.copy()
    ImageDraw.Draw(image).rectangle(
        (x - half_size, y - half_size, x + half_size - 1, y + half_size - 1), GRAY
    )
    return image


def _sign(generator):
    return generator.choice((-1, 1))


_FACTOR = 0.1 + 1.8 * MAGNITUDE / 10
_SLOPE = 0.03 * MAGNITUDE
PILLOW_OPERATIONS = (
    lambda image, generator: ImageOps.autocontrast(image),
    lambda image, generator: ImageOps.equalize(image),
    lambda image, generator: ImageOps.invert(image),
    lambda image, generator: image.rotate(_sign(generator) * 3 * MAGNITUDE, fillcolor=GRAY),
    lambda image, generator: ImageOps.posterize(image, MAGNITUDE * 4 // 10),
    lambda image, generator: ImageOps.solarize(image, MAGNITUDE * 256 // 10 % 256),
    lambda image, generator: ImageEnhance.Color(image).enhance(_FACTOR),
    lambda image, generator: ImageEnhance.Contrast(image).enhance(_FACTOR),
    lambda image, generator: ImageEnhance.Brightness(image).enhance(_FACTOR),
    lambda image, generator: ImageEnhance.Sharpness(image).enhance(_FACTOR),
    lambda image, generator: _affine(image, 1, _sign(generator) * _SLOPE, 0, 0, 1, 0),
    lambda image, generator: _affine(image, 1, 0, 0, _sign(generator) * _SLOPE, 1, 0),
    lambda image, generator: _affine(image, 1, 0, _sign(generator) * round(0.2 * image.width), 0, 1, 0),
    lambda image, generator: _affine(image, 1, 0, 0, 0, 1, _sign(generator) * round(0.2 * image.width)),
    _cutout,
)


if __name__ == "__main__":
    main()
