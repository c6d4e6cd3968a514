"""ResNet-18 and -34 against NumPy and against published numbers of weights."""

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models.resnet import resnet
from tests.models.by_hand import convolve, trainable_count


def weights_by_hand(blocks, *, classes, stem):
    """Trainable weights, from table 1 of the paper; `stem` is the side of the first kernel."""
    total, before = stem * stem * 3 * 64 + 2 * 64, 64
    for group, count in enumerate(blocks):
        filters = 64 * 2**group
        for _ in range(count):
            total += 9 * before * filters + 9 * filters * filters + 4 * filters
            total += before * filters + 2 * filters if before != filters else 0
            before = filters
    return total + 512 * classes + classes


def test_the_weights_are_as_many_as_published():
    # Of the networks for CIFAR that data-free learning and many others take, and of torchvision's for ImageNet.
    assert weights_by_hand((2, 2, 2, 2), classes=10, stem=3) == 11_173_962
    assert weights_by_hand((3, 4, 6, 3), classes=10, stem=3) == 21_282_122
    assert weights_by_hand((2, 2, 2, 2), classes=1000, stem=7) == 11_689_512
    assert weights_by_hand((3, 4, 6, 3), classes=1000, stem=7) == 21_797_672


@pytest.mark.parametrize(("name", "blocks"), [("resnet-18", (2, 2, 2, 2)), ("resnet-34", (3, 4, 6, 3))])
def test_the_networks_by_name(name, blocks):
    model = models.build(name, 10, (32, 32, 3))
    assert trainable_count(model) == weights_by_hand(blocks, classes=10, stem=3)
    assert model.name == name
    assert model.get_layer("features").input.shape == (None, 4, 4, 512)


def test_large_images_are_halved_twice_more():
    small, large = (resnet((1, 1, 1, 1), 10, (side, side, 3)) for side in (63, 64))
    assert small.get_layer("group1_block0_add").output.shape == (None, 63, 63, 64)
    assert large.get_layer("group1_block0_add").output.shape == (None, 16, 16, 64)
    assert trainable_count(large) == weights_by_hand((1, 1, 1, 1), classes=10, stem=7)


def normalized(model, x, name):
    scale, offset, mean, variance = (
        weight.astype("float64") for weight in model.get_layer(name).get_weights()
    )
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + offset


def test_against_numpy():
    model = resnet((1, 2), 4, (8, 8, 3))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])

    def kernel(name):
        return model.get_layer(name).kernel.numpy().astype("float64")

    def block(x, name, stride, *, projects):
        shortcut = x
        if projects:
            shortcut = convolve(x, kernel(f"{name}_shortcut"), stride)
            shortcut = normalized(model, shortcut, f"{name}_shortcut_norm")
        x = convolve(x, kernel(f"{name}_conv1"), stride)
        x = np.maximum(normalized(model, x, f"{name}_norm1"), 0)
        x = normalized(model, convolve(x, kernel(f"{name}_conv2"), 1), f"{name}_norm2")
        return np.maximum(x + shortcut, 0)

    images = rng.uniform(0, 255, (2, 8, 8, 3))
    x = convolve(images / 127.5 - 1, kernel("stem_conv"), 1)
    x = np.maximum(normalized(model, x, "stem_norm"), 0)
    x = block(x, "group1_block0", 1, projects=False)
    x = block(x, "group2_block0", 2, projects=True)
    x = block(x, "group2_block1", 1, projects=False)
    head = model.get_layer("logits")
    expected = x.mean(axis=(1, 2)) @ head.kernel.numpy() + head.bias.numpy()
    np.testing.assert_allclose(model(images.astype("float32")), expected, rtol=1e-3, atol=1e-4)


def test_dropout_acts_on_the_features():
    model = resnet((1,), 4, (8, 8, 3), dropout=0.5)
    assert model.get_layer("dropout").input is model.get_layer("features").output
    assert model.get_layer("dropout").output is model.get_layer("logits").input
