"""The two ends that every network shares: raw pixels in, float32 logits out."""

from collections.abc import Sequence

import keras
from keras import layers


def pixel_input(image_shape: Sequence[int], padding: int = 0) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Creates the input of a network and brings pixels from 0…255 to −1…1.

    The rescaling stays in float32 under a mixed policy: bfloat16 has eight significant bits, which hold the
    whole numbers up to 256 but not the pixels between them that augmentation makes.

    Args:
        image_shape: `(height, width, channels)`, or `(features,)` for points, which pass unchanged.
        padding: Black pixels added on each of the four sides.

    Returns:
        The input, float32 `[B, *image_shape]`, and the tensor that the first layer of the network takes.
    """
    inputs = keras.Input(tuple(image_shape), dtype="float32", name="image")
    if len(image_shape) == 1:
        return inputs, inputs
    pixels = inputs
    if padding:
        pixels = layers.ZeroPadding2D(padding, dtype="float32", name="pad")(pixels)
    return inputs, layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="rescale")(pixels)


def logits_output(
    features: keras.KerasTensor,
    num_classes: int,
    *,
    dropout: float,
    kernel_initializer: keras.Initializer | str = "glorot_uniform",
    bias_initializer: keras.Initializer | str = "zeros",
) -> keras.KerasTensor:
    """Classifies features with dropout and one dense layer, named `logits`.

    Args:
        features: Tensor `[B, F]`.
        num_classes: K, the number of logits.
        dropout: Fraction of the features dropped in training.
        kernel_initializer: Initializer of the dense kernel `[F, K]`.
        bias_initializer: Initializer of the dense bias `[K]`.

    Returns:
        Logits, float32 `[B, K]` under every dtype policy: softmax and losses need the digits.
    """
    if dropout:
        features = layers.Dropout(dropout, name="dropout")(features)
    return layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        dtype="float32",
        name="logits",
    )(features)
