"""The hyper-parameters of a method: one declared table, read by checks, docs and command lines.

Every class with hyper-parameters declares, as scikit-learn's estimators do, which values each of them may have:

    parameter_constraints = {
        "temperature": Number(low=1e-3),
        "hard": Boolean(),
        "view": Choice("weak", "strong"),
        "seed": Integer(low=0),
        "feedback": Settings(FeedbackSettings),
    }

The default stands in the signature of the constructor and the description in its docstring's `Args`, where a reader
and an editor look for them. Networks and names are not in the table. `constraint.optional` says whether None is a
value too. The constructor refuses wrong values itself, so that a program which makes options of the table need not
check anything; `recipes` does it with absl, which this package does not know.
"""

import abc
import dataclasses
from typing import Any, ClassVar, Protocol

from mpl_tf.utils.validation import check_choice, check_distribution, check_integer, check_range


class Constraint(abc.ABC):
    """Which values a hyper-parameter may have."""

    optional: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raises a ValueError that names the value, what was expected and what to do."""
        if value is not None or not self.optional:
            self._check(name, value)

    @abc.abstractmethod
    def _check(self, name, value):
        """The same for a value that is there, or has to be."""


@dataclasses.dataclass(frozen=True)
class Number(Constraint):
    """A finite number from `low` to `high`, both included; no upper bound where `high` is None."""

    low: float = 0.0
    high: float | None = None
    optional: bool = False

    def _check(self, name, value):
        check_range(name, value, low=self.low, high=self.high)


@dataclasses.dataclass(frozen=True)
class Integer(Constraint):
    """A whole number from `low` to `high`, both included; no upper bound where `high` is None."""

    low: int = 0
    high: int | None = None
    optional: bool = False

    def _check(self, name, value):
        check_integer(name, value, low=self.low, high=self.high)


@dataclasses.dataclass(frozen=True, init=False)
class Choice(Constraint):
    """One of a few words."""

    choices: tuple[str, ...]
    optional: bool = False

    def __init__(self, *choices: str, optional: bool = False):
        object.__setattr__(self, "choices", choices)
        object.__setattr__(self, "optional", optional)

    def _check(self, name, value):
        check_choice(name, value, self.choices)


@dataclasses.dataclass(frozen=True)
class Boolean(Constraint):
    """True or False, and nothing that merely counts as such."""

    def _check(self, name, value):
        # Not by membership: 1 == True.
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} is unknown: Choose one of True, False.")


@dataclasses.dataclass(frozen=True)
class Distribution(Constraint):
    """A fraction for each class. That there are as many as classes is the method's to check."""

    optional: bool = False

    def _check(self, name, value):
        check_distribution(name, value)


@dataclasses.dataclass(frozen=True)
class Settings(Constraint):
    """An object with hyper-parameters of its own, which has checked them; `kind` declares them."""

    kind: type

    def _check(self, name, value):
        if not isinstance(value, self.kind):
            raise ValueError(
                f"{name}={value!r} is no {self.kind.__name__}: pass mpl_tf.{self.kind.__name__}(…), or the name that "
                "is its first argument."
            )


class Constrained(Protocol):
    """A class that declares its hyper-parameters."""

    parameter_constraints: ClassVar[dict[str, Constraint]]


def check(owner: Constrained) -> None:
    """Checks every hyper-parameter of an object whose class declares `parameter_constraints`.

    Args:
        owner: the object, with each value as an attribute of the same name.

    Raises:
        ValueError: for the first value that is not allowed.
    """
    for name, constraint in owner.parameter_constraints.items():
        constraint.check(name, getattr(owner, name))
