"""Networks that have learned elsewhere, in a user's own file or keras-hub, and which of their layers learn on."""

import difflib
import importlib.util
import os
from collections.abc import Sequence

import keras
from keras import layers

from mpl_tf.models import saving
from mpl_tf.models.backbones import three_channels
from mpl_tf.models.heads import find_features, logits_output, without_nested_head
from mpl_tf.models.surgery import Edit, LayerConfig, as_functional, clone_with_edits, edited_copy, leaf_layers

HUB_PREFIX = "hub:"

# Names that the copy's own layers have.
_TAKEN = ("image", "gray_to_rgb", "features", "dropout", "logits")


def from_file(
    path: str | os.PathLike,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    features: str | None = None,
    dropout: float = 0.0,
    edits: Sequence[Edit] = (),
) -> keras.Model:
    """Takes a saved network without its head and gives it one for other classes; all else is kept.

    Args:
        path: of a `.keras` file that holds a functional or sequential network of images, with its preprocessing.
        num_classes: K, the number of logits.
        image_shape: `(height, width, channels)`; where the network takes three channels, one is repeated.
        features: layer whose output the new head classifies, averaged over positions where it has some; None takes
            what the network's last dense layer does.
        dropout: fraction of the features dropped before the last layer.
        edits: edits of the layers, such as seeds.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`, with a layer
        `features` `[B, F]` before the head. Its name is the saved one's.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no network of images, does not take this shape, or has no such layer.
    """
    network = saving.load(path)
    return with_new_head(network, num_classes, image_shape, features=features, dropout=dropout, edits=edits)


def with_new_head(
    network: keras.Model,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    features: str | None = None,
    dropout: float = 0.0,
    edits: Sequence[Edit] = (),
) -> keras.Model:
    """Copies a network with its weights and another head.

    Args:
        network: functional or sequential; it stays as it is.
        num_classes: as for `from_file`.
        image_shape: as for `from_file`.
        features: as for `from_file`.
        dropout: as for `from_file`.
        edits: as for `from_file`.

    Returns:
        As `from_file`.

    Raises:
        ValueError: as `from_file`.
    """
    _check_takes(network, image_shape)
    network = as_functional(network)
    if features is None:
        network = without_nested_head(network)
    tensor = find_features(network, features)
    body = keras.Model(network.input, tensor, name=network.name)
    is_named = (
        len(tensor.shape) == 2 and body.layers[-1].name == "features" and body.layers[-1].output is tensor
    )

    def make_room(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        if layer.name not in _TAKEN or (is_named and layer is body.layers[-1]):
            return config
        return config | {"name": f"{layer.name}_before"}

    inputs = keras.Input(tuple(image_shape), dtype="float32", name="image")
    front = three_channels(inputs) if network.input_shape[-1] == 3 else inputs
    body = clone_with_edits(
        body, make_room, *edits, inputs=inputs, front=front, keep_weights=lambda layer: True
    )
    x = body.output
    if not is_named:
        x = (layers.GlobalAveragePooling2D if len(x.shape) == 4 else layers.Identity)(name="features")(x)
    # A head by itself first, so that the edits reach it as they reach the rest.
    stub = keras.Input(x.shape[1:])
    head = keras.Model(stub, logits_output(stub, num_classes, dropout=dropout))
    for layer in head.layers[1:]:
        x = edited_copy(layer, *edits)(x)
    return keras.Model(inputs, x, name=network.name)


def from_hub(
    preset: str,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    dropout: float = 0.0,
    edits: Sequence[Edit] = (),
) -> keras.Model:
    """Takes an image backbone of keras-hub by the name of its preset, with its preset's rescaling of pixels.

    Args:
        preset: such as "resnet_50_imagenet", or the folder of one.
        num_classes: as for `from_file`.
        image_shape: as for `from_file`.
        dropout: as for `from_file`.
        edits: as for `from_file`.

    Returns:
        As `from_file`.

    Raises:
        ValueError: when keras-hub is not installed, or the preset is none of an image backbone.
    """
    if importlib.util.find_spec("keras_hub") is None:
        raise ValueError(
            f"{HUB_PREFIX}{preset} needs the package keras-hub, which is not installed: install mpl_tf[hub], "
            "or take one of the networks that need nothing more."
        )
    import keras_hub

    try:
        backbone = keras_hub.models.Backbone.from_preset(preset)
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except Exception as error:
        raise ValueError(
            f"keras-hub has no image backbone for the preset {preset!r} ({type(error).__name__}: {error}): look for "
            "the names of its image classification presets, and for a network connection."
        ) from error
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    pixels = keras.Input((None, None, 3), dtype="float32")
    rescaled = layers.Rescaling(scale, offset=offset, dtype="float32", name="rescale")(pixels)
    network = keras.Model(pixels, backbone(rescaled), name=backbone.name)
    return with_new_head(network, num_classes, image_shape, dropout=dropout, edits=edits)


def set_trainable(network: keras.Model, trainable: str = "all", *, freeze_batch_norm: bool = False) -> None:
    """Says which layers of a network learn.

    Args:
        network: whose layers' `trainable` is set; clones and saved files keep it.
        trainable: "all", "head" for the layer `logits` alone, or the name of a layer, which learns with all that
            come after it.
        freeze_batch_norm: whether BatchNormalization learns nothing and uses its moving statistics in training too.
            Only `trainable=False` on these very layers does that: Keras hands a call's `training=True` on to them.

    Raises:
        ValueError: for an unknown layer.
    """
    for layer in leaf_layers(network):
        layer.trainable = True
    if trainable != "all":
        first = "logits" if trainable == "head" else trainable
        names = [layer.name for layer in network.layers]
        if first not in names:
            nearest = difflib.get_close_matches(first, names) or names[-5:]
            raise ValueError(
                f"trainable={trainable!r} is no layer of {network.name!r}: pass all, head, or a layer such as "
                f"{', '.join(nearest)}."
            )
        for layer in network.layers[: names.index(first)]:
            layer.trainable = False
    if freeze_batch_norm:
        for layer in leaf_layers(network):
            if isinstance(layer, layers.BatchNormalization):
                layer.trainable = False


def _check_takes(network, image_shape):
    shape = getattr(network, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or len(image_shape) != 3:
        raise ValueError(
            f"{network.name!r} takes the shape {shape}, got image_shape={tuple(image_shape)}: give a network from "
            "images [B, H, W, C], built with keras.Input."
        )
    channels = shape[-1]
    if channels not in (None, image_shape[-1]) and (channels, image_shape[-1]) != (3, 1):
        raise ValueError(
            f"{network.name!r} takes images of {channels} channels, got image_shape={tuple(image_shape)}: convert "
            "the images, or give another network."
        )
