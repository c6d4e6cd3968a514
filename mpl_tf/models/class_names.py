"""The class names that a network carries, and their comparison with those of the data that it meets."""

from collections.abc import Iterable, Sequence

import keras


def set_class_names(network: keras.Model, class_names: Iterable[str]) -> keras.Model:
    """Notes which class each logit of a network stands for.

    `models.save` writes the names into the `.keras` file, `models.load` reads them back, and the copies that this
    package makes carry them on.

    Args:
        network: with K logits.
        class_names: K different names, in the order of the logits.

    Returns:
        The network itself.

    Raises:
        ValueError: for another number of names than logits.
    """
    class_names = tuple(map(str, class_names))
    if len(class_names) != network.output_shape[-1]:
        raise ValueError(
            f"There are {len(class_names)} class names, but {network.name!r} has {network.output_shape[-1]} outputs: "
            "pass one name for each, in the order of the logits."
        )
    network.class_names = class_names
    return network


def get_class_names(network: keras.Model) -> tuple[str, ...] | None:
    """Reads the class names that a network carries.

    Args:
        network: any.

    Returns:
        K names in the order of the logits, or None where the network carries none.
    """
    names = getattr(network, "class_names", None)
    return None if names is None else tuple(names)


def copy_class_names(network: keras.Model, copy: keras.Model) -> None:
    """Hands a network's class names, where it has any, on to another network of the same classes.

    Args:
        network: to read them from.
        copy: to note them on; left as it is when it has another number of outputs.
    """
    names = get_class_names(network)
    if names is not None and copy.output_shape[-1] == len(names):
        set_class_names(copy, names)


def check_class_names(network: keras.Model, class_names: Sequence[str], *, whose: str = "the data") -> None:
    """Checks that a network's logits mean the classes of the data, in the same order.

    Args:
        network: one that carries no names passes, unless the number of classes differs.
        class_names: K names of the data, in the order of its labels.
        whose: classes these are, for the message.

    Raises:
        ValueError: when they differ, with what differs.
    """
    names, expected = get_class_names(network), tuple(map(str, class_names))
    outputs = network.output_shape[-1]
    if outputs != len(expected):
        raise ValueError(
            f"{network.name!r} has {outputs} outputs and {whose} {len(expected)} classes: take a network that was "
            "trained for these classes."
        )
    if names is None or names == expected:
        return
    unknown, missing = sorted(set(names) - set(expected)), sorted(set(expected) - set(names))
    if unknown or missing:
        difference = f"the network knows {_listed(unknown)} and not {_listed(missing)}"
    else:
        index = next(i for i, pair in enumerate(zip(names, expected, strict=True)) if pair[0] != pair[1])
        difference = f"output {index} is {names[index]!r} for the network and {expected[index]!r} for {whose}"
    raise ValueError(
        f"{network.name!r} was trained for other classes than those of {whose}: {difference}. Take a network for "
        "these classes, or give the data the names and the order that the network knows."
    )


def _listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
