"""Several processes that train together, under MultiWorkerMirroredStrategy. In a single one all is as without."""

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf

# What a collective operation raises when one of its processes is gone.
LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
    tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError,
)  # fmt: skip


def worker_count(strategy: tf.distribute.Strategy) -> int:
    """How many processes train together."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    cluster = strategy.cluster_resolver.cluster_spec()
    return sum(cluster.num_tasks(job) for job in cluster.jobs if job in ("chief", "worker")) or 1


def one_process_only(what: str, strategy: tf.distribute.Strategy) -> None:
    """Refuses what has not been made for several processes."""
    if worker_count(strategy) > 1:
        raise ValueError(
            f"{what} runs in one process, not in {worker_count(strategy)}: pass strategy='default' or 'mirrored'."
        )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes and prints: the chief, or the first worker."""
    if worker_count(strategy) == 1:
        return True
    resolver = strategy.cluster_resolver
    return resolver.task_type == "chief" or (
        "chief" not in resolver.cluster_spec().jobs and resolver.task_id == 0
    )


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
        if worker_count(strategy) == 1:
            raise
        raise WorkerLostError(
            f"Another worker has ended or cannot be reached any more ({type(error).__name__}). This one stops too: "
            "start the same command again on all of them; they go on from the last checkpoint."
        ) from error


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every process has called it: one that ended earlier would take the others with it."""
    if worker_count(strategy) > 1:
        # As a function, because TensorFlow warns about eager collective operations.
        @tf.function(autograph=False)
        def meet():
            return strategy.reduce("SUM", strategy.run(tf.constant, args=(1.0,)), axis=None)

        meet()


def dealt_batches(strategy: tf.distribute.Strategy, make_batches: Callable):
    """Training batches of which every process makes its own rows only.

    tf.data's own sharding would deal out whole batches, and the global batch would be another one.

    Args:
        strategy: that the method is trained under.
        make_batches: takes `share=(index, count)` and returns the dataset of that part of each global batch.

    Returns:
        What `keras.Model.fit` takes.
    """
    if worker_count(strategy) == 1:
        return make_batches(share=(0, 1))

    def make(context):
        batches = make_batches(share=(context.input_pipeline_id, context.num_input_pipelines))
        local = context.num_replicas_in_sync // context.num_input_pipelines

        def deal(rows):
            return tf.reshape(rows, [local, rows.shape[0] // local, *rows.shape[1:]])

        if local == 1:
            return batches
        return batches.map(lambda batch: tf.nest.map_structure(deal, batch)).unbatch()

    return strategy.distribute_datasets_from_function(make)


def whole_dataset(strategy: tf.distribute.Strategy, batches: tf.data.Dataset | None):
    """A dataset that every process goes through on its own, so that the mean over processes is that of one."""
    if batches is None or worker_count(strategy) == 1:
        return batches
    return strategy.distribute_datasets_from_function(lambda context: batches)
