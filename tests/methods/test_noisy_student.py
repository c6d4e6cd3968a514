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


def weighted_means(values, decay):
    """The moving average after each value, as the weighted mean that it is: the newest weighs 1, each older less."""
    weights = [decay**age for age in range(len(values))]
    return [np.average(values[: n + 1], weights=weights[n::-1]) for n in range(len(values))]


@pytest.mark.parametrize("weight", [None, 0.4])
def test_normalized_losses_are_those_of_the_paper(batch, weight):
    """L = 1/(1 + α) (L_h + α L̄_h / L̄_p L_p), and the step descends it with the averages held fixed."""
    settings = {"loss_normalization": True, "loss_average_decay": 0.8, "labeled_weight": 0.7}
    method = compiled(**settings, unlabeled_weight=weight, label_smoothing=0.0)
    stored = np.array(batch["unlabeled"]["probabilities"], np.float64)
    # 6 unlabeled images for 4 labeled ones.
    alpha = 6 / 4 if weight is None else weight
    expected, seen, averaged = [], [], {"labeled": [], "unlabeled": []}
    for _ in range(4):
        labeled, unlabeled = expected_losses(method, batch, targets=stored, smoothing=0.0)
        averaged["labeled"].append(labeled)
        averaged["unlabeled"].append(unlabeled)
        means = [weighted_means(values, 0.8)[-1] for values in averaged.values()]
        ratio = means[0] / means[1]
        expected.append((ratio, (0.7 * labeled + alpha * ratio * unlabeled) / (1 + alpha)))
        start = tiny.values(method.student.trainable_variables)
        with tf.GradientTape() as tape:
            logs_on_labeled, logs_on_unlabeled = (
                tf.math.log(tf.nn.softmax(method.student(images)))
                for images in (batch["labeled"]["image"], batch["unlabeled"]["strong"])
            )
            one_hot = oracles.one_hot(batch["labeled"]["label"], 3).astype(np.float32)
            loss = -0.7 * tf.reduce_sum(one_hot * logs_on_labeled) / 4
            loss -= alpha * ratio * tf.reduce_sum(stored.astype(np.float32) * logs_on_unlabeled) / 6
        gradients = tape.gradient(loss, method.student.trainable_variables)
        for tracker in method.train_trackers:
            tracker.reset_state()
        logs = method.train_step(batch)
        seen.append((float(logs["loss_ratio"]), float(logs["loss"])))
        for old, new, gradient in zip(
            start, tiny.values(method.student.trainable_variables), gradients, strict=True
        ):
            assert np.allclose(new - old, -0.5 / (1 + alpha) * gradient, atol=1e-5)
    assert np.allclose(seen, expected, rtol=1e-5)
    # The losses fall at different rates, so the ratio says more than the first batch's did.
    assert abs(expected[-1][0] - expected[0][0]) > 0.01


def test_an_overflow_does_not_reach_the_averages(batch):
    method = compiled(loss_normalization=True)
    method.train_step(batch)
    before = np.array(method.loss_averages)
    ratio = method._average_loss_ratio(tf.constant(float("inf")), tf.constant(1.0))
    assert np.array_equal(method.loss_averages, before)
    assert float(ratio) == pytest.approx(before[0] / before[1])


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
        ({"loss_normalization": 1}, "loss_normalization=1 is unknown: Choose one of True, False"),
        ({"loss_average_decay": 1.5}, "loss_average_decay=1.5 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
    ],
)
def test_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        NoisyStudent(student=tiny.plain_network("student"), **setting)
