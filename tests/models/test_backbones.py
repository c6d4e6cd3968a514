"""The networks of keras.applications against keras.applications itself."""

import keras
import numpy as np
import pytest

from mpl_tf import models

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


def branch_drop_rates(model):
    return {
        layer.name: layer.rate
        for layer in model.layers
        if isinstance(layer, keras.layers.Dropout) and layer.noise_shape is not None
    }


@pytest.fixture(scope="module")
def original():
    return keras.applications.EfficientNetV2B0(
        weights=None,
        input_shape=(32, 32, 3),
        classes=3,
        classifier_activation=None,
        include_preprocessing=False,
    )


@pytest.fixture(scope="module")
def efficientnet():
    return models.build("efficientnetv2-b0", 3, (32, 32, 3), dropout=0.25, synchronized=True, seed=1)


def test_efficientnet_is_that_of_keras_on_pixels_rescaled_once(original, efficientnet):
    original.set_weights(efficientnet.get_weights())
    expected = original(IMAGES / 127.5 - 1)
    np.testing.assert_allclose(efficientnet(IMAGES), expected, rtol=1e-4, atol=1e-7)
    assert efficientnet.get_layer("features").output.shape == (None, 1280)
    assert efficientnet.output.dtype == "float32"


def test_efficientnet_drops_no_branch_unless_asked(efficientnet):
    rates = branch_drop_rates(efficientnet)
    assert len(rates) > 10
    assert set(rates.values()) == {0.0}
    assert efficientnet.get_layer("dropout").rate == 0.25


@pytest.mark.slow
def test_efficientnets_stochastic_depth_is_scaled_from_that_of_keras(original):
    rates = branch_drop_rates(original)
    assert max(rates.values()) > 0.15
    model = models.build("efficientnetv2-b0", 3, (32, 32, 1), stochastic_depth=0.3)
    assert branch_drop_rates(model) == pytest.approx({name: rate * 0.3 / 0.2 for name, rate in rates.items()})


def test_efficientnet_takes_seed_and_synchronization(efficientnet):
    norms = [layer for layer in efficientnet.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert all(layer.synchronized for layer in norms)
    seeds = {
        layer.get_config()["kernel_initializer"]["config"]["seed"]
        for layer in efficientnet.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert None not in seeds
    assert len(seeds) > 50


def test_resnet_50_has_the_weights_of_keras_and_one_rescaling():
    model = models.build("resnet-50", 3, (32, 32, 3))
    original = keras.applications.ResNet50(weights=None, classes=3)
    assert [weight.shape for weight in model.weights] == [weight.shape for weight in original.weights]
    assert [layer.name for layer in model.layers if isinstance(layer, keras.layers.Rescaling)] == ["rescale"]
    assert model.output.dtype == "float32"
    assert model.get_layer("features").output.shape == (None, 2048)
