import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import evaluation
from mpl_tf.evaluation.robustness import corruptions, perturbations, scores
from tests.evaluation.robustness.scenes import digits, scenes


class Threshold(keras.Model):
    """Class 1 where the mean level is above a bound, else 0."""

    def __init__(self, bound):
        super().__init__()
        self.bound = bound

    def call(self, images, training=False):
        mean = tf.reduce_mean(images, axis=(1, 2, 3))
        return tf.stack([tf.fill(tf.shape(mean), self.bound), mean], axis=-1)


def batches(images, labels, size):
    data = {"image": images.astype("float32"), "label": np.asarray(labels, "int32")}
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def means(images):
    return images.reshape(len(images), -1).astype(float).mean(axis=1)


def test_errors_are_those_of_a_loop_over_everything():
    images = scenes(5, 16)
    bounds = {
        "low": float(np.sort(means(images))[1] + 1e-3),
        "high": float(np.sort(means(images))[3] + 1e-3),
    }
    networks = {role: Threshold(bound) for role, bound in bounds.items()}
    labels = [1, 0, 1, 1, 0]
    found = evaluation.corruption_errors(networks, batches(images, labels, 2), seed=4)
    assert list(found["low"]) == list(corruptions.NAMES)
    for role, bound in bounds.items():
        for name, severity in itertools.product(corruptions.NAMES, range(1, 6)):
            wrong = 0
            for number, (image, label) in enumerate(zip(images, labels, strict=True)):
                seen = evaluation.corrupt(image[None], name, severity, index=[number], seed=4)
                wrong += int(means(seen)[0] > bound) != label
            assert found[role][name][severity - 1] == pytest.approx(wrong / 5)
    assert found["low"] != found["high"]


def test_flips_are_those_of_a_loop_over_everything():
    images = digits(11)
    bound = float(np.median(means(images)))
    found = evaluation.flip_probabilities({"only": Threshold(bound)}, batches(images, [0] * 11, 9), seed=2)
    for name in perturbations.NAMES:
        flips, pairs = 0, 0
        for number, image in enumerate(images):
            frames = evaluation.perturb(image[None], name, index=[number], seed=2)[0]
            classes = means(frames).astype("float32") > np.float32(bound)
            for j in range(1, len(classes)):
                before = classes[0] if name in ("gaussian_noise", "shot_noise") else classes[j - 1]
                flips, pairs = flips + (classes[j] != before), pairs + 1
        assert found["only"][name] == pytest.approx(flips / pairs), name
    assert max(found["only"].values()) > 0


@pytest.mark.parametrize("noise", [False, True])
def test_flip_probability_by_hand(noise):
    predicted = np.array([[1, 1, 2, 2], [3, 4, 3, 3]])
    # With the frame before: 1→1→2→2 flips once, 3→4→3→3 twice. With the first: 2, 2 and 4.
    assert scores.flip_probability(predicted, noise=noise) == pytest.approx(3 / 6)
    predicted = np.array([[1, 2, 1, 2]])
    assert scores.flip_probability(predicted, noise=noise) == pytest.approx(2 / 3 if noise else 1.0)


def test_mean_corruption_error_and_mean_flip_rate_are_means_of_ratios():
    generator = np.random.default_rng(0)
    errors, baseline = ({name: generator.random(5).tolist() for name in corruptions.NAMES} for _ in range(2))
    ratios = [sum(errors[name]) / sum(baseline[name]) for name in corruptions.NAMES]
    assert evaluation.mean_corruption_error(errors, baseline) == pytest.approx(sum(ratios) / 15, rel=1e-12)
    plain = sum(error for name in corruptions.NAMES for error in errors[name]) / 75
    assert evaluation.mean_corruption_error(errors) == pytest.approx(plain, rel=1e-12)
    assert evaluation.mean_corruption_error(baseline, baseline) == pytest.approx(1.0)

    flips, others = ({name: values[0] for name, values in table.items()} for table in (errors, baseline))
    rate = sum(flips[name] / others[name] for name in flips) / 15
    assert evaluation.mean_flip_rate(flips, others) == pytest.approx(rate, rel=1e-12)
    assert evaluation.mean_flip_rate(flips) == pytest.approx(sum(flips.values()) / 15, rel=1e-12)


def test_a_baseline_without_errors_has_no_ratio():
    assert evaluation.mean_corruption_error({"fog": [0.5] * 5}, {"fog": [0.0] * 5}) is None
    assert evaluation.mean_flip_rate({"snow": 0.5}, {"snow": 0.0}) is None


@pytest.mark.parametrize("measure", [evaluation.corruption_errors, evaluation.flip_probabilities])
def test_empty_datasets_and_points_are_refused(measure):
    network = {"only": Threshold(1.0)}
    with pytest.raises(ValueError, match="The dataset to test robustness on is empty"):
        measure(network, batches(digits(2), [0, 1], 2).take(0))
    with pytest.raises(ValueError, match="C of 1 or 3"):
        measure(network, batches(np.zeros((3, 2)), [0, 1, 0], 3))
