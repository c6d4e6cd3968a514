"""ResNets of two-convolution blocks, the teacher and the student of data-free learning on CIFAR.

He et al., *Deep Residual Learning for Image Recognition*, arXiv 1512.03385, table 1, for 18 and 34 layers, which
keras.applications does not have. For small images the stem is that of the code released with data-free learning
(`resnet.py` of huawei-noah, arXiv 1904.01186): one 3×3 convolution, and no halving before the second group.
"""

from collections.abc import Sequence

import keras
from keras import layers

from mpl_tf.models.heads import logits_output, pixel_input

# From this side on images get ImageNet's stem, which leaves a quarter of it.
_LARGE = 64


def resnet(
    blocks: Sequence[int],
    num_classes: int,
    image_shape: Sequence[int],
    *,
    dropout: float = 0.0,
    name: str = "resnet",
) -> keras.Model:
    """Builds four groups of residual blocks of two 3×3 convolutions, of 64, 128, 256 and 512 filters.

    Images of 64 pixels and more are halved twice at the beginning, by a 7×7 convolution and a pooling, as in the
    paper; of smaller ones a 3×3 convolution keeps every pixel.

    Args:
        blocks: number of blocks in each group: (2, 2, 2, 2) is ResNet-18 and (3, 4, 6, 3) ResNet-34.
        num_classes: number of logits.
        image_shape: `(height, width, channels)`, at least 8×8.
        dropout: fraction of the pooled features dropped before the last layer.
        name: name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.
    """
    inputs, x = pixel_input(image_shape)
    large = min(image_shape[:2]) >= _LARGE
    x = _convolution(x, 64, 7 if large else 3, 2 if large else 1, name="stem_conv")
    x = layers.ReLU(name="stem_relu")(_normalization(x, name="stem_norm"))
    if large:
        x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for group, count in enumerate(blocks):
        for block in range(count):
            x = _residual_block(
                x,
                filters=64 * 2**group,
                stride=2 if group > 0 and block == 0 else 1,
                name=f"group{group + 1}_block{block}",
            )
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, logits_output(features, num_classes, dropout=dropout), name=name)


def _residual_block(x: keras.KerasTensor, *, filters: int, stride: int, name: str) -> keras.KerasTensor:
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _convolution(x, filters, 1, stride, name=f"{name}_shortcut")
        shortcut = _normalization(shortcut, name=f"{name}_shortcut_norm")
    x = _convolution(x, filters, 3, stride, name=f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(_normalization(x, name=f"{name}_norm1"))
    x = _convolution(x, filters, 3, name=f"{name}_conv2")
    x = _normalization(x, name=f"{name}_norm2")
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, stride: int = 1, *, name: str
) -> keras.KerasTensor:
    return layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def _normalization(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)
