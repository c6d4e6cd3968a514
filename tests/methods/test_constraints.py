"""The tables of hyper-parameters: complete, described, and what a command line can be made of."""

import inspect
from typing import ClassVar

import numpy as np
import pytest

import mpl_tf
from mpl_tf.methods import constraints
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Boolean, Choice, Distribution, Integer, Number, Settings

KINDS = [kind for kind in vars(mpl_tf).values() if isinstance(kind, type) and issubclass(kind, Method)]
KINDS += [mpl_tf.FeedbackSettings]
# Not hyper-parameters: what a method is made of, and its name.
PARTS = {"teacher", "student", "calibrator", "generator", "activation_layer", "name"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_that_is_no_part_is_declared_and_described(kind):
    arguments = [name for name in inspect.signature(kind).parameters if name not in PARTS]
    parameters = constraints.parameters(kind)
    assert list(parameters) == arguments
    for name, parameter in parameters.items():
        assert len(parameter.summary) > 10, f"{kind.__name__}.{name} has no description in the docstring"
        assert parameter.summary.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_allowed(kind):
    for name, parameter in constraints.parameters(kind).items():
        if not isinstance(parameter.constraint, Settings):
            parameter.constraint.check(name, parameter.default)


class Example:
    """An example.

    Args:
        rate: `λ`, how fast it goes, in
            `[0, 1]`; 0 is not at all. And more.
        kind: α is Greek.

    Returns:
        rate: not this one.
    """

    parameter_constraints: ClassVar = {
        "kind": Choice("fast", "slow", optional=True),
        "rate": Number(high=1.0),
    }

    def __init__(self, *, rate=0.5, kind=None):
        self.rate, self.kind = rate, kind
        constraints.check(self)


def test_parameters_join_signature_docstring_and_table():
    rate, kind = constraints.parameters(Example).values()
    assert (rate.name, rate.default, rate.constraint) == ("rate", 0.5, Number(high=1.0))
    assert rate.description == "`λ`, how fast it goes, in `[0, 1]`; 0 is not at all. And more."
    assert rate.summary == "λ, how fast it goes, in [0, 1]; 0 is not at all."
    assert (kind.name, kind.summary) == ("kind", "α is Greek.")


@pytest.mark.parametrize(
    ("constraint", "allowed", "refused", "text"),
    [
        (Number(), [0, 0.5, 1e9, np.float32(2)], [-1e-9, "1", True, None, np.nan, np.inf], "in [0, ∞)"),
        (Number(low=0.1, high=1.0, optional=True), [0.1, 1, None], [0.09, 1.01], "in [0.1, 1] or None"),
        (Integer(low=1), [1, np.int64(3)], [0, 1.0, "1", None], "integer in [1, ∞)"),
        (Integer(high=3, optional=True), [0, 3, None], [-1, 4], "integer in [0, 3] or None"),
        (Choice("a", "b"), ["a", "b"], ["c", None, 0], '"a" | "b"'),
        (Choice("a", optional=True), ["a", None], ["c"], '"a" | None'),
        (Boolean(), [True, False], [0, 1, "yes", None], "True | False"),
        (
            Distribution(),
            [(0.5, 0.5), [1.0], np.full(3, 1 / 3)],
            [(0.5, 0.4), (1.5, -0.5), "ab", None],
            "K fractions that sum to 1",
        ),
        (Distribution(optional=True), [(0.5, 0.5), None], [(), 1.0], "K fractions that sum to 1 or None"),
        (Settings(Example), [Example()], ["fast", None], "Example"),
    ],
)
def test_what_is_allowed(constraint, allowed, refused, text):
    for value in allowed:
        constraint.check("knob", value)
    for value in refused:
        with pytest.raises(ValueError, match=r"^knob=.*: .*([Pp]ass|[Cc]hoose) "):
            constraint.check("knob", value)
    assert str(constraint) == text


def test_an_object_is_checked_by_its_table():
    with pytest.raises(ValueError, match=r"^kind='slwo' is unknown: did you mean 'slow'"):
        Example(kind="slwo")
