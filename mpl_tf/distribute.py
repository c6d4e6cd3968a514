"""What several replicas need to agree on. Outside a strategy every function here is the identity."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import checks


def replica_count() -> int:
    """How many replicas run the current step; 1 outside a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_mean(values):
    """Averages tensors over the replicas, so that every replica goes on with the same numbers.

    Args:
        values: a tensor or a list of tensors of the same shapes on every replica. A gradient or a loss that
            each replica averaged over its own share of the batch becomes the one of the global batch.

    Returns:
        The same structure; with one replica `values` itself.
    """
    if replica_count() == 1:
        return values
    # tf.identity: all_reduce refuses variables and values that it cannot place on a device.
    values = tf.nest.map_structure(tf.identity, values)
    return tf.distribute.get_replica_context().all_reduce("MEAN", values)


def rows_of_this_replica(global_rows: tf.Tensor) -> tf.Tensor:
    """The share of a global batch's rows that this replica works on.

    tf.distribute deals a batch out in contiguous pieces in the order of the replicas, so numbers drawn once
    for the global batch and cut here are the same whatever the number of replicas.

    Args:
        global_rows: `[replicas · n, …]`.

    Returns:
        `[n, …]`.
    """
    count = replica_count()
    if count == 1:
        return global_rows
    rows = (global_rows.shape[0] or tf.shape(global_rows)[0]) // count
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    return global_rows[replica * rows : (replica + 1) * rows]


def average_moving_statistics(variables: Sequence) -> None:
    """Replaces BatchNorm's moving statistics by their mean over the replicas.

    Keras 3 gives them no aggregation, so replicas drift apart and only the first one's are saved.

    Args:
        variables: the network's non-trainable weights.
    """
    moving = [variable for variable in variables if variable.dtype.startswith("float")]
    if replica_count() > 1 and moving:
        for variable, mean in zip(moving, replica_mean([v.value for v in moving]), strict=True):
            variable.assign(mean)


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


def predict(network: keras.Model, images) -> np.ndarray:
    """A network's outputs in inference mode on one batch, each row once.

    Under a strategy `keras.Model.predict_on_batch` hands every replica the whole batch, and returns each row as often
    as there are replicas.

    Args:
        network: built `keras.Model`, under whichever strategy.
        images: `[B, …]`.

    Returns:
        `[B, …]`.
    """
    if network.distribute_strategy.num_replicas_in_sync == 1:
        return np.asarray(network.predict_on_batch(images))
    return np.asarray(network.predict(images, batch_size=len(images), verbose=0))


def use_xla(jit_compile: bool | str) -> bool:
    """Whether to compile with XLA.

    Args:
        jit_compile: True, False or `"auto"`: on for one accelerator, off on CPUs, where XLA made the step about
            twice as slow, and off on several replicas.

    Raises:
        ValueError: for another value, and for True on several replicas, whose sums XLA cannot make inside a compiled
            step.
    """
    checks.one_of("jit_compile", jit_compile, (True, False, "auto"))
    replicas = replica_count()
    if jit_compile == "auto":
        return bool(tf.config.list_logical_devices("GPU")) and replicas == 1
    if jit_compile and replicas > 1:
        raise ValueError(
            f"jit_compile=True on {replicas} replicas: XLA compiles a step for one device and cannot sum over "
            "several inside it. Pass 'auto' or False, or train on one device."
        )
    return bool(jit_compile)


# What a collective operation raises when one of its processes is gone.
LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
    tf.errors.DeadlineExceededError, tf.errors.FailedPreconditionError,
)  # fmt: skip

STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy that a recipe's `--strategy` names; the same one for every call of a process.

    Args:
        name: `"default"` for one device; `"mirrored"` for all accelerators of this machine; `"multi_worker"` for
            those of several machines, which the environment variable TF_CONFIG names; `"tpu"` for a TPU. The last two
            must be made before TensorFlow computes anything.

    Returns:
        A `tf.distribute.Strategy`; build and compile the method in its `scope()`.

    Raises:
        ValueError: for any other name, and where what the strategy needs is not there.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    checks.one_of("strategy", name, STRATEGIES)
    return _strategy(name)


@functools.cache
def _strategy(name):
    # A second strategy in a process would mix up the collective operations of the first.
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        _check_cluster(os.environ.get("TF_CONFIG"))
        return tf.distribute.MultiWorkerMirroredStrategy()
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:
        # The resolver, the connection and the start of the TPU each have errors of their own.
        raise ValueError(
            f"strategy='tpu', but no TPU answers ({error}): start on a TPU machine with tensorflow-tpu installed, or "
            "choose another strategy."
        ) from error


def _check_cluster(config):
    try:
        cluster, task = (json.loads(config)[key] for key in ("cluster", "task"))
        cluster[task["type"]][task["index"]]
    except (TypeError, ValueError, KeyError, IndexError):
        raise ValueError(
            f"strategy='multi_worker' with TF_CONFIG={config!r}: set it, before the start of every worker, to "
            '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": …}}.'
        ) from None


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


def local_copy(network: keras.Model, strategy: tf.distribute.Strategy) -> keras.Model:
    """A network that one device can run on its own; `network` itself where there is only one.

    Outside of the strategy's scope, where a run is evaluated and exported.
    """
    if strategy.num_replicas_in_sync == 1:
        return network
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


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


def as_logs(trackers: Sequence) -> dict:
    """What a step returns: metric name → running mean.

    Under MultiWorkerMirroredStrategy Keras averages the first axis of what a step returns, which scalars do not have
    (keras-team/keras issue 20585).
    """
    logs = {tracker.name: tracker.result() for tracker in trackers}
    if worker_count(tf.distribute.get_strategy()) > 1 and not tf.distribute.in_cross_replica_context():
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}
    return logs
