"""Every argument of every method, and of its `compile`, refuses what makes no sense, by its name."""

import functools
import inspect
import math
import re
import typing
from collections.abc import Sequence

import pytest

import mpl_tf
from mpl_tf.methods.base import Method
from tests.support import tiny

METHODS = [kind for kind in vars(mpl_tf).values() if isinstance(kind, type) and issubclass(kind, Method)]
METHODS.remove(Method)
NETWORKS = {
    "teacher": lambda: tiny.plain_network("teacher"),
    "student": lambda: tiny.plain_network("student", seed=1),
    "calibrator": tiny.calibrator,
    "generator": tiny.generator,
}
# Made once for all: a method that is refused its settings leaves its networks alone.
network = functools.cache(lambda role: NETWORKS[role]())
NONSENSE = {
    float: (-1.0, math.nan, "1"),
    int: (-1, 0.5, "1"),
    bool: ("no",),
    str: ("sideways",),
    Sequence[float]: ((0.5, 0.2, 0.1), (1.2, -0.1, -0.1), 3),
}


def wrong_values(kind):
    """Names of a constructor's arguments other than networks, and values that they cannot have."""
    for name, parameter in inspect.signature(kind).parameters.items():
        if name != "name" and name not in NETWORKS:
            annotation = (typing.get_args(parameter.annotation) or (parameter.annotation,))[0]
            for value in NONSENSE[annotation]:
                yield pytest.param(kind, name, value, id=f"{kind.__name__}-{name}-{value}")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [case for kind in (*METHODS, mpl_tf.FeedbackSettings) for case in wrong_values(kind)],
)
def test_a_wrong_value_is_named_with_what_was_expected(kind, name, value):
    parameters = inspect.signature(kind).parameters
    # Without copies of the networks that nothing would be averaged in.
    options = {option: None for option in ("ema_decay", "teacher_ema_decay") if option in parameters}
    options |= {role: network(role) for role in parameters if role in NETWORKS} | {name: value}
    named = re.escape(f"{'feedback' if name == 'estimator' else name}={value!r} ")
    with pytest.raises(ValueError, match=rf"^{named}.*: .*(pass|[Cc]hoose) "):
        kind(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_optimizer": "sdg"}, "sdg"),
        ({"jit_compile": "yes"}, "jit_compile='yes' is unknown: Choose one of True, False, 'auto'"),
        ({"rematerialize": "no"}, "rematerialize='no' is unknown: Choose one of True, False"),
        ({"steps_per_execution": 0}, "steps_per_execution=0 is out of range: pass a value of at least 1"),
        ({"steps_per_execution": 1.5}, "steps_per_execution=1.5 is not a whole number"),
        ({"micro_batches": 0}, "micro_batches of the teacher=0 is out of range: pass a value of at least 1"),
        ({"micro_batches": 2.0}, "micro_batches of the teacher=2.0 is not a whole number: pass one of at"),
        ({"micro_batches": {"student": "2"}}, "micro_batches of the student='2' is not a whole number"),
        ({"micro_batches": {"studnet": 2}}, "role of micro_batches='studnet' is unknown: did you mean 'student'"),
    ],
)  # fmt: skip
def test_compiling_with_a_wrong_value(options, message):
    method = mpl_tf.MetaPseudoLabels(teacher=network("teacher"), student=network("student"))
    with pytest.raises(ValueError, match=re.escape(message)):
        method.compile(**{"teacher_optimizer": "sgd", "student_optimizer": "sgd"} | options)
