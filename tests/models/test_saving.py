import zipfile

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.methods.distillation import Distillation
from mpl_tf.methods.supervised import Supervised
from mpl_tf.methods.uda import UDA
from tests.support import tiny


def test_a_network_comes_back_with_its_weights_and_not_compiled(tmp_path):
    network = tiny.network("student")
    network.compile("sgd")
    network.save(tmp_path / "student.keras")
    loaded = models.load(tmp_path / "student.keras")
    assert not loaded.compiled
    for weight, other in zip(network.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(weight, other)


def test_a_home_is_filled_in_and_files_that_hold_no_known_network_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    models.save(models.set_class_names(tiny.network("student"), "abc"), "~/student.keras")
    assert models.get_class_names(models.load(tmp_path / "student.keras")) == ("a", "b", "c")

    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("notes.txt", "no network")
    with pytest.raises(ValueError, match=r"other\.keras is no file of a network .*: give what network\.save"):
        models.load(tmp_path / "other.keras")

    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(3)(Own()(inputs))).save(tmp_path / "own.keras")
    with pytest.raises(ValueError, match=r"own\.keras has 'Own', which is not Keras' own: give a network"):
        models.load(tmp_path / "own.keras")


def test_of_a_whole_method_its_inference_model_is_read(tmp_path):
    method = Supervised(student=tiny.network("student"), ema_decay=0.5)
    method.compile("sgd", run_eagerly=True)
    for weight in method.student_average.weights:
        weight.assign(weight + 1.0)
    method.save(tmp_path / "method.keras")
    loaded = models.load(tmp_path / "method.keras", class_names=["cat", "dog", "owl"])
    started = models.copy_weights(method, tiny.network("other", seed=1))
    for network in (loaded, started):
        for weight, other in zip(network.get_weights(), method.student_average.get_weights(), strict=True):
            assert np.array_equal(weight, other)


def test_a_whole_method_keeps_what_its_networks_carry(tmp_path):
    student, teacher = (models.set_class_names(tiny.network(role), "abc") for role in ("student", "teacher"))
    models.set_resizing(student, ("pad", "bicubic"))
    method = UDA(student=student)
    method.save(tmp_path / "uda.keras")
    assert not keras.saving.load_model(tmp_path / "uda.keras").compiled
    for loaded in (keras.saving.load_model(tmp_path / "uda.keras"), keras.models.clone_model(method)):
        for network in (loaded.student, loaded.inference_model):
            assert models.get_class_names(network) == ("a", "b", "c")
            assert models.get_resizing(network) == ("pad", "bicubic")
    with pytest.raises(ValueError, match="was trained for other classes"):
        models.load(tmp_path / "uda.keras", class_names=["c", "b", "a"])
    method = Distillation(student=tiny.network("plain", seed=1), teacher=teacher)
    method.save(tmp_path / "distillation.keras")
    loaded = keras.saving.load_model(tmp_path / "distillation.keras")
    assert models.get_class_names(loaded.teacher) == ("a", "b", "c")
    assert models.get_class_names(loaded.student) is None


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"student\.keras does not exist: give a \.keras file"):
        models.load(tmp_path / "student.keras")
    with pytest.raises(FileNotFoundError, match=r"networks is a folder: give a \.keras file"):
        models.load((tmp_path / "networks").mkdir() or tmp_path / "networks")


def test_a_file_that_was_cut_off_is_named(tmp_path):
    file = tmp_path / "student.keras"
    tiny.network("student").save(file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"student\.keras is not a \.keras file, or was cut off: give what"):
        models.load(file)


def test_a_file_that_holds_code_is_refused(tmp_path):
    images = keras.Input((4, 4, 1))
    hidden = keras.layers.Lambda(lambda x: x + 1.0)(images)
    keras.Model(images, keras.layers.Flatten()(hidden)).save(tmp_path / "code.keras")
    with pytest.raises(ValueError, match="lambda"):
        models.load(tmp_path / "code.keras")
