import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.methods.supervised import Supervised
from tests.support import tiny


def wide(size=8):
    network = models.build("wrn-10-1", 3, (size, size, 1), seed=0)
    for weight in network.weights:
        weight.assign(weight + 0.01)
    return network


def test_a_copy_computes_the_same_and_is_another_network():
    network = wide()
    copy = models.to_finetune(network)
    images = tiny.images(np.random.default_rng(0), 2).repeat(2, axis=1).repeat(2, axis=2)
    assert np.array_equal(copy.predict_on_batch(images), network.predict_on_batch(images))
    assert not {id(v) for v in copy.weights} & {id(v) for v in network.weights}


def test_at_another_resolution_it_is_what_would_have_been_built_there():
    network, larger = wide(8), wide(12)
    copy = models.to_finetune(network, (12, 12, 1))
    images = np.random.default_rng(0).uniform(0, 255, (2, 12, 12, 1)).astype(np.float32)
    assert copy.input_shape == (None, 12, 12, 1)
    assert np.allclose(copy.predict_on_batch(images), larger.predict_on_batch(images), atol=1e-5)


def test_shallow_layers_are_frozen():
    network = wide()
    copy = models.to_finetune(network, frozen_fraction=0.5)
    method = Supervised(student=copy)
    method.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    data = tiny.tensors(tiny.batch())
    data["labeled"]["image"] = np.repeat(np.repeat(data["labeled"]["image"], 2, axis=1), 2, axis=2)
    method.train_step(data)
    layers = [layer for layer in copy.layers if layer.weights]
    originals = [network.get_layer(layer.name) for layer in layers]
    moved = [
        any(not np.array_equal(*pair) for pair in zip(a.get_weights(), b.get_weights(), strict=True))
        for a, b in zip(layers, originals, strict=True)
    ]
    half = len(layers) // 2
    assert moved == [False] * half + [True] * (len(layers) - half)


def test_weights_that_depend_on_the_resolution_are_refused():
    message = r"takes images of shape \(4, 4, 1\), and its weights would have other shapes for \(8, 8, 1\)"
    with pytest.raises(ValueError, match=message):
        models.to_finetune(tiny.network("student"), (8, 8, 1))


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(fraction):
    with pytest.raises(ValueError, match=f"frozen_fraction={fraction} is out of range"):
        models.to_finetune(wide(), frozen_fraction=fraction)
