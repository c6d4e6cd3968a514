"""What the feedback does to the teacher in a real step, against autodiff and enumeration over labelings."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.feedback.settings import FeedbackSettings
from tests.methods.replays import (
    LABELS,
    STUDENT_RATE,
    TEACHER_RATE,
    changes_without_feedback,
    compiled,
    difference,
    feedback_changes,
    mean_cross_entropy,
    meta_gradients,
    raw,
    relative_error,
    teacher_changes,
)
from tests.support import oracles, tiny


@functools.cache
def by_autodiff(plain, view="strong", labeled_weight=0.0):
    """∂L_l(θ_S')/∂θ_T on the standard batch."""
    batch = tiny.tensors(tiny.batch())
    return meta_gradients(compiled(plain=plain), batch, view=view, labeled_weight=labeled_weight)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "BatchNorm and dropout"])
@pytest.mark.parametrize("estimator", ["per_example", "unrolled"])
def test_the_teacher_descends_the_loss_of_the_new_student(estimator, plain, batch):
    expected = [-TEACHER_RATE * tangent for tangent in by_autodiff(plain)]
    # Smoothed labels are for learning, and the student's success is measured on the labels as they are.
    moved = feedback_changes(raw(estimator), batch, plain=plain, label_smoothing=0.2)
    assert all(np.abs(change).max() > 1e-6 for change in expected)
    assert relative_error(moved, expected) < 1e-4


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "BatchNorm and dropout"])
@pytest.mark.parametrize(
    ("estimator", "settings"),
    [
        ("per_example", {"student_labeled_weight": 0.7}),
        ("unrolled", {"student_labeled_weight": 0.7}),
        ("per_example", {"student_targets": "weak"}),
        ("per_example", {"student_targets": "weak", "student_labeled_weight": 0.7}),
    ],
)
def test_the_teacher_descends_the_loss_of_a_student_that_learns_more(estimator, settings, plain, batch):
    view, labeled_weight = (
        settings.get("student_targets", "strong"),
        settings.get("student_labeled_weight", 0.0),
    )
    tangents = by_autodiff(plain, view, labeled_weight)
    assert relative_error(tangents, by_autodiff(plain)) > 0.01
    moved = feedback_changes(raw(estimator), batch, plain=plain, **settings)
    assert relative_error(moved, [-TEACHER_RATE * tangent for tangent in tangents]) < 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        FeedbackSettings("per_example"),
        FeedbackSettings("per_example", finite_difference=True),
        FeedbackSettings("unrolled"),
        FeedbackSettings("dot_product"),
        FeedbackSettings("loss_difference", baseline_decay=0.9),
    ],
    ids=lambda settings: settings.estimator,
)
def test_float64_networks_get_the_feedback_of_float32_ones(settings):
    changes = {
        dtype: difference(changes_in(dtype, settings), changes_in(dtype, "none"))
        for dtype in ("float32", "float64")
    }
    assert {change.dtype.name for change in changes["float64"]} == {"float64"}
    assert relative_error(changes["float32"], changes["float64"]) < (
        0.1 if settings.finite_difference else 2e-3
    )


@functools.cache
def changes_in(dtype, feedback):
    """How one step on the standard batch moves a teacher of this format."""
    float32 = [network.get_weights() for network in (compiled().teacher, compiled().student)]
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(dtype)
        method = compiled(feedback, ema_decay=0.9)
        # An initializer draws other numbers for float64.
        method.teacher.set_weights(float32[0])
        method.student.set_weights(float32[1])
        return teacher_changes(method, tiny.tensors(tiny.batch()), labels=LABELS)
    finally:
        keras.config.set_dtype_policy(policy)


TRUSTED = [True, False, True, False]


def with_trusted(batch, trusted=TRUSTED, **changes):
    return batch | {"labeled": batch["labeled"] | {"trusted": tf.constant(trusted)} | changes}


def added_by_feedback(batch, feedback, *, plain=True, **settings):
    """What the feedback alone adds to the teacher's weights on any batch."""
    return difference(
        *(teacher_changes(compiled(kind, plain=plain, **settings), batch) for kind in (feedback, "none"))
    )


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "BatchNorm and dropout"])
@pytest.mark.parametrize(
    ("estimator", "labeled_weight"), [("per_example", 0.0), ("unrolled", 0.0), ("per_example", 0.7)]
)
def test_the_teacher_descends_the_loss_on_the_trusted_images_alone(estimator, labeled_weight, plain, batch):
    expected = meta_gradients(
        compiled(plain=plain), batch, labeled_weight=labeled_weight, measured=slice(None, None, 2)
    )
    assert relative_error(expected, by_autodiff(plain, labeled_weight=labeled_weight)) > 0.1
    moved = added_by_feedback(
        with_trusted(batch), raw(estimator), plain=plain, feedback_on="trusted",
        student_labeled_weight=labeled_weight,
    )  # fmt: skip
    assert relative_error(moved, [-TEACHER_RATE * tangent for tangent in expected]) < 1e-4


@pytest.mark.parametrize("estimator", ["per_example", "loss_difference"])
def test_cheap_labels_have_no_part_in_the_feedback(estimator, batch):
    settings = {
        "feedback_on": "trusted",
        "student_labels": "soft" if estimator == "per_example" else "sampled",
    }
    wrong = (batch["labeled"]["label"] + tf.constant([0, 1, 0, 2])) % 3
    moved = added_by_feedback(with_trusted(batch), raw(estimator), **settings)
    same = added_by_feedback(with_trusted(batch, label=wrong), raw(estimator), **settings)
    assert relative_error(same, moved) < 1e-4
    everything = added_by_feedback(
        with_trusted(batch, label=wrong), raw(estimator), **settings | {"feedback_on": "labeled"}
    )
    assert relative_error(everything, moved) > 0.1


def test_the_measured_loss_is_the_trusted_images_mean(batch):
    method = compiled(raw("loss_difference"), feedback_on="trusted", student_labels="sampled")
    weight = tf.constant([3.0, 9.0, 0.5, 9.0])
    logs = method.train_step(with_trusted(batch, weight=weight))
    labels, logits = batch["labeled"]["label"], method.student(batch["labeled"]["image"])
    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    assert float(logs["student_labeled_loss"]) == pytest.approx(
        float(3.0 * losses[0] + 0.5 * losses[2]) / 2, rel=1e-5
    )


def test_where_all_are_trusted_the_feedback_is_the_usual_one_and_where_none_is_there_is_none(batch):
    moved = added_by_feedback(with_trusted(batch, [True] * 4), raw("per_example"), feedback_on="trusted")
    assert relative_error(moved, feedback_changes(raw("per_example"), batch)) < 1e-5
    nothing = added_by_feedback(with_trusted(batch, [False] * 4), FeedbackSettings(), feedback_on="trusted")
    assert max(np.abs(change).max() for change in nothing) < 1e-7


def test_feedback_on_trusted_images_needs_to_know_them(batch):
    with pytest.raises(
        ValueError, match="labeled entry has no 'trusted', and feedback_on='trusted' measures"
    ):
        compiled("per_example", feedback_on="trusted").train_step(batch)
    compiled("none", feedback_on="trusted").train_step(batch)
    for wrong in ([1.0, 0.0, 1.0, 0.0], [[True], [False], [True], [False]]):
        with pytest.raises(ValueError, match=r"trusted is \w+ of shape .*: pass one bool per labeled image"):
            compiled().train_step(with_trusted(batch, wrong))


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "BatchNorm and dropout"])
def test_the_finite_difference_is_within_two_percent_and_not_exact(plain, batch):
    expected = [-TEACHER_RATE * tangent for tangent in by_autodiff(plain)]
    approximate = feedback_changes(raw("per_example", finite_difference=True), batch, plain=plain)
    assert 1e-4 < relative_error(approximate, expected) < 0.02


@pytest.fixture(scope="module")
def small_batch():
    return tiny.tensors(tiny.batch(unlabeled=2))


def expected_changes(estimator, small_batch, rate):
    """The feedback's mean over every labeling of two images, by the teacher's probabilities."""
    method = compiled(raw(estimator), student=keras.optimizers.SGD(rate))
    networks = (method.teacher, method.student)
    old = [network.get_weights() for network in networks]
    teacher_logits = np.array(method.teacher(small_batch["unlabeled"]["strong"]), np.float64)
    # The probabilities sum to 1, so that what moves the teacher without feedback comes off once.
    total = [-change for change in changes_without_feedback(unlabeled=2)]
    for labels in oracles.labelings(2, 3):
        moved = teacher_changes(method, small_batch, labels=labels)
        weight = oracles.probability(labels, teacher_logits)
        total = [mean + weight * change for mean, change in zip(total, moved, strict=True)]
        for network, weights in zip(networks, old, strict=True):
            network.set_weights(weights)
    return total


def enumerated_meta_gradients(small_batch, rate):
    """∂E_y[L_l(θ_S'(y))]/∂θ_T over every labeling, by autodiff through the labelings' probabilities."""
    method = compiled()
    student, strong = method.student, small_batch["unlabeled"]["strong"]
    labels = tf.one_hot(small_batch["labeled"]["label"], 3)
    old = tiny.values(student.trainable_variables)
    with tf.GradientTape() as teacher_tape:
        probabilities = tf.nn.softmax(method.teacher(strong))
        expected_loss = 0.0
        for labeling in oracles.labelings(2, 3):
            with teacher_tape.stop_recording(), tf.GradientTape() as tape:
                loss = mean_cross_entropy(tf.one_hot(labeling, 3), student(strong))
            tangents = tape.gradient(loss, student.trainable_variables)
            for variable, weight, tangent in zip(student.trainable_variables, old, tangents, strict=True):
                variable.assign(weight - rate * tangent)
            new_loss = float(mean_cross_entropy(labels, student(small_batch["labeled"]["image"])))
            for variable, weight in zip(student.trainable_variables, old, strict=True):
                variable.assign(weight)
            expected_loss += new_loss * probabilities[0, labeling[0]] * probabilities[1, labeling[1]]
    return teacher_tape.gradient(expected_loss, method.teacher.trainable_variables)


def test_the_loss_difference_teaches_the_exact_gradient_on_average(small_batch):
    expected = [-TEACHER_RATE * tangent for tangent in enumerated_meta_gradients(small_batch, STUDENT_RATE)]
    moved = expected_changes("loss_difference", small_batch, STUDENT_RATE)
    assert relative_error(moved, expected) < 1e-3


def test_the_dot_product_teaches_the_gradient_to_first_order(small_batch):
    errors = {}
    for rate in (0.04, 0.02):
        expected = [-TEACHER_RATE * tangent for tangent in enumerated_meta_gradients(small_batch, rate)]
        errors[rate] = relative_error(expected_changes("dot_product", small_batch, rate), expected)
    # The gradient is of order η and the error of order η², so the relative error halves with η.
    assert errors[0.02] == pytest.approx(errors[0.04] / 2, rel=0.2)


@pytest.mark.parametrize("estimator", ["dot_product", "loss_difference"])
def test_the_mean_cross_entropy_is_the_sum_divided_by_the_images(estimator, batch):
    of_sum = feedback_changes(raw(estimator), batch, labels=LABELS)
    of_mean = feedback_changes(raw(estimator, cross_entropy="mean"), batch, labels=LABELS)
    assert relative_error([6 * change for change in of_mean], of_sum) < 1e-3


def test_a_weaker_feedback_moves_the_teacher_less(batch):
    full = feedback_changes(raw("per_example"), batch)
    weak = feedback_changes(raw("per_example", weight=0.25), batch)
    assert relative_error([4 * change for change in weak], full) < 1e-3


def test_the_feedback_touches_neither_moving_statistics_nor_random_states(batch):
    with_feedback, without = compiled(raw("per_example"), plain=False), compiled("none", plain=False)
    for method in (with_feedback, without):
        old = tiny.values(method.student.non_trainable_variables)
        method.train_step(batch)
        new = tiny.values(method.student.non_trainable_variables)
        assert not any(map(np.array_equal, old, new))
    pairs = zip(
        with_feedback.student.non_trainable_variables,
        without.student.non_trainable_variables,
        strict=True,
    )
    assert all(np.array_equal(np.array(one), np.array(other)) for one, other in pairs)


def test_old_and_new_labeled_losses_share_their_dropout_masks(batch):
    # A student that hardly moves: without a common mask the losses would differ by dropout noise.
    settings = {"plain": False, "student": keras.optimizers.SGD(1e-7)}
    method = compiled(raw("loss_difference"), **settings)
    assert abs(float(method.train_step(batch)["feedback"])) < 1e-5
