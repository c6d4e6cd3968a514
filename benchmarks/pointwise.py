"""A supervised step of a network with pointwise convolutions, with these as products of matrices and as they are.

python benchmarks/pointwise.py --model=resnet-50
"""

import os
import time

import tensorflow as tf
import workload

from mpl_tf import models
from mpl_tf.methods.engine.microbatching import TrainingPass

REPEATS = 5


def step(network, logits):
    """A compiled gradient of the cross-entropy of these logits."""

    @tf.function
    def gradients(images, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits(images))
            loss = tf.reduce_mean(losses)
        return tape.gradient(loss, network.trainable_variables)[0]

    return gradients


def main():
    """Prints seconds per step of both, measured in turns, and their ratio."""
    parser = workload.parser(__doc__)
    parser.set_defaults(model="efficientnet-b0", size=64, labeled=64)
    options = parser.parse_args()
    network = models.build(options.model, workload.NUM_CLASSES, (options.size, options.size, 3), seed=0)
    images = tf.random.uniform([options.labeled, options.size, options.size, 3], 0, 255)
    labels = tf.random.uniform([options.labeled], 0, workload.NUM_CLASSES, tf.int32)
    # Outside of a training pass the network convolves as TensorFlow does.
    passes = {"products": TrainingPass(network).logits, "convolutions": lambda x: network(x, training=True)}
    steps = {name: step(network, logits) for name, logits in passes.items()}
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
