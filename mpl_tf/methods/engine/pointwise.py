"""The 1×1 convolutions of a training pass as products of matrices, on CPUs.

A 1×1 convolution multiplies each position's channels by a matrix, and its gradients are two more such products.
TensorFlow's gradient to the input of a convolution goes image by image on a CPU, though, which costs several times
the forward pass where images have become small and their channels many: in the last blocks of MobileNet, EfficientNet
and ResNet. `benchmarks/pointwise.py` measures it.
"""

import functools

import keras
import tensorflow as tf

from mpl_tf.distribute import replicas
from mpl_tf.methods.engine import kernels
from mpl_tf.models.surgery import leaf_layers


def prepare(network: keras.Model) -> None:
    """Has the pointwise convolutions of a network computed as products, inside of a training pass and nowhere else.

    Nothing is seen of it in a saved, cloned or exported network.

    Args:
        network: any; changed in no other way.
    """
    if replicas.accelerator() is not None:
        return
    for layer in leaf_layers(network):
        if _is_pointwise(layer):
            # A method that Keras documents for layers that convolve in a way of their own.
            layer.convolution_op = functools.partial(_convolution, layer)


def _is_pointwise(layer):
    return (
        getattr(type(layer), "convolution_op", None) is keras.layers.Conv2D.convolution_op
        and isinstance(layer, keras.layers.Conv2D)
        and tuple(layer.kernel_size) == (1, 1)
        and layer.groups == 1
        and layer.data_format == "channels_last"
    )


def _convolution(layer, images, kernel):
    if not kernels.in_training_pass():
        return type(layer).convolution_op(layer, images, kernel)
    vertical, horizontal = layer.strides
    if max(vertical, horizontal) > 1:
        images = images[:, ::vertical, ::horizontal]
    # Not tf.linalg.matmul of the images as they are, which would go image by image again.
    kernel = tf.reshape(keras.ops.convert_to_tensor(kernel), [layer.kernel.shape[2], layer.filters])
    positions = tf.reshape(images, [-1, kernel.shape[0]])
    shape = tf.concat([tf.shape(images)[:-1], [layer.filters]], axis=0)
    outputs = tf.reshape(tf.linalg.matmul(positions, kernel), shape)
    # Not tf.ensure_shape, which TensorFlow's forward mode cannot differentiate.
    outputs.set_shape([*images.shape[:-1], layer.filters])
    return outputs
