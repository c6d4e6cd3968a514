import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.supervised import Supervised
from tests.support import oracles, tiny


def compiled(*, learning_rate=0.5, **settings):
    method = Supervised(student=tiny.plain_network("student"), **settings)
    method.compile(keras.optimizers.SGD(learning_rate), run_eagerly=True)
    return method


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_a_step_descends_the_mean_cross_entropy(batch, smoothing):
    method = compiled(label_smoothing=smoothing)
    targets = oracles.smoothed(batch["labeled"]["label"], 3, smoothing)
    with tf.GradientTape() as tape:
        log_probabilities = tf.math.log(tf.nn.softmax(method.student(batch["labeled"]["image"])))
        loss = -tf.reduce_sum(targets.astype(np.float32) * log_probabilities) / 4
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert np.allclose(change, -0.5 * gradient, atol=1e-6)


def test_the_metrics_are_those_of_the_step(batch):
    method = compiled(weight_decay=0.1)
    logits = np.array(method.student(batch["labeled"]["image"]), np.float64)
    labels = np.array(batch["labeled"]["label"])
    old = tiny.values(method.student.trainable_variables)
    logs = method.train_step(batch)
    new = tiny.values(method.student.trainable_variables)
    moved = [(after - before) / 0.5 for before, after in zip(old, new, strict=True)]
    assert {name: float(value) for name, value in logs.items()} == pytest.approx(
        {
            "loss": oracles.cross_entropies(oracles.one_hot(labels, 3), logits).mean(),
            "train_accuracy": (logits.argmax(axis=-1) == labels).mean(),
            "student_gradient_norm": oracles.global_norm(moved),
        },
        rel=1e-4,
    )


def test_the_clip_bounds_the_step(batch):
    method = compiled(global_clipnorm=1e-3)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    assert oracles.global_norm(moved) == pytest.approx(0.5 * 1e-3, rel=1e-3)


def test_a_batch_without_unlabeled_images_is_enough(batch):
    method = compiled()
    logs = method.train_step({"labeled": batch["labeled"]})
    assert np.isfinite(float(logs["loss"]))
    assert int(method.step) == 1


def test_it_learns_its_batch(batch):
    method = compiled(learning_rate=0.1)
    losses = []
    for _ in range(30):
        method.reset_metrics()
        losses.append(float(method.train_step(batch)["loss"]))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.5}, r"label_smoothing=1\.5 is out of range: pass a value between 0 and 1"),
        ({"weight_decay": -1.0}, r"weight_decay=-1\.0 is out of range: pass a value of at least 0"),
        ({"global_clipnorm": -1.0}, r"global_clipnorm=-1\.0 is out of range"),
        ({"global_clipnorm": 0.0}, r"global_clipnorm=0\.0 is out of range"),  # every gradient would be 0
        ({"global_clipnorm": "5"}, "global_clipnorm='5' is not a number"),
        ({"ema_decay": 1.1}, r"ema_decay=1\.1 is out of range: pass a value between 0 and 1"),
    ],
)
def test_validation(settings, message):
    with pytest.raises(ValueError, match=message):
        compiled(**settings)
