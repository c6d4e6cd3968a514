"""Batch normalization as one operation, against Keras' own and its gradients."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from mpl_tf.methods.engine import kernels, normalization
from mpl_tf.methods.engine.microbatching import TrainingPass
from mpl_tf.methods.feedback import estimators
from tests.support.graphs import operations

SHAPE = (4, 3, 2, 5)


def network(dtype="float32", **options):
    """One normalization, between what makes its gradients differ from image to image."""
    image = keras.Input(SHAPE[1:])
    x = layers.BatchNormalization(momentum=0.7, dtype=dtype, **options)(image)
    made = keras.Model(image, layers.Flatten()(layers.Activation("tanh")(x)))
    generator = np.random.default_rng(0)
    for weight in made.weights:
        weight.assign(generator.uniform(0.5, 2.0, weight.shape))
    return made


def images():
    return tf.constant(np.random.default_rng(1).normal(2.0, 3.0, SHAPE), tf.float32)


def passed(network, logits):
    """Logits, gradients with respect to the images and all weights, and the state afterwards."""
    inputs = images()
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = logits(inputs)
        loss = tf.reduce_sum(tf.sin(tf.cast(outputs, tf.float32)))
    gradients = tape.gradient(loss, [inputs, *network.trainable_variables])
    return [np.array(each) for each in (outputs, *gradients, *network.non_trainable_variables)]


OPTIONS = {
    "all weights": {},
    "without scale": {"scale": False},
    "without offset": {"center": False},
    "bfloat16": {"dtype": "mixed_bfloat16"},
    "float16": {"dtype": "mixed_float16"},
}


@pytest.mark.parametrize("transposable", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_one_operation_is_the_normalization(options, transposable):
    plain, other = network(**options), network(**options)
    expected = passed(plain, lambda x: plain(x, training=True))
    training_pass = TrainingPass(other)
    actual = passed(other, lambda x: training_pass.logits(x, transposable=transposable))
    tolerance = 2e-2 if "dtype" in options else 2e-5
    assert len(expected) == 1 + 1 + len(plain.weights)
    for one, another in zip(expected, actual, strict=True):
        np.testing.assert_allclose(another, one, rtol=tolerance, atol=tolerance)


def test_the_state_of_one_image_with_one_position_is_finite():
    single = network()
    inputs = keras.Input((1, 1, 5))
    at_one_position = keras.Model(inputs, single.layers[1](inputs))
    TrainingPass(at_one_position).logits(tf.ones([1, 1, 1, 5]))
    assert all(np.isfinite(np.array(each)).all() for each in single.non_trainable_variables)


def test_a_batch_of_unknown_size():
    plain, other = network(), network()
    plain(images(), training=True)
    step = tf.function(TrainingPass(other).logits, input_signature=[tf.TensorSpec([None, *SHAPE[1:]])])
    step(images())
    for one, another in zip(plain.non_trainable_variables, other.non_trainable_variables, strict=True):
        np.testing.assert_allclose(np.array(another), np.array(one), rtol=1e-5)


def stateless(network, training_pass):
    state = [tf.constant(v) for v in network.non_trainable_variables]
    return lambda weights: training_pass(images(), list(weights), state)[0]


@pytest.mark.parametrize(
    "derivative", [estimators.directional_derivative, estimators.directional_derivative_by_reverse]
)
def test_it_has_derivatives_in_both_modes(derivative):
    plain = network()
    weights = [tf.constant(v) for v in plain.trainable_variables]
    direction = [tf.random.normal(weight.shape) for weight in weights]

    def keras_logits(weights):
        state = [tf.constant(v) for v in plain.non_trainable_variables]
        return plain.stateless_call(list(weights), state, images(), training=True)[0]

    expected = estimators.directional_derivative_by_reverse(keras_logits, weights, direction)
    actual = derivative(stateless(plain, TrainingPass(plain)), weights, direction)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_graph", [False, True])
def test_the_transposed_gradient_goes_through_it(in_graph):
    """Two of them, so that tangents of images pass through one as well as those of weights."""
    image = keras.Input(SHAPE[1:])
    x = layers.Activation("tanh")(layers.BatchNormalization()(image))
    x = layers.BatchNormalization()(layers.Conv2D(3, 2)(x))
    plain = keras.Model(image, layers.Flatten()(layers.LeakyReLU()(x)))
    training_pass = TrainingPass(plain)
    weights = [tf.constant(v) for v in plain.trainable_variables]
    direction = [tf.random.normal(weight.shape) for weight in weights]

    def transposed(direction):
        with tf.GradientTape() as tape:
            logits = training_pass.logits(images(), transposable=True)
            made = estimators.TransposedGradient(logits)
            loss = tf.reduce_sum(tf.sin(logits)) + made.term
        made.record(lambda: tape.gradient(loss, plain.trainable_variables))
        return made.directional_derivative(direction)

    expected = estimators.directional_derivative(stateless(plain, training_pass), weights, direction)
    actual = (tf.function(transposed, autograph=False) if in_graph else transposed)(direction)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


KEPT = {
    "synchronized": {"synchronized": True},
    "another axis": {"axis": 1},
    "a tiny epsilon": {"epsilon": 1e-6},
    "float64": {"dtype": "float64"},
    "frozen": {"trainable": False},
}


@pytest.mark.parametrize("options", [{}, *KEPT.values()], ids=["plain", *KEPT])
def test_which_normalizations_are_one_operation(options):
    found = operations(TrainingPass(network(**options)).logits, images())
    assert found.count("FusedBatchNormV3") == (0 if options else 1)


def test_a_class_with_moments_of_its_own_keeps_them():
    class Ghost(layers.BatchNormalization):
        def _moments(self, inputs, mask):
            mean, variance = super()._moments(inputs, mask)
            return mean, 4.0 * variance

    image = keras.Input(SHAPE[1:])
    made = keras.Model(image, layers.Flatten()(Ghost()(image)))
    np.testing.assert_array_equal(TrainingPass(made).logits(images()), made(images(), training=True))


def test_statistics_that_nobody_wants_are_not_computed():
    plain = network()
    training_pass = TrainingPass(plain)
    state = [v.value for v in plain.non_trainable_variables]
    arguments = images(), [v.value for v in plain.trainable_variables], state
    moved, kept = (training_pass(*arguments, statistics=wanted)[1] for wanted in (True, False))
    assert not any(np.array_equal(*pair) for pair in zip(moved, state, strict=True))
    assert all(np.array_equal(*pair) for pair in zip(kept, state, strict=True))


def test_outside_of_the_pass_nothing_is_seen_of_it(tmp_path):
    plain = network()
    before = [layer.get_config() for layer in plain.layers[1:]]
    normalization.prepare(plain)
    plain.save(tmp_path / "network.keras")
    others = [plain, keras.models.load_model(tmp_path / "network.keras"), copy.deepcopy(plain)]
    for other in [*others, keras.models.clone_model(plain)]:
        assert [layer.get_config() for layer in other.layers[1:]] == before
        for training in (True, False):
            found = operations(
                lambda x, other=other, training=training: other(x, training=training), images()
            )
            assert found.count("FusedBatchNormV3") == 0
    with kernels.training_pass():
        assert operations(lambda x: plain(x, training=False), images()).count("FusedBatchNormV3") == 0
