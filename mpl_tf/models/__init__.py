"""Networks by name: pixels 0…255 or points in, float32 logits out, with layers `features` and `logits`."""

import difflib
import re
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import keras

from mpl_tf.models import backbones, small
from mpl_tf.models.calibrator import calibrator
from mpl_tf.models.finetuned import to_finetune
from mpl_tf.models.generator import generator, pixel_noise
from mpl_tf.models.saving import load
from mpl_tf.models.surgery import Edit, clone_with_edits, seed_from, synchronize_batch_norm
from mpl_tf.models.wide_resnet import wide_resnet

__all__ = ["build", "calibrator", "generator", "load", "names", "pixel_noise", "to_finetune"]


class _Network(NamedTuple):
    builder: Callable[..., keras.Model]
    accepts_points: bool = False
    smallest_side: int | None = None  # of an image, in pixels; None where images are not taken
    residual: bool = False


def _wide_resnet(depth: int, width: int) -> _Network:
    return _Network(partial(wide_resnet, depth, width), smallest_side=8, residual=True)


def _efficientnet_v2(size: str) -> _Network:
    return _Network(partial(backbones.efficientnet_v2, size), smallest_side=32, residual=True)


def _perceptron(width: int, depth: int) -> _Network:
    builder = partial(small.multilayer_perceptron, width=width, depth=depth)
    return _Network(builder, accepts_points=True, smallest_side=1)


_NETWORKS = {
    "convnet": _Network(small.convnet, smallest_side=4),
    "hinton_mlp": _perceptron(1200, 2),
    "lenet-5": _Network(small.lenet5, smallest_side=28),
    "lenet-5-half": _Network(partial(small.lenet5, filters=(3, 8, 60), units=42), smallest_side=28),
    "mlp": _perceptron(128, 2),
    "moons_mlp": _Network(small.moons_mlp, accepts_points=True),
    "resnet-50": _Network(backbones.resnet50, smallest_side=32),
    "wrn-10-1": _wide_resnet(10, 1),
    "wrn-28-2": _wide_resnet(28, 2),
} | {f"efficientnetv2-{size}": _efficientnet_v2(size) for size in backbones.EFFICIENTNET_V2_SIZES}

_FAMILIES = {
    re.compile(r"wrn-(\d+)-(\d+)"): _wide_resnet,
    re.compile(r"mlp-(\d+)x(\d+)"): _perceptron,
}


def names() -> list[str]:
    """Lists the networks that `build` knows by name, in alphabetical order.

    Besides these it builds every `wrn-DEPTH-WIDTH` with a depth of 6n + 4 and every `mlp-WIDTHxDEPTH`.

    Returns:
        Names for `build`.
    """
    return sorted(_NETWORKS)


def build(
    name: str,
    num_classes: int,
    image_shape: Sequence[int],
    *,
    dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    synchronized: bool = False,
    seed: int | None = None,
    **options: Any,
) -> keras.Model:
    """Builds a network with fresh weights.

    The model is functional and made of Keras layers alone: it saves, loads and clones without custom objects.
    Two models with the same name and seed start from the same weights, so give teacher and student a seed each.

    Args:
        name: One of `names()`, `wrn-DEPTH-WIDTH` or `mlp-WIDTHxDEPTH`.
        num_classes: K, the number of logits, 2 or more.
        image_shape: `(height, width, channels)`, or `(features,)` for points.
        dropout: Fraction of the features dropped before the layer `logits`, in [0, 1).
        stochastic_depth: Probability of dropping the last residual branch, in [0, 1); it grows linearly with
            depth. Only wide ResNets and EfficientNetV2 have it.
        synchronized: Whether BatchNormalization takes its statistics over all replicas.
        seed: Seed of the initial weights and dropout masks; without one Keras' global generator draws them.
        **options: Further arguments of the network's own function, such as `stem_filters` of `wide_resnet`.

    Returns:
        A model from float32 `[B, *image_shape]`, pixels in 0…255, to logits, float32 `[B, K]`.

    Raises:
        ValueError: If the name is unknown, or the network does not take these images or settings.
    """
    network = _find(name)
    _check_shape(name, network, image_shape)
    _check_settings(name, network, num_classes, dropout, stochastic_depth)
    if network.residual:
        options["stochastic_depth"] = stochastic_depth
    shape = tuple(map(int, image_shape))
    model = network.builder(int(num_classes), shape, dropout=dropout, name=name, **options)
    edits: list[Edit] = [synchronize_batch_norm] if synchronized else []
    if seed is not None:
        edits.append(seed_from(seed))
    return clone_with_edits(model, *edits) if edits else model


def _find(name: str) -> _Network:
    if name in _NETWORKS:
        return _NETWORKS[name]
    for pattern, family in _FAMILIES.items():
        if match := pattern.fullmatch(name):
            return family(*map(int, match.groups()))
    nearest = difflib.get_close_matches(name.lower(), names()) or names()
    raise ValueError(
        f"No model is called {name!r}; take {', '.join(nearest)}, any wrn-DEPTH-WIDTH with a depth of 6n + 4, or "
        f"any mlp-WIDTHxDEPTH."
    )


def _check_shape(name: str, network: _Network, image_shape: Sequence[int]) -> None:
    shape = tuple(image_shape)
    if len(shape) not in (1, 3) or not all(isinstance(size, Integral) and size > 0 for size in shape):
        raise ValueError(
            f"image_shape must be (height, width, channels), such as (32, 32, 3), or (features,) for points, "
            f"all whole numbers above 0, got {shape}."
        )
    if len(shape) == 1 and not network.accepts_points:
        raise ValueError(
            f"{name} takes images, got points with image_shape={shape}; give (height, width, channels) or "
            f"choose mlp or moons_mlp."
        )
    if len(shape) == 3 and network.smallest_side is None:
        raise ValueError(
            f"{name} takes points, such as image_shape=(2,), got images with image_shape={shape}; choose mlp "
            f"or convnet."
        )
    if len(shape) == 3 and min(shape[:2]) < network.smallest_side:
        raise ValueError(
            f"{name} takes images of at least {network.smallest_side}×{network.smallest_side} pixels, got "
            f"image_shape={shape}; enlarge them or choose a smaller network, such as convnet or mlp."
        )


def _check_settings(
    name: str, network: _Network, num_classes: int, dropout: float, stochastic_depth: float
) -> None:
    if not isinstance(num_classes, Integral) or num_classes < 2:
        raise ValueError(
            f"num_classes must be a whole number of 2 or more, got {num_classes}; give a yes or no as 2 classes."
        )
    for setting, rate in (("dropout", dropout), ("stochastic_depth", stochastic_depth)):
        if not 0 <= rate < 1:
            raise ValueError(f"{setting} must lie in [0, 1), got {rate}; give 0 to turn it off.")
    if stochastic_depth and not network.residual:
        raise ValueError(
            f"{name} has no stochastic depth, got stochastic_depth={stochastic_depth}; leave it at 0 or choose "
            f"a wide ResNet or EfficientNetV2."
        )
