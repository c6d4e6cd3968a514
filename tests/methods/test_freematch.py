import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.methods.freematch import FreeMatch
from tests.methods.pseudo_labeling_oracles import SelfAdaptive, aligned, pseudo_labels
from tests.support import oracles, tiny


def compiled(rate=0.5, **settings):
    method = FreeMatch(student=tiny.plain_network("student"), **settings)
    method.compile(keras.optimizers.SGD(rate), run_eagerly=True)
    return method


def logits_of(method, batch):
    views = (batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["strong"])
    return [np.array(method.student(view), np.float64) for view in views]


def one_step(method, batch):
    """The metrics of this step alone."""
    for tracker in method.train_trackers:
        tracker.reset_state()
    return {name: float(value) for name, value in method.train_step(batch).items()}


@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("prior", [None, (0.5, 0.3, 0.2)])
def test_several_steps_follow_algorithm_1(temperature, prior):
    """Thresholds, histogram, mask and all three losses, replayed in float64 from the weights of every step."""
    method = compiled(
        threshold_decay=0.6,
        fairness_weight=0.3,
        consistency_weight=2.0,
        temperature=temperature,
        class_prior=prior,
    )
    statistics, mean = SelfAdaptive(3, 0.6), np.full(3, 1 / 3)
    mask_rates, lowest = set(), []
    for step in range(6):
        batch = tiny.tensors(tiny.batch(seed=step))
        on_labeled, weak, strong = logits_of(method, batch)
        q = oracles.softmax(weak)
        if prior:
            q, mean = aligned(weak, prior, mean, step=step, decay=0.999)
        statistics.update(q)
        confident = statistics.confident(q)
        targets = pseudo_labels(np.log(q), temperature)
        labeled_loss = oracles.cross_entropies(
            oracles.one_hot(batch["labeled"]["label"], 3), on_labeled
        ).mean()
        consistency_loss = (confident * oracles.cross_entropies(targets, strong)).mean()
        fairness_loss = statistics.fairness(q, oracles.softmax(strong))
        expected = {
            "loss": labeled_loss + 2.0 * consistency_loss + 0.3 * fairness_loss,
            "labeled_loss": labeled_loss,
            "consistency_loss": consistency_loss,
            "fairness_loss": fairness_loss,
            "mask_rate": confident.mean(),
            "global_threshold": statistics.tau,
            "lowest_threshold": min(statistics.class_thresholds()),
        }
        logs = one_step(method, batch)
        assert {name: logs[name] for name in expected} == pytest.approx(expected, abs=1e-4)
        assert np.allclose(method.thresholds.mean_prediction, statistics.p, atol=1e-5)
        assert np.allclose(method.thresholds.label_histogram, statistics.h, atol=1e-5)
        mask_rates.add(logs["mask_rate"])
        lowest.append(logs["lowest_threshold"])
    # The steps are no six repetitions of one in which everything passes.
    assert len(mask_rates) > 1
    assert len(set(lowest)) == 6


def test_a_step_descends_all_three_losses(batch):
    """The fairness' gradient by complex steps in the strong logits, carried into the weights by a tape."""
    method = compiled(threshold_decay=0.3, fairness_weight=0.5, consistency_weight=2.0, label_smoothing=0.1)
    _, weak, strong = logits_of(method, batch)
    statistics, q = SelfAdaptive(3, 0.3), oracles.softmax(weak)
    statistics.update(q)
    confident = statistics.confident(q)
    assert 0 < confident.sum() < 6
    on_strong = oracles.gradient(lambda logits: statistics.fairness(q, oracles.softmax(logits)), strong)
    assert np.abs(on_strong[confident]).max() > 1e-3
    assert np.all(on_strong[~confident] == 0.0)
    targets = (confident[:, None] * pseudo_labels(weak, 0)).astype(np.float32)
    labels = oracles.smoothed(batch["labeled"]["label"], 3, 0.1).astype(np.float32)
    with tf.GradientTape(persistent=True) as tape:
        labeled, strong_logits = (
            method.student(images) for images in (batch["labeled"]["image"], batch["unlabeled"]["strong"])
        )
        labeled_loss = -tf.reduce_sum(labels * tf.math.log(tf.nn.softmax(labeled))) / 4
        consistency = -tf.reduce_sum(targets * tf.math.log(tf.nn.softmax(strong_logits))) / 6
        fairness = tf.reduce_sum(on_strong.astype(np.float32) * strong_logits)
        loss = labeled_loss + 2.0 * consistency + 0.5 * fairness
    weights = method.student.trainable_variables
    for part in (labeled_loss, consistency, fairness):
        assert all(np.abs(gradient).max() > 1e-4 for gradient in tape.gradient(part, weights))
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, tape.gradient(loss, weights), strict=True):
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)


def test_a_batch_moves_the_thresholds_before_it_is_masked(batch):
    """Lines 3 to 5 come before line 9: with λ = 0 nothing but this batch decides."""
    method = compiled(threshold_decay=0.0)
    q = oracles.softmax(logits_of(method, batch)[1])
    logs = one_step(method, batch)
    assert logs["global_threshold"] == pytest.approx(q.max(axis=-1).mean(), abs=1e-5)
    thresholds = q.mean(axis=0) / q.mean(axis=0).max() * q.max(axis=-1).mean()
    assert logs["mask_rate"] == pytest.approx((q.max(axis=-1) >= thresholds[q.argmax(axis=-1)]).mean())


def test_the_average_gives_the_pseudo_labels_and_moves_the_thresholds(batch):
    method = compiled(targets="average", threshold_decay=0.0)
    method.student_average.trainable_variables[-1].assign([1.0, -1.0, 0.0])
    weak = np.array(method.student_average(batch["unlabeled"]["weak"]), np.float64)
    strong = logits_of(method, batch)[2]
    statistics, q = SelfAdaptive(3, 0.0), oracles.softmax(weak)
    statistics.update(q)
    expected = statistics.confident(q) * oracles.cross_entropies(pseudo_labels(weak, 0), strong)
    logs = one_step(method, batch)
    assert logs["global_threshold"] == pytest.approx(statistics.tau, abs=1e-5)
    assert logs["consistency_loss"] == pytest.approx(expected.mean(), rel=1e-4)


def test_an_overflow_does_not_reach_the_statistics(batch):
    method = compiled()
    for bias in (float("inf"), float("nan")):
        method.thresholds.update(tf.fill([6, 3], bias))
    assert float(method.thresholds.global_threshold) == pytest.approx(1 / 3)
    assert np.allclose(method.thresholds.mean_prediction, 1 / 3)


# --- the class fairness ------------------------------------------------------------------------------------


def fairness(p, h, p_bar, h_bar):
    tensors = [tf.constant(values, tf.float64) for values in (p, h, p_bar, h_bar)]
    with tf.GradientTape() as tape:
        tape.watch(tensors[2])
        loss = losses.self_adaptive_fairness(*tensors)
    return float(loss), tape.gradient(loss, tensors[2]).numpy()


def test_the_fairness_is_the_negative_cross_entropy_of_the_normalized_ratios():
    p, h = [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]
    p_bar, h_bar = [0.4, 0.2, 0.1], [0.5, 0.25, 0.25]
    target, prediction = np.divide(p, h), np.divide(p_bar, h_bar)
    expected = (target / target.sum() * np.log(prediction / prediction.sum())).sum()
    assert fairness(p, h, p_bar, h_bar)[0] == pytest.approx(expected, rel=1e-12)


def test_its_gradient_vanishes_where_both_ratios_agree_and_points_away_from_there():
    """The printed sign: descending L_f makes a class that the strong views have too much of still more frequent."""
    p = np.array([0.5, 0.3, 0.2])
    uniform = np.full(3, 1 / 3)
    assert np.abs(fairness(p, uniform, p, uniform)[1]).max() < 1e-12
    gradient = fairness(p, uniform, p + np.array([0.05, -0.05, 0.0]), uniform)[1]
    assert gradient[0] < 0.0 < gradient[1]


@pytest.mark.parametrize("present", [[True, True, False], [True, False, False], [False, False, False]])
def test_classes_that_no_confident_strong_view_has_are_left_out(present):
    p_bar, h_bar = np.where(present, [0.4, 0.2, 0.1], 0.0), np.where(present, [0.5, 0.25, 0.25], 0.0)
    value, gradient = fairness([0.5, 0.3, 0.2], [0.6, 0.3, 0.1], p_bar, h_bar)
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradient))
    assert np.all(gradient[~np.array(present)] == 0.0)
    assert (value < 0.0) == (sum(present) > 1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"consistency_weight": -1.0}, "consistency_weight=-1.0 is out of range"),
        ({"fairness_weight": -0.1}, "fairness_weight=-0.1 is out of range"),
        ({"threshold_decay": 1.5}, "threshold_decay=1.5 is out of range"),
        ({"temperature": -0.1}, "temperature=-0.1 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
        ({"class_prior": (0.9, 0.2, 0.2)}, "no distribution over the classes"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        FreeMatch(student=tiny.plain_network("student"), **setting)
