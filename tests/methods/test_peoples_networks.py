"""Networks and batches that people bring along: what a step needs of them, and what it does not touch."""

import functools
import importlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import mpl_tf
from mpl_tf import losses
from mpl_tf.methods.learning_to_reweight import LearningToReweight
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.methods.uda import UDA
from tests.support import tiny

pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist")


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def batch(**entries):
    """One with every entry that some method reads; `labeled_weight=…` and the like replace or add some."""
    data = tiny.batch()
    data["labeled"]["trusted"] = np.arange(4) % 2 == 0
    for name, value in entries.items():
        stream, _, key = name.partition("_")
        data[stream][key] = value
    return data


def step(method, data=None):
    """Compiles and makes one step, without a graph."""
    count = len(method.optimizer_arguments)
    method.compile(*(sgd() for _ in range(count)), run_eagerly=True)
    return method.train_step(tiny.tensors(batch() if data is None else data))


def layered(*layers):
    inputs = keras.Input(tiny.IMAGE_SHAPE)
    outputs = keras.layers.Rescaling(1 / 255)(inputs)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, keras.layers.Dense(tiny.NUM_CLASSES)(keras.layers.Flatten()(outputs)))


# --- weights that are no numbers to average ----------------------------------------------------------------


class Lookup(keras.layers.Layer):
    """Takes pixels by a table of indices that is a weight, as windowed attention takes its biases."""

    def build(self, shape):
        indices = np.arange(shape[1])[::-1]
        self.table = self.add_weight(shape=(shape[1],), dtype="int32", trainable=False, name="table")
        self.table.assign(indices)
        self.chosen = self.add_weight(shape=(2,), dtype="bool", trainable=False, name="chosen")
        self.chosen.assign([True, False])

    def call(self, images):
        return keras.ops.take(images, self.table, axis=1)


def test_the_average_keeps_tables_of_indices():
    method = Supervised(student=layered(Lookup()), ema_decay=0.99)
    method.compile(sgd(), run_eagerly=True)
    data = tiny.tensors(batch())
    for _ in range(5):
        method.train_step(data)
    averages = {v.name: v.numpy().tolist() for v in method.student_average.non_trainable_variables}
    assert averages["table"] == [3, 2, 1, 0]
    assert averages["chosen"] == [True, False]


# --- gradients of other kinds, and none ---------------------------------------------------------------------


class Positions(keras.layers.Layer):
    """Adds an embedding of each row, as vision transformers do of each patch; its gradient is sparse."""

    def build(self, shape):
        self.embedding = keras.layers.Embedding(shape[1], shape[3])
        self.embedding.build(())

    def call(self, images):
        return images + self.embedding(keras.ops.arange(images.shape[1]))[:, None]


@pytest.mark.parametrize("feedback", ["per_example", "dot_product"])
def test_the_feedback_of_networks_with_embeddings(feedback):
    method = MetaPseudoLabels(teacher=layered(Positions()), student=layered(Positions()), feedback=feedback)
    assert np.isfinite(step(method)["feedback"])


def test_learning_to_reweight_of_networks_with_embeddings():
    assert np.isfinite(step(LearningToReweight(student=layered(Positions())))["loss"])


@pytest.mark.parametrize(
    "make",
    [
        lambda network: Supervised(student=network, weight_decay=0.5, global_clipnorm=1.0),
        lambda network: LearningToReweight(student=network, weight_decay=0.5),
        *(
            functools.partial(
                lambda feedback, network: MetaPseudoLabels(
                    teacher=tiny.plain_network("teacher"),
                    student=network,
                    feedback=feedback,
                    weight_decay=0.5,
                    ema_decay=None,
                ),
                feedback,
            )
            for feedback in ("per_example", "dot_product", "loss_difference", "unrolled")
        ),
    ],
)
@pytest.mark.parametrize("optimizer", [sgd, lambda: keras.optimizers.AdamW(0.1, weight_decay=0.5)])
def test_weights_that_no_loss_depends_on_stay_as_they_are(make, optimizer):
    def trained(frozen):
        tiny.network("seeded")
        network = layered(keras.layers.Conv2D(2, 3, name="features"), keras.layers.Lambda(tf.stop_gradient))
        features = network.get_layer("features")
        features.trainable = not frozen
        before = features.get_weights()
        method = make(network)
        method.compile(*(optimizer() for _ in method.optimizer_arguments), run_eagerly=True)
        logs = method.train_step(tiny.tensors(batch()))
        for value, old in zip(features.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, old)
        return {name: float(value) for name, value in logs.items()}

    frozen, unreached = trained(True), trained(False)
    assert unreached == pytest.approx(frozen, rel=1e-5, abs=1e-6)


# --- changes after compile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("frozen", [True, False])
def test_layers_that_are_frozen_after_compile(optimizer, frozen):
    network = layered(keras.layers.Conv2D(2, 3, name="features"))
    network.get_layer("features").trainable = not frozen
    method = Supervised(student=network)
    method.compile(optimizer)
    network.get_layer("features").trainable = frozen
    counts = "2 of its weights were frozen and 0" if not frozen else "0 of its weights were frozen and 2"
    with pytest.raises(ValueError, match=rf"{counts} made trainable since.*call compile again"):
        method.fit(tf.data.Dataset.from_tensors(batch()), verbose=0)
    method.compile(optimizer)
    method.make_train_function()


# --- losses that networks bring along -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        (keras.layers.Conv2D(2, 3, kernel_regularizer="l2", name="features"), "features/kernel"),
        (keras.layers.Conv2D(2, 3, activity_regularizer="l1", name="features"), "features"),
    ],
)
def test_regularizers_are_warned_of(layer, place):
    method = Supervised(student=layered(layer))
    with pytest.warns(UserWarning, match=rf"has regularizers, as that of {place}, .*pass weight_decay="):
        method.compile(sgd())


@keras.saving.register_keras_serializable("tests")
class Balanced(keras.layers.Layer):
    """Adds a loss of its own, as mixtures of experts do."""

    def call(self, inputs):
        self.add_loss(tf.reduce_mean(tf.square(inputs)))
        return inputs


def test_losses_that_layers_add_are_warned_of():
    with pytest.warns(UserWarning, match="A layer of .* calls add_loss, and a method minimizes"):
        step(Supervised(student=layered(Balanced())))


def test_regularizers_of_what_does_not_learn_are_not_warned_of():
    layer = keras.layers.Conv2D(2, 3, kernel_regularizer="l2")
    method = Supervised(student=layered(layer))
    layer.trainable = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method.compile(sgd())
    assert [str(warning.message) for warning in caught] == []


# --- inputs and outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda images, logits: keras.Model(images, {"logits": logits}), "returns a dict with 'logits'"),
        (lambda images, logits: keras.Model(images, {"b": logits, "a": logits + 1}), "a dict with 'a', 'b'"),
        (lambda images, logits: keras.Model(images, [logits, logits + 1]), "has 2 outputs"),
        (lambda images, logits: keras.Model([images, keras.Input(())], logits), "takes 2 inputs"),
    ],
)
def test_networks_of_several_tensors(build, kind):
    images = keras.Input(tiny.IMAGE_SHAPE)
    logits = keras.layers.Dense(3)(keras.layers.Flatten()(images))
    with pytest.raises(ValueError, match=rf"The student .* {kind}, and a classifier maps one tensor"):
        Supervised(student=build(images, logits))


def test_networks_for_images_of_any_size():
    def network(channels):
        images = keras.Input((None, None, channels))
        features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(images))
        return keras.Model(images, keras.layers.Dense(tiny.NUM_CLASSES)(features))

    assert np.isfinite(step(MetaPseudoLabels(teacher=network(1), student=network(1)))["loss"])
    with pytest.raises(ValueError, match=r"have shape \(4, 4, 1\), but '.*' takes \(None, None, 3\)"):
        step(Supervised(student=network(3)))


# --- policies -----------------------------------------------------------------------------------------------


def test_networks_that_are_in_16_bits_altogether():
    keras.config.set_dtype_policy("bfloat16")
    try:
        network = layered(keras.layers.BatchNormalization())
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(step(Supervised(student=network))["loss"])


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_of_keras(monkeypatch, backend):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(
        ImportError, match=f"backend '{backend}': set the environment variable KERAS_BACKEND=tens"
    ):
        importlib.reload(mpl_tf)


# --- batches ------------------------------------------------------------------------------------------------


def test_a_batch_in_train_on_batch_and_from_a_generator():
    method = Supervised(student=tiny.plain_network("student"))
    method.compile(sgd())
    loss, *_ = method.train_on_batch(batch())
    assert np.isfinite(loss)
    method.fit(((batch(),) for _ in range(2)), steps_per_epoch=2, verbose=0)
    assert method.step.value == 3
    images, labels = tiny.examples(8)
    expected = method.evaluate(images, labels, verbose=0)
    np.testing.assert_allclose(method.test_on_batch({"image": images, "label": labels}), expected, rtol=1e-5)


def test_predictions_for_evaluation_batches():
    method = Supervised(student=tiny.plain_network("student"))
    images, labels = tiny.examples(8)
    batches = tf.data.Dataset.from_tensors({"image": images, "label": labels, "index": np.arange(8)})
    np.testing.assert_array_equal(method.predict(batches, verbose=0), method.student(images))


@pytest.mark.parametrize(("options", "shuffled"), [({}, True), ({"shuffle": False}, False)])
def test_batches_of_a_keras_dataset_are_shuffled_as_keras_does(options, shuffled):
    class Batches(keras.utils.PyDataset):
        drawn = ()

        def __len__(self):
            return 12

        def __getitem__(self, index):
            self.drawn = (*self.drawn, index)
            return batch()

    batches, method = Batches(), Supervised(student=tiny.plain_network("student"))
    method.compile(sgd(), run_eagerly=True)
    method.fit(batches, verbose=0, **options)
    # The first of them are looked at before.
    order = batches.drawn[-12:]
    assert sorted(order) == list(range(12))
    assert (list(order) != sorted(order)) == shuffled


@pytest.mark.parametrize(("options", "shuffled"), [({}, True), ({"shuffle": False}, False)])
def test_arrays_are_shuffled_as_keras_does(options, shuffled):
    class Recording(Supervised):
        drawn = ()

        def train_step(self, data):
            Recording.drawn = (*Recording.drawn, *data["labeled"]["label"].numpy())
            return {"loss": tf.constant(0.0)}

    images, _ = tiny.examples(12)
    method = Recording(student=tiny.plain_network("student"))
    method.compile(sgd(), run_eagerly=True)
    method.fit({"labeled": {"image": images, "label": np.arange(12)}}, verbose=0, **options)
    assert sorted(Recording.drawn) == list(range(12))
    assert (list(Recording.drawn) != sorted(Recording.drawn)) == shuffled


def numbers(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("make", "entry"),
    [
        (UDA, {"labeled_image": numbers(4, *tiny.IMAGE_SHAPE)}),
        (UDA, {"labeled_image": numbers(4, *tiny.IMAGE_SHAPE).astype(np.float64)}),
        (
            lambda student: PseudoLabels(student=student, mixup=1.0),
            {"labeled_image": numbers(4, *tiny.IMAGE_SHAPE)},
        ),
        (
            lambda student: PseudoLabels(student=student, mixup=1.0),
            {
                "labeled_image": numbers(4, *tiny.IMAGE_SHAPE).astype(np.float64),
                "unlabeled_weak": numbers(6, *tiny.IMAGE_SHAPE).astype(np.float64),
                "unlabeled_strong": numbers(6, *tiny.IMAGE_SHAPE).astype(np.float64),
            },
        ),
        (PseudoLabels, {"labeled_weight": np.ones(4)}),
        (NoisyStudent, {"unlabeled_probabilities": np.full((6, 3), 1 / 3)}),
        (NoisyStudent, {"unlabeled_probabilities": np.full((6, 3), 1 / 3, np.float16)}),
    ],
)
def test_the_numbers_of_a_batch_in_other_types(make, entry):
    results = [
        step(make(student=tiny.plain_network("student")), batch(**entry | {name: value}))["loss"]
        for name, value in entry.items()
        for value in (value, value.astype(np.float32))
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_not_a_loss_of_zero(label):
    labels, logits = tf.constant([0, label]), tf.zeros([2, 3])
    known, unknown = losses.cross_entropy(labels, logits, label_smoothing=0.1)
    assert np.isfinite(known)
    assert np.isnan(unknown)
    data = batch(labeled_label=np.array([0, 1, 2, label], np.int32))
    assert np.isnan(step(Supervised(student=tiny.plain_network("student")), data)["loss"])


# --- convolutions with biases and branches ------------------------------------------------------------------


def branched(seed):
    inputs = keras.Input(tiny.IMAGE_SHAPE)
    outputs = keras.layers.Rescaling(1 / 255)(inputs)
    for _ in range(4):
        outputs = keras.layers.Conv2D(2, 3, padding="same")(outputs)
        outputs = keras.layers.add([keras.layers.Conv2D(2, 3, padding="same")(outputs) for _ in range(3)])
    pooled = keras.layers.GlobalAveragePooling2D()(outputs)
    return keras.Model(inputs, keras.layers.Dense(tiny.NUM_CLASSES)(pooled), name=f"branched_{seed}")


def test_the_exact_feedback_runs_where_branches_have_biases():
    """oneDNN's pass makes a cycle of the operations of a graph that TensorFlow has not rewritten before."""
    method = MetaPseudoLabels(teacher=branched(0), student=branched(1))
    method.compile(teacher_optimizer=sgd(), student_optimizer=sgd())
    logs = tf.function(method.train_step, autograph=False)(tiny.tensors(batch()))
    assert np.isfinite(float(logs["loss"]))


# --- classes of one's own ------------------------------------------------------------------------------------


class Halved(keras.Model):
    """A functional network whose class computes with its layers in another way."""

    def __init__(self):
        inputs = keras.Input(tiny.IMAGE_SHAPE)
        features = keras.layers.Flatten(name="features")(inputs)
        super().__init__(inputs=inputs, outputs=keras.layers.Dense(tiny.NUM_CLASSES)(features))

    def call(self, images, training=False, mask=None):
        return super().call(images / 2.0, training=training)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Supervised(student=Halved(), ema_decay=0.9),
        lambda: Supervised(student=Halved()).compile(sgd(), rematerialize=True),
        lambda: mpl_tf.DataFreeLearning(
            teacher=Halved(), student=tiny.plain_network("student"), generator=tiny.generator()
        ),
    ],
    ids=["average", "rematerialize", "features"],
)
def test_a_call_of_its_own_is_not_passed_over(make):
    with pytest.raises(ValueError, match="has a call of its own"):
        make()


def test_a_call_of_its_own_is_trained():
    network = Halved()
    method = Supervised(student=network)
    images, _ = tiny.examples(4)
    method.compile(sgd(), run_eagerly=True)
    np.testing.assert_array_equal(method.training_logits("student", images), network(images))


@keras.saving.register_keras_serializable("tests")
class Extended(MetaPseudoLabels):
    """Hands on what it does not know, as classes of Keras do."""

    def __init__(self, *, margin=0.0, **options):
        super().__init__(**options)
        self.margin = margin


def test_a_class_that_hands_its_arguments_on_is_saved_with_them(tmp_path):
    networks = {role: tiny.plain_network(role) for role in ("teacher", "student")}
    method = Extended(**networks, margin=0.5, uda_weight=3.0, feedback="none")
    method.save(tmp_path / "method.keras")
    loaded = keras.saving.load_model(tmp_path / "method.keras")
    assert (loaded.margin, loaded.uda_weight, loaded.feedback.estimator) == (0.5, 3.0, "none")


def softsign():
    return layered(keras.layers.Conv2D(2, 3), keras.layers.Activation("softsign"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: MetaPseudoLabels(teacher=softsign(), student=softsign()),
        lambda: LearningToReweight(student=softsign()),
    ],
)
def test_operations_without_a_second_derivative(make):
    with pytest.raises(ValueError, match=r"no second derivative of .*SoftsignGrad.*finite_difference=True"):
        step(make())


def test_the_finite_difference_needs_no_second_derivative():
    feedback = mpl_tf.FeedbackSettings(finite_difference=True)
    method = MetaPseudoLabels(teacher=softsign(), student=softsign(), feedback=feedback)
    assert np.isfinite(step(method)["feedback"])
