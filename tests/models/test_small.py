"""The small networks against NumPy and counts by hand."""

import keras
import numpy as np
import pytest

from mpl_tf import models
from tests.models.by_hand import trainable_count


def dense_layers(model):
    """Kernels and biases in float64, in order."""
    weights = [weight.astype("float64") for weight in model.get_weights()]
    return list(zip(weights[::2], weights[1::2], strict=True))


def test_the_moons_network_is_the_papers():
    model = models.build("moons_mlp", 2, (2,), seed=1)
    assert trainable_count(model) == (2 * 8 + 8) + (8 * 8 + 8) + (8 * 2 + 2)
    points = np.random.default_rng(0).normal(size=(7, 2))
    x = points
    *hidden, (kernel, bias) = dense_layers(model)
    for hidden_kernel, hidden_bias in hidden:
        x = 1 / (1 + np.exp(-(x @ hidden_kernel + hidden_bias)))
    np.testing.assert_allclose(model(points.astype("float32")), x @ kernel + bias, atol=1e-6)


def test_the_moons_network_starts_between_a_tenth_and_minus_a_tenth():
    model = models.build("moons_mlp", 200, (200,), seed=1)
    for variable in model.trainable_variables:
        values = variable.numpy()
        assert np.abs(values).max() <= 0.1
        assert np.ptp(values) > 0.1, variable.path
    kernels = np.concatenate([variable.numpy().ravel() for variable in model.trainable_variables])
    assert kernels.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.03)


@pytest.mark.parametrize(
    ("name", "image_shape", "sizes"),
    [
        ("hinton_mlp", (28, 28, 1), (1200, 1200)),
        ("mlp", (8, 8, 1), (128, 128)),
        ("mlp-16x3", (5,), (16, 16, 16)),
        ("mlp-800x1", (3, 2, 2), (800,)),
    ],
)
def test_perceptrons_against_numpy(name, image_shape, sizes):
    model = models.build(name, 10, image_shape, seed=1)
    layers = dense_layers(model)
    assert [bias.size for _, bias in layers] == [*sizes, 10]
    inputs = np.random.default_rng(0).uniform(0, 255, (4, *image_shape))
    x = inputs if len(image_shape) == 1 else (inputs / 127.5 - 1).reshape(4, -1)
    for kernel, bias in layers[:-1]:
        x = np.maximum(x @ kernel + bias, 0)
    features = keras.Model(model.input, model.get_layer("features").output)
    scale = np.abs(x).max()
    np.testing.assert_allclose(features(inputs.astype("float32")), x, rtol=1e-4, atol=1e-5 * scale)
    expected = x @ layers[-1][0] + layers[-1][1]
    np.testing.assert_allclose(model(inputs.astype("float32")), expected, rtol=1e-4, atol=1e-5 * scale)


def test_perceptrons_start_from_he():
    model = models.build("mlp-400x2", 10, (300,), seed=1)
    for kernel, _ in dense_layers(model)[:-1]:
        assert kernel.std() == pytest.approx(np.sqrt(2 / kernel.shape[0]), rel=0.02)


@pytest.mark.parametrize("name", ["mlp-0x2", "mlp-16x0"])
def test_a_perceptron_without_units_is_refused(name):
    with pytest.raises(
        ValueError, match=f"{name} does not exist: .* must be 1 or more; take for example mlp-128x2"
    ):
        models.build(name, 10, (2,))


@pytest.mark.parametrize(
    ("name", "filters", "units"), [("lenet-5", (6, 16, 120), 84), ("lenet-5-half", (3, 8, 60), 42)]
)
def test_lenets_weights_by_hand(name, filters, units):
    first, second, third = filters
    expected = (25 * first + first) + (25 * first * second + second) + (25 * second * third + third)
    expected += (third * units + units) + (units * 10 + 10)
    for side in (28, 32):
        model = models.build(name, 10, (side, side, 1))
        assert trainable_count(model) == expected
        assert model.get_layer("features").output.shape == (None, third)


def test_lenet_pads_small_images_with_black():
    small = models.build("lenet-5", 10, (28, 28, 1), seed=1)
    full = models.build("lenet-5", 10, (32, 32, 1), seed=1)
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 28, 28, 1)).astype("float32")
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2), (0, 0)))
    np.testing.assert_allclose(small(pixels), full(padded), atol=1e-5)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (32, 3)])
def test_convnets_weights_by_hand(side, channels):
    model = models.build("convnet", 10, (side, side, channels))
    convolutions = 9 * channels * 32 + 9 * 32 * 64 + 9 * 64 * 64
    assert trainable_count(model) == convolutions + 2 * (32 + 64 + 64) + 64 * 10 + 10
    assert model.get_layer("features").input.shape == (None, side // 4, side // 4, 64)


def test_convnet_starts_from_he_and_forgets_a_tenth_each_step():
    model = models.build("convnet", 10, (8, 8, 3), seed=1)
    for index in (1, 2, 3):
        kernel = model.get_layer(f"conv{index}").kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * kernel.shape[2])), rel=0.05)
    pixels = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype("float32")
    first = keras.Model(model.input, model.get_layer("conv1").output)(pixels).numpy()
    model(pixels, training=True)
    expected = 0.1 * first.mean(axis=(0, 1, 2), dtype="float64")
    np.testing.assert_allclose(model.get_layer("norm1").moving_mean, expected, rtol=1e-4, atol=1e-6)


def test_convnet_learns_two_labels_per_class():
    rng = np.random.default_rng(0)
    prototypes = rng.uniform(0, 255, (3, 8, 8, 1))
    labels = np.arange(90) % 3
    images = np.clip(prototypes[labels] + rng.normal(0, 30, (90, 8, 8, 1)), 0, 255).astype("float32")
    model = models.build("convnet", 3, (8, 8, 1), seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss, jit_compile=False)
    for _ in range(30):
        model.train_on_batch(images[:6], labels[:6])
    predicted = np.argmax(model(images[6:]), axis=-1)
    assert np.mean(predicted == labels[6:]) > 0.95
