"""The two ends that every network shares: raw pixels in, float32 logits out."""

import difflib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def pixel_input(image_shape: Sequence[int], padding: int = 0) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Creates the input of a network and brings pixels from 0…255 to −1…1.

    The rescaling stays in float32 under a mixed policy: bfloat16 has eight significant bits, which hold the
    whole numbers up to 256 but not the pixels between them that augmentation makes.

    Args:
        image_shape: `(height, width, channels)`, or `(features,)` for points, which pass unchanged.
        padding: black pixels added on each of the four sides.

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
        features: tensor `[B, F]`.
        num_classes: K, the number of logits.
        dropout: fraction of the features dropped in training.
        kernel_initializer: initializer of the dense kernel `[F, K]`.
        bias_initializer: initializer of the dense bias `[K]`.

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


def find_head(network: keras.Model) -> keras.layers.Dense | None:
    """Finds the dense layer that turns a network's features into class scores.

    Args:
        network: functional or sequential.

    Returns:
        The last layer with weights, where it is a dense one from features `[B, F]`, followed by nothing but
        activations; None where a network has no such head.
    """
    tensor = network.output
    for layer in reversed(network.layers):
        if layer.output is not tensor:
            continue
        if isinstance(layer, layers.Dense):
            return layer if len(layer.input.shape) == 2 else None
        if not isinstance(layer, (layers.Activation, layers.Softmax, layers.Identity, layers.Dropout)):
            return None
        tensor = layer.input
    return None


def without_nested_head(network: keras.Model) -> keras.Model:
    """The network, but without the head of a network that is nested in it as its last layer.

    Args:
        network: functional; one with a head of its own, or none anywhere, is returned as it is.

    Returns:
        A functional network of the same layers, whose output is what that head classifies.
    """
    last = network.layers[-1]
    if type(last) not in (type(network), keras.Sequential) or find_head(last) is None:
        return network
    inner = keras.Model(last.input, find_features(last), name=last.name)
    return keras.models.clone_model(
        network,
        clone_function=lambda layer: layer,
        call_function=lambda layer, *arguments, **options: (inner if layer is last else layer)(
            *arguments, **options
        ),
    )


def find_features(network: keras.Model, name: str | None = None) -> keras.KerasTensor:
    """Finds the tensor that a new head is to classify.

    Args:
        network: functional or sequential.
        name: layer whose output it is; None takes what the network's own head classifies, before any dropout, or the
            output of a network without a head.

    Returns:
        A tensor `[B, F]` or `[B, H, W, F]` of the network.

    Raises:
        ValueError: for an unknown layer, or a tensor of another rank.
    """
    if name is not None:
        names = [layer.name for layer in network.layers]
        if name not in names:
            nearest = difflib.get_close_matches(name, names) or names[-5:]
            raise ValueError(
                f"{network.name!r} has no layer {name!r} to take features from: choose one such as "
                f"{', '.join(nearest)}."
            )
        tensor = network.get_layer(name).output
    else:
        head = find_head(network)
        tensor = network.output if head is None else _before_dropout(network, head.input)
    if len(tensor.shape) not in (2, 4):
        raise ValueError(
            f"The features of {network.name!r} have the shape {tuple(tensor.shape)}, and a head takes [B, F] or "
            "[B, H, W, F]: name another layer with features=."
        )
    return tensor


def set_head(network: keras.Model, kernel: np.ndarray, bias: np.ndarray) -> None:
    """Gives a network's last dense layer other weights.

    Args:
        network: whose last layer is dense, from features to logits.
        kernel: float `[F, K]`.
        bias: float `[K]`.

    Raises:
        ValueError: for a network without such a layer, or weights of other shapes.
    """
    head = find_head(network)
    if head is None or tuple(head.kernel.shape) != kernel.shape:
        shape = None if head is None else tuple(head.kernel.shape)
        raise ValueError(
            f"The head of {network.name!r} has the kernel {shape}, not {kernel.shape}: fit it on the features of "
            "this network."
        )
    head.set_weights([kernel, bias])


def _before_dropout(network, tensor):
    """What a dropout layer of features takes, and not what it leaves."""
    for layer in reversed(network.layers):
        if isinstance(layer, layers.Dropout) and layer.output is tensor:
            return layer.input
    return tensor


def probabilities(network: keras.Model, images: tf.Tensor, *, training: bool = False) -> tf.Tensor:
    """What a classifier predicts, in float32 whatever its precision.

    Args:
        network: from images to logits `[n, K]`.
        images: `[n, *image_shape]`.
        training: whether dropout and its like are on.

    Returns:
        float32 `[n, K]`, rows that sum to 1.
    """
    return tf.nn.softmax(tf.cast(network(images, training=training), tf.float32))
