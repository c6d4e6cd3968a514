"""The networks of keras.applications behind the signature of the others: raw pixels in, float32 logits out.

Each has its family's own preprocessing inside, as one `Rescaling` in float32 under every dtype policy. Weights come
through Keras' own verified download and are kept in its folder, or from a file.
"""

import contextlib
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from mpl_tf.models.heads import logits_output
from mpl_tf.models.surgery import Edit, LayerConfig, clone_with_edits, named_by_position

# What keras.applications fixes for the last block of EfficientNet; its rates grow linearly towards it.
_DROP_RATE_IN_KERAS = 0.2


class Pixels(NamedTuple):
    """What a family's preprocessing makes of pixels in 0…255: `pixels * scale + offset`, per channel, in RGB order.

    Args:
        scale: three factors.
        offset: three numbers.
        reverses_channels: whether the weights were trained on blue, green, red. The kernels of the first convolution
            are reversed instead of the image, which is the same and costs nothing.
    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    reverses_channels: bool = False


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# −1…1; with the moments of ImageNet's pixels; its mean subtracted from blue, green, red; the same as the first, but
# for a divisor of 128.
_SYMMETRIC = Pixels((1 / 127.5,) * 3, (-1.0,) * 3)
STANDARDIZED = Pixels(
    tuple(1 / (255 * std) for std in _IMAGENET_STD),
    tuple(-mean / std for mean, std in zip(_IMAGENET_MEAN, _IMAGENET_STD, strict=True)),
)
_CENTERED = Pixels((1.0,) * 3, (-123.68, -116.779, -103.939), reverses_channels=True)
_BY_128 = Pixels((1 / 128,) * 3, (-1.0,) * 3)


class Application(NamedTuple):
    """One network of keras.applications.

    Args:
        keras_name: in `keras.applications`.
        pixels: its preprocessing.
        smallest_side: of an image, in pixels.
        has_stochastic_depth: whether residual branches can be dropped.
        convolves_depthwise: whether it has convolutions of each channel by itself.
        options: further arguments of Keras' function.
    """

    keras_name: str
    pixels: Pixels
    smallest_side: int = 32
    has_stochastic_depth: bool = False
    convolves_depthwise: bool = False
    options: Mapping[str, object] = MappingProxyType({})


def _table() -> dict[str, Application]:
    unprocessed = {"include_preprocessing": False}
    depthwise: Any = {"convolves_depthwise": True}
    table = {}
    for depth in (50, 101, 152):
        table[f"resnet-{depth}"] = Application(f"ResNet{depth}", _CENTERED)
        table[f"resnetv2-{depth}"] = Application(f"ResNet{depth}V2", _SYMMETRIC)
    for depth in (121, 169, 201):
        table[f"densenet-{depth}"] = Application(f"DenseNet{depth}", STANDARDIZED)
    for depth in (16, 19):
        table[f"vgg-{depth}"] = Application(f"VGG{depth}", _CENTERED)
    table["mobilenet"] = Application("MobileNet", _SYMMETRIC, **depthwise)
    table["mobilenetv2"] = Application("MobileNetV2", _SYMMETRIC, **depthwise)
    for width in ("Small", "Large"):
        name = f"mobilenetv3-{width.lower()}"
        table[name] = Application(f"MobileNetV3{width}", _SYMMETRIC, options=unprocessed, **depthwise)
    for number in range(8):
        table[f"efficientnet-b{number}"] = Application(f"EfficientNetB{number}", STANDARDIZED, 32, True, True)
    for size in ("B0", "B1", "B2", "B3", "S", "M", "L"):
        pixels = STANDARDIZED if size.startswith("B") else _BY_128
        name = f"efficientnetv2-{size.lower()}"
        table[name] = Application(f"EfficientNetV2{size}", pixels, 32, True, True, unprocessed)
    for size in ("Tiny", "Small", "Base", "Large", "XLarge"):
        name = f"convnext-{size.lower()}"
        options = unprocessed | {"pooling": "avg"}
        table[name] = Application(f"ConvNeXt{size}", STANDARDIZED, 32, True, True, options)
    table["xception"] = Application("Xception", _SYMMETRIC, 71, **depthwise)
    table["inceptionv3"] = Application("InceptionV3", _SYMMETRIC, 75)
    table["inception-resnetv2"] = Application("InceptionResNetV2", _SYMMETRIC, 75)
    for size in ("Mobile", "Large"):
        table[f"nasnet-{size.lower()}"] = Application(f"NASNet{size}", _SYMMETRIC, **depthwise)
    return table


APPLICATIONS = _table()

# Files that Keras stores under another name than that of their address.
_STORED_AS = {
    "NASNet-mobile-no-top.h5": "nasnet_mobile_no_top.h5",
    "NASNet-large-no-top.h5": "nasnet_large_no_top.h5",
}


def application(
    name: str,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    weights: str = "none",
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    edits: Sequence[Edit] = (),
) -> keras.Model:
    """Builds a network of keras.applications with a new head.

    Args:
        name: key of `APPLICATIONS`.
        num_classes: K, the number of logits.
        image_shape: `(height, width, channels)`; one channel is repeated three times.
        weights: "imagenet", "none", or a file of weights as Keras saves the network without its top.
        dropout: fraction of the features dropped before the last layer.
        stochastic_depth: probability of dropping a residual branch, which grows linearly with depth. In EfficientNets
            it would reach this value one block after the last, as in Keras, and in ConvNeXt at the last.
        edits: further edits of the layers, such as seeds.

    Returns:
        A functional model from pixels, float32 `[B, H, W, C]` in 0…255, to logits, float32 `[B, K]`, with a layer
        `features` `[B, F]` before the head.

    Raises:
        ValueError: for weights that cannot be had or do not fit.
    """
    description = APPLICATIONS[name]
    backbone = _without_top(name, description, tuple(image_shape[:2]), weights)
    own_preprocessing, pixels = _own_preprocessing(backbone, description.pixels, pretrained=weights != "none")
    if len(backbone.output.shape) == 2:
        features, last = backbone.output, backbone.layers[-1]
    else:
        features, last = layers.GlobalAveragePooling2D(name="features")(backbone.output), None
    headed = keras.Model(backbone.input, logits_output(features, num_classes, dropout=dropout), name=name)

    def name_features(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        return config | {"name": "features"} if layer is last else config

    inputs = keras.Input(tuple(image_shape), dtype="float32", name="image")
    network = clone_with_edits(
        headed,
        _stochastic_depth(headed, stochastic_depth),
        named_by_position(except_for=("dropout",)),
        name_features,
        *edits,
        inputs=inputs,
        front=preprocessed(three_channels(inputs), pixels),
        without=own_preprocessing,
        keep_weights=(lambda layer: layer.name != "logits") if weights != "none" else None,
    )
    if pixels.reverses_channels and weights != "none":
        _reverse_first_kernel(network)
    return network


def three_channels(images: keras.KerasTensor) -> keras.KerasTensor:
    """Repeats the one channel of gray images for networks of three; others pass unchanged."""
    if images.shape[-1] != 1:
        return images
    return layers.Concatenate(dtype="float32", name="gray_to_rgb")([images] * 3)


def preprocessed(images: keras.KerasTensor, pixels: Pixels) -> keras.KerasTensor:
    """Applies a family's preprocessing to pixels in 0…255, in float32."""
    scale, offset = list(pixels.scale), list(pixels.offset)
    return layers.Rescaling(scale, offset=offset, dtype="float32", name="rescale")(images)


def _without_top(name, description, size, weights):
    """Keras' own model for images of a size, without its head, with the weights asked for."""
    build = getattr(keras.applications, description.keras_name)
    options = {"include_top": False, **description.options}
    with warnings.catch_warnings(), _weights_explained(name, description, weights):
        # That its weights come from images of another size.
        warnings.filterwarnings("ignore", message=".*input_shape.*is undefined or non-square")
        return build(weights=None if weights == "none" else weights, input_shape=(*size, 3), **options)


@contextlib.contextmanager
def _weights_explained(name: str, description: Application, weights: str) -> Iterator[None]:
    """Turns Keras' errors about weights into sentences that say what to do."""
    if weights not in ("none", "imagenet") and not pathlib.Path(weights).is_file():
        raise ValueError(
            f"weights={weights!r} is neither imagenet nor none, and no file of that name exists: give one of the "
            "two, or the path of a weights file."
        )
    try:
        yield
    except Exception as error:
        if weights == "none":
            raise
        if weights != "imagenet":
            raise ValueError(
                f"The weights in {weights} do not fit {name} ({_first_line(error)}): give a file that "
                f"keras.applications.{description.keras_name}(include_top=False) saved."
            ) from error
        address = re.search(r"https?://\S+", str(error))
        if address is None:
            raise
        file = address.group().rstrip(":").rpartition("/")[2]
        raise ValueError(
            f"The ImageNet weights of {name} could not be downloaded ({_first_line(error)}): put the file "
            f"{_STORED_AS.get(file, file)} from {address.group().rstrip(':')} into {_weights_folder()}, or pass "
            "weights='none'."
        ) from error


def _weights_folder() -> str:
    return os.path.join(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "models")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".:")


def _own_preprocessing(backbone, pixels, *, pretrained):
    """The preprocessing layers that Keras put in front, which are left out, and what stands in for them.

    Only EfficientNet has some that cannot be left away from the beginning. Its constants come with its weights.
    """
    first = next(i for i, layer in enumerate(backbone.layers) if isinstance(layer, layers.Conv2D))
    own = [
        layer
        for layer in backbone.layers[:first]
        if isinstance(layer, (layers.Rescaling, layers.Normalization))
    ]
    if not own or not pretrained:
        return own, pixels
    scale, offset = np.ones(3), np.zeros(3)
    for layer in own:
        if isinstance(layer, layers.Rescaling):
            factor, shift = np.asarray(layer.scale, float), np.asarray(layer.offset, float)
        else:
            mean, variance = (np.ravel(weight).astype(float) for weight in layer.get_weights()[:2])
            factor = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
            shift = -mean * factor
        scale, offset = scale * factor, offset * factor + shift
    return own, Pixels(tuple(scale.tolist()), tuple(offset.tolist()))


def _stochastic_depth(network, rate: float) -> Edit:
    """Makes an edit that sets the probabilities of dropping a residual branch."""
    identities = [layer for layer in network.layers if layer.name.endswith("_identity")]

    def edit(layer: keras.Layer, config: LayerConfig) -> LayerConfig | keras.Layer:
        # Dropout over whole branches has a noise shape; dropout of features has none.
        if isinstance(layer, layers.Dropout) and layer.noise_shape is not None:
            return config | {"rate": layer.rate * rate / _DROP_RATE_IN_KERAS}
        # ConvNeXt's functions in Keras fix a rate of 0 and leave an identity where a branch would be dropped.
        if rate and layer in identities:
            own_rate = rate * identities.index(layer) / max(1, len(identities) - 1)
            name = layer.name.replace("_identity", "_stochastic_depth")
            return layers.Dropout(own_rate, noise_shape=(None, 1, 1, 1), name=name)
        return config

    return edit


def _reverse_first_kernel(network):
    first = next(layer for layer in network.layers if isinstance(layer, layers.Conv2D))
    kernel, *bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], *bias])
