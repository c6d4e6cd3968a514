"""Small networks: for points, for handwritten digits, and those of the distillation papers."""

from collections.abc import Sequence

import keras
from keras import layers

from mpl_tf.models.heads import logits_output, pixel_input


def convnet(
    num_classes: int, image_shape: Sequence[int], *, dropout: float = 0.0, name: str = "convnet"
) -> keras.Model:
    """Builds three 3×3 convolutions of 32, 64 and 64 filters for images of 8×8 to 32×32 pixels.

    The image is halved twice, early, which makes a step cheap enough for a CPU.

    Args:
        num_classes: number of logits.
        image_shape: `(height, width, channels)`, at least 4×4.
        dropout: fraction of the pooled features dropped before the last layer.
        name: name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.
    """
    inputs, x = pixel_input(image_shape)
    for index, filters in enumerate((32, 64, 64), start=1):
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"conv{index}"
        )(x)
        # Runs on a few labels last some hundred steps, too few for a decay of 0.99 to forget its start.
        x = layers.BatchNormalization(momentum=0.9, name=f"norm{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
        if index < 3:
            x = layers.MaxPooling2D(2, name=f"pool{index}")(x)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(inputs, logits_output(features, num_classes, dropout=dropout), name=name)


def multilayer_perceptron(
    num_classes: int,
    image_shape: Sequence[int],
    *,
    width: int = 128,
    depth: int = 2,
    dropout: float = 0.0,
    name: str | None = None,
) -> keras.Model:
    """Builds `depth` hidden layers of `width` ReLU units for points or flattened images.

    Two layers of 1200 are the teacher of Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv
    1503.02531, section 3, and two of 800 its student.

    Args:
        num_classes: number of logits.
        image_shape: `(height, width, channels)`, or `(features,)` for points.
        width: units of each hidden layer.
        depth: number of hidden layers.
        dropout: fraction of the last hidden layer dropped before the logits.
        name: name of the model.

    Returns:
        A functional model from float32 `[B, *image_shape]`, pixels in 0…255, to logits, float32 `[B, K]`.

    Raises:
        ValueError: if there is no hidden layer or it has no units.
    """
    if width < 1 or depth < 1:
        raise ValueError(
            f"mlp-{width}x{depth} does not exist: both the width and the number of hidden layers must be 1 or "
            "more; take for example mlp-128x2."
        )
    inputs, x = pixel_input(image_shape)
    if len(image_shape) > 1:
        x = layers.Flatten(name="flatten")(x)
    for index in range(1, depth + 1):
        layer_name = "features" if index == depth else f"hidden{index}"
        x = layers.Dense(width, activation="relu", kernel_initializer="he_normal", name=layer_name)(x)
    logits = logits_output(x, num_classes, dropout=dropout)
    return keras.Model(inputs, logits, name=name or f"mlp-{width}x{depth}")


def moons_mlp(
    num_classes: int, image_shape: Sequence[int], *, dropout: float = 0.0, name: str = "moons_mlp"
) -> keras.Model:
    """Builds the two hidden layers of 8 sigmoid units with which Meta Pseudo Labels separates two moons.

    Every weight is drawn from U(−0.1, 0.1) (Pham et al., arXiv 2003.10580, appendix on TwoMoon).

    Args:
        num_classes: number of logits; 2 in the paper.
        image_shape: `(features,)`; `(2,)` in the paper.
        dropout: fraction of the last hidden layer dropped before the logits; 0 in the paper.
        name: name of the model.

    Returns:
        A functional model from points, float32 `[B, features]`, to logits, float32 `[B, K]`.
    """
    inputs, x = pixel_input(image_shape)
    for layer_name in ("hidden1", "features"):
        x = layers.Dense(
            8,
            activation="sigmoid",
            kernel_initializer=_uniform(),
            bias_initializer=_uniform(),
            name=layer_name,
        )(x)
    logits = logits_output(
        x, num_classes, dropout=dropout, kernel_initializer=_uniform(), bias_initializer=_uniform()
    )
    return keras.Model(inputs, logits, name=name)


def lenet5(
    num_classes: int,
    image_shape: Sequence[int],
    *,
    filters: Sequence[int] = (6, 16, 120),
    units: int = 84,
    dropout: float = 0.0,
    name: str = "lenet-5",
) -> keras.Model:
    """Builds LeNet-5 with ReLU and max pooling, the teacher of DAFL on MNIST (Chen et al., arXiv 1904.01186).

    The network was made for 32×32 pixels, to which smaller images are padded with black, the ground of
    handwriting. As in DAFL's released code the layer `features` is the output of the third convolution, of which
    DAFL asks large activations; one hidden layer lies between it and the logits.

    Args:
        num_classes: number of logits.
        image_shape: `(height, width, channels)`, at least 28×28.
        filters: filters of the three 5×5 convolutions. DAFL's student has half of each: 3, 8 and 60.
        units: units of the hidden layer; 42 in DAFL's student.
        dropout: fraction of the hidden layer dropped before the logits.
        name: name of the model.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`.
    """
    inputs, x = pixel_input(image_shape, padding=2 if min(image_shape[:2]) < 32 else 0)
    for index, count in enumerate(filters, start=1):
        x = layers.Conv2D(count, 5, activation="relu", kernel_initializer="he_normal", name=f"conv{index}")(x)
        if index < len(filters):
            x = layers.MaxPooling2D(2, name=f"pool{index}")(x)
    x = layers.Flatten(name="features")(x)
    x = layers.Dense(units, activation="relu", kernel_initializer="he_normal", name="hidden")(x)
    return keras.Model(inputs, logits_output(x, num_classes, dropout=dropout), name=name)


def _uniform() -> keras.Initializer:
    # A new object for each weight: one object with one seed would draw the same numbers again.
    return keras.initializers.RandomUniform(-0.1, 0.1)
