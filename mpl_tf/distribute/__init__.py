"""Several replicas and several workers."""

from mpl_tf.distribute.replicas import make_strategy
from mpl_tf.distribute.workers import WorkerLostError, distribute_batches

__all__ = [
    "WorkerLostError",
    "distribute_batches",
    "make_strategy",
]
