"""Wide residual networks, as Meta Pseudo Labels trains them on CIFAR-10 and SVHN.

Zagoruyko and Komodakis, *Wide Residual Networks*, arXiv 1605.07146, in the form of the code released with Meta
Pseudo Labels (arXiv 2003.10580; `meta_pseudo_labels/modeling.py` and `modeling_utils.py` of google-research):
leaky ReLU 0.2, BatchNorm decay 0.99 and ε 1e-3, convolutions without bias drawn from N(0, 2/fan_out), dropout
only before the last layer, whose kernel is drawn from U(±1/√K) for K classes.

Two differences. The released stem has 16k filters, which adds 4,560 weights to WRN-28-2; here it has 16, as in
the paper and FixMatch, and `stem_filters=16 * k` gives theirs. The released code standardizes pixels with each
dataset's mean and deviation; here they are brought to −1…1 whatever the dataset, so that the exported network
takes raw pixels from anywhere.
"""

from collections.abc import Sequence

import keras
from keras import layers

from mpl_tf.models.heads import logits_output, pixel_input


def wide_resnet(
    depth: int,
    width: int,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    stem_filters: int = 16,
    name: str | None = None,
) -> keras.Model:
    """Builds WRN-depth-width: three groups of (depth − 4)/6 pre-activation blocks, 16k, 32k and 64k filters.

    Args:
        depth: number of convolutions on the longest path, 6n + 4.
        width: k, the widening factor.
        num_classes: number of logits.
        image_shape: `(height, width, channels)`.
        dropout: fraction of the pooled features dropped before the last layer.
        stochastic_depth: probability of dropping the last block's residual branch; it grows linearly from
            the first block (Huang et al., arXiv 1603.09382; Noisy Student takes 0.2).
        stem_filters: filters of the first convolution.
        name: name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.

    Raises:
        ValueError: if depth is not 6n + 4 or width is not positive.
    """
    blocks_per_group = _blocks_per_group(depth, width)
    inputs, x = pixel_input(image_shape)
    x = _convolution(x, stem_filters, 3, name="stem_conv")
    for group in range(3):
        for block in range(blocks_per_group):
            position = group * blocks_per_group + block + 1
            x = _residual_block(
                x,
                filters=16 * width * 2**group,
                stride=2 if group > 0 and block == 0 else 1,
                drop_rate=stochastic_depth * position / (3 * blocks_per_group),
                name=f"group{group + 1}_block{block}",
            )
    x = _activation(_normalization(x, name="head_norm"), name="head_leaky")
    features = layers.GlobalAveragePooling2D(name="features")(x)
    # Limit √(3 · scale / fan_out) = 1/√K.
    uniform = keras.initializers.VarianceScaling(1 / 3, mode="fan_out", distribution="uniform")
    logits = logits_output(features, num_classes, dropout=dropout, kernel_initializer=uniform)
    return keras.Model(inputs, logits, name=name or f"wrn-{depth}-{width}")


def _blocks_per_group(depth: int, width: int) -> int:
    if depth < 10 or (depth - 4) % 6:
        below = max(10, depth - (depth - 4) % 6)
        raise ValueError(
            f"wrn-{depth}-{width} does not exist: the depth of a wide ResNet is 6n + 4 (10, 16, 22, 28, …), "
            f"got {depth}; take wrn-{below}-{width} or wrn-{below + 6}-{width}."
        )
    if width < 1:
        raise ValueError(
            f"wrn-{depth}-{width} does not exist: the widening factor must be 1 or more, got {width}; "
            f"take wrn-{depth}-1 or wrn-{depth}-2."
        )
    return (depth - 4) // 6


def _residual_block(
    x: keras.KerasTensor, *, filters: int, stride: int, drop_rate: float, name: str
) -> keras.KerasTensor:
    activated = _activation(_normalization(x, name=f"{name}_norm1"), name=f"{name}_leaky1")
    # Where the shape changes, the shortcut starts from the pre-activation; elsewhere it is the identity on x.
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _convolution(activated, filters, 1, stride, name=f"{name}_shortcut")
    x = _convolution(activated, filters, 3, stride, name=f"{name}_conv1")
    x = _activation(_normalization(x, name=f"{name}_norm2"), name=f"{name}_leaky2")
    x = _convolution(x, filters, 3, name=f"{name}_conv2")
    if drop_rate:
        # One draw per image for the whole branch is stochastic depth. Dropout divides what survives by
        # 1 − p in training instead of multiplying by it in inference; the expectation is the same.
        x = layers.Dropout(drop_rate, noise_shape=(None, 1, 1, 1), name=f"{name}_drop")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])


def _convolution(
    x: keras.KerasTensor, filters: int, size: int, stride: int = 1, *, name: str
) -> keras.KerasTensor:
    normal = keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
    return layers.Conv2D(
        filters, size, stride, padding="same", use_bias=False, kernel_initializer=normal, name=name
    )(x)


def _normalization(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _activation(x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
    return layers.LeakyReLU(negative_slope=0.2, name=name)(x)
