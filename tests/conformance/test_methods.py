"""What every training method promises, whatever it trains."""

import functools

import keras
import numpy as np
import pytest

from tests.conformance import replicas
from tests.conformance.cases import CASES
from tests.support import tiny

ON_SEVERAL_REPLICAS = [
    pytest.param(name, marks=[pytest.mark.slow] * (case.on_several_replicas == "slow"))
    for name, case in CASES.items()
    if case.on_several_replicas
]


def all_values(method):
    """Everything that a run must carry over: weights, averages, statistics, random states, optimizers."""
    optimizers = [getattr(method, f"{role}_optimizer", None) for role in method.roles]
    optimizer_variables = [v for optimizer in optimizers if optimizer for v in optimizer.variables]
    return tiny.values(method.weights + method.random_states() + optimizer_variables)


def settings_of(method):
    """The arguments of the constructor but for the networks."""
    return {key: value for key, value in method.get_config().items() if key not in method.roles}


def assert_identical(one, other):
    pairs = list(zip(all_values(one), all_values(other), strict=True))
    assert len(pairs) > len(one.trainable_variables)
    assert all(np.array_equal(*pair) for pair in pairs)


def test_only_the_declared_roles_learn_and_all_of_each(run):
    for role in run.method.roles:
        new = tiny.values(getattr(run.method, role).trainable_variables)
        still = [np.array_equal(*pair) for pair in zip(run.start[role], new, strict=True)]
        expected = [role not in run.case.learns] * len(new)
        assert still == expected, role


def test_one_step_reaches_every_weight(run):
    method = run.case.compiled(run_eagerly=True)
    method.fit(run.case.data(batches=1), verbose=0)
    for role in run.case.learns:
        new = tiny.values(getattr(method, role).trainable_variables)
        assert not any(np.array_equal(*pair) for pair in zip(run.start[role], new, strict=True)), role


def test_no_training_pass_is_larger_than_a_micro_batch(run):
    if run.case.make is CASES["mpl unrolled"].make:
        return
    counts, rows = {"micro_batches": 2}, []
    method = run.case.compiled(run_eagerly=True, **counts)
    for role in method.micro_batches:
        network = getattr(method, role)

        def call(images, training=False, call=network.call, **others):
            rows.append(len(images) if training else 0)
            return call(images, training=training, **others)

        network.call = call
    method.fit(run.case.data(batches=1), verbose=0)
    # 4 labeled images and two views of 6 unlabeled ones, or what is made of 6 numbers.
    assert 0 < max(rows) <= 8


def test_the_step_is_traced_once(run):
    assert run.traces == 1
    assert int(run.method.step) == 6


def test_the_metrics_are_the_declared_ones_and_finite(run):
    names = {tracker.name for tracker in run.method.train_trackers}
    assert set(run.history) == names
    assert all(np.isfinite(values).all() and len(values) == 2 for values in run.history.values())


def test_evaluation_and_prediction(run):
    images, _ = tiny.examples(8)
    assert set(run.evaluated) == {"loss", *run.method.evaluation_models()}
    assert all(np.isfinite(value) for value in run.evaluated.values())
    assert run.predicted.shape == (8, tiny.NUM_CLASSES)
    predicted = run.method.predict(images, verbose=0)
    assert np.allclose(predicted, run.method.inference_model(images, training=False), atol=1e-5)
    assert not np.allclose(predicted, run.predicted)


def test_xla_equals_eager(run):
    # Without dropout: from the same random bits TensorFlow and XLA make different masks.
    network = functools.partial(tiny.network, dropout=0.0)
    compiled = run.case.compiled(network, jit_compile=True)
    compiled.fit(run.case.data(), verbose=0)
    eager = run.case.compiled(network, run_eagerly=True)
    eager.fit(run.case.data(), verbose=0)
    assert compiled.jit_compile
    for one, other in zip(all_values(compiled), all_values(eager), strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_resumed_equals_uninterrupted(run):
    method = run.case.compiled()
    method.load_weights(run.weights_file)
    method.fit(run.case.data(), verbose=0)
    assert_identical(method, run.method)


def test_saved_equals_loaded_and_goes_on_the_same(run):
    method = keras.saving.load_model(run.model_file, safe_mode=True)
    images, labels = tiny.examples(8)
    assert type(method) is type(run.method)
    assert settings_of(method) == settings_of(run.method)
    assert method.evaluate(images, labels, return_dict=True, verbose=0) == run.evaluated
    assert np.array_equal(method.predict(images, verbose=0), run.predicted)
    method.fit(run.case.data(), verbose=0)
    assert_identical(method, run.method)


@pytest.mark.parametrize("name", ON_SEVERAL_REPLICAS)
def test_two_replicas_equal_one(on_two_replicas, name):
    measured = on_two_replicas[name]
    assert measured["replicas"] == 2
    assert measured["moved"] > 0.01
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
    assert measured["steps"] == 5
    assert measured["weights apart"] == 0.0
    single, several = measured["metrics"]
    assert single == several


def test_xla_compiles_each_replica_and_not_all_together(on_two_replicas):
    assert "unsupported operations" in on_two_replicas["xla"]


@pytest.mark.parametrize("name", ON_SEVERAL_REPLICAS)
def test_each_image_is_predicted_once_on_several_replicas(on_two_replicas, name):
    assert on_two_replicas[name]["rows predicted"] == 7
    assert on_two_replicas[name]["predictions apart"] < 1e-5
