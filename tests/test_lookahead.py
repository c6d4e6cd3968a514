"""The program of many steps of lookahead: one is the library's feedback, many have a closed form on a parabola."""

import runpy

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.feedback import estimators
from tests.support import oracles, tiny
from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "claims" / "lookahead.py"))


def test_one_step_is_the_librarys_exact_feedback():
    generator, learning_rate = np.random.default_rng(0), tf.constant(0.7, tf.float64)
    weights = [
        weight + 0.1 * generator.normal(size=weight.shape)
        for weight in PROGRAM["initial_weights"](generator, 6)
    ]
    images = tf.constant(generator.uniform(size=(4, 5, 64)))
    teacher_logits = tf.constant(generator.normal(size=(4, 5, 10)))
    labeled_images, labels = tf.constant(generator.uniform(size=(7, 64))), tf.constant(np.arange(7))
    found = PROGRAM["both_lookaheads"](weights, images, teacher_logits, labeled_images, labels, learning_rate)

    def student_logits(weights):
        return PROGRAM["logits_of"](weights, images[0])

    def labeled_loss(weights):
        logits = PROGRAM["logits_of"](weights, labeled_images)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))

    unrolled = estimators.unrolled(
        teacher_logits[0], student_logits, labeled_loss, weights, learning_rate=learning_rate
    )
    with tf.GradientTape() as tape:
        tape.watch(weights)
        on_logits = tf.nn.softmax(student_logits(weights)) - tf.nn.softmax(teacher_logits[0])
        # Its gradient is that of the cross-entropy to the teacher's labels.
        loss = tf.reduce_sum(tf.stop_gradient(on_logits) * student_logits(weights)) / 5
    new = [w - learning_rate * g for w, g in zip(weights, tape.gradient(loss, weights), strict=True)]
    with tf.GradientTape() as tape:
        tape.watch(new)
        loss = labeled_loss(new)
    tangents = estimators.directional_derivative(student_logits, weights, tape.gradient(loss, new))
    per_example = estimators.per_example(teacher_logits[0], tangents, learning_rate=learning_rate)
    for batches in ("same", "others"):
        assert sorted(found[batches]) == [1, 2, 4]
        assert oracles.relative_error(found[batches][1], unrolled) < 1e-10
        assert oracles.relative_error(found[batches][1], per_example) < 1e-10
        # Several steps are another question.
        assert oracles.relative_error(found[batches][4], unrolled) > 0.1

    # What the first batch's labels do to the loss after a second step, on a batch of its own.
    def loss_after_another_step(weights):
        weights = list(weights)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logs = tf.nn.log_softmax(PROGRAM["logits_of"](weights, images[1]))
            loss = -tf.reduce_sum(tf.nn.softmax(teacher_logits[1]) * logs) / 5
        gradients = tape.gradient(loss, weights)
        return labeled_loss([w - learning_rate * g for w, g in zip(weights, gradients, strict=True)])

    two_steps = estimators.unrolled(
        teacher_logits[0], student_logits, loss_after_another_step, weights, learning_rate=learning_rate
    )
    assert oracles.relative_error(found["others"][2], two_steps) < 1e-10


@pytest.mark.parametrize("repeat", [True, False], ids=["same", "others"])
def test_many_steps_on_a_quadratic_loss_are_the_closed_form(repeat):
    """L_u = ½ ‖θ - t‖², L_l = ½ ‖θ - c‖²: θ_K = (1 - η)^K θ_0 + η Σ_k (1 - η)^(K - k) t_k."""
    generator, learning_rate = np.random.default_rng(1), 0.3
    start, aim, *targets = generator.normal(size=(2 + 8, 4))
    if repeat:
        targets = targets[:1] * 8

    def student_loss(weights, first, step):
        return tf.reduce_sum((weights[0] - (first if repeat or step == 0 else targets[step])) ** 2) / 2

    found = PROGRAM["lookahead_gradients"](
        tf.constant(targets[0]),
        student_loss,
        lambda weights: tf.reduce_sum((weights[0] - aim) ** 2) / 2,
        [tf.constant(start)],
        learning_rate=tf.constant(learning_rate, tf.float64),
        counts=(1, 2, 8),
    )
    for count, gradient in found.items():
        fractions = learning_rate * (1 - learning_rate) ** np.arange(count - 1, -1, -1)
        end = (1 - learning_rate) ** count * start + fractions @ np.array(targets[:count])
        expected = (fractions.sum() if repeat else fractions[0]) * (end - aim)
        assert np.allclose(gradient, expected, rtol=1e-12)


def test_angle_and_length_are_of_all_numbers_together():
    one, other = np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[6.0, 0.0], [0.0, 0.0]])
    assert PROGRAM["compare"]({1: one, 2: other}) == {2: pytest.approx((0.6, 1.2))}


def test_the_student_learns_from_its_teacher():
    generator = np.random.default_rng(0)
    weights, images = PROGRAM["initial_weights"](generator), tf.constant(generator.uniform(size=(40, 64)))
    teacher_logits = tf.constant(generator.normal(size=(40, 10)))
    losses = []
    for _ in range(2):
        losses.append(float(PROGRAM["pseudo_label_loss"](weights, images, teacher_logits)))
        batches = tf.constant(generator.integers(40, size=(20, 8)))
        weights = PROGRAM["train_student"](
            weights, images, teacher_logits, batches, tf.constant(0.1, tf.float64)
        )
    assert losses[1] < losses[0]
    logits = tiny.values([PROGRAM["logits_of"](weights, images)])[0]
    targets = oracles.softmax(teacher_logits.numpy())
    assert oracles.cross_entropies(targets, logits).mean() < losses[1]
