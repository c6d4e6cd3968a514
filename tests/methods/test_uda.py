import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import schedules
from mpl_tf.methods.uda import UDA
from tests.support import oracles, tiny


def compiled(**settings):
    method = UDA(student=tiny.plain_network("student"), **settings)
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return method


def logits_of(method, batch):
    views = (batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["strong"])
    return [np.array(method.student(view), np.float64) for view in views]


@pytest.fixture
def threshold(batch):
    """Keeps half of the six unlabeled images."""
    _, weak, _ = logits_of(compiled(), batch)
    return float(np.median(oracles.softmax(weak).max(axis=-1)))


def test_a_step_descends_equation_1(batch, threshold):
    method = compiled(threshold=threshold, temperature=0.5, consistency_weight=2.0, entropy_weight=0.3)
    _, weak, _ = logits_of(method, batch)
    kept = oracles.softmax(weak).max(axis=-1) >= threshold
    assert 0 < kept.sum() < 6
    targets = (kept[:, None] * oracles.softmax(weak / 0.5)).astype(np.float32)
    one_hot = oracles.one_hot(batch["labeled"]["label"], 3).astype(np.float32)

    def logs(images):
        return tf.math.log(tf.nn.softmax(method.student(images)))

    with tf.GradientTape() as tape:
        labeled_loss = -tf.reduce_sum(one_hot * logs(batch["labeled"]["image"])) / 4
        consistency = -tf.reduce_sum(targets * logs(batch["unlabeled"]["strong"])) / 6
        on_weak = logs(batch["unlabeled"]["weak"])
        entropy = -tf.reduce_sum(tf.exp(on_weak) * on_weak) / 6
        loss = labeled_loss + 2.0 * consistency + 0.3 * entropy
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)


def test_the_metrics_are_those_of_the_step(batch, threshold):
    method = compiled(threshold=threshold, temperature=0.5)
    on_labeled, weak, strong = logits_of(method, batch)
    labels = oracles.one_hot(batch["labeled"]["label"], 3)
    logs = method.train_step(batch)
    labeled_loss = oracles.cross_entropies(labels, on_labeled).mean()
    consistency = oracles.consistencies(weak, strong, temperature=0.5, threshold=threshold).mean()
    expected = {
        "loss": labeled_loss + consistency,
        "labeled_loss": labeled_loss,
        "consistency_loss": consistency,
        "mask_rate": (oracles.softmax(weak).max(axis=-1) >= threshold).mean(),
        "tsa_rate": 0.0,
        "entropy": oracles.entropies(weak).mean(),
    }
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, abs=1e-4)


def test_annealing_leaves_out_the_labeled_images_that_are_predicted_well(batch):
    method = compiled(tsa_schedule="linear", tsa_steps=100, consistency_weight=0.0)
    on_labeled, _, _ = logits_of(method, batch)
    labels = np.array(batch["labeled"]["label"])
    correct = oracles.softmax(on_labeled)[np.arange(4), labels]
    # The step at which the threshold lies between the second and the third of the four.
    wanted = np.sort(correct)[1:3].mean()
    step = round(100 * (wanted - 1 / 3) / (1 - 1 / 3))
    method.step.assign(max(step, 0))
    threshold = max(step, 0) / 100 * (1 - 1 / 3) + 1 / 3
    kept = correct <= threshold
    assert 0 < kept.sum() < 4
    logs = method.train_step(batch)
    losses = oracles.cross_entropies(oracles.one_hot(labels, 3), on_labeled)
    assert float(logs["labeled_loss"]) == pytest.approx(losses[kept].mean(), rel=1e-4)
    assert float(logs["tsa_rate"]) == pytest.approx(1 - kept.mean())


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("linear", lambda share: share),
        ("exponential", lambda share: np.exp(5 * (share - 1))),
        ("logarithmic", lambda share: 1 - np.exp(-5 * share)),
    ],
)
def test_tsa_thresholds(kind, formula):
    for step in (0, 1, 37, 99):
        value = schedules.tsa_threshold(tf.constant(step, tf.int64), 100, num_classes=4, kind=kind)
        assert float(value) == pytest.approx(formula(step / 100) * 3 / 4 + 1 / 4, rel=1e-5)
    for step in (100, 250):
        value = schedules.tsa_threshold(tf.constant(step, tf.int64), 100, num_classes=4, kind=kind)
        assert float(value) == 1.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"consistency_weight": -1.0}, "consistency_weight=-1.0 is out of range"),
        ({"temperature": 0.0}, "temperature=0.0 is out of range"),
        ({"threshold": 1.5}, "threshold=1.5 is out of range"),
        ({"entropy_weight": -0.1}, "entropy_weight=-0.1 is out of range"),
        ({"tsa_schedule": "liner", "tsa_steps": 3}, "tsa_schedule='liner' is unknown: did you mean 'linear'"),
        ({"tsa_schedule": "linear"}, "tsa_steps=0 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
    ],
)
def test_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        UDA(student=tiny.plain_network("student"), **setting)
