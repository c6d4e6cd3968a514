"""The batch normalizations of a training pass as one operation each, and one more for the gradient.

Keras makes a training step's BatchNorm of some thirty elementary operations and its gradient of forty more, half of
all that a step of a residual network consists of. Tracing and optimizing them is most of what a first step takes, and
launching them most of what a step of a small network does. TensorFlow's own operation computes the same numbers.
"""

import functools

import keras
import tensorflow as tf

from mpl_tf.methods.engine import kernels
from mpl_tf.models.surgery import leaf_layers

# TensorFlow's operation has a smallest ε, that of cuDNN.
SMALLEST_EPSILON = 1.001e-5


def prepare(network: keras.Model) -> None:
    """Has the batch normalizations of images computed by one operation, inside of a training pass and nowhere else.

    Nothing is seen of it in a saved, cloned or exported network.

    Args:
        network: any; changed in no other way.
    """
    for layer in leaf_layers(network):
        if _is_plain(layer):
            layer.call = functools.partial(_call, layer)


def _is_plain(layer):
    return (
        type(layer) is keras.layers.BatchNormalization
        and not (layer.synchronized or layer.renorm)
        and layer.epsilon >= SMALLEST_EPSILON
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.compute_dtype in ("float32", "bfloat16", "float16")
        and layer.variable_dtype == "float32"
    )


def _call(layer, inputs, training=None, mask=None):
    if not (training and layer.trainable and mask is None and kernels.in_training_pass()):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    channels = inputs.shape[-1]
    scale = tf.cast(layer.gamma, tf.float32) if layer.scale else tf.ones([channels])
    offset = tf.cast(layer.beta, tf.float32) if layer.center else tf.zeros([channels])
    normalize = _transposable if kernels.is_transposable() else _normalized
    outputs, mean, variance, *_ = normalize(inputs, scale, offset, layer.epsilon)
    if kernels.moves_statistics():
        biased = _biased(inputs)
        _move(layer.moving_mean, mean, layer.momentum, 1.0 - layer.momentum)
        _move(layer.moving_variance, variance, layer.momentum, biased * (1.0 - layer.momentum))
    return outputs


def _normalized(inputs, scale, offset, epsilon):
    """Outputs, mean, unbiased variance, and three tensors for the gradient; differentiable any number of times."""
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs, scale=scale, offset=offset, mean=[], variance=[], epsilon=epsilon, is_training=True
    )


def _transposable(inputs, scale, offset, epsilon):
    """The same, whose gradient is a function of the incoming gradient alone, and whose transpose is written out.

    TensorFlow's own gradient of its gradient is some hundred operations, most of them for what nobody asks for.
    """

    @tf.custom_gradient
    def normalize(inputs, scale, offset):
        outputs, mean, variance, *reserved = _normalized(inputs, scale, offset, epsilon)

        def gradient(towards_outputs, *_):
            return _transposable_gradient(towards_outputs, inputs, scale, (mean, variance, reserved), epsilon)

        return (outputs, mean, variance), gradient

    return normalize(inputs, scale, offset)


def _transposable_gradient(towards_outputs, inputs, scale, statistics, epsilon):
    mean, variance, reserved = statistics

    def backward(towards_outputs):
        reserves = {f"reserve_space_{index}": tensor for index, tensor in enumerate(reserved, start=1)}
        return tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=towards_outputs, x=inputs, scale=scale, epsilon=epsilon, is_training=True, **reserves
        )[:3]

    @tf.custom_gradient
    def run(towards_outputs):
        def transpose(along_inputs, along_scale, along_offset):
            # γ/σ (I - 1/n - x̂ x̂ᵀ/n) is symmetric: what maps gradients back maps tangents on.
            from_inputs, *_ = backward(along_inputs)
            factor = along_scale * tf.math.rsqrt(variance * _biased(inputs) + epsilon)
            return from_inputs + tf.cast(
                tf.cast(inputs, tf.float32) * factor + (along_offset - mean * factor), inputs.dtype
            )

        return backward(towards_outputs), transpose

    return run(towards_outputs)


def _biased(inputs):
    """(n - 1) / n: Keras averages the mean squared deviation, TensorFlow returns the unbiased estimate of it."""
    *positions, _ = inputs.shape
    if None not in positions:
        count = float(positions[0] * positions[1] * positions[2])
        return (count - 1.0) / count
    count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
    return (count - 1.0) / count


def _move(moving, value, decay, factor):
    moving.assign(moving.value * decay + value * factor)
