"""Any optimizer of Keras by name, with its options checked."""

import inspect
from typing import Any

import keras

from mpl_tf.utils.validation import check_choice


def optimizer_names() -> list[str]:
    """Lists the optimizers that `make_optimizer` knows, in alphabetical order.

    Returns:
        Names in lower case.
    """
    return sorted(_optimizers())


def make_optimizer(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float | None = None,
    **options: Any,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer of Keras.

    Args:
        name: in any case, such as "sgd", "adamw" or "lamb".
        learning_rate: a number or a schedule.
        weight_decay: λ of the decoupled decay w ← w − η λ w (Loshchilov and Hutter, arXiv 1711.05101), from which
            methods leave biases, scales and offsets out; None takes the optimizer's own default.
        **options: further arguments of that optimizer.

    Returns:
        The optimizer.

    Raises:
        ValueError: for a name that Keras does not know, or an option that this optimizer does not have.
    """
    known = _optimizers()
    check_choice("optimizer", name.lower(), sorted(known))
    kind = known[name.lower()]
    arguments = [key for key in inspect.signature(kind).parameters if key not in ("learning_rate", "kwargs")]
    for option in options:
        if option not in arguments:
            raise ValueError(
                f"The optimizer {name!r} has no option {option!r}: choose among {', '.join(sorted(arguments))}."
            )
    if weight_decay is not None:
        options["weight_decay"] = weight_decay
    return kind(learning_rate=learning_rate, **options)


def _optimizers():
    """Name in lower case → class."""
    classes = {name: kind for name, kind in vars(keras.optimizers).items() if isinstance(kind, type)}
    return {
        name.lower(): kind
        for name, kind in classes.items()
        if issubclass(kind, keras.optimizers.Optimizer)
        and kind is not keras.optimizers.Optimizer
        # Those that are made of other optimizers have no learning rate.
        and "learning_rate" in inspect.signature(kind).parameters
    }
