"""Networks that start from others' weights."""

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models.fingerprints import weights_fingerprint
from tests.support import tiny


def test_the_copy_predicts_what_the_source_does_whatever_has_no_weights():
    source, target = tiny.network("source", seed=1, dropout=0.0), tiny.network("target", seed=2, dropout=0.5)
    images = np.random.default_rng(0).uniform(0, 255, (5, *tiny.IMAGE_SHAPE)).astype("float32")
    # BatchNorm's statistics too, which are other than those of a new network.
    for layer in source.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.arange(4.0))
            layer.moving_variance.assign(np.arange(1.0, 5.0))
    before = source.predict(images, verbose=0)
    assert models.weights_difference(source, target) is None
    assert models.copy_weights(source, target) is target
    np.testing.assert_array_equal(target.predict(images, verbose=0), before)
    np.testing.assert_array_equal(source.predict(images, verbose=0), before)


def test_a_normalization_layer_computes_with_the_weights_that_it_was_given():
    def network():
        layers = [keras.Input((2,)), keras.layers.Normalization(), keras.layers.Dense(2)]
        return keras.Sequential(layers)

    points = np.random.default_rng(0).normal(3.0, 5.0, (50, 2))
    source, target = network(), network()
    source.layers[0].adapt(points)
    models.copy_weights(source, target)
    np.testing.assert_allclose(
        target.predict(points, verbose=0), source.predict(points, verbose=0), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "mlp-8x2",
            r"features/kernel of shape \(8, 8\) in the one would become logits/kernel of shape \(8, 3\)",
        ),
        (
            "mlp-9x1",
            r"features/kernel of shape \(16, 9\) in the one would become features/kernel of shape \(16, 8\)",
        ),
    ],
)
def test_networks_that_differ_are_named_and_left_as_they_are(source, message):
    source, target = (models.build(name, 3, (4, 4, 1), seed=0) for name in (source, "mlp-8x1"))
    before = weights_fingerprint(target)
    with pytest.raises(ValueError, match=message):
        models.copy_weights(source, target)
    assert weights_fingerprint(target) == before
    # Weights of the same shapes in another order are another network's.
    inputs = keras.Input((4,))
    first = keras.Model(inputs, keras.layers.BatchNormalization(name="norm")(inputs))
    second = keras.Model(inputs, keras.layers.BatchNormalization(name="norm", scale=False)(inputs))
    assert "norm/gamma of shape (4,) in the one would become norm/beta" in models.weights_difference(
        first, second
    )
    assert (
        models.weights_difference(first, keras.Model(inputs, inputs))
        == "the one has 4 weights and the other 0"
    )


def test_class_names_are_compared_where_both_have_them():
    def network(names=None):
        return models.build("mlp-8x1", 3, (4, 4, 1), seed=0, class_names=names)

    with pytest.raises(ValueError, match="output 0 is 'b' for the network and 'a' for the network to start"):
        models.copy_weights(network("bac"), network("abc"))
    models.copy_weights(network(), network("abc"))
    models.copy_weights(network("abc"), network())
