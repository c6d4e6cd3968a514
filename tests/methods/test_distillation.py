import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.methods.distillation import Distillation
from tests.support import oracles, tiny


def compiled(network=tiny.plain_network, **settings):
    method = Distillation(teacher=network("teacher"), student=network("student", seed=1), **settings)
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return method


def test_the_loss_is_hintons_in_value_and_gradient():
    generator = np.random.default_rng(0)
    teacher_logits, logits = generator.normal(0, 3, (2, 5, 4))
    with tf.GradientTape() as tape:
        student_logits = tf.constant(logits)
        tape.watch(student_logits)
        value = losses.distillation(tf.constant(teacher_logits), student_logits, temperature=3.0)
    expected = 9 * oracles.kl_divergences(teacher_logits / 3, logits / 3)
    assert np.allclose(value, expected, rtol=1e-10)
    gradient = 3 * (oracles.softmax(logits / 3) - oracles.softmax(teacher_logits / 3))
    assert np.allclose(tape.gradient(value, student_logits), gradient, rtol=1e-10)


def test_the_factor_keeps_the_gradient_from_fading_with_the_temperature():
    # Section 2.1: at high temperatures the gradient tends to (z - v) / K for logits of zero mean. Without T² it
    # would be smaller by the factor T².
    teacher_logits, logits = np.array([[1.0, -2.0, 1.0]]), np.array([[0.5, 0.5, -1.0]])
    with tf.GradientTape() as tape:
        student_logits = tf.constant(logits)
        tape.watch(student_logits)
        value = losses.distillation(tf.constant(teacher_logits), student_logits, temperature=1e4)
    assert np.allclose(tape.gradient(value, student_logits), (logits - teacher_logits) / 3, rtol=1e-3)


@pytest.mark.parametrize("same_view", [False, True])
def test_a_step_descends_both_losses(batch, same_view):
    weights = {"distillation_weight": 0.7, "labeled_weight": 0.4, "label_smoothing": 0.1}
    method = compiled(same_view=same_view, temperature=2.0, **weights)
    unlabeled, labeled = batch["unlabeled"], batch["labeled"]
    seen = unlabeled["strong" if same_view else "weak"]
    targets = oracles.softmax(np.array(method.teacher(seen), np.float64) / 2).astype(np.float32)
    labels = oracles.smoothed(labeled["label"], 3, 0.1).astype(np.float32)
    with tf.GradientTape() as tape:
        softened = tf.math.log(tf.nn.softmax(method.student(unlabeled["strong"]) / 2))
        plain = tf.math.log(tf.nn.softmax(method.student(labeled["image"])))
        loss = -0.7 * 4 * tf.reduce_sum(targets * softened) / 6 - 0.4 * tf.reduce_sum(labels * plain) / 4
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)


def test_the_metrics_are_those_of_the_step(batch):
    method = compiled(temperature=2.0, labeled_weight=0.5)
    teacher_logits = np.array(method.teacher(batch["unlabeled"]["weak"]), np.float64)
    student_logits = np.array(method.student(batch["unlabeled"]["strong"]), np.float64)
    labeled_logits = np.array(method.student(batch["labeled"]["image"]), np.float64)
    logs = method.train_step(batch)
    distilled = 4 * oracles.kl_divergences(teacher_logits / 2, student_logits / 2).mean()
    labels = oracles.one_hot(batch["labeled"]["label"], 3)
    labeled_loss = oracles.cross_entropies(labels, labeled_logits).mean()
    expected = {
        "loss": distilled + 0.5 * labeled_loss,
        "labeled_loss": labeled_loss,
        "distillation_loss": distilled,
        "agreement": (teacher_logits.argmax(axis=-1) == student_logits.argmax(axis=-1)).mean(),
    }
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, abs=1e-4)


def test_the_teacher_stands_still_in_inference_mode_and_stays_trainable(batch):
    method = compiled(tiny.network)
    before = tiny.values(method.teacher.weights)
    for _ in range(2):
        method.train_step(batch)
    # Its moving statistics too: in training mode they would have moved.
    assert all(map(np.array_equal, before, tiny.values(method.teacher.weights)))
    assert len(method.teacher.trainable_variables) > 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": 0.0}, "temperature=0.0 is out of range"),
        ({"distillation_weight": -1.0}, "distillation_weight=-1.0 is out of range"),
        ({"labeled_weight": -1.0}, "labeled_weight=-1.0 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
    ],
)
def test_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        compiled(**setting)
