"""Every estimator against the exact meta gradient of a network small enough to enumerate every labeling.

The exact gradient comes from `oracles.TinyStudent`: NumPy, float64, complex steps. Where an estimator is only
first-order in the student's learning rate η, its order is measured by halving η.
"""

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.feedback import estimators
from tests.support import oracles, tiny

LEARNING_RATES = [1e-3, 0.1, 1.0, 10.0]


@pytest.fixture
def student():
    return oracles.TinyStudent()


def labeled_loss_of(student):
    logits = tiny.logits_of(student.labeled_images)

    def labeled_loss(weights):
        rows = tf.nn.sparse_softmax_cross_entropy_with_logits(student.labels, logits(weights))
        return tf.reduce_mean(rows)

    return labeled_loss


def tangents_along_new_gradient(student, targets, learning_rate, *, gradient_at="new", tangents_at="old"):
    """u as the library computes it, v from the oracle; the exact feedback has v at new and J at old weights."""
    weights = {"old": student.weights, "new": student.after_step(targets, learning_rate)}
    direction = student.labeled_gradients(weights[gradient_at])
    tensors = [tf.constant(weight) for weight in weights[tangents_at]]
    direction = [tf.constant(tangent) for tangent in direction]
    return estimators.directional_derivative(tiny.logits_of(student.unlabeled_images), tensors, direction)


def expectation(student, estimate):
    """Σ_y P(y) estimate(y) over every labeling of the unlabeled images, by the teacher's probabilities."""
    return sum(
        oracles.probability(labels, student.teacher_logits) * np.asarray(estimate(labels))
        for labels in oracles.labelings(len(student.teacher_logits), student.num_classes)
    )


def order_of(error, learning_rate):
    """k where error(η) ~ η^k."""
    return np.log2(error(learning_rate) / error(learning_rate / 2))


def test_oracle_backpropagates_correctly(student):
    targets = oracles.softmax(student.teacher_logits)
    tangents = student.gradients(student.unlabeled_images, targets, student.weights)

    def loss_of_kernel(kernel):
        logits = student.logits(student.unlabeled_images, [kernel, *student.weights[1:]])
        return oracles.cross_entropies(targets, logits).mean()

    assert oracles.relative_error(tangents[0], oracles.gradient(loss_of_kernel, student.weights[0])) < 1e-12


# --- the exact estimators ------------------------------------------------------------------------------


@pytest.mark.parametrize("learning_rate", LEARNING_RATES)
def test_per_example_is_the_exact_meta_gradient(student, learning_rate):
    tangents = tangents_along_new_gradient(student, oracles.softmax(student.teacher_logits), learning_rate)
    value = estimators.per_example(student.teacher_logits, tangents, learning_rate=learning_rate)
    assert oracles.relative_error(value, student.meta_gradient(learning_rate)) < 1e-10


@pytest.mark.parametrize("learning_rate", LEARNING_RATES)
def test_per_example_equals_autodiff_through_a_step_written_out_here(student, learning_rate):
    teacher_logits = tf.constant(student.teacher_logits)
    weights = [tf.constant(weight) for weight in student.weights]
    with tf.GradientTape() as outer:
        outer.watch(teacher_logits)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            # Not tf.nn.softmax_cross_entropy_with_logits: its second derivative forgets the targets.
            log_probabilities = tf.nn.log_softmax(tiny.logits_of(student.unlabeled_images)(weights))
            loss = -tf.reduce_sum(tf.nn.softmax(teacher_logits) * log_probabilities) / 3
        gradients = inner.gradient(loss, weights)
        moved = [w - learning_rate * g for w, g in zip(weights, gradients, strict=True)]
        new_loss = labeled_loss_of(student)(moved)
    through_autodiff = outer.gradient(new_loss, teacher_logits)

    tangents = tangents_along_new_gradient(student, oracles.softmax(student.teacher_logits), learning_rate)
    value = estimators.per_example(student.teacher_logits, tangents, learning_rate=learning_rate)
    unrolled = estimators.unrolled(
        tf.constant(student.teacher_logits),
        tiny.logits_of(student.unlabeled_images),
        labeled_loss_of(student),
        weights,
        learning_rate=learning_rate,
    )
    assert oracles.relative_error(value, through_autodiff) < 1e-10
    assert oracles.relative_error(unrolled, through_autodiff) < 1e-10


@pytest.mark.parametrize("learning_rate", LEARNING_RATES)
def test_unrolled_is_the_exact_meta_gradient(student, learning_rate):
    value = estimators.unrolled(
        tf.constant(student.teacher_logits),
        tiny.logits_of(student.unlabeled_images),
        labeled_loss_of(student),
        [tf.constant(weight) for weight in student.weights],
        learning_rate=learning_rate,
    )
    assert oracles.relative_error(value, student.meta_gradient(learning_rate)) < 1e-10


@pytest.mark.parametrize(("gradient_at", "tangents_at"), [("old", "old"), ("new", "new"), ("old", "new")])
def test_only_v_at_the_new_and_tangents_at_the_old_weights_are_exact(student, gradient_at, tangents_at):
    targets = oracles.softmax(student.teacher_logits)
    tangents = tangents_along_new_gradient(
        student, targets, 1.0, gradient_at=gradient_at, tangents_at=tangents_at
    )
    value = estimators.per_example(student.teacher_logits, tangents, learning_rate=1.0)
    assert oracles.relative_error(value, student.meta_gradient(1.0)) > 0.01


# --- sampled labels ------------------------------------------------------------------------------------


def test_sampled_per_example_averages_to_per_example(student):
    tangents = tangents_along_new_gradient(student, oracles.softmax(student.teacher_logits), 0.5)
    student_logits = student.logits(student.unlabeled_images, student.weights)
    mean = expectation(
        student,
        lambda labels: oracles.per_example_sampled(
            student.teacher_logits, labels, student_logits, tangents, 0.5
        ),
    )
    exact = estimators.per_example(student.teacher_logits, tangents, learning_rate=0.5)
    assert oracles.relative_error(mean, exact) < 1e-12


@pytest.mark.parametrize(("reference", "order"), [("meta_gradient", 3), ("sampled_meta_gradient", 2)])
def test_per_example_of_a_student_with_hard_labels(student, reference, order):
    """On average it is third-order close to a soft-label student's gradient, second-order to its own."""

    def error(learning_rate):
        def estimate(labels):
            targets = oracles.one_hot(labels, student.num_classes)
            tangents = tangents_along_new_gradient(student, targets, learning_rate)
            return estimators.per_example(student.teacher_logits, tangents, learning_rate=learning_rate)

        return np.linalg.norm(expectation(student, estimate) - getattr(student, reference)(learning_rate))

    assert order_of(error, 0.02) == pytest.approx(order, abs=0.1)


def test_sampled_per_example_of_a_student_with_hard_labels_is_off_by_the_second_order(student):
    student_logits = student.logits(student.unlabeled_images, student.weights)

    def error(learning_rate):
        def estimate(labels):
            targets = oracles.one_hot(labels, student.num_classes)
            tangents = tangents_along_new_gradient(student, targets, learning_rate)
            return oracles.per_example_sampled(
                student.teacher_logits, labels, student_logits, tangents, learning_rate
            )

        return np.linalg.norm(expectation(student, estimate) - student.sampled_meta_gradient(learning_rate))

    assert order_of(error, 0.02) == pytest.approx(2, abs=0.1)


def labeled_improvement(student, labels, learning_rate):
    """Old minus new labeled loss of a student that learned from these labels."""
    targets = oracles.one_hot(labels, student.num_classes)
    new_weights = student.after_step(targets, learning_rate)
    return student.labeled_loss(student.weights) - student.labeled_loss(new_weights)


@pytest.mark.parametrize("learning_rate", LEARNING_RATES)
def test_scalar_with_the_loss_difference_averages_to_the_exact_gradient(student, learning_rate):
    mean = expectation(
        student,
        lambda labels: estimators.scalar(
            student.teacher_logits, labels, labeled_improvement(student, labels, learning_rate)
        ),
    )
    assert oracles.relative_error(mean, student.sampled_meta_gradient(learning_rate)) < 1e-10


def test_new_minus_old_teaches_to_hurt(student):
    mean = expectation(
        student,
        lambda labels: estimators.scalar(
            student.teacher_logits, labels, -labeled_improvement(student, labels, 0.1)
        ),
    )
    assert oracles.relative_error(-mean, student.sampled_meta_gradient(0.1)) < 1e-10


def dot_product_of(student, labels, learning_rate):
    targets = oracles.one_hot(labels, student.num_classes)
    learned_from = student.gradients(student.unlabeled_images, targets, student.weights)
    labeled = student.labeled_gradients(student.after_step(targets, learning_rate))
    return estimators.dot_product(labeled, learned_from, learning_rate=learning_rate)


def test_scalar_with_the_dot_product_is_off_by_the_second_order(student):
    def error(learning_rate):
        mean = expectation(
            student,
            lambda labels: estimators.scalar(
                student.teacher_logits, labels, dot_product_of(student, labels, learning_rate)
            ),
        )
        return np.linalg.norm(mean - student.sampled_meta_gradient(learning_rate))

    assert order_of(error, 0.02) == pytest.approx(2, abs=0.1)


def test_dot_product_is_the_improvement_to_first_order(student):
    labels = np.array([0, 1, 2])

    def error(learning_rate):
        improvement = labeled_improvement(student, labels, learning_rate)
        return abs(dot_product_of(student, labels, learning_rate) - improvement)

    assert order_of(error, 0.01) == pytest.approx(2, abs=0.1)


def test_scalar_is_the_gradient_of_the_summed_cross_entropy(student):
    labels = np.array([2, 0, 2])
    targets = oracles.one_hot(labels, 3)
    value = estimators.scalar(student.teacher_logits, labels, 0.7)
    expected = oracles.gradient(
        lambda logits: 0.7 * oracles.cross_entropies(targets, logits).sum(), student.teacher_logits
    )
    assert oracles.relative_error(value, expected) < 1e-12


def test_released_code_feedback_is_identically_zero(student):
    """The released code rewards CE(stop_gradient(softmax z), z), whose gradient is p - p."""
    teacher_logits = tf.constant(student.teacher_logits)
    with tf.GradientTape() as tape:
        tape.watch(teacher_logits)
        own_targets = tf.stop_gradient(tf.nn.softmax(teacher_logits))
        rows = tf.nn.softmax_cross_entropy_with_logits(own_targets, teacher_logits)
        released = 3.7 * tf.reduce_sum(rows)
    assert np.abs(tape.gradient(released, teacher_logits)).max() < 1e-15
    ours = estimators.scalar(student.teacher_logits, np.array([0, 1, 2]), 3.7)
    assert np.abs(ours).max() > 0.1
