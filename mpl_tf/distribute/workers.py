"""Several processes that train together, under MultiWorkerMirroredStrategy. In a single one all is as without."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

# What a collective operation raises when one of its processes is gone. Only the first tells of nothing else; the
# others count where the message speaks of a connection, since an operator's own failures are called so too.
LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
    tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError,
)  # fmt: skip
_OF_A_CONNECTION = re.compile(
    "connection reset|connection refused|failed to connect|socket closed|broken pipe|stream removed|goaway|heartbeat|"
    "incarnation|has restarted|unhealthy|preempted",
    re.IGNORECASE,
)


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    cluster = strategy.cluster_resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in cluster.jobs if job in ("chief", "worker")) or 1


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """The number of this process among those that train together, from 0 on; a chief comes before the workers."""
    if worker_count(strategy) == 1:
        return 0
    resolver = strategy.cluster_resolver
    cluster = resolver.cluster_spec()
    chiefs = cluster.num_tasks("chief") if "chief" in cluster.jobs else 0
    return resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes and prints: the chief, or the first worker."""
    return worker_index(strategy) == 0


class WorkerLostError(RuntimeError):
    """Another process that trains together with this one has ended."""


@contextlib.contextmanager
def lost_workers_named(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Says in a sentence what TensorFlow's errors of the block mean where several processes train together.

    Raises:
        WorkerLostError: in their place.
    """
    try:
        yield
    except LOST as error:
        if worker_count(strategy) == 1 or not _tells_of_a_lost_worker(error):
            raise
        raise WorkerLostError(
            f"Another worker has ended or cannot be reached any more ({type(error).__name__}). This one stops too: "
            "start the same command again on all of them; they go on from the last checkpoint."
        ) from error


def _tells_of_a_lost_worker(error):
    # Between its lines stand those of the program, whose paths may hold any word.
    lines = [line for line in error.message.splitlines() if not line.lstrip().startswith("File ")]
    return isinstance(error, tf.errors.UnavailableError) or bool(_OF_A_CONNECTION.search("\n".join(lines)))


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every process has called it: one that ended earlier would take the others with it."""
    if worker_count(strategy) > 1:
        # As a function, because TensorFlow warns about eager collective operations.
        @tf.function(autograph=False)
        def meet():
            return strategy.reduce("SUM", strategy.run(tf.constant, args=(1.0,)), axis=None)

        meet()


def merge(strategy: tf.distribute.Strategy, rows: np.ndarray, known: np.ndarray) -> tuple:
    """A table of which every process has filled in some rows, the same on all of them.

    Args:
        strategy: that they train under.
        rows: float32 `[n, …]`, zeros where this process knows nothing.
        known: bool `[n]`, which rows it knows.

    Returns:
        The table, with the mean where several know a row, and which rows any of them knows.
    """
    if worker_count(strategy) == 1:
        return rows, known
    replicas_here = strategy.num_replicas_in_sync // worker_count(strategy)

    @tf.function(autograph=False)
    def total(values):
        def of_this_process(values):
            # Its first replica speaks for it.
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.where(replica % replicas_here == 0, values, tf.zeros_like(values))

        return strategy.reduce("SUM", strategy.run(of_this_process, args=(values,)), axis=None)

    counts = total(tf.constant(known, tf.float32)).numpy()
    shape = [-1] + [1] * (rows.ndim - 1)
    return total(tf.constant(rows)).numpy() / np.maximum(counts, 1.0).reshape(shape), counts > 0


def distribute_batches(strategy: tf.distribute.Strategy, make_batches: Callable) -> Any:
    """Training batches of which every process makes its own rows only.

    tf.data's own sharding would deal out whole batches, and the global batch would be another one.

    Args:
        strategy: that the method is trained under.
        make_batches: takes `shard=(index, count)` and returns the dataset of that part of each global batch.

    Returns:
        What `keras.Model.fit` takes.
    """
    if worker_count(strategy) == 1:
        return make_batches(shard=(0, 1))

    def make(context):
        batches = make_batches(shard=(context.input_pipeline_id, context.num_input_pipelines))
        local = context.num_replicas_in_sync // context.num_input_pipelines

        def deal(rows):
            return tf.reshape(rows, [local, rows.shape[0] // local, *rows.shape[1:]])

        if local == 1:
            return batches
        return batches.map(lambda batch: tf.nest.map_structure(deal, batch)).unbatch()

    return strategy.distribute_datasets_from_function(make)


def whole_dataset(strategy: tf.distribute.Strategy, batches: tf.data.Dataset | None) -> Any:
    """A dataset that every process goes through on its own, so that the mean over processes is that of one."""
    if batches is None or worker_count(strategy) == 1:
        return batches
    return strategy.distribute_datasets_from_function(lambda context: batches)
