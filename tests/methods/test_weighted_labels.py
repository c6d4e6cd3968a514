"""Labeled images of different weight, in every method with a loss on labels: an image of weight 2 counts as two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.uda import UDA
from tests.conformance.cases import CASES, Case, meta_pseudo_labels, pseudo_labels
from tests.support import tiny

# Some rows twice or three times, others not at all: what weights are worth, in images.
COUNTS = np.array([3, 0, 1, 2, 0, 0], np.int32)

# Of UDA, signal annealing counts images and not their weights, and mixtures are of other pairs where rows move: both
# have tests of their own below.
METHODS = {
    name: case
    for name, case in CASES.items()
    if not name.startswith("dafl") and name not in ("uda", "pseudo labels mixed", "mpl saving memory")
} | {
    "mpl dot_product of cosines": Case(meta_pseudo_labels("dot_product"), learns=("teacher", "student")),
    "mpl student too": Case(
        meta_pseudo_labels("unrolled", student_labeled_weight=0.5), learns=("teacher", "student")
    ),
    "mpl finite difference": Case(
        meta_pseudo_labels(FeedbackSettings("per_example", finite_difference=True)),
        learns=("teacher", "student"),
    ),
}


def weighted_and_repeated():
    data = tiny.batch(labeled=6)
    # Two that count twice together, as many as there are: what divides by the trusted images counts no weights.
    data["labeled"]["trusted"] = np.array([False, True, False, True, False, False])
    weighted = data | {"labeled": data["labeled"] | {"weight": COUNTS.astype(np.float32)}}
    rows = np.repeat(np.arange(6), COUNTS)
    repeated = data | {"labeled": {key: value[rows] for key, value in data["labeled"].items()}}
    return tiny.tensors(weighted), tiny.tensors(repeated)


@pytest.mark.parametrize("name", METHODS)
def test_a_weight_is_worth_as_many_images(name):
    # Images of weight 0 are seen by BatchNorm, so networks have none.
    results = []
    for batch in weighted_and_repeated():
        method = METHODS[name].compiled(tiny.plain_network, run_eagerly=True, jit_compile=False)
        of_all_images = {"train_accuracy"}
        if name.startswith("pseudo labels"):
            # What regularizes it is about predictions, also on labeled images, and not about labels.
            method.prior_weight = method.entropy_weight = 0.0
            of_all_images |= {"prior_divergence", "entropy"}
        logs = method.train_step(batch)
        results.append((tiny.values(method.trainable_variables), logs))
    (weighted, logs), (repeated, expected) = results
    for found, wanted in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-6)
    for metric in logs.keys() - of_all_images:
        np.testing.assert_allclose(logs[metric], expected[metric], rtol=1e-3, atol=1e-6, err_msg=metric)


def test_signal_annealing_divides_by_the_number_of_images_that_it_leaves():
    data = tiny.batch(labeled=6)
    weights = COUNTS.astype(np.float32)
    method = UDA(
        student=tiny.plain_network("student"), tsa_schedule="linear", tsa_steps=20, consistency_weight=0.0
    )
    method.compile(keras.optimizers.SGD(0.1), run_eagerly=True, jit_compile=False)
    method.step.assign(1)
    logits = method.student(data["labeled"]["image"]).numpy().astype(float)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    correct = probabilities[np.arange(6), data["labeled"]["label"]]
    # η_t = t / T (1 - 1/K) + 1/K, at t = 1 of T = 20 steps.
    selected = correct <= 1 / 20 * (1 - 1 / 3) + 1 / 3
    assert 0 < selected.sum() < 6
    assert (weights[selected] > 0).any()
    expected = (selected * weights * -np.log(correct)).mean() / selected.mean()
    weighted = data | {"labeled": data["labeled"] | {"weight": weights}}
    np.testing.assert_allclose(method.train_step(tiny.tensors(weighted))["labeled_loss"], expected, rtol=1e-5)


def test_a_weight_is_mixed_with_its_label():
    # Where all weigh 2, whatever is mixed with what, the loss on labels is twice as large.
    found = []
    for weight in (1.0, 2.0):
        data = tiny.batch(labeled=6)
        data["labeled"]["weight"] = np.full(6, weight, np.float32)
        case = Case(pseudo_labels("online", hard=False, mixup=1.0), learns=("student",))
        method = case.compiled(tiny.plain_network, run_eagerly=True, jit_compile=False)
        found.append(float(method.train_step(tiny.tensors(data))["labeled_loss"]))
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-6)


def test_weighted_mean():
    values = tf.constant([1.0, 2.0, 6.0])
    assert float(losses.weighted_mean(values)) == 3.0
    assert float(losses.weighted_mean(values, tf.constant([2.0, 0.5, 0.0]))) == 1.0
    assert float(losses.weighted_mean(tf.cast(values, tf.float64), tf.constant([0.0, 0.0, 3.0]))) == 6.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            np.ones((4, 1), np.float32),
            r"weights are float32 of shape \(4, 1\): pass one floating-point number",
        ),
        (np.ones(4, np.int32), "weights are int32"),
        (np.ones(3, np.float32), "different lengths .image 4, label 4, weight 3"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    data = tiny.batch()
    data["labeled"]["weight"] = weights
    method = CASES["supervised"].compiled(run_eagerly=True)
    with pytest.raises(ValueError, match=message):
        method.train_step(tiny.tensors(data))
