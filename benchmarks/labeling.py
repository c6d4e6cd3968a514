"""Labeling into a store against `predict_on_batch` on one batch that is in memory already, in images per second.

The bare prediction has nothing to read, to augment or to write; what labeling adds to it should hide behind it. Both
take turns, so that a change in the machine's load meets each of them, and the ratio is the median over the turns.
Options: --model, --size, --batch_size, --batches (per shard), --turns.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import data, models
from mpl_tf.inference import labeling

NUM_CLASSES = 10
# The first shard compiles and the last one has no successor to prepare: those between them are timed.
SHARDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="wrn-10-1")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    shape = (options.size, options.size, 3)
    network = models.build(options.model, NUM_CLASSES, shape, seed=0)
    contenders = {
        "bare predict_on_batch": bare_prediction(network, shape, options.batch_size, options.batches),
        "labeling into a store": label_into_store(network, shape, options.batch_size, options.batches),
    }
    for rate in contenders.values():
        rate()
    turns = [[rate() for rate in contenders.values()] for _ in range(options.turns)]
    device = (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0]
    print(
        f"\n{options.model}, {options.size} x {options.size} x 3 pixels, {device.device_type}, batches of "
        f"{options.batch_size}, {options.turns} turns"
    )
    for name, rates in zip(contenders, zip(*turns, strict=True), strict=True):
        print(f"  {name:24s} {statistics.median(rates):9,.0f} images/s")
    ratio = statistics.median(labeled / bare for bare, labeled in turns)
    print(f"  labeling is {ratio:.3f} times as fast")


def bare_prediction(network: keras.Model, shape: tuple, batch_size: int, batches: int) -> Callable[[], float]:
    images = random_images(batch_size, shape).astype(np.float32)

    def rate() -> float:
        start = time.perf_counter()
        for _ in range((SHARDS - 2) * batches):
            network.predict_on_batch(images)
        return (SHARDS - 2) * batches * batch_size / (time.perf_counter() - start)

    return rate


def label_into_store(
    network: keras.Model, shape: tuple, batch_size: int, batches: int
) -> Callable[[], float]:
    count = SHARDS * batches * batch_size
    images = data.ArrayImages(random_images(count, shape), np.full(count, -1))
    request = {
        "index": np.arange(count),
        "num_classes": NUM_CLASSES,
        "teacher": {},
        "shard_size": count // SHARDS,
    }

    def rate() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "store"
            store = TimedStore.create(path, fingerprint=images.fingerprint(), **request)
            labeling.label(network, images, store, batch_size=batch_size, verbose=0)
        first, *_, last_but_one, _ = store.times
        return (count - 2 * store.shard_size) / (last_but_one - first)

    return rate


class TimedStore(data.LabelStore):
    """A store that notes when each shard was written."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.times = []

    def write(self, shard, probabilities):
        """Writes, and looks at the clock."""
        super().write(shard, probabilities)
        self.times.append(time.perf_counter())


def random_images(count: int, shape: tuple) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


if __name__ == "__main__":
    main()
