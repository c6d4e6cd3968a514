"""Pointwise convolutions as products, against TensorFlow's own convolution and its gradients."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mpl_tf.methods.engine import kernels, pointwise
from mpl_tf.methods.engine.microbatching import TrainingPass
from mpl_tf.methods.feedback import estimators
from tests.support.graphs import operations


def network(**options):
    """Pointwise convolutions of a kind between others that are not."""
    image = keras.Input((7, 5, 3))
    x = layers.Conv2D(4, 3, padding="same", name="spatial")(image)
    x = layers.Conv2D(6, 1, activation="tanh", name="pointwise", **options)(x)
    x = layers.Conv2D(6, 1, groups=2, name="grouped")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(3)(x))


def logits_and_gradients(network, images, logits):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = logits(images)
        loss = tf.reduce_sum(tf.sin(outputs))
    return outputs, *tape.gradient(loss, [images, *network.trainable_variables])


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("strides", [1, 2, (3, 2)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_products_are_the_convolution(strides, padding, use_bias):
    plain = network(strides=strides, padding=padding, use_bias=use_bias)
    images = tf.constant(np.random.normal(size=[4, 7, 5, 3]), tf.float32)
    expected = logits_and_gradients(plain, images, lambda images: plain(images, training=True))
    actual = logits_and_gradients(plain, images, TrainingPass(plain).logits)
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_pass_has_products_where_the_network_has_pointwise_convolutions():
    plain = network()
    training_pass, images = TrainingPass(plain), tf.zeros([4, 7, 5, 3])
    found = operations(lambda x: logits_and_gradients(plain, x, training_pass.logits), images)
    # The convolution of 3×3 goes on as such; Keras has the one in groups in a function of its own.
    assert found.count("Conv2D") == 1
    assert found.count("Conv2DBackpropInput") == 1
    assert found.count("MatMul") == 3 + 3


@pytest.mark.parametrize("part", ["micro_batches", "rematerialize"])
def test_so_have_passes_in_parts(part):
    options = {"micro_batches": 2} if part == "micro_batches" else {"rematerialize": True}
    plain = network()
    images = tf.constant(np.random.normal(size=[4, 7, 5, 3]), tf.float32)
    expected = logits_and_gradients(plain, images, lambda images: plain(images, training=True))[2:]
    actual = logits_and_gradients(plain, images, TrainingPass(plain, **options).logits)[2:]
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("in_graph", [True, False])
def test_products_have_a_derivative_in_forward_mode(in_graph):
    # Without a convolution in groups: Keras has it in a function of its own, in which a graph loses tangents.
    image = keras.Input((7, 5, 3))
    hidden = layers.Conv2D(6, 1, activation="tanh")(layers.Conv2D(4, 3, padding="same")(image))
    plain = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(hidden)))
    images = tf.constant(np.random.normal(size=[4, 7, 5, 3]), tf.float32)
    weights = [variable.value for variable in plain.trainable_variables]
    direction = [tf.constant(np.random.normal(size=weight.shape), tf.float32) for weight in weights]
    state = [variable.value for variable in plain.non_trainable_variables]
    training_pass = TrainingPass(plain)

    def logits(weights):
        return plain.stateless_call(list(weights), list(state), images, training=True)[0]

    def derivative(method):
        return training_pass.derivative(images, weights, state, along=direction, method=method)

    # By two reverse passes, through TensorFlow's own convolution.
    expected = estimators.directional_derivative_by_reverse(logits, weights, direction)
    compute = tf.function(derivative) if in_graph else derivative
    actual = compute(estimators.directional_derivative)
    assert actual.shape == (4, 3)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_outside_of_the_pass_nothing_is_seen_of_it(tmp_path):
    plain = network()
    before = [layer.get_config() for layer in plain.layers[1:]]
    TrainingPass(plain)
    plain.save(tmp_path / "network.keras")
    others = [plain, keras.models.load_model(tmp_path / "network.keras"), copy.deepcopy(plain)]
    others.append(keras.models.clone_model(plain))
    for other in others:
        assert [layer.get_config() for layer in other.layers[1:]] == before
        assert operations(lambda x, other=other: other(x), tf.zeros([4, 7, 5, 3])).count("Conv2D") == 2


def test_the_pass_ends_with_an_error_too():
    with pytest.raises(RuntimeError), kernels.training_pass():
        raise RuntimeError
    plain = network()
    pointwise.prepare(plain)
    assert operations(plain, tf.zeros([4, 7, 5, 3])).count("Conv2D") == 2


def test_a_layer_with_a_convolution_of_its_own_keeps_it():
    class Halved(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel) / 2

    image = keras.Input((4, 4, 3))
    halved = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(Halved(5, 1)(image))))
    images = tf.constant(np.random.normal(size=[2, 4, 4, 3]), tf.float32)
    np.testing.assert_allclose(TrainingPass(halved).logits(images), halved(images), rtol=1e-5)
