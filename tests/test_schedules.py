import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import schedules
from tests.support import oracles


@pytest.mark.parametrize(
    ("steps", "warmup", "wait"),
    [(20, 0, 0), (20, 5, 0), (20, 0, 6), (20, 5, 6), (20, 10, 9), (1, 0, 0)],
)
def test_wait_warmup_cosine(steps, warmup, wait):
    schedule = schedules.WaitWarmupCosine(0.3, steps=steps, warmup=warmup, wait=wait)
    every_step = range(steps + 3)
    expected = [
        oracles.wait_warmup_cosine(step, peak=0.3, steps=steps, warmup=warmup, wait=wait)
        for step in every_step
    ]
    assert np.allclose([schedule(step) for step in every_step], expected, atol=1e-6)


def test_wait_warmup_cosine_at_its_corners():
    schedule = schedules.WaitWarmupCosine(0.4, steps=100, warmup=10, wait=20)
    rates = {step: float(schedule(tf.constant(step, tf.int64))) for step in (19, 20, 29, 30, 65, 100, 10**6)}
    assert rates == pytest.approx({19: 0, 20: 0.04, 29: 0.4, 30: 0.4, 65: 0.2, 100: 0, 10**6: 0}, abs=1e-6)


@pytest.mark.parametrize(
    ("steps", "warmup", "wait"), [(0, 0, 0), (10, 5, 5), (10, 11, 0), (10, -1, 0), (10, 0, -1)]
)
def test_wait_warmup_cosine_refuses_a_schedule_without_a_step_to_train_in(steps, warmup, wait):
    message = f"A schedule of {steps} steps cannot wait {wait} and warm up {warmup} of them.*Train longer"
    with pytest.raises(ValueError, match=message):
        schedules.WaitWarmupCosine(0.1, steps=steps, warmup=warmup, wait=wait)


def test_wait_warmup_cosine_survives_serialization():
    schedule = schedules.WaitWarmupCosine(0.4, steps=100, warmup=10, wait=20)
    optimizer = keras.optimizers.SGD(schedule)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    restored.iterations.assign(25)
    assert float(restored.learning_rate) == pytest.approx(0.4 * 6 / 10)


def test_partial_cosine_ends_at_a_fifth():
    schedule = schedules.WaitWarmupPartialCosine(0.03, steps=1000)
    every_step = (0, 1, 300, 999, 1000, 5000)
    expected = [0.03 * np.cos(7 * np.pi * min(step, 1000) / (16 * 1000)) for step in every_step]
    assert np.allclose([schedule(step) for step in every_step], expected, atol=1e-8)
    assert expected[-1] == pytest.approx(0.03 * 0.195, rel=1e-2)
    waiting = schedules.WaitWarmupPartialCosine(0.4, steps=100, warmup=10, wait=20)
    assert [float(waiting(step)) for step in (19, 20, 29, 30)] == pytest.approx([0, 0.04, 0.4, 0.4], abs=1e-6)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(waiting))
    assert float(restored(65)) == pytest.approx(0.4 * np.cos(7 * np.pi / 32))


@pytest.mark.parametrize("ramp_steps", [0, 1, 7])
def test_linear_ramp(ramp_steps):
    expected = [min(1.0, step / ramp_steps) if ramp_steps else 1.0 for step in range(10)]
    actual = [schedules.linear_ramp(tf.constant(step, tf.int64), ramp_steps) for step in range(10)]
    assert np.allclose(actual, expected, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.995])
def test_average_decay(decay):
    steps = [0, 1, 8, 9, 100, 10**4]
    expected = [min(decay, (1 + step) / (10 + step)) for step in steps]
    actual = [schedules.average_decay(tf.constant(step, tf.int64), decay) for step in steps]
    assert np.allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize(("start", "end"), [(100, 600), (0, 7), (3, 3), (0, 0)])
def test_delayed_ramp_is_lees(start, end):
    def lees(step):
        if step < start:
            return 0.0
        return (step - start) / (end - start) if step < end else 1.0

    for step in (0, 1, 2, 3, 6, 7, 99, 100, 101, 350, 599, 600, 10**6):
        actual = schedules.delayed_ramp(tf.constant(step, tf.int64), start=start, end=end)
        assert float(actual) == pytest.approx(lees(step), abs=1e-6)
