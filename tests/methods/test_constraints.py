"""The tables of hyper-parameters: complete, described, and what they refuse."""

import inspect
from typing import ClassVar

import numpy as np
import pytest

import mpl_tf
from mpl_tf.methods import constraints
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Boolean, Choice, Distribution, Integer, Number, Settings
from tests.support.hyper_parameters import declared

KINDS = [kind for kind in vars(mpl_tf).values() if isinstance(kind, type) and issubclass(kind, Method)]
KINDS.remove(Method)
KINDS += [mpl_tf.FeedbackSettings]
# Not hyper-parameters: what a method is made of, and its name.
PARTS = {"teacher", "student", "calibrator", "generator", "activation_layer", "name"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_that_is_no_part_is_declared_and_described(kind):
    arguments = [name for name in inspect.signature(kind).parameters if name not in PARTS]
    parameters = declared(kind)
    assert list(parameters) == arguments
    for name, parameter in parameters.items():
        assert len(parameter.description) > 10, f"{kind.__name__}.{name} has no description in the docstring"
        assert parameter.description.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_are_allowed(kind):
    for name, parameter in declared(kind).items():
        if not isinstance(parameter.constraint, Settings):
            parameter.constraint.check(name, parameter.default)


class Example:
    """An example."""

    parameter_constraints: ClassVar = {
        "kind": Choice("fast", "slow", optional=True),
        "rate": Number(high=1.0),
    }

    def __init__(self, *, rate=0.5, kind=None):
        self.rate, self.kind = rate, kind
        constraints.check(self)


@pytest.mark.parametrize(
    ("constraint", "allowed", "refused"),
    [
        (Number(), [0, 0.5, 1e9, np.float32(2)], [-1e-9, "1", True, None, np.nan, np.inf]),
        (Number(low=0.1, high=1.0, optional=True), [0.1, 1, None], [0.09, 1.01]),
        (Integer(low=1), [1, np.int64(3)], [0, 1.0, "1", None]),
        (Integer(high=3, optional=True), [0, 3, None], [-1, 4]),
        (Choice("a", "b"), ["a", "b"], ["c", None, 0]),
        (Choice("a", optional=True), ["a", None], ["c"]),
        (Boolean(), [True, False], [0, 1, "yes", None]),
        (
            Distribution(),
            [(0.5, 0.5), [1.0], np.full(3, 1 / 3)],
            [(0.5, 0.4), (1.5, -0.5), "ab", None],
        ),
        (Distribution(optional=True), [(0.5, 0.5), None], [(), 1.0]),
        (Settings(Example), [Example()], ["fast", None]),
    ],
)
def test_what_is_allowed(constraint, allowed, refused):
    for value in allowed:
        constraint.check("knob", value)
    for value in refused:
        with pytest.raises(ValueError, match=r"^knob=.*: .*([Pp]ass|[Cc]hoose) "):
            constraint.check("knob", value)


def test_an_object_is_checked_by_its_table():
    with pytest.raises(ValueError, match=r"^kind='slwo' is unknown: did you mean 'slow'"):
        Example(kind="slwo")
