"""Normalization, bounds, baseline, warm-up and the student's rate around the feedback in a real step."""

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


@pytest.fixture(scope="module")
def targets_and_tangents():
    """q and u on the six unlabeled images, u by one backward pass per logit instead of a forward mode."""
    method, batch = compiled(), tiny.tensors(tiny.batch())
    student, strong = method.student, batch["unlabeled"]["strong"]
    variables = student.trainable_variables
    targets = oracles.softmax(np.array(method.teacher(strong), np.float64))
    with tf.GradientTape(persistent=True) as tape:
        logits = student(strong)
        entries = [logits[image, index] for image in range(6) for index in range(3)]
        loss = mean_cross_entropy(targets.astype(np.float32), logits)
    jacobian = [tape.gradient(entry, variables) for entry in entries]
    for variable, tangent in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(STUDENT_RATE * tangent)
    with tf.GradientTape() as tape:
        labels = tf.one_hot(batch["labeled"]["label"], 3)
        loss = mean_cross_entropy(labels, student(batch["labeled"]["image"]))
    direction = tape.gradient(loss, variables)
    tangents = [
        sum(float(tf.reduce_sum(tangent * along)) for tangent, along in zip(row, direction, strict=True))
        for row in jacobian
    ]
    return targets, np.reshape(tangents, (6, 3))


@pytest.mark.parametrize(
    ("floor", "clip", "placebo"),
    [(0.0, None, False), (0.0, 0.5, False), (0.5, None, False), (0.1, None, True)],
)
def test_normalized_feedback(targets_and_tangents, batch, floor, clip, placebo):
    targets, tangents = targets_and_tangents
    if placebo:
        tangents = tangents[[5, 0, 1, 2, 3, 4]]
    centered = tangents - (targets * tangents).sum(axis=-1, keepdims=True)
    size = np.sqrt((centered**2).mean())
    # The tenth step of a training whose first nine had a far larger feedback.
    mean = (9 * 1000.0 + size) / 10
    assert 0.1 * mean > size
    values = np.clip(centered / max(size, floor * mean), -(clip or np.inf), clip or np.inf)
    values -= (targets * values).sum(axis=-1, keepdims=True)
    settings = FeedbackSettings("per_example", weight=0.8, floor=floor, clip=clip, placebo=placebo)
    method = compiled(settings)
    method.step.assign(9)
    method.feedback_state.mean_size.assign(1000.0)
    with tf.GradientTape() as tape:
        logits = method.teacher(batch["unlabeled"]["strong"])
        meta_loss = tf.reduce_sum(logits * (0.8 * targets * values / 6).astype(np.float32))
    expected = [-TEACHER_RATE * g for g in tape.gradient(meta_loss, method.teacher.trainable_variables)]
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    assert relative_error(moved, expected) < 2e-3
    assert float(method.get_metrics_result()["feedback"]) == pytest.approx(size, rel=1e-4)
    assert float(method.feedback_state.mean_size) == pytest.approx(mean, rel=1e-5)


def test_an_overflow_does_not_stay_in_the_mean_size():
    state = compiled("per_example").feedback_state
    state.mean_size.assign(2.0)
    for size in (float("inf"), float("nan")):
        assert float(state.mean_with(tf.constant(size), step=tf.constant(3, tf.int64))) == 2.0
    # The fifth size, after four of 2.
    assert float(state.mean_with(tf.constant(7.0), step=tf.constant(4, tf.int64))) == pytest.approx(3.0)


def improvement(method, batch):
    """Old minus new labeled loss of one step, measured from outside."""
    labels = np.array(batch["labeled"]["label"])

    def loss():
        logits = np.array(method.student(batch["labeled"]["image"]), np.float64)
        return oracles.cross_entropies(oracles.one_hot(labels, 3), logits).mean()

    old = loss()
    logs = {name: float(value) for name, value in method.train_step(batch).items()}
    return old - loss(), loss(), logs


def test_the_loss_difference_is_old_minus_new(batch):
    method = compiled(raw("loss_difference"))
    gain, new_loss, logs = improvement(method, batch)
    assert abs(gain) > 1e-3
    assert logs["feedback"] == pytest.approx(gain, abs=1e-5)
    assert logs["student_labeled_loss"] == pytest.approx(new_loss, abs=1e-5)


def test_the_dot_product_is_the_improvement_of_a_small_step(batch):
    method = compiled(raw("dot_product"), student=keras.optimizers.SGD(0.01))
    gain, _, logs = improvement(method, batch)
    assert logs["feedback"] == pytest.approx(gain, rel=0.05)


@pytest.mark.parametrize(
    ("estimator", "backbone_factor"),
    [("dot_product", 1.0), ("loss_difference", 1.0), ("loss_difference", 0.01)],
)
def test_the_cosine_divides_by_both_norms(estimator, backbone_factor, batch):
    method = compiled(FeedbackSettings(estimator), backbone_factor=backbone_factor)
    old = tiny.values(method.student.trainable_variables)
    gain, _, logs = improvement(method, batch)
    moved = [before - v.numpy() for before, v in zip(old, method.student.trainable_variables, strict=True)]
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(
            tf.one_hot(batch["labeled"]["label"], 3), method.student(batch["labeled"]["image"])
        )
    gradients = tape.gradient(loss, method.student.trainable_variables)
    if estimator == "dot_product":
        gain = sum((np.array(g) * m).sum() for g, m in zip(gradients, moved, strict=True))
    expected = gain / (oracles.global_norm(gradients) * oracles.global_norm(moved))
    assert 0 < abs(expected) <= 1
    assert logs["feedback"] == pytest.approx(expected, abs=1e-4)


def test_a_scalar_is_clipped(batch):
    method = compiled(raw("loss_difference"))
    free = difference(teacher_changes(method, batch, labels=LABELS), changes_without_feedback())
    size = float(method.get_metrics_result()["feedback"])
    assert abs(size) > 1e-2
    bounded = feedback_changes(raw("loss_difference", clip=1e-2), batch, labels=LABELS)
    assert relative_error(bounded, [change * 1e-2 / abs(size) for change in free]) < 1e-3


def test_the_baseline_starts_at_zero_and_follows_the_feedback(batch):
    method = compiled(raw("loss_difference", baseline_decay=0.8))
    baseline, sizes = 0.0, []
    assert float(method.feedback_state.baseline) == 0.0
    for _ in range(3):
        method.reset_metrics()
        sizes.append(float(method.train_step(batch)["feedback"]))
        baseline = 0.8 * baseline + 0.2 * sizes[-1]
        assert float(method.feedback_state.baseline) == pytest.approx(baseline, abs=1e-6)
    assert len(set(sizes)) == 3


def test_the_baseline_is_subtracted(batch):
    method = compiled(raw("loss_difference"))
    full = difference(teacher_changes(method, batch, labels=LABELS), changes_without_feedback())
    size = method.get_metrics_result()["feedback"]
    method = compiled(raw("loss_difference", baseline_decay=0.8))
    method.feedback_state.baseline.assign(size / 2)
    half = difference(teacher_changes(method, batch, labels=LABELS), changes_without_feedback())
    assert relative_error([2 * change for change in half], full) < 1e-3


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (4, 0.4), (10, 1.0), (50, 1.0)])
def test_the_feedback_warms_up_linearly(batch, step, share):
    method = compiled(raw("per_example", warmup_steps=10))
    method.step.assign(step)
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    full = meta_gradients(compiled(), batch)
    for change, tangent in zip(moved, full, strict=True):
        assert np.allclose(change, -TEACHER_RATE * share * tangent, atol=1e-6)


@pytest.mark.parametrize("estimator", ["per_example", "unrolled", "dot_product", "loss_difference"])
def test_a_student_that_waits_gives_no_feedback(estimator, batch):
    method = compiled(FeedbackSettings(estimator), student=keras.optimizers.SGD(0.0))
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    assert not any(change.any() for change in moved)


@pytest.mark.parametrize(("nesterov", "nesterov_factor"), [(False, 1.0), (True, 1.9)])
def test_nesterov_momentum_enlarges_the_step_that_is_fed_back(nesterov, nesterov_factor, batch):
    # The first step of plain momentum is that of SGD.
    momentum = keras.optimizers.SGD(STUDENT_RATE, momentum=0.9, nesterov=nesterov)
    sgd = keras.optimizers.SGD(STUDENT_RATE * nesterov_factor)
    sizes = [
        float(compiled(raw("dot_product"), student=optimizer).train_step(batch)["feedback"])
        for optimizer in (momentum, sgd)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-4)
