"""What an imported class says of its hyper-parameters: its signature, its docstring and its table, joined."""

import dataclasses
import inspect
import re
from typing import Any

from mpl_tf.methods.constraints import Constraint


@dataclasses.dataclass(frozen=True)
class HyperParameter:
    """One argument of a constructor that stands in the class's table."""

    default: Any
    description: str
    constraint: Constraint


def declared(kind: type) -> dict[str, HyperParameter]:
    """Name → hyper-parameter, in the order of the constructor's arguments."""
    signature, descriptions = inspect.signature(kind).parameters, _descriptions(kind)
    return {
        name: HyperParameter(signature[name].default, descriptions.get(name, ""), constraint)
        for name, constraint in sorted(
            kind.parameter_constraints.items(), key=lambda item: list(signature).index(item[0])
        )
    }


def _descriptions(kind: type) -> dict[str, str]:
    """Argument → what the `Args` of the docstring say about it, on one line."""
    _, _, section = (inspect.getdoc(kind) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section, maxsplit=1)[0]
    entries = re.split(r"^    (?=\w+: )", section, flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries)}
