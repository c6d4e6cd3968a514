"""What several replicas need to agree on. Outside a strategy every function here is the identity."""

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.distribute import workers
from mpl_tf.models.surgery import clone
from mpl_tf.utils.validation import check_choice


def replica_count() -> int:
    """How many replicas run the current step; 1 outside a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def replica_mean(values: Any) -> Any:
    """Averages tensors over the replicas, so that every replica goes on with the same numbers.

    Args:
        values: a tensor or a list of tensors of the same shapes on every replica. A gradient or a loss that
            each replica averaged over its own fraction of the batch becomes the one of the global batch.

    Returns:
        The same structure; with one replica `values` itself.
    """
    if replica_count() == 1:
        return values
    # tf.identity: all_reduce refuses variables and values that it cannot place on a device.
    values = tf.nest.map_structure(tf.identity, values)
    return tf.distribute.get_replica_context().all_reduce("MEAN", values)


def local_batch_slice(global_indices: tf.Tensor) -> tf.Tensor:
    """The fraction of a global batch's rows that this replica works on.

    tf.distribute deals a batch out in contiguous pieces in the order of the replicas, so numbers drawn once
    for the global batch and cut here are the same whatever the number of replicas.

    Args:
        global_indices: `[replicas · n, …]`.

    Returns:
        `[n, …]`.
    """
    count = replica_count()
    if count == 1:
        return global_indices
    rows = (global_indices.shape[0] or tf.shape(global_indices)[0]) // count
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    # Not global_indices[…]: on a TPU the replica's number is known when the step runs, and the size has to be before.
    first = [replica * rows] + [0] * (global_indices.shape.rank - 1)
    return tf.slice(global_indices, first, [rows, *global_indices.shape[1:]])


def never_empty(*values: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """A replica's part of a batch, with one example of zeros where it has got none and is a CPU.

    The last batch of an evaluation may hold fewer images than there are replicas, and with oneDNN TensorFlow fails on
    a convolution of no images.

    Args:
        *values: each `[n, …]`.

    Returns:
        Each as it is, or as `[1, …]`.
    """
    if replica_count() == 1:
        return values
    devices = tf.distribute.get_strategy().extended.worker_devices
    if not all("CPU" in device for device in devices):
        # XLA may compile this there, which pads by numbers alone that it knows before.
        return values
    missing = tf.cast(tf.shape(values[0])[0] == 0, tf.int32)
    return tuple(tf.pad(value, [[0, missing]] + [[0, 0]] * (value.shape.rank - 1)) for value in values)


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


def predict(network: keras.Model, images: Any) -> np.ndarray:
    """A network's outputs in inference mode on one batch, each row once.

    Under a strategy `keras.Model.predict_on_batch` hands every replica the whole batch, and returns each row as often
    as there are replicas.

    Args:
        network: built `keras.Model`, under whichever strategy.
        images: `[B, …]`.

    Returns:
        `[B, …]`.
    """
    count = network.distribute_strategy.num_replicas_in_sync
    if count == 1:
        return np.asarray(network.predict_on_batch(images))
    images = np.asarray(images)
    # As many for each replica: see `never_empty`.
    padded = np.concatenate([images, np.repeat(images[:1], -len(images) % count, axis=0)])
    return np.asarray(network.predict(padded, batch_size=len(padded), verbose=0))[: len(images)]


def predict_batches(network: keras.Model, batches: Iterable[dict]) -> np.ndarray:
    """A network's outputs in inference mode on all images of some batches.

    Args:
        network: as for `predict`.
        batches: of `{"image"}`, at least one.

    Returns:
        `[N, …]`.
    """
    return np.concatenate([predict(network, batch["image"]) for batch in batches])


def accelerator() -> str | None:
    """What the accelerators of this machine are called, as `"2 × NVIDIA H100"`; None where there are CPUs alone."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    names += ["TPU"] * len(tf.config.list_logical_devices("TPU"))
    counts = {name: names.count(name) for name in names}
    described = [name if count == 1 else f"{count} × {name}" for name, count in counts.items()]
    return ", ".join(described) or None


def use_xla(jit_compile: bool | str) -> bool:
    """Whether to compile with XLA what each replica runs.

    Args:
        jit_compile: True, False or `"auto"`: on where every replica is a GPU, and off on CPUs, where XLA made the
            step about twice as slow. On a TPU nothing runs uncompiled, whatever this says.

    Raises:
        ValueError: for another value, and for True on several CPUs, between which compiled code cannot sum.
    """
    check_choice("jit_compile", jit_compile, (True, False, "auto"))
    strategy, replicas = tf.distribute.get_strategy(), replica_count()
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return False
    if replicas == 1:
        accelerated = bool(tf.config.list_logical_devices("GPU"))
    else:
        accelerated = all("GPU" in device for device in strategy.extended.worker_devices)
    if jit_compile == "auto":
        return accelerated
    if jit_compile and replicas > 1 and not accelerated:
        raise ValueError(
            f"jit_compile=True on {replicas} replicas that are not all GPUs: XLA has no sums between CPUs inside a "
            "compiled step. Pass 'auto' or False, or train on one device."
        )
    return bool(jit_compile)


def train_function(
    step: Callable, strategy: tf.distribute.Strategy, *, steps: int, jit_compile: bool
) -> Callable:
    """Several training steps on every replica, as one function of a distributed iterator.

    Keras' own compiles `strategy.run` as a whole, which XLA cannot do for several devices, and fails to build more
    than one step per call on several CPUs.

    Args:
        step: takes a replica's batch and returns its metrics, name → scalar.
        strategy: with several replicas.
        steps: per call.
        jit_compile: whether each replica's step is compiled with XLA.

    Returns:
        What `keras.Model.train_function` has to be: it returns the metrics after the last step, averaged over the
        replicas, and raises StopIteration where the data end.
    """
    step = tf.autograph.experimental.do_not_convert(step)
    if jit_compile:
        step = tf.function(step, jit_compile=True, reduce_retracing=True)

    @tf.function(reduce_retracing=True)
    def several_steps(iterator):
        for _ in tf.range(steps - 1):
            strategy.run(step, args=(next(iterator),))
        logs = strategy.run(step, args=(next(iterator),))
        means = {name: strategy.reduce("MEAN", value, axis=None) for name, value in logs.items()}
        return {name: tf.reshape(mean, []) for name, mean in means.items()}

    def until_the_end(iterator):
        try:
            return several_steps(iterator)
        except tf.errors.OutOfRangeError:
            raise StopIteration from None

    return until_the_end


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
    check_choice("strategy", name, STRATEGIES)
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


def local_copy(network: keras.Model, strategy: tf.distribute.Strategy) -> keras.Model:
    """A network that one device can run on its own; `network` itself where there is only one.

    Outside of the strategy's scope, where a run is evaluated and exported.
    """
    if strategy.num_replicas_in_sync == 1:
        return network
    return clone(network)


def as_logs(trackers: Sequence) -> dict:
    """What a step returns: metric name → running mean.

    Under MultiWorkerMirroredStrategy Keras averages the first axis of what a step returns, which scalars do not have
    (keras-team/keras issue 20585).
    """
    logs = {tracker.name: tracker.result() for tracker in trackers}
    if tf.distribute.in_cross_replica_context():
        return logs
    # A replica sees its own part of a sum, and Keras takes the first replica's or their mean: all are equal.
    sums = [tracker.name for tracker in trackers if isinstance(tracker, keras.metrics.Sum)]
    logs |= {name: replica_count() * logs[name] for name in sums}
    if workers.worker_count(tf.distribute.get_strategy()) > 1:
        return {name: tf.reshape(value, [1]) for name, value in logs.items()}
    return logs
