"""`MetaPseudoLabels` apart from its feedback: the teacher's other losses, the student's labels, refusals."""

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.engine import sampling
from tests.methods.pseudo_labeling_oracles import SelfAdaptive, pseudo_labels
from tests.methods.replays import (
    STUDENT_RATE,
    TEACHER_RATE,
    changes_without_feedback,
    compiled,
    difference,
    mean_cross_entropy,
    raw,
    relative_error,
    teacher_changes,
)
from tests.support import oracles, tiny


@pytest.fixture
def batch(batch):
    """The strong views are those of other images, so that mixing up the views is seen."""
    unlabeled = {**batch["unlabeled"], "strong": batch["unlabeled"]["strong"][::-1]}
    return {**batch, "unlabeled": unlabeled}


def targets_of(method, teacher_logits):
    return sampling.student_targets(
        teacher_logits, method.student_labels, seed=method.seed, step=method.step.value
    )


def confidences(batch, view):
    return oracles.softmax(compiled().teacher(batch["unlabeled"][view]).numpy()).max(axis=-1)


def replayed_consistency(batch, *, temperature, threshold):
    """Its gradient in the teacher's weights, from targets and masks that are NumPy constants."""
    teacher = compiled().teacher
    weak = np.array(teacher(batch["unlabeled"]["weak"]), np.float64)
    kept = oracles.softmax(weak).max(axis=-1) >= threshold
    targets = kept[:, None] * oracles.softmax(weak / temperature)
    with tf.GradientTape() as tape:
        log_probabilities = tf.math.log(tf.nn.softmax(teacher(batch["unlabeled"]["strong"])))
        loss = -tf.reduce_sum(targets.astype(np.float32) * log_probabilities) / 6
    strong = np.array(teacher(batch["unlabeled"]["strong"]), np.float64)
    value = oracles.consistencies(weak, strong, temperature=temperature, threshold=threshold).mean()
    return tape.gradient(loss, teacher.trainable_variables), kept, value


@pytest.fixture
def threshold(batch):
    """Keeps half of the six images, and others than on the strong views."""
    threshold = float(np.median(confidences(batch, "weak")))
    assert np.any((confidences(batch, "weak") >= threshold) != (confidences(batch, "strong") >= threshold))
    return threshold


@pytest.mark.parametrize(("step", "ramp"), [(0, 0.0), (3, 0.3), (10, 1.0), (99, 1.0)])
def test_the_teacher_descends_the_ramped_consistency(batch, threshold, step, ramp):
    method = compiled(uda_weight=2.0, uda_temperature=0.5, uda_threshold=threshold, uda_ramp_steps=10)
    method.step.assign(step)
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    gradients, kept, _ = replayed_consistency(batch, temperature=0.5, threshold=threshold)
    assert kept.sum() == 3
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.allclose(change, -TEACHER_RATE * 2.0 * ramp * gradient, atol=2e-6)


@pytest.mark.parametrize("kind", ["fixmatch", "freematch"])
def test_the_teacher_descends_the_consistency_of_another_method(batch, threshold, kind):
    settings = {"uda_weight": 2.0, "uda_threshold": threshold, "uda_ramp_steps": 0}
    settings |= {"threshold_decay": 0.3, "fairness_weight": 0.5}
    method = compiled(consistency=kind, **settings)
    teacher, statistics = compiled().teacher, SelfAdaptive(3, 0.3)
    weak, strong = (np.array(teacher(batch["unlabeled"][view]), np.float64) for view in ("weak", "strong"))
    q = oracles.softmax(weak)
    statistics.update(q)
    confident = statistics.confident(q) if kind == "freematch" else q.max(axis=-1) >= threshold
    assert 0 < confident.sum() < 6
    on_strong = confident[:, None] * (oracles.softmax(strong) - pseudo_labels(weak, 0)) / 6
    value = (confident * oracles.cross_entropies(pseudo_labels(weak, 0), strong)).mean()
    if kind == "freematch":
        value += 0.5 * statistics.fairness(q, oracles.softmax(strong))
        on_strong += 0.5 * oracles.gradient(
            lambda logits: statistics.fairness(q, oracles.softmax(logits)), strong
        )
    with tf.GradientTape() as tape:
        strong_logits = teacher(batch["unlabeled"]["strong"])
    weights = teacher.trainable_variables
    gradients = tape.gradient(strong_logits, weights, tf.constant(on_strong, tf.float32))
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-4
        assert np.allclose(change, -TEACHER_RATE * 2.0 * gradient, atol=2e-6)
    logs = compiled(consistency=kind, **settings).train_step(batch)
    assert float(logs["consistency_loss"]) == pytest.approx(value, abs=1e-4)
    assert float(logs["mask_rate"]) == pytest.approx(confident.mean())
    if kind == "freematch":
        assert float(logs["global_threshold"]) == pytest.approx(statistics.tau, abs=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_teacher_descends_its_labeled_loss(batch, smoothing):
    teacher = compiled().teacher
    targets = oracles.smoothed(batch["labeled"]["label"], 3, smoothing).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(targets, teacher(batch["labeled"]["image"]))
    moved = teacher_changes(compiled(label_smoothing=smoothing), batch)
    for change, gradient in zip(moved, tape.gradient(loss, teacher.trainable_variables), strict=True):
        assert np.allclose(change, -TEACHER_RATE * gradient, atol=1e-6)


def test_decay_and_clip_reach_both_networks(batch):
    method = compiled(weight_decay=0.1, global_clipnorm=1e-3)
    for role, rate in (("teacher", TEACHER_RATE), ("student", STUDENT_RATE)):
        fresh = compiled(weight_decay=0.1, global_clipnorm=1e-3)
        moved = tiny.changes(getattr(fresh, role), lambda fresh=fresh: fresh.train_step(batch))
        assert oracles.global_norm(moved) == pytest.approx(rate * 1e-3, rel=1e-2)
    logs = method.train_step(batch)
    assert float(logs["teacher_gradient_norm"]) > 1e-3
    undecayed = compiled().train_step(batch)
    for name in ("teacher_gradient_norm", "student_gradient_norm"):
        assert float(logs[name]) != pytest.approx(float(undecayed[name]), rel=1e-3)


def test_the_metrics_are_those_of_the_step(batch, threshold):
    method = compiled("none", uda_weight=2.0, uda_temperature=0.5, uda_threshold=threshold)
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    teacher_logits = np.array(method.teacher(unlabeled["strong"]), np.float64)
    student_logits = np.array(method.student(unlabeled["strong"]), np.float64)
    labeled_logits = np.array(method.teacher(labeled["image"]), np.float64)
    _, kept, consistency = replayed_consistency(batch, temperature=0.5, threshold=threshold)
    logs = method.train_step(batch)
    expected = {
        "loss": oracles.cross_entropies(oracles.softmax(teacher_logits), student_logits).mean(),
        "teacher_labeled_loss": oracles.cross_entropies(
            oracles.one_hot(labeled["label"], 3), labeled_logits
        ).mean(),
        "consistency_loss": consistency,
        "mask_rate": kept.mean(),
        "agreement": (teacher_logits.argmax(axis=-1) == student_logits.argmax(axis=-1)).mean(),
    }
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, abs=1e-4)
    assert set(logs) == {*expected, "student_gradient_norm", "teacher_gradient_norm"}


# --- the student's labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["soft", "sampled"])
def test_the_student_descends_the_cross_entropy_to_its_labels(labels, batch):
    method = compiled(student_labels=labels, seed=5)
    method.step.assign(7)
    teacher_logits = method.teacher(batch["unlabeled"]["strong"])
    targets = tf.nn.softmax(teacher_logits) if labels == "soft" else targets_of(method, teacher_logits)[0]
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(targets, method.student(batch["unlabeled"]["strong"]))
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.allclose(change, -STUDENT_RATE * gradient, atol=1e-6)


def test_sampled_labels_follow_the_teacher():
    method = compiled("loss_difference")
    probabilities = np.array([0.6, 0.3, 0.1])
    rows = 20_000
    targets, labels = targets_of(method, tf.tile(tf.math.log([[0.6, 0.3, 0.1]]), [rows, 1]))
    frequencies = np.bincount(labels, minlength=3) / rows
    assert np.array_equal(targets, oracles.one_hot(labels, 3))
    assert np.abs(frequencies - probabilities).max() < 4 * np.sqrt(0.25 / rows)


def test_one_draw_serves_the_student_and_the_feedback(batch):
    method = compiled(raw("loss_difference"))
    drawn = targets_of(method, method.teacher(batch["unlabeled"]["strong"]))[1].numpy()
    moved = teacher_changes(method, batch)
    assert len(set(drawn)) > 1
    expected = teacher_changes(compiled(raw("loss_difference")), batch, labels=drawn)
    assert relative_error(moved, expected) < 1e-6


def test_sampled_labels_are_a_function_of_the_seed_and_the_step():
    def draws(seed, step):
        method = compiled("loss_difference", seed=seed)
        method.step.assign(step)
        return tuple(targets_of(method, tf.zeros([50, 3]))[1].numpy())

    assert draws(0, 7) == draws(0, 7)
    assert len({draws(0, 7), draws(0, 8), draws(1, 7), draws(1, 8)}) == 4


def test_sampled_labels_of_a_batch_of_unknown_size():
    method = compiled("loss_difference")
    draw = tf.function(
        lambda logits: targets_of(method, logits)[1], input_signature=[tf.TensorSpec([None, 3])]
    )
    assert np.array_equal(draw(tf.zeros([50, 3])), targets_of(method, tf.zeros([50, 3]))[1])


@pytest.mark.parametrize(
    ("estimator", "labels"),
    [("per_example", "soft"), ("unrolled", "soft"), ("none", "soft"), ("dot_product", "sampled")],
)
def test_default_student_labels(estimator, labels):
    assert compiled(estimator).student_labels == labels


# --- validation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student_labels": "hard"}, "student_labels='hard' is unknown: .*'soft', 'sampled'"),
        ({"feedback": "dotproduct"}, "feedback='dotproduct' is unknown: did you mean 'dot_product'"),
        (
            {"feedback": "dot_product", "student_labels": "soft"},
            "The feedback 'dot_product' rewards the labels that were drawn, and student_labels='soft' draws n",
        ),
        ({"label_smoothing": 2.0}, r"label_smoothing=2\.0 is out of range: pass a value between 0 and 1"),
        ({"consistency": "freemach"}, "consistency='freemach' is unknown: did you mean 'freematch'"),
        ({"threshold_decay": 2}, "threshold_decay=2 is out of range: pass a value between 0 and 1"),
        ({"fairness_weight": -1}, "fairness_weight=-1 is out of range: pass a value of at least 0"),
        ({"uda_weight": -8.0}, r"uda_weight=-8\.0 is out of range: pass a value of at least 0"),
        ({"uda_temperature": 0.0}, r"uda_temperature=0\.0 is out of range: pass a value of at least 0\.001"),
        ({"uda_threshold": 95}, "uda_threshold=95 is out of range: pass a value between 0 and 1"),
        ({"uda_ramp_steps": -1}, "uda_ramp_steps=-1 is out of range: pass a value of at least 0"),
        ({"weight_decay": -1e-4}, r"weight_decay=-0\.0001 is out of range: pass a value of at least 0"),
        ({"global_clipnorm": -5}, "global_clipnorm=-5 is out of range: pass a value of at least 1e-06"),
        ({"ema_decay": 995}, "ema_decay=995 is out of range: pass a value between 0 and 1"),
    ],
)
def test_validation(settings, message):
    with pytest.raises(ValueError, match=message):
        compiled(**settings)
