"""EfficientNets of any size against those of keras.applications and a published number of weights."""

import math

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models.efficientnet import efficientnet


@pytest.fixture(scope="module")
def pair():
    """Keras' B0 and ours, with the same weights, none of which is a constant."""
    reference = models.build("efficientnet-b0", 5, (64, 64, 3), stochastic_depth=0.2, dropout=0.1)
    ours = efficientnet(1.0, 1.0, 5, (64, 64, 3), stochastic_depth=0.2, dropout=0.1)
    rng = np.random.default_rng(0)
    weights = [
        weight if weight.ndim > 1 else rng.uniform(0.5, 1.5, weight.shape)
        for weight in reference.get_weights()
    ]
    reference.set_weights(weights)
    ours.set_weights(weights)
    return reference, ours


def pixels(count=3):
    return np.random.default_rng(1).uniform(0, 255, (count, 64, 64, 3)).astype("float32")


def test_a_width_and_a_depth_of_one_are_b0(pair):
    reference, ours = pair
    expected = reference(pixels()).numpy()
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(ours(pixels()), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_branches_are_dropped_as_often_as_in_b0(pair):
    rates = [
        [
            layer.rate
            for layer in network.layers
            if isinstance(layer, keras.layers.Dropout) and layer.noise_shape is not None
        ]
        for network in pair
    ]
    assert len(rates[0]) == 9
    np.testing.assert_allclose(rates[1], rates[0])


def test_its_normalization_forgets_as_that_of_b0(pair):
    layers = [
        [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
        for network in pair
    ]
    for reference, ours in zip(*layers, strict=True):
        assert (ours.momentum, ours.epsilon) == (reference.momentum, reference.epsilon)


def weights_by_hand(width, depth, classes):
    """Trainable weights, from table 1 of the paper and its rule of scaling."""

    def filters(count):
        rounded = max(8, int(count * width + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * count * width else rounded

    stages = [(3, 1, 16, 1), (3, 6, 24, 2), (5, 6, 40, 2), (3, 6, 80, 3), (5, 6, 112, 3), (5, 6, 192, 4)]
    before = filters(32)
    total = 27 * before + 2 * before
    for size, expansion, count, blocks in [*stages, (3, 6, 320, 1)]:
        after = filters(count)
        for _ in range(math.ceil(depth * blocks)):
            wide, squeezed = expansion * before, max(1, before // 4)
            total += (before * wide + 2 * wide) if expansion > 1 else 0
            total += size * size * wide + 2 * wide
            total += wide * squeezed + squeezed + squeezed * wide + wide
            total += wide * after + 2 * after
            before = after
    top = filters(1280)
    return total + before * top + 2 * top + top * classes + classes


def test_weights_by_hand():
    model = efficientnet(0.3, 0.4, 7, (32, 32, 3))
    count = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert count == weights_by_hand(0.3, 0.4, 7)


def test_l2_has_the_480_million_weights_of_noisy_student():
    # The number of the released network's weights; B7, of 66 million, by the same rule.
    assert weights_by_hand(4.3, 5.3, 1000) == 480_309_308
    assert weights_by_hand(2.0, 3.1, 1000) == 66_347_960


def test_gray_images_are_repeated():
    gray = efficientnet(0.25, 0.1, 3, (32, 32, 1))
    color = efficientnet(0.25, 0.1, 3, (32, 32, 3))
    color.set_weights(gray.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 1)).astype("float32")
    np.testing.assert_allclose(gray(images), color(np.repeat(images, 3, axis=-1)), atol=1e-6)
