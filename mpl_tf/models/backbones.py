"""The networks of keras.applications behind the signature of the others: raw pixels in, float32 logits out.

They start from random weights and download nothing. Their own preprocessing is left out, since `pixel_input`
does it, in float32 under every dtype policy.
"""

from collections.abc import Sequence

import keras
from keras import layers

from mpl_tf.models.heads import logits_output, pixel_input
from mpl_tf.models.surgery import LayerConfig, clone_with_edits

# What keras.applications fixes for the last block; its rates grow linearly towards it.
_DROP_RATE_IN_KERAS = 0.2

_EFFICIENTNET_V2 = {
    "b0": keras.applications.EfficientNetV2B0,
    "b1": keras.applications.EfficientNetV2B1,
    "b2": keras.applications.EfficientNetV2B2,
    "b3": keras.applications.EfficientNetV2B3,
    "s": keras.applications.EfficientNetV2S,
    "m": keras.applications.EfficientNetV2M,
    "l": keras.applications.EfficientNetV2L,
}
EFFICIENTNET_V2_SIZES = tuple(_EFFICIENTNET_V2)


def resnet50(
    num_classes: int, image_shape: Sequence[int], *, dropout: float = 0.0, name: str = "resnet-50"
) -> keras.Model:
    """Builds ResNet-50 (He et al., arXiv 1512.03385), the network of Meta Pseudo Labels on ImageNet.

    Args:
        num_classes: Number of logits.
        image_shape: `(height, width, channels)`, at least 32×32.
        dropout: Fraction of the pooled features dropped before the last layer.
        name: Name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.
    """
    inputs, x = pixel_input(image_shape)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=x)
    return _classifier(inputs, backbone.output, num_classes, dropout, name)


def efficientnet_v2(
    size: str,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    name: str | None = None,
) -> keras.Model:
    """Builds EfficientNetV2 (Tan and Le, arXiv 2104.00298).

    Args:
        size: One of `EFFICIENTNET_V2_SIZES`.
        num_classes: Number of logits.
        image_shape: `(height, width, channels)`, at least 32×32.
        dropout: Fraction of the pooled features dropped before the last layer.
        stochastic_depth: Probability of dropping a residual branch, which grows linearly from 0 at the first
            block and would reach this value one block after the last. Keras fixes 0.2 in its own networks.
        name: Name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.
    """
    inputs, x = pixel_input(image_shape)
    backbone = _EFFICIENTNET_V2[size](
        include_top=False, weights=None, input_tensor=x, include_preprocessing=False
    )
    model = _classifier(inputs, backbone.output, num_classes, dropout, name or f"efficientnetv2-{size}")
    return _with_stochastic_depth(model, stochastic_depth)


def _classifier(
    inputs: keras.KerasTensor, x: keras.KerasTensor, num_classes: int, dropout: float, name: str
) -> keras.Model:
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, logits_output(features, num_classes, dropout=dropout), name=name)


def _with_stochastic_depth(model: keras.Model, rate: float) -> keras.Model:
    def edit(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        # Dropout over whole branches has a noise shape; dropout of features has none.
        if isinstance(layer, layers.Dropout) and layer.noise_shape is not None:
            return config | {"rate": layer.rate * rate / _DROP_RATE_IN_KERAS}
        return config

    return clone_with_edits(model, edit)
