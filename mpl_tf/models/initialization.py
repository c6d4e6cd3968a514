"""Warm starts: a network that begins with the weights of another one, which has been trained."""

import keras

from mpl_tf.models import surgery
from mpl_tf.models.class_names import check_class_names, get_class_names


def copy_weights(source: keras.Model, target: keras.Model) -> keras.Model:
    """Starts a network from another's weights, BatchNorm's statistics among them.

    The networks may differ in what has no weights, such as dropout or the size of the images.

    Args:
        source: the network that has been trained, or the method whose `inference_model` is meant; it stays as it
            is.
        target: the network that is to start from it, with weights of the same shapes in the same order. Where both
            carry class names, these are compared.

    Returns:
        The target.

    Raises:
        ValueError: when the weights or the classes differ, with the first difference. The target is then as before.
    """
    source = getattr(source, "inference_model", source)
    names = get_class_names(target)
    if names is not None:
        check_class_names(source, names, whose="the network to start")
    difference = weights_difference(source, target)
    if difference is not None:
        raise ValueError(
            f"{target.name!r} cannot start from the weights of {source.name!r}, since {difference}: take two equal "
            "networks."
        )
    target.set_weights(source.get_weights())
    for layer in surgery.leaf_layers(target):
        surgery.finalize_normalization(layer)
    return target


def weights_difference(source: keras.Model, target: keras.Model) -> str | None:
    """Says where the weights of two networks first differ in kind or shape.

    Args:
        source: a network.
        target: another one.

    Returns:
        Half a sentence about both; None where the weights of one fit into the other.
    """
    sides = [
        [(weight.name, tuple(weight.shape), weight.path) for weight in each.weights]
        for each in (source, target)
    ]
    for known, wanted in zip(*sides, strict=False):
        if known[:2] != wanted[:2]:
            one, other = (f"{path} of shape {shape}" for _, shape, path in (known, wanted))
            return f"{one} in the one would become {other} in the other"
    if len(sides[0]) != len(sides[1]):
        return f"the one has {len(sides[0])} weights and the other {len(sides[1])}"
    return None
