"""A supervised step of a network with pointwise convolutions, with these as products of matrices and as they are.

python benchmarks/pointwise.py --model=resnet-50
"""

import contextlib
import os
import time

import tensorflow as tf
import workload

from mpl_tf import models
from mpl_tf.methods.engine import pointwise
from mpl_tf.methods.engine.microbatching import TrainingPass

REPEATS = 5


def step(network, *, products: bool):
    """A compiled gradient of the cross-entropy."""
    training_pass = TrainingPass(network)

    @tf.function
    def gradients(images, labels):
        # `TrainingPass` has products on; this turns them off for the comparison.
        with tf.GradientTape() as tape, _as_they_are() if not products else contextlib.nullcontext():
            logits = training_pass.logits(images)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return tape.gradient(loss, network.trainable_variables)[0]

    return gradients


@contextlib.contextmanager
def _as_they_are():
    original, pointwise.products = pointwise.products, contextlib.nullcontext
    try:
        yield
    finally:
        pointwise.products = original


def main():
    """Prints seconds per step of both, measured in turns, and their ratio."""
    parser = workload.parser(__doc__)
    parser.set_defaults(model="efficientnet-b0", size=64, labeled=64)
    options = parser.parse_args()
    network = models.build(options.model, workload.NUM_CLASSES, (options.size, options.size, 3), seed=0)
    images = tf.random.uniform([options.labeled, options.size, options.size, 3], 0, 255)
    labels = tf.random.uniform([options.labeled], 0, workload.NUM_CLASSES, tf.int32)
    steps = {"convolutions": step(network, products=False), "products": step(network, products=True)}
    seconds = {name: [] for name in steps}
    for repeat in range(REPEATS + 1):
        for name, run in steps.items():
            started = time.process_time()
            run(images, labels).numpy()
            if repeat:
                seconds[name].append(time.process_time() - started)
    best = {name: min(values) for name, values in seconds.items()}
    print(f"{options.model}, {options.labeled} images of {options.size} pixels, {os.cpu_count()} cores")
    for name, value in best.items():
        print(f"{name:>12}: {value:.3f} CPU s a step")
    print(f"{'ratio':>12}: {best['convolutions'] / best['products']:.2f}")


if __name__ == "__main__":
    main()
