"""AlexNet, the teacher of data-free learning on faces, for images of any size.

Krizhevsky, Sutskever and Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, 2012, in the
form for one device: Krizhevsky, *One weird trick for parallelizing convolutional neural networks*, arXiv 1404.5997,
has 64, 192, 384, 256 and 256 filters, no groups, and no normalization of responses. With two classes these are 57.0
million weights, the 57 million that Chen et al. state (arXiv 1904.01186, on CelebA).
"""

from collections.abc import Sequence

import keras
from keras import layers

from mpl_tf.models.heads import logits_output, pixel_input

# Five convolutions; a pooling follows the first, the second and the last.
_SIZES = (11, 5, 3, 3, 3)
_POOLED = (1, 2, 5)
# What three poolings leave nothing of under the paper's first stride.
_SMALL = 63


def alexnet(
    num_classes: int,
    image_shape: Sequence[int],
    *,
    filters: Sequence[int] = (64, 192, 384, 256, 256),
    units: int = 4096,
    dropout: float = 0.0,
    name: str = "alexnet",
) -> keras.Model:
    """Builds AlexNet: five convolutions, overlapping poolings and two hidden layers.

    The first convolution takes every fourth pixel, as in the paper, which was written for 224×224 of them; of images
    smaller than 63 pixels it takes every one. As in `lenet5` the layer `features` is the output of the last
    convolution, of which data-free learning asks large activations; the hidden layers lie between it and the logits.

    Args:
        num_classes: number of logits.
        image_shape: `(height, width, channels)`, at least 28×28.
        filters: filters of the five convolutions. The student of data-free learning has half of each.
        units: units of both hidden layers.
        dropout: fraction of the units of both hidden layers that is dropped; 0.5 in the paper.
        name: name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.
    """
    inputs, x = pixel_input(image_shape)
    for index, (count, size) in enumerate(zip(filters, _SIZES, strict=True), start=1):
        strides, padding = 1, "same"
        if index == 1:
            x = layers.ZeroPadding2D(2, name="pad1")(x)
            strides, padding = 1 if min(image_shape[:2]) < _SMALL else 4, "valid"
        x = layers.Conv2D(
            count,
            size,
            strides=strides,
            padding=padding,
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{index}",
        )(x)
        if index in _POOLED:
            x = layers.MaxPooling2D(3, strides=2, name=f"pool{index}")(x)
    x = layers.Flatten(name="features")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="hidden1")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout1")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="hidden2")(x)
    return keras.Model(inputs, logits_output(x, num_classes, dropout=dropout), name=name)
