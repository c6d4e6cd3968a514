"""Several replicas and several workers."""

from mpl_tf.distribute.replicas import make_strategy
from mpl_tf.distribute.workers import WorkerLostError, dealt_batches

__all__ = [
    "WorkerLostError",
    "dealt_batches",
    "make_strategy",
]
