import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import models
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.reduced_mpl import ReducedMetaPseudoLabels
from tests.methods.replays import mean_cross_entropy, relative_error
from tests.support import oracles, tiny

CALIBRATOR_RATE, STUDENT_RATE = 0.7, 0.9
LITERAL = FeedbackSettings("per_example", weight=1.0, normalization="raw", clip=None)


def compiled(feedback=LITERAL, *, network=None, **settings):
    method = ReducedMetaPseudoLabels(
        student=tiny.plain_network("student"),
        calibrator=network or tiny.calibrator(),
        feedback=feedback,
        **{"ema_decay": None, **settings},
    )
    method.compile(
        keras.optimizers.SGD(CALIBRATOR_RATE), keras.optimizers.SGD(STUDENT_RATE), run_eagerly=True
    )
    return method


def meta_gradients(method, batch, measured=slice(None)):
    """∂L_l(θ_S')/∂θ_T' on some labeled rows, by autodiff through the calibrator and the student's step."""
    weights = [tf.constant(v) for v in method.calibrator.trainable_variables]
    student_weights = [tf.constant(v) for v in method.student.trainable_variables]
    stored = tf.math.log(batch["unlabeled"]["probabilities"])
    labels = tf.one_hot(batch["labeled"]["label"], 3)

    def student_logits(weights, images):
        return method.student.stateless_call(weights, [], images)[0]

    with tf.GradientTape() as calibrator_tape:
        calibrator_tape.watch(weights)
        targets = tf.nn.softmax(method.calibrator.stateless_call(weights, [], stored)[0])
        with tf.GradientTape() as student_tape:
            student_tape.watch(student_weights)
            loss = mean_cross_entropy(targets, student_logits(student_weights, batch["unlabeled"]["strong"]))
        tangents = student_tape.gradient(loss, student_weights)
        moved = [w - STUDENT_RATE * tangent for w, tangent in zip(student_weights, tangents, strict=True)]
        new_logits = student_logits(moved, batch["labeled"]["image"])
        new_loss = mean_cross_entropy(labels[measured], new_logits[measured])
    return calibrator_tape.gradient(new_loss, weights)


@pytest.mark.parametrize("estimator", ["per_example", "unrolled"])
def test_the_calibrator_descends_the_loss_of_the_new_student(estimator, batch):
    method = compiled(FeedbackSettings(estimator, weight=1.0, normalization="raw", clip=None))
    expected = [-CALIBRATOR_RATE * tangent for tangent in meta_gradients(method, batch)]
    assert all(np.abs(change).max() > 1e-6 for change in expected)
    moved = tiny.changes(method.calibrator, lambda: method.train_step(batch))
    assert relative_error(moved, expected) < 1e-4


def test_the_calibrator_descends_the_loss_on_the_trusted_images_alone(batch):
    method = compiled(feedback_on="trusted")
    expected = [-CALIBRATOR_RATE * tangent for tangent in meta_gradients(method, batch, slice(1, 3))]
    with pytest.raises(
        ValueError, match="labeled entry has no 'trusted', and feedback_on='trusted' measures"
    ):
        method.train_step(batch)
    trusted = batch["labeled"] | {"trusted": tf.constant([False, True, True, False])}
    moved = tiny.changes(method.calibrator, lambda: method.train_step(batch | {"labeled": trusted}))
    assert relative_error(moved, expected) < 1e-4


def test_the_student_learns_the_adjusted_labels(batch):
    method = compiled()
    stored = np.log(np.array(batch["unlabeled"]["probabilities"], np.float64))
    adjusted = oracles.softmax(np.array(method.calibrator(stored.astype(np.float32)), np.float64))
    logits = np.array(method.student(batch["unlabeled"]["strong"]), np.float64)
    logs = method.train_step(batch)
    assert float(logs["loss"]) == pytest.approx(oracles.cross_entropies(adjusted, logits).mean(), rel=1e-5)
    divergence = (np.exp(stored) * (stored - np.log(adjusted))).sum(axis=-1).mean()
    assert float(logs["change"]) == pytest.approx(divergence, rel=1e-4)


def test_a_new_calibrator_is_the_identity(batch):
    method = compiled("none", network=models.build_calibrator(3, seed=0))
    stored = np.array(batch["unlabeled"]["probabilities"], np.float64)
    logits = np.array(method.student(batch["unlabeled"]["strong"]), np.float64)
    logs = method.train_step(batch)
    assert float(logs["loss"]) == pytest.approx(oracles.cross_entropies(stored, logits).mean(), rel=1e-5)
    assert float(logs["change"]) == pytest.approx(0.0, abs=1e-6)


def test_nothing_moves_the_calibrator_without_feedback(batch):
    method = compiled("none")
    moved = tiny.changes(method.calibrator, lambda: method.train_step(batch))
    assert not any(np.any(change) for change in moved)


def test_the_calibrator_may_learn_the_labels_too(batch):
    method = compiled("none", labeled_weight=0.5, label_smoothing=0.1)
    stored = tf.math.log(batch["labeled"]["probabilities"])
    labels = oracles.smoothed(batch["labeled"]["label"], 3, 0.1).astype(np.float32)
    variables = method.calibrator.trainable_variables
    with tf.GradientTape() as tape:
        loss = 0.5 * mean_cross_entropy(labels, method.calibrator(stored))
    expected = [-CALIBRATOR_RATE * tangent for tangent in tape.gradient(loss, variables)]
    assert all(np.abs(change).max() > 1e-4 for change in expected)
    moved = tiny.changes(method.calibrator, lambda: method.train_step(batch))
    assert relative_error(moved, expected) < 1e-5


def test_a_stored_probability_of_zero_is_no_infinity(batch):
    batch["unlabeled"]["probabilities"] = tf.one_hot([0, 1, 2, 0, 1, 2], 3)
    logs = compiled().train_step(batch)
    assert all(np.isfinite(float(value)) for value in logs.values())


def test_a_calibrator_of_other_classes():
    message = r"The calibrator maps \(4,\) to \(4,\), but the student has 3 classes: build it with .*calibrator\(3\)"
    with pytest.raises(ValueError, match=message):
        compiled(network=models.build_calibrator(4))


def test_soft_labels_have_no_scalar_feedback():
    with pytest.raises(ValueError, match="'dot_product' rewards the labels that were drawn"):
        compiled("dot_product", student_labels="soft")


@pytest.mark.parametrize("setting", [{"num_classes": 1}, {"num_classes": 3, "width": 0}])
def test_settings_of_the_calibrator_are_refused(setting):
    with pytest.raises(ValueError, match="is out of range"):
        models.build_calibrator(**setting)
