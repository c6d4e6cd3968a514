"""What people of other Keras models type: it does what it says, or is refused with what to do instead."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import data
from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.reduced_mpl import ReducedMetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.methods.uda import UDA
from tests.support import oracles, tiny


def supervised():
    return Supervised(student=tiny.plain_network("student"))


def mpl():
    return MetaPseudoLabels(
        teacher=tiny.plain_network("teacher"), student=tiny.plain_network("student", seed=1), ema_decay=None
    )


def reduced(**settings):
    return ReducedMetaPseudoLabels(
        student=tiny.plain_network("student"), calibrator=tiny.calibrator(), **settings
    )


def dafl():
    networks = {role: tiny.plain_network(role) for role in ("teacher", "student")}
    return DataFreeLearning(**networks, generator=tiny.generator())


# --- compile -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (supervised, {}, "The student has no optimizer: pass compile(optimizer=…)."),
        (supervised, {"student_optimizer": "sgd"},
         "Supervised trains the student alone, so compile takes no student_optimizer=: pass optimizer=."),
        (mpl, {}, "The teacher has no optimizer: pass compile(teacher_optimizer=…, student_optimizer=…), one for"),
        (mpl, {"teacher_optimizer": "adam"}, "The student has no optimizer: pass compile(teacher_optimizer=…, stud"),
        (mpl, {"optimizer": "adam"},
         "MetaPseudoLabels trains the teacher and the student, so compile takes no optimizer=: pass "
         "teacher_optimizer= and student_optimizer=."),
        (reduced, {"student_optimizer": "sgd"}, "The calibrator has no optimizer: pass compile(calibrator_optimizer"),
        (dafl, {"student_optimizer": "sgd"}, "The generator has no optimizer: pass compile(generator_optimizer=…, s"),
    ],
)  # fmt: skip
def test_every_learner_needs_an_optimizer_of_its_own(make, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make().compile(**options)


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, keras.optimizers.LossScaleOptimizer])
def test_one_optimizer_for_two_networks(wrap):
    optimizer = keras.optimizers.SGD(0.1)
    with pytest.raises(
        ValueError, match=r"The teacher and the student share one optimizer.*make one for each"
    ):
        mpl().compile(optimizer, wrap(optimizer))


def test_the_same_name_makes_two_optimizers():
    method = mpl()
    method.compile("adam", "adam")
    assert method.teacher_optimizer is not method.student_optimizer


def test_a_network_that_nothing_trains_needs_no_optimizer():
    method = reduced(feedback="none")
    method.compile(student_optimizer="sgd")
    assert not hasattr(method, "calibrator_optimizer")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "Supervised minimizes the losses of its paper, so compile takes no loss="),
        ({"loss_weights": [1.0]}, "so compile takes no loss_weights="),
        ({"metrics": ["accuracy"]}, "compile the network that it trains with them afterwards, method"),
        ({"weighted_metrics": ["accuracy"]}, "so compile takes no weighted_metrics="),
        ({"auto_scale_loss": True}, "The option of compile='auto_scale_loss' is unknown"),
        (
            {"rematerialise": True},
            "The option of compile='rematerialise' is unknown: did you mean 'rematerialize'?",
        ),
    ],
)
def test_options_without_an_effect(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        supervised().compile("sgd", **options)


def test_options_that_say_nothing_pass():
    method = supervised()
    method.compile("sgd", loss=None, metrics=None)
    assert isinstance(method.student_optimizer, keras.optimizers.SGD)


# --- fit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argument",
    [
        {"y": 1},
        {"batch_size": 4},
        {"validation_split": 0.1},
        {"class_weight": {0: 1.0}},
        {"sample_weight": 1},
    ],
)
def test_arguments_that_cannot_reach_batches_that_are_made(argument):
    method = supervised()
    method.compile("sgd")
    with pytest.raises(ValueError, match=f"{next(iter(argument))}= has no effect on the batches.*: .*"):
        method.fit(tiny.dataset(), **argument)
    assert int(method.step) == 0


def training_batches(*, labeled=10, unlabeled=25, unlabeled_ratio=2):
    images, labels = tiny.examples(labeled)
    source = data.from_arrays(
        images.astype(np.uint8), labels, unlabeled_images=tiny.examples(unlabeled)[0].astype(np.uint8)
    )
    split = data.draw_split(source, num_labeled=None, seed=0, validation=0.0, labeled_in_unlabeled=False)
    unchanged = {
        view: lambda images, seed, position: tf.cast(images, tf.float32) for view in ("weak", "strong")
    }
    return data.training_batches(source, split, batch_size=4, unlabeled_ratio=unlabeled_ratio, **unchanged)


@pytest.mark.parametrize(
    ("sizes", "steps"),
    [
        ({}, 4),  # 25 unlabeled images, 8 at a time
        ({"unlabeled": 9}, 3),  # 10 labeled ones, 4 at a time, take longer
        ({"unlabeled_ratio": 0}, 3),
    ],
)
def test_an_epoch_of_endless_batches_is_once_through_the_larger_stream(sizes, steps):
    batches = training_batches(**sizes)
    assert batches.steps_per_epoch == steps
    if sizes == {}:
        method = supervised()
        method.compile("sgd", run_eagerly=True)
        method.fit(batches, epochs=2, verbose=0)
        assert int(method.step) == 2 * steps


def test_endless_batches_of_unknown_epochs_need_a_number_of_steps():
    method = supervised()
    method.compile("sgd", run_eagerly=True)
    for endless in (tiny.dataset().repeat(), training_batches().map(lambda batch: batch)):
        with pytest.raises(ValueError, match=r"These batches never end.*pass steps_per_epoch="):
            method.fit(endless, verbose=0)
    method.fit(tiny.dataset().repeat(), steps_per_epoch=1, verbose=0)
    assert int(method.step) == 1


class WorsensAfterTheFirstEpoch(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["val_accuracy"] = 0.5 - 0.1 * epoch
        logs["agreement"] = logs["val_accuracy"]
        logs["val_loss"] = 1.0 + 0.1 * epoch


@pytest.mark.parametrize("monitor", ["val_accuracy", "agreement", "val_loss"])
def test_keras_callbacks_know_which_way_is_up(tmp_path, monitor):
    method = supervised()
    method.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    stop = keras.callbacks.EarlyStopping(monitor, patience=3)
    best = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras", monitor, save_best_only=True)
    slow = keras.callbacks.ReduceLROnPlateau(monitor, factor=0.5, patience=2, min_delta=0.0)
    history = method.fit(
        tiny.dataset(batches=1),
        epochs=9,
        validation_data=tiny.examples(6),
        callbacks=[WorsensAfterTheFirstEpoch(), best, slow, stop],
        verbose=0,
    )
    assert len(history.epoch) == 4
    assert [file.name for file in tmp_path.iterdir()] == ["1.keras"]
    assert float(method.optimizer.learning_rate) == pytest.approx(0.05)


def test_a_direction_that_was_chosen_stays():
    method = supervised()
    method.compile("sgd", run_eagerly=True)
    stop = keras.callbacks.EarlyStopping("val_accuracy", mode="min", patience=1)
    method.fit(tiny.dataset(batches=1), validation_data=tiny.examples(6), callbacks=stop, verbose=0)
    assert stop.mode == "min"


# --- evaluate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["arrays", "dict"])
def test_sample_weights_weigh_the_loss_and_every_accuracy(form):
    method = mpl()
    method.compile("sgd", "sgd", run_eagerly=True)
    generator = np.random.default_rng(0)
    images, labels = tiny.images(generator, 10), generator.integers(3, size=10)
    weights = generator.uniform(0.0, 5.0, 10).astype(np.float32)
    if form == "arrays":
        logs = method.evaluate(
            images, labels, sample_weight=weights, batch_size=4, return_dict=True, verbose=0
        )
    else:
        examples = {"image": images, "label": labels, "sample_weight": weights}
        batches = tf.data.Dataset.from_tensor_slices(examples).batch(4)
        logs = method.evaluate(batches, return_dict=True, verbose=0)
    logits = {role: np.array(getattr(method, role)(images), np.float64) for role in ("student", "teacher")}
    entropies = oracles.cross_entropies(oracles.one_hot(labels, 3), logits["student"])
    hits = {role: values.argmax(axis=-1) == labels for role, values in logits.items()}
    expected = {
        "loss": np.average(entropies, weights=weights),
        "accuracy": np.average(hits["student"], weights=weights),
        "teacher_accuracy": np.average(hits["teacher"], weights=weights),
    }
    assert abs(expected["loss"] - entropies.mean()) > 1e-3
    assert logs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_labels_in_every_whole_type_and_as_a_column(dtype, shape):
    method = supervised()
    method.compile("sgd", run_eagerly=True)
    images, labels = tiny.examples(6)
    expected = method.evaluate(images, labels, return_dict=True, verbose=0)
    assert (
        method.evaluate(images, labels.astype(dtype).reshape(shape), return_dict=True, verbose=0) == expected
    )


def test_labels_and_weights_as_a_column_and_flat_in_one_compiled_evaluation():
    method = supervised()
    method.compile("sgd")
    images, labels = tiny.examples(6)
    weights = np.arange(6, dtype=np.float32)
    flat, column, again = (
        method.evaluate(images, labels.reshape(shape), sample_weight=weights.reshape(shape), verbose=0)
        for shape in ((6,), (6, 1), (6,))
    )
    assert flat == column == again
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        method.evaluate(images, np.eye(3, dtype=int)[labels], verbose=0)


def annealed():
    return UDA(student=tiny.plain_network("student"), tsa_schedule="linear", tsa_steps=10)


@pytest.mark.parametrize("make", [supervised, annealed])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_labels_in_every_whole_type_are_trained_on(make, dtype):
    logs = []
    for kind in (np.int32, dtype):
        method = make()
        method.compile("sgd", run_eagerly=True)
        batch = tiny.batch()
        batch["labeled"]["label"] = batch["labeled"]["label"].astype(kind)
        logs.append({name: float(value) for name, value in method.train_step(tiny.tensors(batch)).items()})
    assert logs[0] == logs[1]


@pytest.mark.parametrize("labels", [np.eye(3)[[0, 1]], np.eye(3, dtype=int)[[0, 1]], np.zeros(2)])
def test_labels_that_are_no_class_numbers(labels):
    method = supervised()
    method.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match="pass one whole number per image, its class; the argmax of one-hot"):
        method.evaluate(tiny.examples(2)[0], labels, verbose=0)


# --- save and export ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema_decay", [0.9, None])
def test_a_method_is_exported_as_the_network_that_is_served(tmp_path, ema_decay):
    method = Supervised(student=tiny.plain_network("student"), ema_decay=ema_decay)
    method.student.trainable_variables[-1].assign([1.0, 2.0, 3.0])
    method.export(tmp_path / "exported", verbose=False)
    images, _ = tiny.examples(2)
    exported = tf.saved_model.load(tmp_path / "exported")
    assert np.allclose(exported.serve(images), method.inference_model(images), atol=1e-5)


@pytest.mark.parametrize("name", ["method.h5", "method.hdf5", "method"])
def test_a_file_that_cannot_hold_a_method(tmp_path, name):
    with pytest.raises(ValueError, match=r"does not fit into .*: pass a name that ends in '\.keras'"):
        supervised().save(tmp_path / name)
