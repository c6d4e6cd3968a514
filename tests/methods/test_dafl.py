import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import models
from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.methods.engine import sampling
from tests.models import by_hand
from tests.support import graphs, oracles, tiny

RATE = 0.5
ONE_STEP = {"generated": {"index": tf.range(6, dtype=tf.int64)}}


def uncompiled(network=tiny.plain_network, *, generator=None, teacher=None, **settings):
    return DataFreeLearning(
        teacher=teacher or network("teacher"),
        student=network("student", seed=1),
        generator=generator or tiny.generator(network),
        **settings,
    )


def compiled(network=tiny.plain_network, **settings):
    method = uncompiled(network, **settings)
    method.compile(keras.optimizers.SGD(RATE), keras.optimizers.SGD(RATE), run_eagerly=True)
    return method


def noise_of_step(step=0, *, rows=6, columns=5, seed=0):
    return sampling.normal(rows, columns, seed=seed, step=tf.constant(step, tf.int64))


def features_of(teacher, images):
    return keras.Model(teacher.inputs, teacher.get_layer("features").output)(images, training=False)


# --- a step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one_hot", ["cross_entropy", "l2"])
@pytest.mark.parametrize("entropy_over", ["batch", "example"])
def test_a_step_descends_each_networks_own_loss(one_hot, entropy_over):
    method = compiled(
        one_hot=one_hot,
        one_hot_weight=0.7,
        entropy_over=entropy_over,
        entropy_weight=0.9,
        activation_weight=0.4,
        temperature=2.0,
    )
    noise = noise_of_step()

    def entropy(probabilities):
        return -tf.reduce_sum(probabilities * tf.math.log(probabilities), axis=-1)

    with tf.GradientTape() as tape:
        images = method.generator(noise)
        predictions = tf.nn.softmax(method.teacher(images))
        largest = tf.reduce_max(predictions, axis=-1)
        unsure = -tf.math.log(largest) if one_hot == "cross_entropy" else -tf.norm(predictions, axis=-1)
        spread = entropy(tf.reduce_mean(predictions, axis=0))
        if entropy_over == "example":
            spread = tf.reduce_mean(entropy(predictions))
        response = tf.reduce_mean(tf.abs(features_of(method.teacher, images)))
        loss = 0.7 * tf.reduce_mean(unsure) - 0.9 * spread - 0.4 * response
    generator_gradients = tape.gradient(loss, method.generator.trainable_variables)

    images = np.array(method.generator(noise))
    targets = oracles.softmax(np.array(method.teacher(images), np.float64) / 2).astype(np.float32)
    with tf.GradientTape() as tape:
        predictions = tf.nn.softmax(method.student(images) / 2)
        loss = -4.0 * tf.reduce_sum(targets * tf.math.log(predictions)) / 6
    student_gradients = tape.gradient(loss, method.student.trainable_variables)

    old = {role: tiny.values(getattr(method, role).trainable_variables) for role in method.roles}
    method.train_step(ONE_STEP)
    for role, gradients in (("generator", generator_gradients), ("student", student_gradients)):
        new = tiny.values(getattr(method, role).trainable_variables)
        for before, after, gradient in zip(old[role], new, gradients, strict=True):
            assert np.abs(gradient).max() > 1e-5
            assert np.allclose(after - before, -RATE * gradient, rtol=1e-3, atol=1e-6), role


@pytest.mark.parametrize("entropy_over", ["batch", "example"])
def test_the_metrics_are_those_of_the_step(entropy_over):
    settings = {"one_hot_weight": 0.5, "entropy_weight": 2.0, "activation_weight": 0.3, "temperature": 2.0}
    method = compiled(entropy_over=entropy_over, seed=7, **settings)
    method.step.assign(4)
    images = np.array(method.generator(noise_of_step(4, seed=7)), np.float64)
    teacher_logits = np.array(method.teacher(images), np.float64)
    student_logits = np.array(method.student(images), np.float64)
    features = np.array(features_of(method.teacher, images), np.float64)
    logs = method.train_step(ONE_STEP)

    predictions = oracles.softmax(teacher_logits)
    mean_prediction = predictions.mean(axis=0)
    batch_entropy = -(mean_prediction * np.log(mean_prediction)).sum()
    entropy = batch_entropy if entropy_over == "batch" else oracles.entropies(teacher_logits).mean()
    one_hot_loss = -np.log(predictions.max(axis=-1)).mean()
    activation_loss = -np.abs(features).mean()
    distances = [((one - other) ** 2).mean() for i, one in enumerate(images) for other in images[i + 1 :]]
    expected = {
        "loss": 4 * oracles.kl_divergences(teacher_logits / 2, student_logits / 2).mean(),
        "generator_loss": 0.5 * one_hot_loss - 2.0 * entropy + 0.3 * activation_loss,
        "one_hot_loss": one_hot_loss,
        "entropy": entropy,
        "activation_loss": activation_loss,
        "agreement": (teacher_logits.argmax(axis=-1) == student_logits.argmax(axis=-1)).mean(),
        "class_balance": batch_entropy / np.log(3),
        "pairwise_distance": np.sqrt(np.mean(distances)),
    }
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_l2_loss_is_the_norm_of_the_prediction():
    method = compiled(one_hot="l2")
    logits = np.array(method.teacher(method.generator(noise_of_step())), np.float64)
    logs = method.train_step(ONE_STEP)
    norms = np.sqrt((oracles.softmax(logits) ** 2).sum(axis=-1))
    assert float(logs["one_hot_loss"]) == pytest.approx(-norms.mean(), rel=1e-5)


def test_the_teacher_stands_still_in_inference_mode_and_the_generator_does_not():
    method = compiled(tiny.network)
    before = tiny.values(method.teacher.weights)
    of_generator = tiny.values(method.generator.non_trainable_weights)
    logs = [method.train_step(ONE_STEP) for _ in range(2)][-1]
    # Its moving statistics too: in training mode they would have moved.
    assert all(map(np.array_equal, before, tiny.values(method.teacher.weights)))
    assert len(method.teacher.trainable_variables) > 0
    # The generator's images are normalized by the statistics of their batch.
    assert of_generator
    assert not any(map(np.array_equal, of_generator, tiny.values(method.generator.non_trainable_weights)))
    assert float(logs["generator_gradient_norm"]) > 0


def test_the_generator_normalizes_in_one_operation_and_as_keras_does():
    generator = models.build_generator(tiny.IMAGE_SHAPE, latent_dim=5, width=4, seed=3)
    method = compiled(generator=generator, activation_weight=0.4, entropy_weight=0.0, one_hot_weight=0.0)
    kerass = keras.models.clone_model(generator)
    kerass.set_weights(generator.get_weights())
    with tf.GradientTape() as tape:
        images = kerass(noise_of_step(), training=True)
        loss = -0.4 * tf.reduce_mean(tf.abs(features_of(method.teacher, images)))
    gradients = tape.gradient(loss, kerass.trainable_variables)
    kerass.optimizer = keras.optimizers.SGD(RATE)
    kerass.optimizer.apply(gradients, kerass.trainable_variables)

    # norm1 and norm2, each with its gradient; the others have an epsilon that cuDNN does not take.
    found = graphs.operations(method.train_step, ONE_STEP)
    assert (found.count("FusedBatchNormV3"), found.count("FusedBatchNormGradV3")) == (2, 2)
    method.train_step(ONE_STEP)
    for weight, expected in zip(generator.weights, kerass.weights, strict=True):
        assert np.allclose(weight, expected, rtol=1e-4, atol=1e-6), weight.path
    assert np.abs(gradients[-1]).max() > 1e-5


def test_a_class_that_is_never_predicted_leaves_the_gradients_finite():
    teacher = tiny.plain_network("teacher")
    # The third class has a probability of exactly 0, whose logarithm is infinite.
    teacher.layers[-1].bias.assign([0.0, 0.0, -1e4])
    method = compiled(teacher=teacher)
    logs = method.train_step(ONE_STEP)
    assert np.isfinite(float(logs["generator_loss"]))
    assert np.isfinite(float(logs["generator_gradient_norm"]))
    assert 0 < float(logs["class_balance"]) <= np.log(2) / np.log(3) + 1e-6
    assert all(np.isfinite(weight).all() for weight in tiny.values(method.generator.weights))


# --- the losses that are not equivalent --------------------------------------------------------------------


def test_the_l1_norm_of_a_prediction_has_no_gradient_and_the_l2_norm_has_one():
    logits = np.random.default_rng(0).normal(0, 3, (5, 4))
    # Probabilities are positive, so their sum is their L1 norm, and it is analytic.
    tangent = oracles.gradient(lambda point: oracles.softmax(point).sum(), logits)
    assert np.abs(tangent).max() < 1e-15
    tangent = oracles.gradient(lambda point: np.sqrt((oracles.softmax(point) ** 2).sum(-1)).sum(), logits)
    assert np.abs(tangent).max() > 0.1
    with pytest.raises(ValueError, match=r"one_hot='l1' has no gradient: a softmax sums to 1.*'l2'"):
        uncompiled(one_hot="l1")


def test_only_the_entropy_over_the_batch_asks_for_many_classes():
    method = {over: compiled(entropy_over=over) for over in ("batch", "example")}

    def entropy(over, logits):
        method[over]._teacher_outputs = lambda images, training: (images, tf.constant(logits))
        logs = method[over].train_step({"generated": {"index": tf.range(3, dtype=tf.int64)}})
        method[over].reset_metrics()
        return float(logs["entropy"])

    every_class_surely, one_class_unsurely = 30.0 * np.eye(3, dtype=np.float32), np.zeros((3, 3), np.float32)
    assert entropy("batch", every_class_surely) == pytest.approx(np.log(3), rel=1e-5)
    assert entropy("example", every_class_surely) == pytest.approx(0.0, abs=1e-5)
    assert entropy("example", one_class_unsurely) == pytest.approx(np.log(3), rel=1e-5)


# --- the statistics of the teacher's BatchNorm layers ---------------------------------------------------------


def teacher_of_two_batch_norms():
    """BatchNorm, a convolution, BatchNorm of two channels, with statistics as of some training."""
    inputs = keras.Input(tiny.IMAGE_SHAPE)
    x = keras.layers.BatchNormalization()(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3, padding="same", use_bias=False)(x))
    x = keras.layers.Flatten(name="features")(keras.layers.Activation("tanh")(x))
    teacher = keras.Model(inputs, keras.layers.Dense(tiny.NUM_CLASSES)(x), name="teacher")
    generator = np.random.default_rng(4)
    for weight in teacher.weights:
        if weight.ndim == 1:
            weight.assign(generator.uniform(0.2, 1.5, weight.shape))
    return teacher


def distance_of_statistics(teacher, images):
    """R_feature by hand: Σ ‖mean - moving mean‖₂ + ‖variance - moving variance‖₂ over the two layers."""
    (first, second), (conv,) = (
        [layer for layer in teacher.layers if isinstance(layer, kind)]
        for kind in (keras.layers.BatchNormalization, keras.layers.Conv2D)
    )
    total = 0.0
    x = images / 127.5 - 1.0
    for layer in (first, second):
        gamma, beta, moving_mean, moving_variance = (
            weight.numpy().astype(np.float64) for weight in layer.weights
        )
        mean = x.mean(axis=(0, 1, 2))
        variance = (x**2).mean(axis=(0, 1, 2)) - mean**2
        for value, moving in ((mean, moving_mean), (variance, moving_variance)):
            total += np.sqrt(((value - moving) ** 2).sum())
        if layer is first:
            x = gamma * (x - moving_mean) / np.sqrt(moving_variance + layer.epsilon) + beta
            x = by_hand.convolve(x, conv.kernel.numpy().astype(np.float64))
    return total


def test_the_statistics_loss_and_its_gradient_are_those_of_the_formula():
    alone = {"one_hot_weight": 0.0, "entropy_weight": 0.0, "activation_weight": 0.0}
    method = compiled(teacher=teacher_of_two_batch_norms(), statistics_weight=0.3, **alone)
    images = np.array(method.generator(noise_of_step()), np.float64)
    # The generator's last bias is added before a sigmoid, times 255.
    before = np.log(images / (255.0 - images))
    bias = method.generator.trainable_variables[-1]
    expected = oracles.gradient(
        lambda moved: distance_of_statistics(
            method.teacher, 255.0 / (1.0 + np.exp(-before - moved.reshape(tiny.IMAGE_SHAPE)))
        ),
        np.zeros(bias.shape),
    )
    old = bias.numpy()
    logs = method.train_step(ONE_STEP)
    assert float(logs["statistics_loss"]) == pytest.approx(
        distance_of_statistics(method.teacher, images), rel=1e-5
    )
    assert float(logs["generator_loss"]) == pytest.approx(0.3 * float(logs["statistics_loss"]), rel=1e-6)
    assert np.abs(expected).max() > 1e-3
    assert np.allclose(bias.numpy() - old, -RATE * 0.3 * expected, rtol=1e-3, atol=1e-6)


def test_statistics_that_fit_leave_the_gradient_finite():
    teacher = teacher_of_two_batch_norms()
    method = compiled(teacher=teacher, statistics_weight=1.0)
    norms = [layer for layer in teacher.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        inputs = keras.Model(teacher.inputs, layer.input)(method.generator(noise_of_step()), training=False)
        mean, variance = tf.nn.moments(inputs, axes=[0, 1, 2])
        layer.moving_mean.assign(mean)
        layer.moving_variance.assign(variance)
    logs = method.train_step(ONE_STEP)
    assert float(logs["statistics_loss"]) < 1e-4
    assert np.isfinite(float(logs["generator_gradient_norm"]))


def test_without_a_weight_the_statistics_are_not_measured_and_no_batch_norm_is_needed():
    assert "statistics_loss" not in compiled().train_step(ONE_STEP)
    with pytest.raises(
        ValueError, match=r"statistics_weight=0.1 compares .* 'teacher' has none: pass 0, or a teacher with"
    ):
        uncompiled(statistics_weight=0.1)


# --- the noise ---------------------------------------------------------------------------------------------


def test_the_noise_is_standard_normal():
    values = np.array(noise_of_step(rows=400, columns=250), np.float64)
    assert values.mean() == pytest.approx(0.0, abs=0.01)
    assert values.var() == pytest.approx(1.0, abs=0.02)
    assert (values**4).mean() == pytest.approx(3.0, abs=0.1)
    assert np.abs(values).max() < 5.8
    correlations = np.corrcoef(values[:, :40].T) - np.eye(40)
    assert np.abs(correlations).max() < 5 / np.sqrt(400)


def test_the_noise_is_that_of_box_and_muller_from_the_bits():
    bits = tf.random.stateless_uniform([6, 10], [3, 7], None, None, dtype=tf.uint32, alg="philox").numpy()
    uniform = ((bits >> 9).astype(np.float64) + 0.5) / 2**23
    radius, angle = uniform[:, :5], uniform[:, 5:]
    expected = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
    assert np.allclose(noise_of_step(7, seed=3), expected, atol=1e-5)


def test_the_noise_depends_on_the_step_and_the_seed():
    one, again, later, other = noise_of_step(4), noise_of_step(4), noise_of_step(5), noise_of_step(4, seed=1)
    assert np.array_equal(one, again)
    assert np.abs(one - later).min() > 0
    assert np.abs(one - other).min() > 0


# --- what learns -------------------------------------------------------------------------------------------


def test_weight_decay_leaves_the_generator_alone_unless_asked():
    silent = {"one_hot_weight": 0.0, "entropy_weight": 0.0, "activation_weight": 0.0}
    method = compiled(weight_decay=0.3, **silent)
    moved = tiny.changes(method.generator, lambda: method.train_step(ONE_STEP))
    assert not any(change.any() for change in moved)

    method = compiled(generator_weight_decay=0.3, **silent)
    old = tiny.values(method.generator.trainable_variables)
    moved = tiny.changes(method.generator, lambda: method.train_step(ONE_STEP))
    for weight, change in zip(old, moved, strict=True):
        assert np.allclose(change, -RATE * 0.3 * weight if weight.ndim > 1 else 0.0, atol=1e-6)


def test_a_frozen_generator_stays_and_needs_no_optimizer_when_it_is_loaded(tmp_path):
    generator = tiny.generator()
    generator.trainable = False
    method = uncompiled(generator=generator)
    method.compile(student_optimizer=keras.optimizers.SGD(RATE), run_eagerly=True)
    student = tiny.values(method.student.trainable_variables)
    moved = tiny.changes(method.generator, lambda: method.train_step(ONE_STEP))
    assert not any(change.any() for change in moved)
    assert not any(map(np.array_equal, student, tiny.values(method.student.trainable_variables)))
    method.save(tmp_path / "method.keras")
    loaded = keras.saving.load_model(tmp_path / "method.keras", safe_mode=True)
    assert loaded.generator_optimizer is None
    assert loaded.student_optimizer is not None


def test_a_student_learns_from_pixel_noise():
    method = uncompiled(generator=models.pixel_noise(tiny.IMAGE_SHAPE))
    method.compile(student_optimizer=keras.optimizers.SGD(RATE), run_eagerly=True)
    moved = tiny.changes(method.student, lambda: method.train_step(ONE_STEP))
    assert all(change.any() for change in moved)
    assert method.generator_optimizer is None


def test_the_generator_is_not_evaluated_and_adds_no_second_teacher():
    method = uncompiled()
    assert set(method.evaluation_models()) == {"accuracy", "teacher_accuracy"}
    parts = [method.teacher, method.student, method.generator]
    assert len(method.trainable_variables) == sum(len(part.trainable_variables) for part in parts)
    assert len(method.layers) == 3


def test_another_layer_can_be_named():
    teacher = tiny.plain_network("teacher")
    method = compiled(teacher=teacher, activation_layer=teacher.layers[-1].name)
    images = method.generator(noise_of_step())
    expected = -np.abs(np.array(method.teacher(images), np.float64)).mean()
    assert float(method.train_step(ONE_STEP)["activation_loss"]) == pytest.approx(expected, rel=1e-5)


# --- validation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"one_hot": "L2"}, "one_hot='L2' is unknown: Choose one of 'cross_entropy', 'l2'"),
        ({"one_hot_weight": -1.0}, "one_hot_weight=-1.0 is out of range"),
        ({"entropy_over": "batches"}, "entropy_over='batches' is unknown: did you mean 'batch'"),
        ({"entropy_weight": -1.0}, "entropy_weight=-1.0 is out of range"),
        ({"activation_weight": -1.0}, "activation_weight=-1.0 is out of range"),
        ({"statistics_weight": -1.0}, "statistics_weight=-1.0 is out of range"),
        ({"activation_layer": "feature"}, "activation_layer='feature' is unknown: did you mean 'features'"),
        ({"temperature": 0.0}, "temperature=0.0 is out of range"),
        ({"generator_weight_decay": -1.0}, "generator_weight_decay=-1.0 is out of range"),
    ],
)
def test_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        uncompiled(**setting)


@pytest.mark.parametrize(
    ("generator", "message"),
    [
        (models.pixel_noise((8, 8, 1)), r"maps \(64,\) to \(8, 8, 1\), but the student takes .* \(4, 4, 1\)"),
        (tiny.plain_network("images"), r"maps \(4, 4, 1\) to \(3,\), but the student takes images"),
    ],
)
def test_a_generator_of_other_shapes_is_refused(generator, message):
    with pytest.raises(ValueError, match=message):
        uncompiled(generator=generator)


def test_a_batch_of_images_is_refused(batch):
    with pytest.raises(ValueError, match=r"no 'generated' entry with 'index': .*index_batches"):
        compiled().train_step(batch)
