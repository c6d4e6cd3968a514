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
and an editor look for them; `parameters` joins the three. Networks and names are not in the table.

How a program makes its options of it (`recipes` does it with absl, which this package does not know):

    for parameter in constraints.parameters(UDA).values():
        parameter.name             # "temperature"
        parameter.default          # 0.4; None where the value is optional and not given
        parameter.description      # "sharpening of the target, above 0.": all that the docstring says
        parameter.summary          # its first sentence, for the line of `--help`
        match parameter.constraint:
            case Number(low=low, high=high): ...       # a float option with these bounds
            case Integer(low=low, high=high): ...
            case Boolean(): ...
            case Choice(choices=choices): ...          # an enum
            case Distribution(): ...                   # from the data: fractions of the labels per class
            case Settings(kind=kind): ...              # a group: constraints.parameters(kind), with a prefix

`parameter.constraint.optional` says whether None is a value too. The constructor refuses wrong values itself, so a
program need not check anything, and `{name: value}` of its options are the constructor's keyword arguments.
"""

import abc
import dataclasses
import inspect
import re
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

    @abc.abstractmethod
    def __str__(self) -> str:
        """The allowed values, for a table of the documentation."""


@dataclasses.dataclass(frozen=True)
class Number(Constraint):
    """A finite number from `low` to `high`, both included; no upper bound where `high` is None."""

    low: float = 0.0
    high: float | None = None
    optional: bool = False

    def _check(self, name, value):
        check_range(name, value, low=self.low, high=self.high)

    def __str__(self) -> str:
        return _interval(self)


@dataclasses.dataclass(frozen=True)
class Integer(Constraint):
    """A whole number from `low` to `high`, both included; no upper bound where `high` is None."""

    low: int = 0
    high: int | None = None
    optional: bool = False

    def _check(self, name, value):
        check_integer(name, value, low=self.low)
        check_range(name, value, low=self.low, high=self.high)

    def __str__(self) -> str:
        return f"integer {_interval(self)}"


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

    def __str__(self) -> str:
        return " | ".join(f'"{choice}"' for choice in self.choices) + (" | None" if self.optional else "")


@dataclasses.dataclass(frozen=True)
class Boolean(Constraint):
    """True or False, and nothing that merely counts as such."""

    def _check(self, name, value):
        # Not by membership: 1 == True.
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} is unknown: Choose one of True, False.")

    def __str__(self) -> str:
        return "True | False"


@dataclasses.dataclass(frozen=True)
class Distribution(Constraint):
    """A fraction for each class. That there are as many as classes is the method's to check."""

    optional: bool = False

    def _check(self, name, value):
        check_distribution(name, value)

    def __str__(self) -> str:
        return "K fractions that sum to 1" + (" or None" if self.optional else "")


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

    def __str__(self) -> str:
        return self.kind.__name__


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One hyper-parameter of a class: what `parameters` returns."""

    name: str
    default: Any
    description: str
    constraint: Constraint

    @property
    def summary(self) -> str:
        """The first sentence of the description, without code's backticks."""
        sentence = re.split(r"(?<=\.)\s", self.description, maxsplit=1)[0].replace("`", "")
        # No capital for a Greek letter, which is another quantity then.
        return sentence[0].upper() + sentence[1:] if sentence[:1].isascii() else sentence


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


def parameters(kind: type[Constrained]) -> dict[str, Parameter]:
    """The hyper-parameters of a class in the order of its constructor's arguments.

    Args:
        kind: a class with `parameter_constraints`, a method or `FeedbackSettings`.

    Returns:
        Name → `Parameter`.
    """
    signature, descriptions = inspect.signature(kind), _descriptions(kind)
    constraints: dict[str, Constraint] = kind.parameter_constraints
    return {
        name: Parameter(name, signature.parameters[name].default, descriptions.get(name, ""), constraint)
        for name, constraint in sorted(
            constraints.items(), key=lambda item: list(signature.parameters).index(item[0])
        )
    }


def _descriptions(kind: type) -> dict[str, str]:
    """Argument → what the `Args` of the docstring say about it, on one line."""
    _, _, section = (inspect.getdoc(kind) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section, maxsplit=1)[0]
    entries = re.split(r"^    (?=\w+: )", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries)}


def _interval(constraint: Number | Integer) -> str:
    upper = "∞)" if constraint.high is None else f"{constraint.high:g}]"
    bounds = f"in [{constraint.low:g}, {upper}"
    return bounds + (" or None" if constraint.optional else "")
