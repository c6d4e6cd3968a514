"""What else `MetaPseudoLabels` can learn from: averages of the teacher, weak views, the labels themselves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import schedules
from mpl_tf.methods.mpl import MetaPseudoLabels
from tests.methods.replays import STUDENT_RATE, TEACHER_RATE, mean_cross_entropy
from tests.support import oracles, tiny


def compiled(feedback="none", **settings):
    """With BatchNorm, whose statistics tell which images a pass was over, and in which mode."""
    networks = {
        role: tiny.network(role, seed=seed, dropout=0.0) for seed, role in enumerate(("teacher", "student"))
    }
    method = MetaPseudoLabels(
        **networks,
        feedback=feedback,
        **{"uda_ramp_steps": 0, "uda_threshold": 0.34, "ema_decay": None, **settings},
    )
    method.compile(keras.optimizers.SGD(TEACHER_RATE), keras.optimizers.SGD(STUDENT_RATE), run_eagerly=True)
    if method.teacher_average is not None:
        # The average is another network than the teacher.
        method.teacher_average.trainable_variables[-1].assign([0.5, -0.5, 0.0])
    return method


def weights_and_state(network):
    return [
        [tf.constant(v) for v in values]
        for values in (network.trainable_variables, network.non_trainable_variables)
    ]


def logits(network, images, *, training):
    return network.stateless_call(*weights_and_state(network), images, training=training)[0]


def aligning(prior, logits):
    """What ReMixMatch adds to logits in the first step of a moving average whose decay is warmed up: 1 / 10."""
    return np.log(prior) - np.log(0.1 / 3 + 0.9 * oracles.softmax(logits).mean(axis=0))


@pytest.mark.parametrize(
    "settings",
    [
        {"weak_view": "separate"},
        {"uda_targets": "average", "teacher_ema_decay": 0.9},
        {"uda_targets": "average", "teacher_ema_decay": 0.9, "class_prior": (0.5, 0.3, 0.2)},
    ],
)
def test_the_teacher_learns_targets_of_another_pass_or_network(settings, batch):
    method = compiled(uda_weight=2.0, uda_temperature=0.5, **settings)
    average = method.teacher_average is not None
    source = method.teacher_average if average else method.teacher
    labels = oracles.one_hot(batch["labeled"]["label"], 3)
    target_logits = np.array(logits(source, batch["unlabeled"]["weak"], training=not average), np.float64)
    if "class_prior" in settings:
        target_logits += aligning(settings["class_prior"], target_logits)
    kept = oracles.softmax(target_logits).max(axis=-1) >= 0.34
    targets = kept[:, None] * oracles.softmax(target_logits / 0.5)
    images = tf.concat([batch["labeled"]["image"], batch["unlabeled"]["strong"]], axis=0)
    weights, state = weights_and_state(method.teacher)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        logs = tf.nn.log_softmax(method.teacher.stateless_call(weights, state, images, training=True)[0])
        loss = -tf.reduce_sum(labels.astype(np.float32) * logs[:4]) / 4
        loss -= 2.0 * tf.reduce_sum(targets.astype(np.float32) * logs[4:]) / 6
    moved = tiny.changes(method.teacher, lambda: method.train_step(batch))
    assert kept.any()
    for change, gradient in zip(moved, tape.gradient(loss, weights), strict=True):
        assert np.allclose(change, -TEACHER_RATE * gradient, atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"student_targets": "weak"},
        {"student_targets": "weak", "weak_view": "separate"},
        {"student_targets": "average", "teacher_ema_decay": 0.9},
        {"student_targets": "average", "uda_targets": "average", "teacher_ema_decay": 0.9},
        {"student_labeled_weight": 0.7, "label_smoothing": 0.1},
        {"class_prior": (0.5, 0.3, 0.2)},
    ],
)
def test_the_student_learns_what_it_is_told(settings, batch):
    method = compiled(**settings)
    views = [batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["strong"]]
    if settings.get("student_targets") == "average":
        teacher_logits = logits(method.teacher_average, views[1], training=False)
    elif settings.get("weak_view") == "separate":
        teacher_logits = logits(method.teacher, views[1], training=True)
    else:
        teacher_logits = logits(method.teacher, tf.concat(views, axis=0), training=True)
        target_logits = teacher_logits[4:10]
        teacher_logits = target_logits if "student_targets" in settings else teacher_logits[-6:]
    if "class_prior" in settings:
        teacher_logits += aligning(settings["class_prior"], np.array(target_logits, np.float64))
    targets = tf.constant(oracles.softmax(np.array(teacher_logits, np.float64)), tf.float32)
    labels = oracles.smoothed(batch["labeled"]["label"], 3, settings.get("label_smoothing", 0.0))
    labeled_weight = settings.get("student_labeled_weight", 0.0)
    images = tf.concat([views[0], views[2]], axis=0) if labeled_weight else views[2]
    weights, state = weights_and_state(method.student)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        student_logits = method.student.stateless_call(weights, state, images, training=True)[0]
        loss = unlabeled_loss = mean_cross_entropy(targets, student_logits[-6:])
        if labeled_weight:
            labeled_loss = mean_cross_entropy(labels.astype(np.float32), student_logits[:4])
            loss = unlabeled_loss + labeled_weight * labeled_loss
    logs = {}
    moved = tiny.changes(method.student, lambda: logs.update(method.train_step(batch)))
    for change, gradient in zip(moved, tape.gradient(loss, weights), strict=True):
        assert np.allclose(change, -STUDENT_RATE * gradient, atol=2e-5)
    assert float(logs["loss"]) == pytest.approx(float(loss), abs=1e-5)
    if labeled_weight:
        assert float(logs["labeled_loss"]) == pytest.approx(float(labeled_loss), abs=1e-5)
    index = np.arange(6)
    network = method.teacher_average if settings.get("student_targets") == "average" else method.teacher
    expected = oracles.softmax(np.array(network(views[1], training=False), np.float64))
    assert np.allclose(method.pseudo_label(views[1], index), expected, atol=1e-5)


def test_the_averaged_teacher_is_an_average_and_is_evaluated(batch):
    method = compiled(teacher_ema_decay=0.3)
    history = [tiny.values(method.teacher_average.weights)]
    for seed in range(4):
        method.train_step(tiny.tensors(tiny.batch(seed=seed)))
        history.append(tiny.values(method.teacher.weights))
    for index, average in enumerate(method.teacher_average.weights):
        values = [weights[index].astype(np.float64) for weights in history]
        assert np.allclose(average, oracles.averaged(values, 0.3), rtol=1e-5, atol=1e-5)
    assert method.evaluation_models()["teacher_accuracy"] is method.teacher_average


def test_a_student_goes_on_when_its_teachers_schedule_has_ended(batch):
    method = compiled()
    rate = schedules.WaitWarmupCosine(0.5, steps=2)
    method.compile(keras.optimizers.SGD(rate), keras.optimizers.SGD(0.5), run_eagerly=True)
    for _ in range(2):
        method.train_step(batch)
    assert not any(change.any() for change in tiny.changes(method.teacher, lambda: method.train_step(batch)))
    assert all(change.any() for change in tiny.changes(method.student, lambda: method.train_step(batch)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uda_targets": "average"}, "uda_targets='average' needs .*pass teacher_ema_decay=0.999, or another uda"),
        ({"student_targets": "average"}, "student_targets='average' needs the averaged network"),
        ({"student_targets": "average", "teacher_ema_decay": 0.9, "feedback": "per_example"},
         "student_targets='average' has no gradient that could carry the student's feedback"),
        ({"student_targets": "weak", "weak_view": "separate", "feedback": "per_example"},
         "student_targets='weak', weak_view='separate' has no gradient"),
    ],
)  # fmt: skip
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        compiled(**settings)
