"""A smaller learning rate for the backbone against two optimizers of Keras, one for each part."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.engine.optimizers import make_optimizer, optimizer_names
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.feedback.student import student_step
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from tests.support import tiny

FACTOR = 0.2
OPTIMIZERS = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adamw": {"weight_decay": 0.1},
    "lamb": {},
    "rmsprop": {"momentum": 0.5},
    "lion": {"weight_decay": 0.1},
    "nadam": {},
}


def schedule(factor=1.0):
    return keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.05 * factor, 0.01 * factor])


def by_two_optimizers(name, options, batches):
    """What the network's weights should be."""
    network = tiny.plain_network("student")
    parts = {1.0: network.trainable_variables[-2:], FACTOR: network.trainable_variables[:-2]}
    optimizers = {factor: make_optimizer(name, schedule(factor), **options) for factor in parts}
    for factor, variables in parts.items():
        if optimizers[factor].weight_decay:
            optimizers[factor].exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
        optimizers[factor].build(variables)
    for batch in batches:
        images, labels = batch["labeled"]["image"], batch["labeled"]["label"]
        with tf.GradientTape() as tape:
            logits = network(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        for factor, gradients in tape.gradient(loss, parts).items():
            optimizers[factor].apply(gradients, parts[factor])
    return network.get_weights()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_what_an_optimizer_of_its_own_would_do(name):
    batches = [tiny.tensors(tiny.batch(seed=seed)) for seed in range(4)]
    method = Supervised(student=tiny.plain_network("student"))
    optimizer = make_optimizer(name, schedule(), **OPTIMIZERS[name])
    method.compile(optimizer, backbone_learning_rate_factor=FACTOR, run_eagerly=True)
    for batch in batches:
        method.train_step(batch)
    for new, expected in zip(
        method.student.get_weights(), by_two_optimizers(name, OPTIMIZERS[name], batches), strict=True
    ):
        np.testing.assert_allclose(new, expected, rtol=1e-4, atol=2e-6)


def test_the_feedback_of_a_student_goes_through_the_steps_that_it_makes():
    """The exact gradient on the teacher's logits against automatic differentiation through the student's step."""
    settings = FeedbackSettings("per_example", weight=1.0, normalization="raw", clip=None)
    networks = {"teacher": tiny.plain_network("teacher"), "student": tiny.plain_network("student", seed=1)}
    method = MetaPseudoLabels(**networks, feedback=settings, student_labels="soft")
    rate = 0.3
    method.compile(
        teacher_optimizer=keras.optimizers.SGD(0.1),
        student_optimizer=keras.optimizers.SGD(rate),
        backbone_learning_rate_factor=FACTOR,
        run_eagerly=True,
    )
    data = tiny.tensors(tiny.batch())
    teacher_logits = tf.constant(np.random.default_rng(0).normal(size=(6, 3)), tf.float32)
    old = [tf.identity(variable.value) for variable in method.student.trainable_variables]

    def logits(weights, images):
        return method.student.stateless_call(weights, [], images)[0]

    with tf.GradientTape() as outer:
        outer.watch(teacher_logits)
        with tf.GradientTape() as inner:
            inner.watch(old)
            student_logits = logits(old, data["unlabeled"]["strong"])
            # Written out: TensorFlow's fused operation has no second derivative towards the labels.
            targets, log_probabilities = tf.nn.softmax(teacher_logits), tf.nn.log_softmax(student_logits)
            loss = -tf.reduce_mean(tf.reduce_sum(targets * log_probabilities, axis=1))
        gradients = inner.gradient(loss, old)
        factors = [FACTOR] * (len(old) - 2) + [1.0, 1.0]
        new = [w - rate * f * g for w, f, g in zip(old, factors, gradients, strict=True)]
        labeled_logits = logits(new, data["labeled"]["image"])
        labeled_loss = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(data["labeled"]["label"], labeled_logits)
        )
    expected = outer.gradient(labeled_loss, teacher_logits)
    step = student_step(method, data, teacher_logits=teacher_logits)
    np.testing.assert_allclose(step.feedback_on_logits, expected, rtol=1e-3, atol=1e-7)


def test_zero_leaves_the_backbone_where_it_is():
    method = Supervised(student=tiny.plain_network("student"))
    method.compile(keras.optimizers.AdamW(0.1), backbone_learning_rate_factor=0.0)
    before = method.student.get_weights()
    method.fit(tiny.dataset(), verbose=0)
    moved = [not np.array_equal(*pair) for pair in zip(method.student.get_weights(), before, strict=True)]
    assert moved == [False, False, True, True]


def test_the_factor_is_saved_with_the_method(tmp_path):
    method = Supervised(student=tiny.plain_network("student"))
    method.compile("sgd", backbone_learning_rate_factor=0.3)
    method.save(tmp_path / "method.keras")
    assert keras.saving.load_model(tmp_path / "method.keras").backbone_learning_rate_factor == 0.3


@pytest.mark.parametrize("factor", [-0.1, 1.5, "small"])
def test_a_factor_out_of_range_is_refused(factor):
    method = Supervised(student=tiny.plain_network("student"))
    with pytest.raises(ValueError, match=f"backbone_learning_rate_factor={factor!r}"):
        method.compile("sgd", backbone_learning_rate_factor=factor)


def test_a_network_without_a_head_is_refused():
    images = keras.Input(tiny.IMAGE_SHAPE)
    maps = keras.layers.Conv2D(3, 3)(images)
    method = Supervised(
        student=keras.Model(images, keras.layers.GlobalAveragePooling2D()(maps), name="headless")
    )
    with pytest.raises(
        ValueError, match=r"needs a network that ends in a dense layer, .* 'headless' does not"
    ):
        method.compile("sgd", backbone_learning_rate_factor=0.5)


# --- optimizers by name ---------------------------------------------------------------------------------


def test_every_optimizer_of_keras_is_known_and_made():
    assert {"sgd", "adam", "adamw", "lamb", "lion", "adafactor"} <= set(optimizer_names())
    for name in optimizer_names():
        made = make_optimizer(name, 0.01, weight_decay=0.1)
        assert type(made).__name__.lower() == name
        assert made.weight_decay == 0.1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adamv", {}, "optimizer='adamv' is unknown: did you mean 'adam'"),
        ("adam", {"momentum": 0.9}, "The optimizer 'adam' has no option 'momentum': choose among .*beta_1"),
        ("optimizer", {}, "optimizer='optimizer' is unknown"),
    ],
)
def test_an_unknown_optimizer_or_option_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(name, 0.1, **options)
