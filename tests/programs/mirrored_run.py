"""A whole run on two logical CPUs under MirroredStrategy; prints its metrics as JSON.

A program of its own, because logical devices can be set only before TensorFlow has started.
"""

import json
import sys

import tensorflow as tf

from mpl_tf.runs.settings import Monitoring
from tests.training.test_loop import build_baseline, whole_run


def main(folder: str):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    metrics = whole_run(
        f"{folder}/run",
        build_baseline=build_baseline,
        monitoring=Monitoring(verbose=0),
        strategy=strategy,
        report=True,
        export_dir=f"{folder}/exported",
    )
    print(json.dumps(metrics))


if __name__ == "__main__":
    main(sys.argv[1])
