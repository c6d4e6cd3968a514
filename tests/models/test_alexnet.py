"""AlexNet against NumPy and against the number of weights that its users publish."""

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models.alexnet import alexnet

TINY = {"filters": (3, 4, 5, 4, 3), "units": 6}


def weights_by_hand(filters, units, *, features, channels=3, classes=10):
    """All weights, from what the paper says about the layers; `features` is the area of the last pooling."""
    sizes = [11, 5, 3, 3, 3]
    convolutions = sum(
        size * size * before * after + after
        for size, before, after in zip(sizes, (channels, *filters[:-1]), filters, strict=True)
    )
    hidden = (features * filters[-1] * units + units) + (units * units + units)
    return convolutions + hidden + units * classes + classes


@pytest.mark.parametrize(("side", "last"), [(28, 1), (32, 2), (62, 6), (63, 1), (64, 1), (224, 6)])
def test_what_is_left_of_images_of_every_size(side, last):
    model = alexnet(10, (side, side, 3), **TINY)
    assert model.get_layer("pool5").output.shape == (None, last, last, 3)
    assert model.get_layer("features").output.shape == (None, 3 * last**2)
    assert model.count_params() == weights_by_hand(*TINY.values(), features=last**2)


def test_on_faces_it_has_the_weights_that_data_free_learning_states():
    # Chen et al.: "about 57M parameters", and the half of it "only about 40M".
    whole = weights_by_hand((64, 192, 384, 256, 256), 4096, features=36, classes=2)
    half = weights_by_hand((32, 96, 192, 128, 128), 4096, features=36, classes=2)
    assert whole == 57_012_034
    assert half == 36_291_490


def test_the_half_is_a_network_by_name():
    model = models.build("alexnet-half", 10, (28, 28, 1))
    assert model.count_params() == weights_by_hand((32, 96, 192, 128, 128), 4096, features=1, channels=1)


def convolve(x, kernel, bias, *, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[
        :, ::stride, ::stride
    ]
    return np.maximum(np.einsum("nhwcij,ijcf->nhwf", windows, kernel) + bias, 0)


def pool(x):
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
    return windows.max(axis=(-2, -1))


@pytest.mark.parametrize(("side", "stride"), [(30, 1), (70, 4)])
def test_against_numpy(side, stride):
    model = alexnet(4, (side, side, 3), **TINY)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(rng.normal(0, 0.1, variable.shape))
    images = rng.uniform(0, 255, (2, side, side, 3))
    weights = [weight.astype("float64") for weight in model.get_weights()]
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    x = images / 127.5 - 1
    for index, (kernel, bias) in enumerate(layers[:5]):
        x = convolve(x, kernel, bias, stride=stride if index == 0 else 1, padding=2 if index < 2 else 1)
        x = pool(x) if index in (0, 1, 4) else x
    x = x.reshape(2, -1)
    for kernel, bias in layers[5:7]:
        x = np.maximum(x @ kernel + bias, 0)
    expected = x @ layers[7][0] + layers[7][1]
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(model(images.astype("float32")), expected, rtol=1e-3, atol=1e-4)


def test_dropout_acts_on_both_hidden_layers():
    model = alexnet(4, (28, 28, 1), **TINY, dropout=0.5)
    for name, layer in (("dropout1", "hidden1"), ("dropout", "hidden2")):
        assert model.get_layer(name).input is model.get_layer(layer).output
        assert model.get_layer(name).rate == 0.5
    assert model.get_layer("hidden2").input is model.get_layer("dropout1").output
    assert model.get_layer("logits").input is model.get_layer("dropout").output


def test_it_starts_from_he():
    model = alexnet(10, (28, 28, 1), filters=(64, 64, 64, 64, 64), units=256)
    for name in ("conv1", "conv3", "hidden2"):
        kernel = model.get_layer(name).kernel.numpy()
        fan_in = np.prod(kernel.shape[:-1])
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.05)


def test_every_weight_of_it_receives_a_gradient():
    model = alexnet(4, (28, 28, 1), filters=(8, 8, 8, 8, 8), units=16)
    pixels = np.random.default_rng(0).uniform(0, 255, (16, 28, 28, 1)).astype("float32")
    before = [variable.numpy() for variable in model.trainable_variables]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    model.train_on_batch(pixels, np.arange(16) % 4)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(variable, old), variable.path
