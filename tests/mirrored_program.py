"""A whole run on two logical CPUs under MirroredStrategy; prints its metrics as JSON.

A program of its own, because logical devices can be set only before TensorFlow has started.
"""

import json
import sys

import tensorflow as tf

from mpl_tf import distribute, training
from tests.test_training import build, build_baseline, run_data, settings


def main(folder: str):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    distribute.make_strategy = lambda name: strategy
    shown = {"report": True, "tensorboard": True}
    options = settings(f"{folder}/run", strategy="mirrored", export_dir=f"{folder}/exported", **shown)
    print(json.dumps(training.run(build, run_data(), options, build_baseline=build_baseline)))


if __name__ == "__main__":
    main(sys.argv[1])
