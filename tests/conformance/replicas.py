"""Trains the named cases on two logical CPUs and on one, and prints how far apart they end, as JSON.

A program of its own, because logical devices can be set only before TensorFlow has started.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import distribute
from tests import tiny
from tests.conformance.cases import CASES


def largest_difference(left, right) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True))


def evaluated(method) -> list:
    images, labels = tiny.examples(8)
    return list(method.evaluate(images, labels, batch_size=8, return_dict=True, verbose=0).values())


def compare(case, strategy) -> dict:
    """Largest differences between one replica and two, and between the two."""
    one = case.compiled(tiny.plain_network, run_eagerly=True)
    start = tiny.values(one.trainable_variables)
    one.fit(case.data(batches=5), verbose=0)
    with strategy.scope():
        two = case.compiled(tiny.plain_network)
        two.fit(case.data(batches=5), verbose=0)
        logs_of_two = evaluated(two)
        # Eagerly, to save the tracing: only the state that it leaves is looked at.
        normalized = case.compiled(tiny.network, run_eagerly=True)
        normalized.fit(case.data(batches=1), verbose=0)
    one_synchronized = case.compiled(tiny.synchronized_network, run_eagerly=True)
    one_synchronized.fit(case.data(batches=1), verbose=0)
    with strategy.scope():
        two_synchronized = case.compiled(tiny.synchronized_network)
        two_synchronized.fit(case.data(batches=1), verbose=0)
    # An odd number: the replicas do not get equally many.
    images, _ = tiny.examples(7)
    shown = distribute.predict(two.served, images), np.asarray(two.served(images, training=False))
    copies = [tiny.values(strategy.experimental_local_results(v.value)) for v in normalized.weights]
    return {
        "replicas": strategy.num_replicas_in_sync,
        "moved": largest_difference(start, tiny.values(one.trainable_variables)),
        "weights apart": largest_difference(tiny.values(one.weights), tiny.values(two.weights)),
        "logs apart": largest_difference(evaluated(one), logs_of_two),
        "synchronized apart": largest_difference(
            tiny.values(one_synchronized.weights), tiny.values(two_synchronized.weights)
        ),
        "rows predicted": len(shown[0]),
        "predictions apart": largest_difference(shown[:1], shown[1:]) if len(shown[0]) == 7 else None,
        "replicas apart": max(largest_difference(copy[:1], copy[1:]) for copy in copies),
    }


def several_steps_per_call(strategy) -> dict:
    """Two replicas that make two steps per call from Python, until the data end in the third call, against one."""
    case = CASES["mpl per_example"]
    results = []
    for steps in (1, 2):
        with strategy.scope():
            method = case.compiled(tiny.plain_network, steps_per_execution=steps)
        history = method.fit(case.data(batches=5), verbose=0).history
        results.append((tiny.values(method.weights), history))
    (weights, one), (others, two) = results
    return {
        "steps": int(method.step.numpy()),
        "weights apart": largest_difference(weights, others),
        "metrics": [sorted(one), sorted(two)],
    }


def xla_is_inside_of_the_replicas(strategy) -> str:
    """What a step that XLA cannot compile says where each replica's step is to be compiled."""

    def step(data):
        return {"length": tf.strings.length(tf.strings.as_string(tf.reduce_sum(data)))}

    data = tf.data.Dataset.from_tensors(tf.ones([2])).repeat()
    iterator = iter(strategy.experimental_distribute_dataset(data.batch(2)))
    distribute.train_function(step, strategy, steps=2, jit_compile=False)(iterator)
    try:
        distribute.train_function(step, strategy, steps=2, jit_compile=True)(iterator)
    except tf.errors.InvalidArgumentError as error:
        return str(error)
    return "compiled"


def main(names: list[str]):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # One strategy for all: a second one in the same process mixes up its collective operations.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    measured = {name: compare(CASES[name], strategy) for name in names}
    measured["several steps per call"] = several_steps_per_call(strategy)
    measured["xla"] = xla_is_inside_of_the_replicas(strategy)
    print(json.dumps(measured))


if __name__ == "__main__":
    keras.utils.disable_interactive_logging()
    main(sys.argv[1:])
