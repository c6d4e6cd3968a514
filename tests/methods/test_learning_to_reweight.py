"""Learning to reweight, against the paper's own nested automatic differentiation and, for a linear network, NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.learning_to_reweight import LearningToReweight
from mpl_tf.methods.supervised import Supervised
from tests.methods.replays import relative_error
from tests.support import oracles, tiny

RATE = 0.7
TRUSTED = np.array([True, False, False, True, False, False, False, True])
NETWORKS = {"plain": tiny.plain_network, "BatchNorm and dropout": tiny.network}


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


def compiled(network=None, *, rate=RATE, options=None, **settings):
    method = LearningToReweight(student=network or tiny.plain_network("student"), **settings)
    method.compile(keras.optimizers.SGD(rate), run_eagerly=True, **options or {})
    return method


def batch_of(trusted=TRUSTED, *, seed=0, **changes):
    labeled = tiny.batch(seed=seed, labeled=len(trusted))["labeled"]
    return tiny.tensors({"labeled": labeled | {"trusted": np.array(trusted)} | changes})


def normalized(epsilon_gradients):
    """Line 11, in NumPy."""
    rectified = np.maximum(-np.array(epsilon_gradients, np.float64), 0.0)
    total = rectified.sum()
    return rectified / (total + (total == 0.0))


def combined(weights, trusted, *, trusted_weight):
    """What each image's loss is multiplied by, where the weights of the cheap ones have the sum 1."""
    counts = np.where(trusted, trusted_weight, weights * (~trusted).sum())
    return counts / (trusted_weight * trusted.sum() + (~trusted).sum())


def replayed(method, data, *, trusted_weight, smoothing=0.0, factors=None, seen=()):
    """One iteration of Algorithm 1 as it is printed: how it moves the weights, and the weights w of line 11."""
    network, labeled = method.student, data["labeled"]
    trusted = np.array(labeled["trusted"])
    weights = [tf.convert_to_tensor(v) for v in network.trainable_variables]
    state = [tf.convert_to_tensor(v) for v in network.non_trainable_variables]
    kind = weights[0].dtype
    targets = tf.constant(oracles.smoothed(labeled["label"], tiny.NUM_CLASSES, smoothing), kind)
    factors = factors or [1.0] * len(weights)

    def losses_at(weights):
        logits = network.stateless_call(weights, state, labeled["image"], training=True)[0]
        return -tf.reduce_sum(targets * tf.math.log(tf.nn.softmax(logits)), axis=-1)

    def moved(gradients):
        return [-RATE * f * gradient for f, gradient in zip(factors, gradients, strict=True)]

    epsilon = tf.zeros(len(trusted), kind)
    with tf.GradientTape() as epsilon_tape:
        epsilon_tape.watch(epsilon)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            perturbed = tf.reduce_sum((epsilon * losses_at(weights))[~trusted])
        steps = moved(tape.gradient(perturbed, weights))
        virtual = [weight + step for weight, step in zip(weights, steps, strict=True)]
        measured = tf.reduce_mean(losses_at(virtual)[trusted])
    w = normalized(epsilon_tape.gradient(measured, epsilon))
    counts = tf.constant(combined(w, trusted, trusted_weight=trusted_weight), kind)
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = tf.reduce_sum(counts * losses_at(weights))
    return moved(tape.gradient(loss, weights)), w, float(loss), float(measured)


@pytest.mark.parametrize("trusted_weight", [1.0, 0.0, 0.4])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_step_is_that_of_algorithm_1(kind, trusted_weight, dtype):
    data = batch_of()
    method = compiled(NETWORKS[kind]("student"), trusted_weight=trusted_weight, label_smoothing=0.1)
    expected, w, loss, measured = replayed(method, data, trusted_weight=trusted_weight, smoothing=0.1)
    logs = {}
    moved = tiny.changes(method.student, lambda: logs.update(method.train_step(data)))
    assert relative_error(moved, expected) < 1e-4
    # Some of the cheap images help, others do not, and those that do differ.
    helpful = w[~TRUSTED]
    assert 0 < (helpful > 0).sum() < 5
    assert len(set(helpful)) > 2
    found = {name: float(logs[name]) for name in ("loss", "trusted_loss", "helpful_fraction")}
    wanted = {"loss": loss, "trusted_loss": measured, "helpful_fraction": (helpful > 0).mean()}
    assert found == pytest.approx(wanted, rel=1e-4)


def test_a_cheap_image_of_class_weight_2_counts_as_two():
    counts = np.where(TRUSTED, 1, [1, 2, 3, 1, 2, 3, 5, 1])
    data = batch_of()
    # What trusted images count beside the cheap ones goes by their numbers, so they are left out of the step.
    assert len(set(replayed(compiled(), data, trusted_weight=0.0)[1])) > 2

    def moved(**changes):
        method = compiled(trusted_weight=0.0)
        changed = tiny.tensors({"labeled": data["labeled"] | changes})
        return tiny.changes(method.student, lambda: method.train_step(changed))

    repeated = moved(**{key: np.repeat(value, counts, axis=0) for key, value in data["labeled"].items()})
    assert relative_error(moved(weight=tf.constant(counts, tf.float32)), repeated) < 1e-4
    assert relative_error(moved(), repeated) > 0.01


@pytest.mark.parametrize("options", [{"micro_batches": 3}, {"rematerialize": True}])
def test_a_pass_in_parts_weighs_the_same(options):
    data = batch_of()
    method = compiled(options=options)
    expected, *_ = replayed(method, data, trusted_weight=1.0)
    moved = tiny.changes(method.student, lambda: method.train_step(data))
    assert relative_error(moved, expected) < 1e-4


def test_the_virtual_step_is_as_short_for_the_backbone_as_the_real_one():
    data = batch_of()
    method = compiled(options={"backbone_learning_rate_factor": 0.05})
    expected, w, *_ = replayed(method, data, trusted_weight=1.0, factors=[0.05, 0.05, 1.0, 1.0])
    moved = tiny.changes(method.student, lambda: method.train_step(data))
    assert relative_error(moved, expected) < 1e-4
    assert np.abs(w - replayed(method, data, trusted_weight=1.0)[1]).max() > 0.01


# --- a linear network, whose benefits are products (equation 12) ------------------------------------------


def linear_network(pixels=tiny.IMAGE_SHAPE):
    inputs = keras.Input(pixels)
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs))
    return keras.Model(inputs, keras.layers.Dense(tiny.NUM_CLASSES)(features), name="student")


def test_the_weights_of_a_linear_network_are_products_of_inputs_and_errors():
    data = batch_of()
    network = linear_network()
    images = np.array(data["labeled"]["image"], np.float64).reshape(len(TRUSTED), -1) / 127.5 - 1.0
    inputs = np.concatenate([images, np.ones([len(images), 1])], axis=1)
    kernel, bias = (np.array(v, np.float64) for v in network.trainable_variables)
    targets = oracles.one_hot(data["labeled"]["label"], tiny.NUM_CLASSES)
    errors = oracles.softmax(images @ kernel + bias) - targets
    # (z̃ᵀ z̃ᵛ) (gᵀ gᵛ), averaged over the trusted images.
    products = ((inputs @ inputs.T) * (errors @ errors.T))[:, TRUSTED].mean(axis=1)
    w = normalized(-products * ~TRUSTED)
    counts = combined(w, TRUSTED, trusted_weight=1.0)
    gradient = inputs.T @ (counts[:, None] * errors)
    method = compiled(network)
    moved = tiny.changes(network, lambda: method.train_step(data))
    assert relative_error(moved, [-RATE * gradient[:-1], -RATE * gradient[-1]]) < 1e-5
    assert 0 < (w[~TRUSTED] > 0).sum() < 5


def beside_its_copies(label, copies):
    """A trusted image of class 0, and cheap ones of the same pixels under these labels."""
    image = tiny.images(np.random.default_rng(0), 1)
    labels = np.array([label, *copies], np.int32)
    trusted = np.array([True] + [False] * len(copies))
    return batch_of(trusted, image=np.repeat(image, len(labels), axis=0), label=labels)


@pytest.mark.parametrize(("copies", "helpful"), [([0, 0, 0], 1.0), ([1, 2, 1], 0.0), ([0, 2, 1], 1 / 3)])
def test_a_label_that_contradicts_the_trusted_ones_gets_no_weight(copies, helpful):
    network = linear_network()
    network.trainable_variables[0].assign(tf.zeros_like(network.trainable_variables[0]))
    logs = compiled(network).train_step(beside_its_copies(0, copies))
    assert float(logs["helpful_fraction"]) == pytest.approx(helpful)


@pytest.mark.parametrize("trusted_weight", [1.0, 0.0])
def test_where_no_cheap_image_helps_only_the_trusted_ones_are_learned_from(trusted_weight):
    """The δ of equation 9."""
    network, data = linear_network(), beside_its_copies(0, [1, 2, 1])
    network.trainable_variables[0].assign(tf.zeros_like(network.trainable_variables[0]))
    alone = tf.nest.map_structure(lambda rows: rows[:1], data)
    supervised = Supervised(student=network)
    supervised.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    start = network.get_weights()
    expected = tiny.changes(network, lambda: supervised.train_step(alone))
    network.set_weights(start)
    logs = {}
    method = compiled(network, trusted_weight=trusted_weight)
    moved = tiny.changes(network, lambda: logs.update(method.train_step(data)))
    # One of four images.
    for change, gradient in zip(moved, expected, strict=True):
        np.testing.assert_allclose(change, trusted_weight / 4 * gradient, rtol=1e-5, atol=1e-8)
    assert all(np.isfinite(float(value)) for value in logs.values())


# --- batches of one kind ------------------------------------------------------------------------------------


def test_a_batch_of_trusted_images_alone_is_learned_from_as_usual():
    data = batch_of(np.ones(8, bool))
    expected = Supervised(student=tiny.network("student"))
    expected.compile(keras.optimizers.SGD(RATE), run_eagerly=True)
    wanted = tiny.changes(expected.student, lambda: expected.train_step(data))
    method = compiled(tiny.network("student"))
    moved = tiny.changes(method.student, lambda: method.train_step(data))
    assert relative_error(moved, wanted) < 1e-6
    still = compiled(tiny.plain_network("student"), trusted_weight=0.0)
    assert (
        max(np.abs(change).max() for change in tiny.changes(still.student, lambda: still.train_step(data)))
        == 0.0
    )


def test_a_batch_without_trusted_images_teaches_nothing():
    method = compiled()
    logs = {}
    moved = tiny.changes(method.student, lambda: logs.update(method.train_step(batch_of(np.zeros(8, bool)))))
    assert max(np.abs(change).max() for change in moved) == 0.0
    assert all(np.isfinite(float(value)) for value in logs.values())


def test_it_has_to_be_known_which_labels_are_trusted(batch):
    with pytest.raises(
        ValueError,
        match=r"no 'trusted', and LearningToReweight measures the student on trusted images alone: .* or do without",
    ):
        compiled().train_step(batch)


def test_an_overflow_of_float16_skips_the_step_and_weighs_nothing():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        method = LearningToReweight(student=tiny.plain_network("student"))
        method.compile(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(RATE), initial_scale=2.0**60),
            run_eagerly=True,
        )
        logs = {}
        moved = tiny.changes(method.student, lambda: logs.update(method.train_step(batch_of())))
    finally:
        keras.config.set_dtype_policy(policy)
    assert max(np.abs(change).max() for change in moved) == 0.0
    assert float(logs["student_skipped_steps"]) == 1.0
    assert all(np.isfinite(float(value)) for value in logs.values())
