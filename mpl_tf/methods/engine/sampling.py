"""Random draws inside a training step: functions of (seed, step), the same on every device and replica count."""

import math

import tensorflow as tf

from mpl_tf.data.augmentation import stateless_random
from mpl_tf.data.batches import batch_size
from mpl_tf.distribute import replicas


def uniform(rows: int | tf.Tensor, columns: int, *, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Numbers strictly between 0 and 1 for this replica's rows of the global batch.

    They are drawn for the global batch and cut, so that the number of replicas does not change them.

    Args:
        rows: of this replica.
        columns: numbers per row.
        seed: any whole number.
        step: int64 scalar.

    Returns:
        float32 `[rows, columns]`, multiples of 2⁻²³ plus 2⁻²⁴.
    """
    shape = [rows * replicas.replica_count(), columns]
    key = tf.stack([tf.constant(seed, tf.int64), step])
    bits = tf.random.stateless_uniform(shape, key, None, None, dtype=tf.uint32, alg="philox")
    return replicas.local_batch_slice(stateless_random.from_bits(bits))


def normal(rows: int | tf.Tensor, columns: int, *, seed: int, step: tf.Tensor) -> tf.Tensor:
    """Standard normal numbers for this replica's rows of the global batch (Box and Muller 1958).

    Args:
        rows: of this replica.
        columns: numbers per row.
        seed: any whole number.
        step: int64 scalar.

    Returns:
        float32 `[rows, columns]`, at most 5.8 in size.
    """
    radius, angle = tf.split(uniform(rows, 2 * columns, seed=seed, step=step), 2, axis=1)
    return tf.sqrt(-2.0 * tf.math.log(radius)) * tf.cos(2.0 * math.pi * angle)


def categorical(logits: tf.Tensor, *, seed: int, step: tf.Tensor) -> tf.Tensor:
    """One class per row, drawn from softmax(logits) by the Gumbel-max trick.

    Args:
        logits: float32 `[N, K]`.
        seed: any whole number.
        step: int64 scalar.

    Returns:
        int64 `[N]`.
    """
    rows = batch_size(logits)
    gumbel = -tf.math.log(-tf.math.log(uniform(rows, logits.shape[1], seed=seed, step=step)))
    return tf.argmax(logits + gumbel, axis=-1)


def student_targets(logits: tf.Tensor, kind: str, *, seed: int, step: tf.Tensor) -> tuple:
    """What a student learns from its teacher's logits.

    Args:
        logits: float32 `[N, K]`.
        kind: `"soft"` for the distribution, `"sampled"` for one draw from it.
        seed: of the draw.
        step: int64 scalar.

    Returns:
        Targets float32 `[N, K]`, and the draw int64 `[N]`, or None where there is none.
    """
    if kind == "soft":
        return tf.nn.softmax(logits), None
    labels = categorical(logits, seed=seed, step=step)
    return tf.one_hot(labels, logits.shape[1]), labels
