"""The pieces that the estimators are made of."""

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.feedback import estimators
from tests.support import oracles, tiny


@pytest.fixture
def student():
    return oracles.TinyStudent()


BOTH_MODES = pytest.mark.parametrize(
    "derivative", [estimators.directional_derivative, estimators.directional_derivative_by_reverse]
)


@BOTH_MODES
def test_directional_derivative(student, derivative):
    direction = student.labeled_gradients(student.weights)
    expected = oracles.derivative_along(
        lambda weights: student.logits(student.unlabeled_images, weights), student.weights, direction
    )
    value = derivative(
        tiny.logits_of(student.unlabeled_images),
        [tf.constant(weight) for weight in student.weights],
        [tf.constant(tangent) for tangent in direction],
    )
    assert oracles.relative_error(value, expected) < 1e-12


@BOTH_MODES
def test_directional_derivative_is_zero_for_weights_without_influence(derivative):
    weights = [tf.constant([[1.0, 2.0]]), tf.constant([3.0])]
    direction = [tf.zeros([1, 2]), tf.ones([1])]
    value = derivative(lambda tensors: tf.tanh(tensors[0]), weights, direction)
    assert np.array_equal(value, np.zeros((1, 2)))


def test_the_transposed_gradient_leaves_the_gradient_as_it_is_and_knows_the_directional_derivative(student):
    direction = student.labeled_gradients(student.weights)
    expected = oracles.derivative_along(
        lambda weights: student.logits(student.unlabeled_images, weights), student.weights, direction
    )
    weights = [tf.constant(weight) for weight in student.weights]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weights)
        logits = tiny.logits_of(student.unlabeled_images)(weights)
        loss = tf.reduce_sum(tf.sin(logits))
        transposed = estimators.TransposedGradient(logits)
        descended = loss + transposed.term
    gradients = transposed.record(lambda: tape.gradient(descended, weights))
    value = transposed.directional_derivative([tf.constant(tangent) for tangent in direction])
    assert all(map(np.array_equal, gradients, tape.gradient(loss, weights)))
    assert oracles.relative_error(value, expected) < 1e-12


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_finite_difference_is_within_a_percent(student, scale):
    direction = [scale * tangent for tangent in student.labeled_gradients(student.weights)]
    expected = oracles.derivative_along(
        lambda weights: student.logits(student.unlabeled_images, weights), student.weights, direction
    )
    function = tiny.logits_of(student.unlabeled_images)
    value = estimators.finite_difference(
        function,
        [tf.constant(weight) for weight in student.weights],
        [tf.constant(tangent) for tangent in direction],
        outputs=function(student.weights),
    )
    assert 0 < oracles.relative_error(value, expected) < 0.01


def test_finite_difference_along_nothing_is_zero(student):
    function = tiny.logits_of(student.unlabeled_images)
    value = estimators.finite_difference(
        function,
        [tf.constant(weight) for weight in student.weights],
        [tf.zeros_like(weight) for weight in student.weights],
        outputs=function(student.weights),
    )
    assert np.array_equal(value, np.zeros((3, 3)))


def test_softmax_jacobian_product(student):
    worth = np.random.default_rng(1).normal(size=(3, 3))
    expected = oracles.gradient(
        lambda logits: (oracles.softmax(logits) * worth).sum(), student.teacher_logits
    )
    value = estimators.softmax_jacobian_product(student.teacher_logits, worth)
    assert oracles.relative_error(value, expected) < 1e-12


def test_inner_product_and_cosine():
    left = [tf.constant([3.0, 0.0]), tf.constant([[4.0]])]
    right = [tf.constant([1.0, 2.0]), tf.constant([[-2.0]])]
    product = estimators.inner_product(left, right)
    assert float(product) == pytest.approx(-5.0)
    assert float(estimators.cosine(product, left, right)) == pytest.approx(-5.0 / (5 * 3))
    assert float(estimators.cosine(estimators.inner_product(left, left), left, left)) == pytest.approx(1.0)


def test_cosine_with_nothing_is_zero():
    left, right = [tf.constant([3.0])], [tf.constant([0.0])]
    assert float(estimators.cosine(tf.constant(0.0), left, right)) == 0.0


@pytest.mark.parametrize(
    ("tangents", "root_mean_square", "settings", "expected"),
    [
        ([[3.0, -4.0]], 5.0, {"floor": 1e-2, "clip": None}, [[0.6, -0.8]]),
        ([[3e-5, -4e-5]], 5e-5, {"floor": 1e-2, "clip": 1.0}, [[3e-3, -4e-3]]),
        ([[5.0, -7.0, 0.5]], 2.0, {"floor": 1e-2, "clip": 1.5}, [[1.5, -1.5, 0.25]]),
    ],
    ids=["divides", "fades below the floor", "clips both ways"],
)
def test_normalize(tangents, root_mean_square, settings, expected):
    value = estimators.normalize(
        tf.constant(tangents), root_mean_square=tf.constant(root_mean_square), **settings
    )
    assert np.allclose(value, expected, rtol=1e-6)
