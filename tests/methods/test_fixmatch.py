import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.fixmatch import FixMatch
from tests.methods.pseudo_labeling_oracles import aligned, pseudo_labels
from tests.support import oracles, tiny


def compiled(**settings):
    method = FixMatch(student=tiny.plain_network("student"), **settings)
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return method


def logits_of(method, batch):
    views = (batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["strong"])
    return [np.array(method.student(view), np.float64) for view in views]


@pytest.fixture
def batch(batch):
    """The strong views are those of other images, so that mixing up the views is seen."""
    unlabeled = {**batch["unlabeled"], "strong": batch["unlabeled"]["strong"][::-1]}
    return {**batch, "unlabeled": unlabeled}


@pytest.fixture
def threshold(batch):
    """Half of the six unlabeled images are at least as confident, and not the half of the strong views."""
    _, weak, strong = (oracles.softmax(logits) for logits in logits_of(compiled(), batch))
    threshold = float(np.median(weak.max(axis=-1)))
    assert np.any((weak.max(axis=-1) >= threshold) != (strong.max(axis=-1) >= threshold))
    return threshold


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_a_step_descends_equations_3_and_4(batch, threshold, temperature):
    method = compiled(
        threshold=threshold, temperature=temperature, consistency_weight=2.0, label_smoothing=0.1
    )
    _, weak, _ = logits_of(method, batch)
    confident = oracles.softmax(weak).max(axis=-1) >= threshold
    assert confident.sum() == 3
    targets = (confident[:, None] * pseudo_labels(weak, temperature)).astype(np.float32)
    labels = oracles.smoothed(batch["labeled"]["label"], 3, 0.1).astype(np.float32)
    with tf.GradientTape() as tape:
        labeled, strong = (
            tf.math.log(tf.nn.softmax(method.student(images)))
            for images in (batch["labeled"]["image"], batch["unlabeled"]["strong"])
        )
        loss = -tf.reduce_sum(labels * labeled) / 4 - 2.0 * tf.reduce_sum(targets * strong) / 6
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_the_metrics_are_those_of_the_step(batch, threshold, temperature):
    method = compiled(threshold=threshold, temperature=temperature, consistency_weight=2.0)
    on_labeled, weak, strong = logits_of(method, batch)
    confident = oracles.softmax(weak).max(axis=-1) >= threshold
    labeled_loss = oracles.cross_entropies(oracles.one_hot(batch["labeled"]["label"], 3), on_labeled).mean()
    consistency = oracles.cross_entropies(pseudo_labels(weak, temperature), strong)
    consistency_loss = (confident * consistency).mean()
    logs = method.train_step(batch)
    expected = {
        "loss": labeled_loss + 2.0 * consistency_loss,
        "labeled_loss": labeled_loss,
        "consistency_loss": consistency_loss,
        "mask_rate": 0.5,
    }
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, abs=1e-4)


def test_aligned_pseudo_labels_have_the_frequencies_of_the_classes(batch):
    prior = (0.7, 0.2, 0.1)
    method = compiled(threshold=0.4, class_prior=prior)
    mean = np.full(3, 1 / 3)
    # At last one in which the average is no longer warmed up.
    for step in (0, 1, 2, 3, 10**5):
        method.step.assign(step)
        _, weak, strong = logits_of(method, batch)
        predictions, mean = aligned(weak, prior, mean, step=step, decay=0.999)
        confident = predictions.max(axis=-1) >= 0.4
        labels = oracles.one_hot(predictions.argmax(axis=-1), 3)
        expected = (confident * oracles.cross_entropies(labels, strong)).mean()
        for tracker in method.train_trackers:
            tracker.reset_state()
        logs = method.train_step(batch)
        assert float(logs["consistency_loss"]) == pytest.approx(expected, rel=1e-3)
        assert float(logs["mask_rate"]) == pytest.approx(confident.mean())
        assert np.allclose(method.align.mean_prediction, mean, atol=1e-5)


def test_the_average_gives_the_pseudo_labels(batch):
    method = compiled(threshold=0.0, targets="average")
    method.student_average.trainable_variables[-1].assign([1.0, -1.0, 0.0])
    weak = np.array(method.student_average(batch["unlabeled"]["weak"]), np.float64)
    _, online, strong = logits_of(method, batch)
    assert (weak.argmax(axis=-1) != online.argmax(axis=-1)).any()
    expected = oracles.cross_entropies(pseudo_labels(weak, 0), strong).mean()
    assert float(method.train_step(batch)["consistency_loss"]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"consistency_weight": -1.0}, "consistency_weight=-1.0 is out of range"),
        ({"temperature": -0.1}, "temperature=-0.1 is out of range"),
        ({"threshold": 1.5}, "threshold=1.5 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
        ({"targets": "average", "ema_decay": None}, "targets='average' needs the averaged network"),
        ({"class_prior": (0.5, 0.5)}, "class_prior has 2 values: pass one for each of the 3 classes"),
        ({"class_prior": (0.5, 0.5, 0.5)}, r"no distribution over the classes: .*whose sum, 1\.5 here, is 1"),
        ({"class_prior": (1.2, -0.1, -0.1)}, "no distribution over the classes"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        FixMatch(student=tiny.plain_network("student"), **setting)
