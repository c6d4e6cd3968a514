"""Gradients in float16 without underflow: dynamic loss scales, one for each optimizer.

float16 holds nothing below 6e-8, and gradients of single weights are often smaller. The backward pass is therefore
seeded with a large scale, and what comes out in float32 is divided by it again before anybody reads it: the mean
over replicas, the weight decay, the clipping and the feedback all work on true gradients. Keras' `LossScaleOptimizer`
keeps the scale, halves it and skips the step after an overflow, and doubles it after a while without one.
"""

from collections.abc import Iterable

import keras
import tensorflow as tf


def is_needed(networks: Iterable[keras.Model]) -> bool:
    """Whether any layer of some networks computes in float16."""
    layers = (layer for network in networks for layer in network.layers)
    # An input computes nothing: it has the policy that was set when a network was made, or read from a file.
    layers = (layer for layer in layers if not isinstance(layer, keras.layers.InputLayer))
    return any(
        is_needed([layer]) if isinstance(layer, keras.Model) else layer.compute_dtype == "float16"
        for layer in layers
    )


def scaling(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.LossScaleOptimizer:
    """The optimizer with a loss scale."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer
    return keras.optimizers.LossScaleOptimizer(optimizer)


def inner(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that makes the steps: itself, or the one inside a loss scale."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scale(optimizer: keras.optimizers.Optimizer | None) -> tf.Tensor | None:
    """A built optimizer's present loss scale, a float32 scalar; None where it keeps none."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return tf.identity(optimizer.dynamic_scale.value)
    return None


def unscaled(gradients: list, scale: tf.Tensor | None) -> list:
    """True gradients of those that a backward pass with this seed returned; dense, also those of embeddings."""
    gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
    if scale is None:
        return gradients
    return [None if g is None else tf.cast(g, tf.float32) / scale for g in gradients]


def apply(optimizer: keras.optimizers.Optimizer, gradients: list, variables: list) -> tf.Tensor:
    """Makes a step with true gradients, or skips it where one of them is not finite and there is a scale.

    Under a strategy Keras trusts the first replica's gradients to be finite, so they must be the reduced ones, which
    are the same on all.

    Returns:
        Whether the step was made, a boolean scalar.
    """
    factor = scale(optimizer)
    if factor is None:
        optimizer.apply(gradients, variables)
        return tf.constant(True)
    # The optimizer divides by the scale itself, after it has looked for overflows.
    gradients = [None if g is None else g * factor for g in gradients]
    finite = optimizer.check_finite(gradients)
    optimizer.apply(gradients, variables)
    return finite


def zero_unless_finite(gradients: list) -> list:
    """The gradients, or zeros for all of them where a single number is not finite: as in a skipped step."""
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
    return [tf.where(finite, gradient, tf.zeros_like(gradient)) for gradient in gradients]
