"""Trains the named cases on two logical CPUs and on one, and prints how far apart they end, as JSON.

A program of its own, because logical devices can be set only before TensorFlow has started.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from tests import tiny
from tests.conformance.cases import CASES

STEPS = 5


def trained(case, network=tiny.plain_network, **options):
    """The method after some steps, and how it evaluates."""
    method = case.compiled(network, **options)
    method.fit(case.data(batches=STEPS), verbose=0)
    images, labels = tiny.examples(8)
    logs = method.evaluate(images, labels, batch_size=8, return_dict=True, verbose=0)
    return method, list(logs.values())


def largest_difference(left, right) -> float:
    return max(float(np.abs(np.array(a) - np.array(b)).max()) for a, b in zip(left, right, strict=True))


def compare(case, strategy) -> dict:
    """Largest differences between one replica and two, and between the replicas of each."""
    one, logs_of_one = trained(case, run_eagerly=True)
    with strategy.scope():
        two, logs_of_two = trained(case)
        normalized, _ = trained(case, network=tiny.network)
    copies = [strategy.experimental_local_results(v.value) for v in normalized.weights]
    return {
        "replicas": strategy.num_replicas_in_sync,
        "moved": largest_difference(one.student.weights, tiny.plain_network("student", seed=1).weights),
        "weights apart": largest_difference(one.weights, two.weights),
        "logs apart": largest_difference(logs_of_one, logs_of_two),
        "replicas apart": max(largest_difference(copy[:1], copy[1:]) for copy in copies),
    }


def main(names: list[str]):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # One strategy for all: a second one in the same process mixes up its collective operations.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(json.dumps({name: compare(CASES[name], strategy) for name in names}))


if __name__ == "__main__":
    keras.utils.disable_interactive_logging()
    main(sys.argv[1:])
