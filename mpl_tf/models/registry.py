"""Networks by name."""

import difflib
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras

from mpl_tf.models import backbones, pretrained, saving, small, validation
from mpl_tf.models.alexnet import alexnet
from mpl_tf.models.class_names import set_class_names
from mpl_tf.models.efficientnet import efficientnet
from mpl_tf.models.resnet import resnet
from mpl_tf.models.surgery import Edit, clone_with_edits, seed_from, synchronize_batch_norm
from mpl_tf.models.wide_resnet import wide_resnet


class _Network(NamedTuple):
    builder: Callable[..., keras.Model]
    accepts_points: bool = False
    smallest_side: int | None = None  # of an image, in pixels; None where images are not taken
    rgb: bool = False  # whether its images are color ones, and gray ones are made such
    residual: bool = False  # whether branches can be dropped
    depthwise: bool = False  # whether it has convolutions of each channel by itself
    pretrained: bool = False  # whether there are weights of it, which its builder loads


def _wide_resnet(depth: int, width: int) -> _Network:
    return _Network(partial(wide_resnet, depth, width), smallest_side=8, residual=True)


def _perceptron(width: int, depth: int) -> _Network:
    builder = partial(small.multilayer_perceptron, width=width, depth=depth)
    return _Network(builder, accepts_points=True, smallest_side=1)


def _application(name: str) -> _Network:
    description = backbones.APPLICATIONS[name]
    return _Network(
        partial(backbones.application, name),
        smallest_side=description.smallest_side,
        rgb=True,
        residual=description.has_stochastic_depth,
        depthwise=description.convolves_depthwise,
        pretrained=True,
    )


def _efficientnet(width: float, depth: float) -> _Network:
    builder = partial(efficientnet, width, depth)
    return _Network(builder, smallest_side=32, rgb=True, residual=True, depthwise=True)


_NETWORKS = {
    "alexnet": _Network(alexnet, smallest_side=28),
    "alexnet-half": _Network(partial(alexnet, filters=(32, 96, 192, 128, 128)), smallest_side=28),
    "convnet": _Network(small.convnet, smallest_side=4),
    "efficientnet-l2": _efficientnet(4.3, 5.3),
    "hinton_mlp": _perceptron(1200, 2),
    "lenet-5": _Network(small.lenet5, smallest_side=28),
    "lenet-5-half": _Network(partial(small.lenet5, filters=(3, 8, 60), units=42), smallest_side=28),
    "mlp": _perceptron(128, 2),
    "moons_mlp": _Network(small.moons_mlp, accepts_points=True),
    "resnet-18": _Network(partial(resnet, (2, 2, 2, 2)), smallest_side=8),
    "resnet-34": _Network(partial(resnet, (3, 4, 6, 3)), smallest_side=8),
    "wrn-10-1": _wide_resnet(10, 1),
    "wrn-28-2": _wide_resnet(28, 2),
} | {name: _application(name) for name in backbones.APPLICATIONS}

_FAMILIES = {
    re.compile(r"wrn-(\d+)-(\d+)"): _wide_resnet,
    re.compile(r"mlp-(\d+)x(\d+)"): _perceptron,
}


def names() -> list[str]:
    """Lists the networks that `build` knows by name, in alphabetical order.

    Besides these it builds every `wrn-DEPTH-WIDTH` with a depth of 6n + 4 and every `mlp-WIDTHxDEPTH`, and takes
    `FILE.keras` and `hub:PRESET`.

    Returns:
        Names for `build`.
    """
    return sorted(_NETWORKS)


def pretrained_names() -> list[str]:
    """Lists the networks for which there are weights, in alphabetical order.

    Returns:
        Names for `build` with `weights="imagenet"`.
    """
    return [name for name in names() if _NETWORKS[name].pretrained]


def is_pretrained(name: str, weights: str = "none") -> bool:
    """Says whether `build` starts a network from weights that were learned elsewhere.

    Args:
        name: as for `build`.
        weights: as for `build`.

    Returns:
        True for a `.keras` file, a preset of keras-hub, and with any weights but "none".
    """
    return _is_elsewhere(name) or weights != "none"


def convolves_depthwise(name: str) -> bool:
    """Says whether a network has convolutions of each channel by itself, as MobileNets and EfficientNets do.

    Args:
        name: as for `build`.

    Returns:
        False for a name that `build` does not know, and for a preset of keras-hub, of which nothing is known before
        it is there.
    """
    if _is_file(name):
        # ConvNeXt's are convolutions of as many groups as there are channels.
        return any(
            kind in ("DepthwiseConv2D", "SeparableConv2D")
            or (kind == "Conv2D" and config.get("groups", 1) > 1)
            for kind, config in saving.layer_configs(name)
        )
    return name in _NETWORKS and _NETWORKS[name].depthwise


def build(
    name: str,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    weights: str = "none",
    features: str | None = None,
    trainable: str = "all",
    freeze_batch_norm: bool | None = None,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    synchronized: bool = False,
    seed: int | None = None,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> keras.Model:
    """Builds a network, with fresh weights or with those that it learned elsewhere.

    The model is functional and made of Keras layers alone: it saves, loads and clones without custom objects.
    Two models with the same name and seed start from the same weights, so give teacher and student a seed each.

    Args:
        name: one of `names()`, `wrn-DEPTH-WIDTH`, `mlp-WIDTHxDEPTH`, the path of a `.keras` file, which keeps its
            weights and its preprocessing and gets a new head, or `hub:PRESET` for a preset of keras-hub.
        num_classes: K, the number of logits, 2 or more.
        image_shape: `(height, width, channels)`, or `(features,)` for points.
        weights: "none" for fresh ones; of the networks in `pretrained_names()`, "imagenet" for those that Keras
            downloads, or the path of a file of weights. The head always starts anew.
        features: of a `.keras` file, the layer whose output the new head classifies; None takes what the network's
            last dense layer does.
        trainable: which layers learn: "all", "head", or the first of those that do, by name.
        freeze_batch_norm: whether BatchNormalization keeps its scales, offsets and statistics; None does that where
            they were learned elsewhere, since a few hundred images would destroy them.
        dropout: fraction of the features dropped before the layer `logits`, in [0, 1).
        stochastic_depth: probability of dropping the last residual branch, in [0, 1); it grows linearly with
            depth. Wide ResNets, EfficientNets and ConvNeXt have it.
        synchronized: whether BatchNormalization takes its statistics over all replicas.
        seed: of the initial weights and dropout masks; without one Keras' global generator draws them.
        class_names: K names that the network is to carry, in the order of the logits.
        **options: further arguments of the network's own function, such as `stem_filters` of `wide_resnet`.

    Returns:
        A model from float32 `[B, *image_shape]`, pixels in 0…255, to logits, float32 `[B, K]`.

    Raises:
        FileNotFoundError: when a `.keras` file is missing.
        ValueError: when the name is unknown, the weights cannot be had, or the network does not take these images
            or settings.
    """
    validation.check_num_classes(num_classes)
    validation.check_rate("dropout", dropout)
    validation.check_rate("stochastic_depth", stochastic_depth)
    edits: list[Edit] = [synchronize_batch_norm] if synchronized else []
    if seed is not None:
        edits.append(seed_from(seed))
    found = None if _is_elsewhere(name) else _find(name)
    if stochastic_depth and (found is None or not found.residual):
        raise ValueError(
            f"{name} has no stochastic depth, got stochastic_depth={stochastic_depth}; leave it at 0 or choose "
            "a wide ResNet, an EfficientNet or ConvNeXt."
        )
    if found is None and weights != "none":
        raise ValueError(f"{name} comes with its own weights, got weights={weights!r}: leave them out.")
    if features is not None and not _is_file(name):
        raise ValueError(
            f"features={features!r} names a layer of a .keras file, and {name} is none: leave it out, or give the "
            "path of a saved network as the model."
        )
    shape = tuple(image_shape) if found is None else _checked_shape(name, found, image_shape)
    common = {"dropout": dropout, **options}
    if found is not None and found.residual:
        common["stochastic_depth"] = stochastic_depth
    if found is None:
        network = _elsewhere(name, num_classes, shape, features, edits, common)
    elif found.pretrained:
        network = found.builder(int(num_classes), shape, weights=weights, edits=edits, **common)
    else:
        if weights != "none":
            raise ValueError(
                f"There are no weights={weights!r} for {name}: pass weights='none', or choose one of "
                f"{', '.join(pretrained_names())}."
            )
        network = found.builder(int(num_classes), shape, name=name, **common)
        network = clone_with_edits(network, *edits) if edits else network
    freeze = is_pretrained(name, weights) if freeze_batch_norm is None else freeze_batch_norm
    pretrained.set_trainable(network, trainable, freeze_batch_norm=freeze)
    if class_names is not None:
        set_class_names(network, class_names)
    return network


def _is_file(name: str) -> bool:
    return name.endswith(".keras")


def _is_elsewhere(name: str) -> bool:
    return _is_file(name) or name.startswith(pretrained.HUB_PREFIX)


def _elsewhere(name, num_classes, shape, features, edits, options):
    """A network that a file or keras-hub describes."""
    if name.startswith(pretrained.HUB_PREFIX):
        preset = name.removeprefix(pretrained.HUB_PREFIX)
        return pretrained.from_hub(preset, num_classes, shape, edits=edits, **options)
    return pretrained.from_file(name, num_classes, shape, features=features, edits=edits, **options)


def _checked_shape(name, network, image_shape):
    validation.check_shape(
        name,
        image_shape,
        accepts_points=network.accepts_points,
        smallest_side=network.smallest_side,
        rgb=network.rgb,
    )
    return tuple(map(int, image_shape))


def _find(name: str) -> _Network:
    if name in _NETWORKS:
        return _NETWORKS[name]
    for pattern, family in _FAMILIES.items():
        if match := pattern.fullmatch(name):
            return family(*map(int, match.groups()))
    nearest = difflib.get_close_matches(name.lower(), names()) or names()
    raise ValueError(
        f"No model is called {name!r}; take {', '.join(nearest)}, any wrn-DEPTH-WIDTH with a depth of 6n + 4, "
        "any mlp-WIDTHxDEPTH, or the path of a .keras file."
    )
