"""Validation of single arguments: each error is a sentence that names the value, what was expected and what to do."""

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any


def check_range(
    name: str, value: Any, *, low: float, high: float | None = None, optional: bool = False
) -> None:
    """Raises for a number outside low…high (no upper bound where `high` is None).

    Args:
        name: of the argument, for the message.
        value: what the user gave.
        low: smallest allowed value.
        high: largest allowed value.
        optional: whether None is allowed too.

    Raises:
        ValueError: when it is not a number or out of range.
    """
    if value is None and optional:
        return
    bounds = _bounds(low, high)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name}={value!r} is not a number: pass one {bounds}.")
    number = float(value)
    if not (math.isfinite(number) and number >= low and (high is None or number <= high)):
        raise ValueError(f"{name}={value} is out of range: pass a value {bounds}.")


def check_integer(
    name: str, value: Any, *, low: int, high: int | None = None, optional: bool = False
) -> None:
    """Raises for what is not a whole number in low…high (no upper bound where `high` is None).

    Args:
        name: of the argument, for the message.
        value: what the user gave.
        low: smallest allowed value.
        high: largest allowed value.
        optional: whether None is allowed too.

    Raises:
        ValueError: when it is not a whole number or out of range.
    """
    if value is None and optional:
        return
    if not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value!r} is not a whole number: pass one {_bounds(low, high)}.")
    check_range(name, value, low=low, high=high)


def _bounds(low, high):
    """What the message says of the range."""
    return f"of at least {low:g}" if high is None else f"between {low:g} and {high:g}"


def check_choice(name: str, value: Any, choices: Iterable) -> None:
    """Raises for a value that is not among the choices, naming the nearest.

    Args:
        name: of the argument, for the message.
        value: what the user gave.
        choices: what is allowed.

    Raises:
        ValueError: when it is none of them.
    """
    choices = list(choices)
    if value in choices:
        return
    words = [choice for choice in choices if isinstance(choice, str)]
    nearest = difflib.get_close_matches(str(value), words, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"{name}={value!r} is unknown: {hint}Choose one of {', '.join(map(repr, choices))}.")


def check_distribution(name: str, values: Iterable, *, size: int | None = None) -> None:
    """Raises for what is not a probability for each of some classes.

    Args:
        name: of the argument, for the message.
        values: what the user gave.
        size: number of classes; None for any.

    Raises:
        ValueError: for another number of values, one below 0, or a sum that is not 1.
    """
    try:
        values = tuple(map(float, values))
    except (TypeError, ValueError):
        raise ValueError(f"{name}={values!r} is no distribution: pass a fraction for each class.") from None
    if size is not None and len(values) != size:
        raise ValueError(f"{name} has {len(values)} values: pass one for each of the {size} classes.")
    total = math.fsum(values)
    if not (math.isclose(total, 1.0, rel_tol=1e-3) and min(values) >= 0.0):
        raise ValueError(
            f"{name}={values} is no distribution over the classes: pass fractions of at least 0 whose sum, "
            f"{total:g} here, is 1."
        )


def check_labeled_fraction(unlabeled_ratio: int, *, smallest: float) -> None:
    """Raises for batches of which too small a fraction is labeled.

    Args:
        unlabeled_ratio: μ, unlabeled images per labeled one.
        smallest: the smallest fraction 1 / (1 + μ) allowed, in 0…1; 0 allows any. Arazo et al. 2020 keep it at 0.16.

    Raises:
        ValueError: when the fraction is below it, with the ratios that are not.
    """
    fraction = 1 / (1 + unlabeled_ratio)
    if fraction >= smallest:
        return
    largest = math.floor(1 / smallest - 1)
    advice = f"pass unlabeled_ratio={largest} at most" if largest else "lower it to 0.5 or less"
    raise ValueError(
        f"unlabeled_ratio={unlabeled_ratio} makes {fraction:.1%} of a batch labeled, less than "
        f"min_labeled_fraction={smallest:g}: {advice}."
    )
