"""Checks of networks and of what is asked of one, each a sentence that names the value and says what to do."""

import itertools
from collections.abc import Sequence
from numbers import Integral

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.models.class_names import check_class_names, get_class_names


def check_num_classes(num_classes: int) -> None:
    """Checks that there are two classes or more.

    Raises:
        ValueError: for fewer.
    """
    if not isinstance(num_classes, Integral) or num_classes < 2:
        raise ValueError(
            f"num_classes must be a whole number of 2 or more, got {num_classes}; give a yes or no as 2 classes."
        )


def check_rate(setting: str, rate: float) -> None:
    """Checks a probability of dropping something.

    Raises:
        ValueError: when it is not in [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"{setting} must lie in [0, 1), got {rate}; give 0 to turn it off.")


def check_shape(
    name: str,
    image_shape: Sequence[int],
    *,
    accepts_points: bool,
    smallest_side: int | None,
    rgb: bool = False,
) -> None:
    """Checks that a network takes examples of a shape.

    Args:
        name: of the network.
        image_shape: `(height, width, channels)`, or `(features,)` for points.
        accepts_points: whether the network does.
        smallest_side: of an image, in pixels; None where the network takes no images.
        rgb: whether it takes color images, and gray ones as such, only.

    Raises:
        ValueError: when it does not.
    """
    shape = tuple(image_shape)
    if len(shape) not in (1, 3) or not all(isinstance(size, Integral) and size > 0 for size in shape):
        raise ValueError(
            "image_shape must be (height, width, channels), such as (32, 32, 3), or (features,) for points, "
            f"all whole numbers above 0, got {shape}."
        )
    if len(shape) == 1 and not accepts_points:
        raise ValueError(
            f"{name} takes images, got points with image_shape={shape}; give (height, width, channels) or "
            "choose mlp or moons_mlp."
        )
    if len(shape) == 3 and smallest_side is None:
        raise ValueError(
            f"{name} takes points, such as image_shape=(2,), got images with image_shape={shape}; choose mlp "
            "or convnet."
        )
    if len(shape) == 3 and keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "Keras is set to channels_first, and images have their channels last here: call "
            "keras.config.set_image_data_format('channels_last'), or change image_data_format in keras.json."
        )
    if smallest_side is not None and len(shape) == 3 and min(shape[:2]) < smallest_side:
        raise ValueError(
            f"{name} takes images of at least {smallest_side}×{smallest_side} pixels, got image_shape={shape}; "
            "enlarge them or choose a smaller network, such as convnet or mlp."
        )
    if rgb and shape[2] not in (1, 3):
        raise ValueError(
            f"{name} takes images of 3 channels, or gray ones of 1, got image_shape={shape}; convert the images or "
            "choose another network, such as convnet or wrn-28-2."
        )


def check_networks(classifiers: dict, auxiliary: dict | None = None) -> None:
    """Raises for networks that are not built, share weights, disagree in shape or end in a softmax.

    Args:
        classifiers: role → network from images to logits.
        auxiliary: role → network with another input, whose shapes are its method's business.
    """
    everything = {**classifiers, **(auxiliary or {})}
    for role, network in everything.items():
        _check_built(role, network)
    for role, network in classifiers.items():
        _check_one_tensor(role, network)
        _check_logits(role, network)
        _check_no_probabilities(role, network)
    first_role, first = next(iter(classifiers.items()))
    for role, network in list(classifiers.items())[1:]:
        if network.output_shape[-1] != first.output_shape[-1]:
            raise ValueError(
                f"The {first_role} has {first.output_shape[-1]} classes and the {role} "
                f"{network.output_shape[-1]}: both must be built for the same class names."
            )
        names = get_class_names(network)
        if names is not None and get_class_names(first) is not None:
            check_class_names(first, names, whose=f"the {role}")
        if network.input_shape[1:] != first.input_shape[1:]:
            raise ValueError(
                f"The {first_role} takes images of shape {first.input_shape[1:]} and the {role} of "
                f"{network.input_shape[1:]}: both see the same batch, so build them for one shape."
            )
    for (role, network), (other, another) in itertools.combinations(everything.items(), 2):
        if {id(v) for v in network.weights} & {id(v) for v in another.weights}:
            raise ValueError(f"The {role} and the {other} share weights: build two separate networks.")


def _check_built(role, network):
    if not isinstance(network, keras.Model):
        raise ValueError(f"{role}={network!r} is not a keras.Model: pass a network from images to logits.")
    if not network.built:
        raise ValueError(f"The {role} {network.name!r} is not built: call it once, or give it a keras.Input.")
    if not hasattr(network, "output_shape"):
        raise ValueError(
            f"The {role} {network.name!r} is a subclassed model, whose shapes and layers cannot be read: rebuild it "
            "as keras.Model(inputs, outputs)."
        )


def _check_one_tensor(role, network):
    inputs, outputs = network.inputs, getattr(network, "output", None)
    if len(inputs) != 1:
        kind = f"takes {len(inputs)} inputs"
    elif isinstance(outputs, dict):
        kind = f"returns a dict with {', '.join(map(repr, sorted(outputs)))}"
    elif len(network.outputs) != 1:
        kind = f"has {len(network.outputs)} outputs"
    else:
        return
    raise ValueError(
        f"The {role} {network.name!r} {kind}, and a classifier maps one tensor, of images, to one, of "
        "logits: pass keras.Model(images, logits) of its layers."
    )


def _check_logits(role, network):
    shape = network.output_shape
    if len(shape) != 2 or not isinstance(shape[-1], int) or shape[-1] < 2:
        raise ValueError(
            f"The {role} {network.name!r} returns the shape {shape}, and a classifier's logits are [B, K] with at "
            "least two classes: end it in a dense layer of as many units as there are classes."
        )


def _check_no_probabilities(role, network):
    """Raises for a classifier whose outputs on a few images are probabilities, however it makes them."""
    if _ends_in_a_sigmoid(network):
        kind, layer = "a sigmoid", "sigmoid"
    elif not _ends_in_a_linear_layer(network) and _rows_sum_to_one(network):
        kind, layer = "probabilities, between 0 and 1 and with the sum 1 on every image", "softmax"
    else:
        return
    raise ValueError(
        f"The {role} {network.name!r} returns {kind}, but the losses here take logits and apply the softmax "
        f"themselves: remove the {layer} from its end."
    )


def _rows_sum_to_one(network):
    height = 32
    shape = [height if size is None else size for size in network.input_shape[1:]]
    generator = np.random.default_rng(0)
    images = np.stack([np.zeros(shape), np.full(shape, 255.0), *generator.uniform(0.0, 255.0, (2, *shape))])
    try:
        outputs = network(tf.cast(images, network.inputs[0].dtype), training=False)
    except (ValueError, tf.errors.InvalidArgumentError):
        # A network without a fixed size that needs larger images than these says so when it gets its own.
        return False
    outputs = np.asarray(tf.cast(outputs, tf.float32))
    # A softmax in 16 bits is rounded to three digits.
    tolerance = 1e-3 if network.outputs[0].dtype in ("float32", "float64") else 2e-2
    return bool((outputs >= 0.0).all() and np.allclose(outputs.sum(axis=-1), 1.0, atol=tolerance))


def _ends_in_a_linear_layer(network):
    """Whether a network's outputs are sums of weighted features, which need not be tried out to be logits."""
    final = network
    # A class of somebody else's may call its layers in another way than they are listed.
    while isinstance(final, keras.Model) and type(final).__module__.startswith("keras."):
        final = getattr(final, "operations", final.layers)[-1]
    return type(final) is keras.layers.Dense and final.activation is keras.activations.linear


def _ends_in_a_sigmoid(network):
    """Whether the last layer with weights, or anything after it, is a sigmoid, whose rows need not sum to 1."""
    operations = [network]
    while operations:
        final = operations.pop()
        if isinstance(final, keras.Model):
            # Operations, where there are any, are the layers and functions such as keras.ops.sigmoid.
            operations += getattr(final, "operations", final.layers)
            continue
        activation = getattr(final, "activation", final)
        if "sigmoid" in getattr(activation, "__name__", type(activation).__name__).lower():
            return True
        if getattr(final, "weights", None):
            return False
    return False
