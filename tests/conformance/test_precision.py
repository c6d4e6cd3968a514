"""Two steps of every method in 16 bits beside the same in float32, and what loss scales promise."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.feedback.estimators import TransposedGradient
from mpl_tf.methods.feedback.student import Snapshot
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from tests.conformance.cases import CASES
from tests.support import tiny

# Largest difference of a weight after two steps, as a fraction of the longest way that any weight has gone. The two
# formats round to 8 and to 11 binary digits; the sampled labels and the masks may differ in single images.
BOUNDS = {"mixed_bfloat16": 0.25, "mixed_float16": 0.1}


@pytest.fixture
def policy():
    """Sets Keras' dtype policy until the test ends."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def trained(case, steps=2):
    """The method after some further steps, its weights before them, and the logs."""
    method = case.compiled(tiny.plain_network, run_eagerly=True)
    method.step.assign(2)  # Every ramp is under way.
    start = tiny.values(method.trainable_variables)
    history = method.fit(case.data(batches=steps), verbose=0).history
    return method, start, history


def largest(left, right):
    return max(float(np.abs(one - other).max()) for one, other in zip(left, right, strict=True))


@functools.cache
def in_float32(name):
    method, start, _ = trained(CASES[name])
    return tiny.values(method.trainable_variables), start


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("name", CASES)
def test_sixteen_bits_stay_near_float32(policy, name, precision):
    exact, start = in_float32(name)
    policy(precision)
    method, own_start, history = trained(CASES[name])
    assert all(np.array_equal(*pair) for pair in zip(start, own_start, strict=True))
    assert {v.dtype for v in method.weights if v.dtype.startswith("float")} == {"float32"}
    assert method.student.layers[-1].compute_dtype == precision.removeprefix("mixed_")
    assert all(np.isfinite(values).all() for values in history.values())
    moved, apart = largest(exact, start), largest(exact, tiny.values(method.trainable_variables))
    print(f"{name}, {precision}: {apart / moved:.4f} of the way")
    assert 0.0 < apart < BOUNDS[precision] * moved


# --- loss scales -------------------------------------------------------------------------------------------


def in_float16(policy, *optimizers, **options):
    """Meta Pseudo Labels, with float16 networks without BatchNorm and dropout."""
    policy("mixed_float16")
    networks = {"teacher": tiny.plain_network("teacher"), "student": tiny.plain_network("student", seed=1)}
    method = MetaPseudoLabels(**networks, feedback="dot_product", **options)
    method.compile(*optimizers or (keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1)), run_eagerly=True)
    return method


def test_every_role_gets_a_loss_scale_of_its_own(policy):
    method = in_float16(policy)
    scaling = keras.optimizers.LossScaleOptimizer
    assert isinstance(method.teacher_optimizer, scaling)
    assert isinstance(method.student_optimizer, scaling)
    assert method.teacher_optimizer is not method.student_optimizer


@pytest.mark.parametrize("overflowing", ["teacher", "student"])
def test_an_overflow_skips_the_step_of_its_role_and_is_counted(policy, overflowing):
    # A seed that no gradient survives in a format that ends at 65504.
    scales = {"teacher": 2.0**15, "student": 2.0**15, overflowing: 2.0**60}
    optimizers = [
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=scale)
        for scale in (scales["teacher"], scales["student"])
    ]
    method = in_float16(policy, *optimizers)
    start = {role: tiny.values(getattr(method, role).weights) for role in ("teacher", "student")}
    logs = method.train_step(tiny.tensors(tiny.batch()))
    for role, before in start.items():
        still = [
            np.array_equal(*pair)
            for pair in zip(before, tiny.values(getattr(method, role).weights), strict=True)
        ]
        skipped = role == overflowing
        assert all(still) if skipped else not any(still)
        assert float(logs[f"{role}_skipped_steps"]) == float(skipped)
        assert float(getattr(method, f"{role}_optimizer").dynamic_scale) == scales[role] / (
            2.0 if skipped else 1.0
        )
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert np.isfinite(float(method.feedback_state.baseline))
    assert int(method.step) == 1
    # A student that stood still has nothing to say about its teacher's labels.
    assert (float(logs["feedback"]) == 0.0) == (overflowing == "student")


def test_gradients_too_small_for_float16_arrive(policy):
    method = in_float16(policy)
    images = tf.constant(tiny.images(np.random.default_rng(0), 4))
    with tf.GradientTape() as tape:
        # 1e-9 is zero in float16, whose smallest number is 6e-8.
        loss = 1e-9 * tf.reduce_mean(tf.cast(method.student(images, training=True), tf.float32))
    gradients = method.gradients(tape, student=loss)["student"]
    assert float(gradients[-1][0]) == pytest.approx(1e-9 / 3, rel=1e-2)


def derivative(method, images, direction, *, transposing):
    """Of the student's logits along a direction: from the gradient that it has learned from, or by another pass."""
    before, transposed = Snapshot(method.student_pass, method.student_optimizer), None
    if transposing:
        with tf.GradientTape() as tape:
            logits = method.student_pass.logits(images, transposable=True)
            transposed = TransposedGradient(logits)
            loss = tf.reduce_mean(tf.square(logits)) + transposed.term
        transposed.record(lambda: method.gradients(tape, student=loss)["student"])
    return np.array(before.jvp(images, direction, transposed=transposed), np.float64)


@pytest.mark.parametrize("transposing", [True, False])
def test_a_derivative_is_as_long_as_the_direction_that_it_is_taken_along(policy, transposing):
    generator, exact = np.random.default_rng(0), tiny.plain_network("exact", seed=1)
    images = tf.constant(tiny.images(generator, 4))
    weights = exact.get_weights()
    direction = [generator.normal(size=weight.shape) for weight in weights]

    def moved(distance):
        exact.set_weights([w + distance * along for w, along in zip(weights, direction, strict=True)])
        return np.array(exact(images), np.float64)

    expected = (moved(1e-2) - moved(-1e-2)) / 2e-2
    method = in_float16(policy)
    # The shorter one is nothing in float16, and the longer one overflows it with the loss scale.
    for length in (1e-9, 1.0, 1e3):
        along = [tf.constant(length * each, tf.float32) for each in direction]
        found = derivative(method, images, along, transposing=transposing) / length
        assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)


def test_scale_and_counts_are_in_a_checkpoint(policy, tmp_path):
    optimizers = [
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), initial_scale=2.0**60)
        for _ in range(2)
    ]
    method = in_float16(policy, *optimizers)
    method.train_step(tiny.tensors(tiny.batch()))
    method.save_weights(tmp_path / "method.weights.h5")
    restored = in_float16(
        policy, keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.SGD(0.1, momentum=0.9)
    )
    restored.load_weights(tmp_path / "method.weights.h5")
    assert float(restored.student_optimizer.dynamic_scale) == 2.0**59
    assert [float(tracker.result()) for tracker in restored.skip_trackers] == [1.0, 1.0]


def test_a_loaded_method_keeps_its_loss_scales(policy, tmp_path):
    method = in_float16(policy)
    method.train_step(tiny.tensors(tiny.batch()))
    method.save(tmp_path / "method.keras")
    loaded = keras.saving.load_model(tmp_path / "method.keras", safe_mode=True)
    for each in (method, loaded):
        each.run_eagerly = True
        each.train_step(tiny.tensors(tiny.batch(seed=1)))
    for one, other in zip(tiny.values(method.weights), tiny.values(loaded.weights), strict=True):
        assert np.array_equal(one, other)


def test_compiling_again_goes_on_with_the_same_loss_scale(policy):
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=128.0)
    method = in_float16(policy, keras.optimizers.SGD(0.1), scaling)
    scaling.dynamic_scale.assign(64.0)
    count = len(scaling.variables)
    method.compile(keras.optimizers.SGD(0.1), scaling)
    # More of them than a fresh one has would not be read back from a file.
    assert (float(scaling.dynamic_scale), len(scaling.variables)) == (64.0, count)


def test_a_method_in_float32_is_loaded_under_another_policy(policy, tmp_path):
    method = Supervised(student=tiny.network("student"))
    method.compile("sgd")
    method.save(tmp_path / "method.keras")
    policy("mixed_float16")
    loaded = keras.saving.load_model(tmp_path / "method.keras", safe_mode=True)
    assert loaded.skip_trackers == []
    for one, other in zip(tiny.values(method.variables), tiny.values(loaded.variables), strict=True):
        assert np.array_equal(one, other)


def test_nothing_is_scaled_in_other_formats(policy):
    policy("mixed_bfloat16")
    method = MetaPseudoLabels(teacher=tiny.network("teacher"), student=tiny.network("student", seed=1))
    method.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    assert not isinstance(method.student_optimizer, keras.optimizers.LossScaleOptimizer)
    assert method.skip_trackers == []
