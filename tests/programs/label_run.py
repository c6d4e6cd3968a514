"""Labels on two logical CPUs and on one, prints how far apart the labels are, and then dies while it labels.

A program of its own, because logical devices can be set only before TensorFlow has started.
"""

import json
import os
import signal
import sys

import numpy as np
import tensorflow as tf

from mpl_tf.inference import labeling
from tests.inference.test_labeling import array_images, created
from tests.support import tiny


def label_on_both(folder) -> dict:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = created(f"{folder}/one")
    labeling.label(tiny.network("teacher"), array_images(), one, batch_size=4, verbose=0)
    with strategy.scope():
        network = tiny.network("teacher")
        # An odd batch cannot be dealt out evenly, so one more image goes along.
        two = {size: created(f"{folder}/two_{size}") for size in (4, 5)}
        for size, store in two.items():
            labeling.label(network, array_images(), store, batch_size=size, verbose=0)
    apart = {size: abs(one.probabilities() - store.probabilities()).max() for size, store in two.items()}
    spread = float(np.ptp(one.probabilities(), axis=0).max())
    return {"replicas": strategy.num_replicas_in_sync, "apart": float(max(apart.values())), "spread": spread}


def label_and_die(folder):
    save = np.save

    def die_halfway(path, array, **kwargs):
        save(path, array[:2], **kwargs)
        if "shard_00003" in str(path):
            os.kill(os.getpid(), signal.SIGKILL)
        save(path, array, **kwargs)

    store = created(f"{folder}/killed")
    np.save = die_halfway
    labeling.label(tiny.network("teacher"), array_images(), store, batch_size=4, verbose=0)


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    print(json.dumps(label_on_both(sys.argv[1])), flush=True)
    label_and_die(sys.argv[1])
