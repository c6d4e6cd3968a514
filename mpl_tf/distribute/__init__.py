"""Several replicas and several workers."""

from mpl_tf.distribute.replicas import STRATEGIES, make_strategy
from mpl_tf.distribute.workers import WorkerLostError, distribute_batches

__all__ = [
    "STRATEGIES",
    "WorkerLostError",
    "distribute_batches",
    "make_strategy",
]
