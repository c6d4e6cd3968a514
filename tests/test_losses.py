import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import losses
from tests.support import oracles

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(0, 3, (7, 5))
OTHER_LOGITS = GENERATOR.normal(0, 3, (7, 5))
LABELS = GENERATOR.integers(5, size=7)


def close(value, expected):
    return np.allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.15, 1.0])
def test_cross_entropy(smoothing):
    value = losses.cross_entropy(LABELS, tf.constant(LOGITS), label_smoothing=smoothing)
    assert close(value, oracles.cross_entropies(oracles.smoothed(LABELS, 5, smoothing), LOGITS))


def test_soft_cross_entropy():
    targets = oracles.softmax(OTHER_LOGITS)
    assert close(losses.soft_cross_entropy(targets, LOGITS), oracles.cross_entropies(targets, LOGITS))


def test_soft_cross_entropy_passes_gradients_into_its_targets():
    targets = tf.constant(oracles.softmax(OTHER_LOGITS))
    with tf.GradientTape() as tape:
        tape.watch(targets)
        loss = tf.reduce_sum(losses.soft_cross_entropy(targets, LOGITS))
    assert close(tape.gradient(loss, targets), -np.log(oracles.softmax(LOGITS)))


def test_kl_divergence():
    assert close(
        losses.kl_divergence(tf.constant(OTHER_LOGITS), tf.constant(LOGITS)),
        oracles.kl_divergences(OTHER_LOGITS, LOGITS),
    )


def test_kl_divergence_is_zero_where_the_distributions_agree():
    shifted = tf.constant(LOGITS + 3.0)
    assert np.abs(losses.kl_divergence(tf.constant(LOGITS), shifted)).max() < 1e-12


def test_entropy():
    assert close(losses.entropy(tf.constant(LOGITS)), oracles.entropies(LOGITS))
    assert close(losses.entropy(tf.zeros([1, 5], tf.float64)), [np.log(5)])


def test_confidence_mask_is_on_the_untempered_probability():
    logits = np.log([[0.59, 0.41], [0.61, 0.39], [0.2, 0.8]])
    assert np.array_equal(losses.confidence_mask(tf.constant(logits), 0.6), [0.0, 1.0, 1.0])


def test_confidence_mask_of_zero_keeps_everything_and_of_one_only_certainty():
    logits = tf.constant([[0.0, 0.0], [0.0, 1000.0]])
    assert np.array_equal(losses.confidence_mask(logits, 0.0), [1.0, 1.0])
    assert np.array_equal(losses.confidence_mask(logits, 1.0), [0.0, 1.0])


def test_consistency():
    mask = losses.confidence_mask(tf.constant(LOGITS), 0.8)
    assert 0 < np.sum(mask) < len(LOGITS)
    value = losses.consistency(LOGITS, tf.constant(OTHER_LOGITS), temperature=0.7, mask=mask)
    expected = oracles.consistencies(LOGITS, OTHER_LOGITS, temperature=0.7, threshold=0.8)
    assert close(value, expected)


def test_consistency_trains_the_strong_view_and_not_its_target():
    weak, strong = tf.constant(LOGITS), tf.constant(OTHER_LOGITS)
    with tf.GradientTape() as tape:
        tape.watch([weak, strong])
        mask = losses.confidence_mask(weak, 0.8)
        loss = tf.reduce_sum(losses.consistency(weak, strong, temperature=0.7, mask=mask))
    on_weak, on_strong = tape.gradient(loss, [weak, strong])
    kept = oracles.softmax(LOGITS).max(axis=-1, keepdims=True) >= 0.8
    assert on_weak is None
    assert close(on_strong, kept * (oracles.softmax(OTHER_LOGITS) - oracles.softmax(LOGITS / 0.7)))


@pytest.mark.parametrize("name", ["cross_entropy", "kl_divergence", "entropy"])
def test_extreme_logits_stay_finite(name):
    logits = tf.constant([[1e4, -1e4, 0.0]])
    arguments = {"cross_entropy": ([1], logits), "kl_divergence": (-logits, logits), "entropy": (logits,)}
    assert np.isfinite(getattr(losses, name)(*arguments[name])).all()


def test_prior_divergence():
    mean = oracles.softmax(LOGITS).mean(axis=0)
    expected = (np.log(1 / 5 / mean) / 5).sum()
    assert close(losses.prior_divergence(tf.constant(mean)), expected)
    assert close(losses.prior_divergence(tf.fill([5], tf.constant(0.2, tf.float64))), 0.0)


def test_prior_divergence_of_a_class_that_nobody_predicts_is_finite_and_so_is_its_gradient():
    with tf.GradientTape() as tape:
        mean = tf.constant([0.5, 0.5, 0.0])
        tape.watch(mean)
        value = losses.prior_divergence(mean)
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, mean)).all()


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_pseudo_label_consistency(temperature):
    mask = losses.confidence_mask(tf.constant(LOGITS), 0.8)
    targets = oracles.softmax(LOGITS / temperature) if temperature else oracles.one_hot(LOGITS.argmax(-1), 5)
    value = losses.pseudo_label_consistency(
        tf.constant(LOGITS), tf.constant(OTHER_LOGITS), temperature=temperature, mask=mask
    )
    expected = (oracles.softmax(LOGITS).max(axis=-1) >= 0.8) * oracles.cross_entropies(targets, OTHER_LOGITS)
    assert close(value, expected)
    cold = losses.pseudo_label_consistency(
        tf.constant(LOGITS), tf.constant(OTHER_LOGITS), temperature=1e-6, mask=mask
    )
    hard = losses.pseudo_label_consistency(
        tf.constant(LOGITS), tf.constant(OTHER_LOGITS), temperature=0.0, mask=mask
    )
    assert close(cold, hard)


def test_pseudo_label_consistency_trains_the_strong_view_and_not_its_target():
    weak, strong = tf.constant(LOGITS), tf.constant(OTHER_LOGITS)
    for temperature in (0.0, 0.5):
        with tf.GradientTape() as tape:
            tape.watch([weak, strong])
            mask = losses.confidence_mask(weak, 0.8)
            values = losses.pseudo_label_consistency(weak, strong, temperature=temperature, mask=mask)
        on_weak, on_strong = tape.gradient(values, [weak, strong])
        targets = (
            oracles.softmax(LOGITS / temperature) if temperature else oracles.one_hot(LOGITS.argmax(-1), 5)
        )
        confident = oracles.softmax(LOGITS).max(axis=-1, keepdims=True) >= 0.8
        assert on_weak is None
        assert close(on_strong, confident * (oracles.softmax(OTHER_LOGITS) - targets))


def test_confidence_mask_with_a_threshold_for_each_example():
    logits = tf.constant(np.log([[0.59, 0.41], [0.61, 0.39], [0.2, 0.8]]))
    assert np.array_equal(losses.confidence_mask(logits, tf.constant([0.5, 0.7, 0.8], tf.float64)), [1, 0, 1])
