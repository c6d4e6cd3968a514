"""Distribution alignment against its formula in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.engine import alignment
from mpl_tf.methods.uda import UDA
from tests.support import oracles, tiny


def batches(count):
    generator = np.random.default_rng(0)
    for _ in range(count):
        logits = generator.normal([2.0, 0.0, -1.0], 2.0, (6, 3))
        yield logits, generator.integers(3, size=4)


@pytest.mark.parametrize("kind", ["uniform", "labeled"])
def test_aligned_predictions_are_the_product_of_the_paper(kind):
    aligned = alignment.DistributionAlignment(3, kind=kind, decay=0.8)
    predicted = target = np.full(3, 1 / 3)
    for logits, labels in batches(12):
        shift = aligned(tf.constant(logits, tf.float32), tf.constant(labels))
        predictions = oracles.softmax(logits)
        predicted = 0.8 * predicted + 0.2 * predictions.mean(axis=0)
        if kind == "labeled":
            target = 0.8 * target + 0.2 * oracles.one_hot(labels, 3).mean(axis=0)
        expected = predictions * target / predicted
        expected /= expected.sum(axis=-1, keepdims=True)
        assert np.allclose(oracles.softmax(logits + np.array(shift, np.float64)), expected, atol=1e-6)
    # The predictions lean to the first class, and less so when they are aligned.
    assert expected.mean(axis=0)[0] < predictions.mean(axis=0)[0] - 0.1


def test_no_gradient_flows_through_the_alignment_and_no_class_is_divided_by_zero():
    aligned = alignment.DistributionAlignment(3, kind="uniform", decay=0.0)
    logits = tf.constant([[500.0, 0.0, -500.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        shift = aligned(logits, tf.constant([0]))
    assert tape.gradient(shift, logits) is None
    assert np.isfinite(shift).all()


def test_none_is_no_alignment():
    assert alignment.make(tiny.plain_network("student"), "none") is None
    method = UDA(student=tiny.plain_network("student"), distribution_alignment="uniform")
    assert len(method.alignment.weights) == 2
    assert {id(weight) for weight in method.alignment.weights} <= {id(weight) for weight in method.weights}
