"""Exponential moving averages of what a method measures in its batches."""

import keras
import tensorflow as tf

from mpl_tf.distribute import replicas


def move_average(average: keras.Variable, value: tf.Tensor, *, decay: float | tf.Tensor) -> None:
    """Assigns decay · average + (1 - decay) · the replicas' mean of the value; no gradient passes.

    Args:
        average: float32, of any shape.
        value: of this batch, of the same shape.
        decay: in 0…1.
    """
    moved = decay * average.value + (1.0 - decay) * replicas.replica_mean(tf.stop_gradient(value))
    # A float16 pass may overflow. Its step is skipped, and an average would never recover from a nan.
    finite = tf.reduce_all(tf.math.is_finite(moved))
    average.assign(tf.where(finite, moved, average.value))
