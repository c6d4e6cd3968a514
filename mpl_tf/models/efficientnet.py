"""EfficientNets of any width and depth: L2, of the large-scale experiments, is not in keras.applications.

Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, arXiv 1905.11946. L2's width
and depth are those of Noisy Student (arXiv 1911.04252) and of the code released with Meta Pseudo Labels (arXiv
2003.10580; `meta_pseudo_labels/modeling.py` of google-research). A width and a depth of 1 make B0, which computes
what that of keras.applications does.
"""

import math
from collections.abc import Sequence

import keras
from keras import layers

from mpl_tf.models.backbones import STANDARDIZED, preprocessed, three_channels
from mpl_tf.models.heads import logits_output

# Table 1 of the paper, for B0: kernel size, expansion, filters, blocks, stride of the first.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 6, 24, 2, 2),
    (5, 6, 40, 2, 2),
    (3, 6, 80, 3, 2),
    (5, 6, 112, 3, 1),
    (5, 6, 192, 4, 2),
    (3, 6, 320, 1, 1),
)
_STEM_FILTERS, _TOP_FILTERS = 32, 1280
# Widths are multiples of it.
_DIVISOR = 8
# Filters between squeeze and excitation, of those that enter a block.
_SQUEEZED = 0.25


def efficientnet(
    width: float,
    depth: float,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    name: str = "efficientnet",
) -> keras.Model:
    """Builds an EfficientNet of any width and depth, with fresh weights.

    Args:
        width: factor of all numbers of filters, which are rounded to multiples of 8; 4.3 in L2.
        depth: factor of the number of blocks in each stage, rounded up; 5.3 in L2.
        num_classes: number of logits.
        image_shape: `(height, width, channels)`, at least 32×32; one channel is repeated three times.
        dropout: fraction of the pooled features dropped before the last layer.
        stochastic_depth: probability of dropping a residual branch; it grows linearly from the first block and would
            reach this value one block after the last, as in keras.applications.
        name: name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.
    """
    inputs = keras.Input(tuple(image_shape), dtype="float32", name="image")
    x = preprocessed(three_channels(inputs), STANDARDIZED)
    x = _convolution(x, _filters(_STEM_FILTERS, width), 3, stride=2, name="stem_conv")
    x = _swish(_normalization(x, name="stem_norm"), name="stem_swish")
    counts = [math.ceil(depth * blocks) for _, _, _, blocks, _ in _STAGES]
    position = 0
    for stage, (size, expansion, filters, _, stride) in enumerate(_STAGES, start=1):
        for block in range(counts[stage - 1]):
            x = _block(
                x,
                filters=_filters(filters, width),
                size=size,
                stride=stride if block == 0 else 1,
                expansion=expansion,
                drop_rate=stochastic_depth * position / sum(counts),
                name=f"stage{stage}_block{block}",
            )
            position += 1
    x = _convolution(x, _filters(_TOP_FILTERS, width), 1, name="top_conv")
    x = _swish(_normalization(x, name="top_norm"), name="top_swish")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    # Limit 1/√K.
    uniform = keras.initializers.VarianceScaling(1 / 3, mode="fan_out", distribution="uniform")
    logits = logits_output(features, num_classes, dropout=dropout, kernel_initializer=uniform)
    return keras.Model(inputs, logits, name=name)


def _filters(count: int, width: float) -> int:
    """A number of filters times the width, as a multiple of 8 that is not more than a tenth below it."""
    scaled = count * width
    rounded = max(_DIVISOR, int(scaled + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return rounded if rounded >= 0.9 * scaled else rounded + _DIVISOR


def _block(
    x: keras.KerasTensor,
    *,
    filters: int,
    size: int,
    stride: int,
    expansion: int,
    drop_rate: float,
    name: str,
) -> keras.KerasTensor:
    """Expansion, depthwise convolution, squeeze and excitation, projection; the identity beside them if it fits."""
    shortcut, entering = x, x.shape[-1]
    if expansion > 1:
        x = _convolution(x, expansion * entering, 1, name=f"{name}_expand")
        x = _swish(_normalization(x, name=f"{name}_expand_norm"), name=f"{name}_expand_swish")
    x = layers.DepthwiseConv2D(
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_normal(),
        name=f"{name}_depthwise",
    )(x)
    x = _swish(_normalization(x, name=f"{name}_norm"), name=f"{name}_swish")
    x = _squeeze_and_excitation(x, max(1, int(_SQUEEZED * entering)), name=name)
    x = _normalization(_convolution(x, filters, 1, name=f"{name}_project"), name=f"{name}_project_norm")
    if stride > 1 or entering != filters:
        return x
    if drop_rate:
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _squeeze_and_excitation(x: keras.KerasTensor, squeezed: int, *, name: str) -> keras.KerasTensor:
    weights = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    for layer, filters, activation in (("reduce", squeezed, "swish"), ("excite", x.shape[-1], "sigmoid")):
        weights = layers.Conv2D(
            filters, 1, activation=activation, kernel_initializer=_normal(), name=f"{name}_{layer}"
        )(weights)
    return layers.Multiply(name=f"{name}_scale")([x, weights])


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, *, stride: int = 1, name: str
) -> keras.KerasTensor:
    return layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, kernel_initializer=_normal(), name=name
    )(x)


def _normal() -> keras.Initializer:
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="truncated_normal")


def _normalization(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _swish(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    return layers.Activation("swish", name=name)(x)
