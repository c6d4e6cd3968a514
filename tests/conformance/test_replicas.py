"""What every training method promises on two replicas: the same as on one."""

import json

import pytest

from tests.conformance import replicas
from tests.conformance.cases import CASES
from tests.programs import forked

ON_SEVERAL_REPLICAS = [
    pytest.param(name, marks=[pytest.mark.slow] * (case.on_several_replicas == "slow"))
    for name, case in CASES.items()
    if case.on_several_replicas
]


@pytest.fixture(scope="module")
def on_two_replicas(request):
    """Case → what `replicas.py` measured, all in one process; `"float16"` and `"overflow"` → the same in 16 bits."""
    users = [item for item in request.session.items if "on_two_replicas" in getattr(item, "fixturenames", ())]
    asked = {item.callspec.params.get("name") for item in users if hasattr(item, "callspec")}
    names = [name for name, case in CASES.items() if case.on_several_replicas and name in asked]
    done = forked.run("tests.conformance.replicas", *names)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ON_SEVERAL_REPLICAS)
def test_two_replicas_equal_one(on_two_replicas, name):
    measured = on_two_replicas[name]
    assert measured["replicas"] == 2
    # Data-free learning per example takes small steps.
    assert measured["moved"] > (0.005 if name == "dafl per example" else 0.01)
    assert measured["weights apart"] < 1e-5
    assert measured["logs apart"] < 1e-5
    # BatchNorm over both replicas, through which the feedback has to be differentiated too. A micro-batch's
    # statistics are over other rows where there is one replica.
    if CASES[name].options.get("micro_batches", 1) == 1:
        assert measured["synchronized apart"] < 1e-5


@pytest.mark.parametrize("name", ON_SEVERAL_REPLICAS)
def test_replicas_agree_on_weights_and_moving_statistics(on_two_replicas, name):
    assert on_two_replicas[name]["replicas apart"] == 0.0


@pytest.mark.parametrize("name", replicas.IN_FLOAT16)
def test_two_replicas_equal_one_in_float16(on_two_replicas, name):
    measured = on_two_replicas["float16"][name]
    print(f"{name}: {measured['apart'] / measured['moved']:.4f} of the way")
    # The batch's halves are summed in another order, in numbers of 11 binary digits.
    assert measured["apart"] < 0.01 * measured["moved"]
    assert measured["moved"] > 0.01
    for role, (first, second) in measured["scales"].items():
        assert [first] == [second] == measured["scales of one"][role]


def test_an_overflow_on_one_replica_skips_the_step_on_both(on_two_replicas):
    measured = on_two_replicas["overflow"]
    # The first replica's half of the batch makes a step where it is alone.
    assert measured["skipped alone"] == [0.0, 1.0]
    assert measured["skipped"] == [1.0, 0.0]
    assert measured["moved"]["teacher"] == [0.0, 0.0]
    assert measured["scales"]["teacher"] == [2.0**19, 2.0**19]
    # The student's step has nothing to do with it.
    first, second = measured["moved"]["student"]
    assert first == second > 0.0


def test_several_steps_per_call_on_two_replicas_are_those_of_single_calls(on_two_replicas):
    measured = on_two_replicas["several steps per call"]
    assert measured["steps"] == 3
    assert measured["weights apart"] == 0.0
    single, several = measured["metrics"]
    assert single == several


def test_a_replica_without_images_changes_no_evaluation_and_no_prediction(on_two_replicas):
    measured = on_two_replicas["a replica without images"]
    assert measured["rows"] == [5, 5, 1, 1]
    assert measured["logs apart"] < 1e-5
    assert measured["logits apart"] < 1e-5
    assert measured["predictions apart"] < 1e-5


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("the student", "student"),
        ("the method", "method"),
        ("the optimizer", "student's optimizer"),
        ("compile", "method"),
        ("all but fit", "method"),
    ],
)
def test_what_was_made_outside_of_the_scope_is_named(on_two_replicas, what, named):
    said = on_two_replicas["made elsewhere"]
    assert said["nothing"] == "trained"
    assert said[what].startswith(
        f"The {named} was not made under the strategy that compiles or trains it: build"
    )


def test_xla_compiles_each_replica_and_not_all_together(on_two_replicas):
    assert "unsupported operations" in on_two_replicas["xla"]


@pytest.mark.parametrize("name", ON_SEVERAL_REPLICAS)
def test_each_image_is_predicted_once_on_several_replicas(on_two_replicas, name):
    assert on_two_replicas[name]["rows predicted"] == 7
    assert on_two_replicas[name]["predictions apart"] < 1e-5
