"""What an exported network costs: SavedModel and LiteRT against Keras, in ms per batch and images per second.

All answer the same random images. They take turns, so that a change in the machine's load meets each of them, and
ratios are medians over the turns. TensorFlow uses all cores; LiteRT as many threads as --threads says.
Options: --model, --size, --batches (1,8,64), --turns, --calls (per turn), --threads.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mpl_tf import export, models

NUM_CLASSES = 10
KERAS = "Keras, predict_on_batch"  # The first contender, which the others are compared with.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="wrn-10-1")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    shape = (options.size, options.size, 3)
    network = models.build(options.model, NUM_CLASSES, shape, seed=0)
    contenders = {KERAS: network.predict_on_batch, **exported(network, shape, options.threads)}
    device = (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU"))[0]
    print(
        f"\n{options.model}, {options.size} x {options.size} x 3 pixels, TensorFlow on {device.device_type}, "
        f"LiteRT on {options.threads} CPU threads, {options.turns} turns of {options.calls} calls"
    )
    for batch_size in map(int, options.batches.split(",")):
        images = random_images(batch_size, shape).astype(np.float32)
        for answer in contenders.values():
            answer(images)
        turns = [
            [seconds(answer, images, options.calls) for answer in contenders.values()]
            for _ in range(options.turns)
        ]
        print(f"\nbatches of {batch_size}")
        for name, times in zip(contenders, zip(*turns, strict=True), strict=True):
            ratio = statistics.median(turn[0] / own for turn, own in zip(turns, times, strict=True))
            latency = statistics.median(times)
            print(
                f"  {name:32s} {1000 * latency:9.3f} ms {batch_size / latency:12,.0f} images/s "
                f"{ratio:8.2f} x Keras' speed"
            )


def exported(network, shape: tuple, threads: int) -> dict[str, Callable]:
    """Functions of a batch: the written SavedModel, and LiteRT in all kinds."""
    with tempfile.TemporaryDirectory() as folder:
        names = [str(index) for index in range(NUM_CLASSES)]
        version = export.saved_model(network, pathlib.Path(folder, "model"), class_names=names)
        loaded = tf.saved_model.load(str(version))
    signature = loaded.signatures["serving_default"]

    def saved_model(images, kept=loaded):  # A signature lives only as long as its model.
        return signature(images=tf.constant(images))["probabilities"].numpy()

    representative = random_images(20, shape).astype(np.float32)
    converted = export.litert.convert(network, export.litert.KINDS, representative)
    interpreters = {
        f"LiteRT {kind}": export.litert.Interpreter(model, num_threads=threads) for kind, model in converted
    }
    return {"SavedModel, serving_default": saved_model, **interpreters}


def seconds(answer: Callable, images: np.ndarray, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        answer(images)
    return (time.perf_counter() - start) / calls


def random_images(count: int, shape: tuple) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


if __name__ == "__main__":
    main()
