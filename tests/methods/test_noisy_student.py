import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.noisy_student import NoisyStudent
from tests.support import oracles, tiny


def compiled(**settings):
    method = NoisyStudent(student=tiny.plain_network("student"), **settings)
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return method


def smoothed(classes, smoothing):
    return (1 - smoothing) * oracles.one_hot(classes, 3) + smoothing / 3


def expected_losses(method, batch, *, targets, smoothing):
    """Both losses in float64."""
    on_labeled = np.array(method.student(batch["labeled"]["image"]), np.float64)
    on_unlabeled = np.array(method.student(batch["unlabeled"]["strong"]), np.float64)
    labeled = oracles.cross_entropies(smoothed(batch["labeled"]["label"], smoothing), on_labeled).mean()
    return labeled, oracles.cross_entropies(targets, on_unlabeled).mean()


@pytest.mark.parametrize("targets", ["soft", "hard"])
def test_the_losses_are_those_of_algorithm_1(batch, targets):
    method = compiled(targets=targets, label_smoothing=0.1)
    stored = np.array(batch["unlabeled"]["probabilities"], np.float64)
    rows = stored if targets == "soft" else smoothed(stored.argmax(axis=-1), 0.1)
    labeled, unlabeled = expected_losses(method, batch, targets=rows, smoothing=0.1)
    logs = method.train_step(batch)
    assert float(logs["labeled_loss"]) == pytest.approx(labeled, rel=1e-5)
    assert float(logs["unlabeled_loss"]) == pytest.approx(unlabeled, rel=1e-5)
    # Four labeled and six unlabeled images, each of the same weight.
    assert float(logs["loss"]) == pytest.approx(labeled + 6 / 4 * unlabeled, rel=1e-5)


def test_the_weights_scale_the_losses(batch):
    method = compiled(labeled_weight=0.0, unlabeled_weight=0.3, label_smoothing=0.0)
    stored = np.array(batch["unlabeled"]["probabilities"], np.float64)
    _, unlabeled = expected_losses(method, batch, targets=stored, smoothing=0.0)
    assert float(method.train_step(batch)["loss"]) == pytest.approx(0.3 * unlabeled, rel=1e-5)


def test_a_step_descends_the_sum(batch):
    method = compiled(labeled_weight=2.0, unlabeled_weight=0.5, label_smoothing=0.0)
    one_hot = oracles.one_hot(batch["labeled"]["label"], 3).astype(np.float32)

    def logs(images):
        return tf.math.log(tf.nn.softmax(method.student(images)))

    with tf.GradientTape() as tape:
        labeled = -tf.reduce_sum(one_hot * logs(batch["labeled"]["image"])) / 4
        stored = batch["unlabeled"]["probabilities"]
        unlabeled = -tf.reduce_sum(stored * logs(batch["unlabeled"]["strong"])) / 6
        loss = 2.0 * labeled + 0.5 * unlabeled
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)


def test_agreement_is_with_the_stored_classes(batch):
    method = compiled()
    predicted = np.array(method.student(batch["unlabeled"]["strong"])).argmax(axis=-1)
    stored = np.array(batch["unlabeled"]["probabilities"]).argmax(axis=-1)
    assert float(method.train_step(batch)["agreement"]) == pytest.approx((predicted == stored).mean())


def test_a_batch_without_stored_labels(batch):
    del batch["unlabeled"]["probabilities"]
    with pytest.raises(ValueError, match="no 'probabilities', the teacher's stored labels: pass targets="):
        compiled().train_step(batch)


def test_stored_labels_of_other_classes(batch):
    batch["unlabeled"]["probabilities"] = tf.ones([6, 4]) / 4
    with pytest.raises(ValueError, match="The stored labels have 4 classes and 'student' has 3: label the"):
        compiled().train_step(batch)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"targets": "sofd"}, "targets='sofd' is unknown: did you mean 'soft'"),
        ({"labeled_weight": -1.0}, "labeled_weight=-1.0 is out of range"),
        ({"unlabeled_weight": -1.0}, "unlabeled_weight=-1.0 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
    ],
)
def test_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        NoisyStudent(student=tiny.plain_network("student"), **setting)
