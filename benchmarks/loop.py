"""How much of a training run's time goes into waiting for images, and into anything but its steps.

Trains Meta Pseudo Labels through `model.fit` twice: with the real input pipeline, and with one batch that is in
memory already. What the first takes longer is waiting for data. Both take turns; the fractions are medians.
Options: --model, --size, --labeled, --ratio, --steps, --turns, --steps_per_execution.
"""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf
import workload

import mpl_tf

IMAGES = 2000


def main() -> None:
    parser = workload.parser(__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps_per_execution", type=int, default=1)
    options = parser.parse_args()
    batches = pipeline(options)
    repeated = tf.data.Dataset.from_tensors(next(iter(batches))).repeat()
    method = build(options)

    def seconds(dataset) -> float:
        start = time.perf_counter()
        method.fit(dataset, steps_per_epoch=options.steps, verbose=0)
        return time.perf_counter() - start

    step = method.train_step

    def bare_steps() -> float:
        """The same steps, called one after another without `fit`."""
        start = time.perf_counter()
        for batch in repeated.take(options.steps):
            logs = compiled(batch)
        float(logs["loss"])
        return time.perf_counter() - start

    compiled = tf.function(step)
    seconds(batches), seconds(repeated), bare_steps()
    turns = [(seconds(batches), seconds(repeated), bare_steps()) for _ in range(options.turns)]
    real, memory, bare = (statistics.median(column) / options.steps for column in zip(*turns, strict=True))
    waiting = statistics.median(1 - memory / real for real, memory, _ in turns)
    looping = statistics.median(1 - bare / memory for _, memory, bare in turns)
    print(f"{workload.described(options)}, {options.steps_per_execution} steps per execution")
    print(f"  fit, real pipeline         {real:7.3f} s per step, of which {waiting:.1%} waiting for data")
    print(
        f"  fit, one batch in memory   {memory:7.3f} s per step, of which {looping:.1%} outside of the steps"
    )
    print(f"  the bare steps             {bare:7.3f} s per step")


def pipeline(options) -> tf.data.Dataset:
    """Training batches of random images, augmented as real ones are."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (IMAGES, options.size, options.size, 3), np.uint8)
    source = mpl_tf.data.from_arrays(images, np.arange(IMAGES) % workload.NUM_CLASSES)
    split = mpl_tf.data.draw_split(source, num_labeled=100, seed=0)
    weak, strong = mpl_tf.data.make_views(source.image_shape)
    return mpl_tf.data.training_batches(
        source, split, batch_size=options.labeled, unlabeled_ratio=options.ratio, weak=weak, strong=strong
    )


def build(options) -> mpl_tf.MetaPseudoLabels:
    teacher, student = (workload.network(options, seed) for seed in range(2))
    method = mpl_tf.MetaPseudoLabels(teacher=teacher, student=student)
    method.compile(
        keras.optimizers.SGD(1e-3, momentum=0.9),
        keras.optimizers.SGD(1e-3, momentum=0.9),
        steps_per_execution=options.steps_per_execution,
    )
    return method


if __name__ == "__main__":
    main()
