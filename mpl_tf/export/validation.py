"""Validation of what cannot be exported, each a sentence that says what to do."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from mpl_tf import models
from mpl_tf.models.validation import check_networks


def single_network(network: keras.Model) -> keras.Model:
    """The network to export: a training method's inference model, and any other network itself."""
    return getattr(network, "inference_model", network)


def listed_names(class_names: Sequence[str] | Mapping[str, int]) -> list[str]:
    """Class names in the order of the logits, from those or from Keras' dictionary of names and indices.

    Raises:
        ValueError: when the indices are not 0 to K - 1.
    """
    if not isinstance(class_names, Mapping):
        return list(class_names)
    if sorted(class_names.values()) != list(range(len(class_names))):
        raise ValueError(
            f"The class names have the indices {sorted(class_names.values())}, and logits are numbered from 0 to "
            f"{len(class_names) - 1}: pass the names in the order of the logits."
        )
    return sorted(class_names, key=lambda name: class_names[name])


def check_network(network: keras.Model) -> None:
    """Raises for networks that do not map images or points to logits, and any inside the scope of a strategy."""
    if tf.distribute.has_strategy():
        raise ValueError(
            "An export inside strategy.scope() would be read back onto every replica: call it after the scope."
        )
    check_networks({"network": network})
    if len(network.input_shape) < 2:
        raise ValueError(
            f"{network.name!r} takes one number for each example, of shape {network.input_shape}, and an export "
            "takes images or points: give its input an axis for them."
        )


def check_class_names(class_names: list, network: keras.Model) -> None:
    """Raises for names that are not one line of text for each of the network's outputs."""
    num_classes = network.output_shape[-1]
    known = models.get_class_names(network)
    if known is not None and sorted(known) == sorted(class_names):
        # The right names in another order would label everything wrongly, and nobody would see it.
        models.check_class_names(network, class_names, whose="the export")
    if len(class_names) != num_classes:
        raise ValueError(
            f"There are {len(class_names)} class names, but {network.name!r} has {num_classes} outputs: pass "
            "one name for each, in the order of the logits."
        )
    check_names(class_names)


def check_names(class_names: Sequence[str]) -> None:
    """Raises for class names that `labels.txt` cannot hold: other than different lines of UTF-8 text."""
    class_names = list(class_names)
    for index, name in enumerate(class_names):
        if not isinstance(name, str) or name.splitlines() != [name]:
            raise ValueError(
                f"The class name {name!r} is not one line of text, as each line of labels.txt must be: rename it."
            )
        if name != name.encode("utf-8", "ignore").decode():
            raise ValueError(
                f"The class name {name!r} is no text in UTF-8, as folders of old archives may be called: rename it."
            )
        if name in class_names[:index]:
            raise ValueError(f"The class name {name!r} is there more than once: give every class its own.")


def check_warm_up(warm_up: bool | None, *, available: bool) -> None:
    """Raises when asked to promise warm-up requests that cannot be written."""
    if warm_up and not available:
        raise ValueError(
            "warm_up=True needs tensorflow-serving-api: install mpl_tf[serving], or pass None to do without it."
        )
