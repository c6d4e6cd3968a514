"""What every training method promises, whatever it trains."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conformance.cases import CASES
from tests.support import tiny

# A step under XLA is traced as always but for loops, which micro-batches are.
TRACED_FOR_XLA = ("supervised", "mpl saving memory")


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
    for role in run.case.learns:
        pairs = zip(run.start[role], run.after_one_step[role], strict=True)
        assert not any(np.array_equal(*pair) for pair in pairs), role


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


def test_the_step_is_traced_once(graph_run):
    assert graph_run.traces == 1
    assert int(graph_run.method.step) == 4


def test_a_graph_equals_eager_steps(run, graph_run):
    for one, other in zip(all_values(graph_run.method), all_values(run.method), strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-5)
    for name, values in run.history.items():
        assert np.allclose(graph_run.history[name], values, rtol=1e-4, atol=1e-5), name


def test_the_metrics_are_the_declared_ones_and_finite(run, graph_run):
    names = {tracker.name for tracker in run.method.train_trackers}
    for history in (run.history, graph_run.history):
        assert set(history) == names
        assert all(np.isfinite(values).all() and len(values) == 2 for values in history.values())


def test_evaluation_and_prediction(run, graph_run):
    data, (images, _) = tiny.evaluation_batch(), tiny.examples(8)
    assert set(run.evaluated) == {"loss", *run.method.evaluation_models()}
    assert all(np.isfinite(value) for value in run.evaluated.values())
    assert run.predicted.shape == (8, tiny.NUM_CLASSES)
    predicted = graph_run.method.predict(data, verbose=0)
    assert np.allclose(predicted, graph_run.method.inference_model(images, training=False), atol=1e-5)
    assert not np.allclose(predicted, run.predicted)
    evaluated = graph_run.method.evaluate(data, return_dict=True, verbose=0)
    assert evaluated == pytest.approx(run.method.evaluate(data, return_dict=True, verbose=0), rel=1e-4)


def test_xla_equals_eager(run, graph_run):
    """The second epoch, as users compile it or, where that adds nothing, from the trace that there is."""
    if run.case in [CASES[name] for name in TRACED_FOR_XLA]:
        method = run.case.compiled(jit_compile=True)
        assert method.jit_compile
        method.load_weights(run.weights_file)
        method.fit(run.data(), verbose=0)
    else:
        method, (spec, *_) = graph_run.method, run.data()
        step = tf.function(graph_run.step.get_concrete_function(spec), jit_compile=True)
        method.load_weights(run.weights_file)
        for batch in run.data():
            step(batch)
    for one, other in zip(all_values(method), all_values(run.method), strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_resumed_equals_uninterrupted(run):
    method = run.case.compiled(run_eagerly=True)
    method.load_weights(run.weights_file)
    method.fit(run.data(), verbose=0)
    assert_identical(method, run.method)


def test_saved_equals_loaded_and_goes_on_the_same(run):
    method = keras.saving.load_model(run.model_file, safe_mode=True)
    method.run_eagerly = True
    data = tiny.evaluation_batch()
    assert type(method) is type(run.method)
    assert settings_of(method) == settings_of(run.method)
    assert method.evaluate(data, return_dict=True, verbose=0) == run.evaluated
    assert np.array_equal(method.predict(data, verbose=0), run.predicted)
    method.fit(run.data(), verbose=0)
    assert_identical(method, run.method)
