import dataclasses
import json
import pathlib
import re
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.images.decoding import Resizing
from mpl_tf.data.images.images import ArrayImages
from mpl_tf.data.images.source import Source
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.inference import labeling
from mpl_tf.methods.supervised import Supervised
from tests.programs import forked
from tests.support import tiny

COUNT = 60
# 47 of the 60 images, in an order of their own: four shards of 10 and one of 7.
INDEX = np.random.default_rng(3).permutation(COUNT)[:47]


def array_images(seed=1):
    generator = np.random.default_rng(seed)
    examples = generator.integers(0, 256, (COUNT, *tiny.IMAGE_SHAPE), dtype=np.uint8)
    return ArrayImages(examples, np.full(COUNT, -1))


def created(path, **changes):
    request = {
        "index": INDEX,
        "num_classes": tiny.NUM_CLASSES,
        "teacher": {"file": "t.keras"},
        "shard_size": 10,
    }
    return LabelStore.create(path, **{**request, "fingerprint": array_images().fingerprint(), **changes})


def labeled(path, network=None, **options):
    store = created(path)
    network = tiny.network("teacher") if network is None else network
    labeling.label(network, array_images(), store, **{"batch_size": 4, "verbose": 0, **options})
    return store


def contents(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("batch_size", [1, 4, 10, 300])
def test_labels_are_what_the_network_predicts(tmp_path, batch_size):
    network = tiny.network("teacher")
    store = labeled(tmp_path, network, batch_size=batch_size)
    logits = network.predict(array_images().examples[INDEX].astype(np.float32), verbose=0)
    assert not store.missing()
    np.testing.assert_allclose(store.probabilities(), softmax(logits), atol=1e-6)
    assert np.ptp(store.probabilities(), axis=0).min() > 0.1


def test_logits_of_16_bits_become_probabilities_in_float32(tmp_path):
    images = keras.Input(tiny.IMAGE_SHAPE)
    dense = keras.layers.Dense(tiny.NUM_CLASSES, dtype="bfloat16")
    network = keras.Model(images, dense(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))))
    logits = tf.cast(network(array_images().examples[INDEX].astype(np.float32)), tf.float32).numpy()
    probabilities = labeled(tmp_path, network).probabilities()
    np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


class Spy(keras.layers.Layer):
    """Notes each time that it is traced; calls that compute at once, as the check of its outputs makes, are none."""

    def __init__(self):
        super().__init__()
        self.traced = []

    def call(self, inputs):
        if not tf.executing_eagerly():
            self.traced.append(tuple(inputs.shape))
        return inputs


def test_the_network_is_traced_once_and_not_at_all_when_nothing_is_missing(tmp_path):
    spy, images = Spy(), keras.Input(tiny.IMAGE_SHAPE)
    network = keras.Model(images, keras.layers.Dense(tiny.NUM_CLASSES)(keras.layers.Flatten()(spy(images))))
    spy.traced.clear()
    labeled(tmp_path, network)
    assert spy.traced == [(4, *tiny.IMAGE_SHAPE)]
    before = contents(tmp_path)
    assert labeling.label(network, array_images(), created(tmp_path), verbose=0) == 0
    assert len(spy.traced) == 1
    assert contents(tmp_path) == before


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """What the program measured, and the folder in which it died."""
    folder = tmp_path_factory.mktemp("program")
    finished = forked.run("tests.programs.label_run", folder)
    assert finished.returncode == -signal.SIGKILL, finished.stderr[-3000:]
    return json.loads(finished.stdout), folder


def test_two_replicas_equal_one(program):
    measured, _ = program
    assert measured["replicas"] == 2
    assert measured["spread"] > 0.1
    assert measured["apart"] < 1e-6


def test_a_killed_labeling_goes_on_to_the_same_bytes(program, tmp_path):
    whole = labeled(tmp_path)
    folder = program[1] / "killed"
    (leftover,) = folder.glob(".writing-*")
    leftover.unlink()
    assert sorted(contents(folder)) == ["index.npy", *(f"shard_{n:05d}.npy" for n in range(3)), "store.json"]
    damaged = folder / "shard_00001.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    store = created(folder)
    assert store.missing() == [1, 3, 4]
    assert labeling.label(tiny.network("teacher"), array_images(), store, batch_size=4, verbose=0) == 27
    assert contents(folder) == contents(whole.path)


@pytest.mark.parametrize("noise", [False, True])
def test_workers_together_write_what_one_writes(tmp_path, noise):
    whole = labeled(tmp_path / "one", training=noise)
    counts = []
    for worker in (1, 2, 0):
        store = created(tmp_path / "three")
        options = {"workers": 3, "worker": worker, "batch_size": 4, "training": noise, "verbose": 0}
        counts.append(labeling.label(tiny.network("teacher"), array_images(), store, **options))
    assert counts == [17, 10, 20]
    assert contents(tmp_path / "three") == contents(whole.path)


def test_noise_is_dropout_alone_and_leaves_no_trace(tmp_path):
    network = tiny.network("teacher")
    # Statistics that differ from any batch's, so that a BatchNorm in training mode would show.
    network.layers[3].set_weights([w + 0.3 for w in network.layers[3].get_weights()])
    before, trainable = tiny.values(network.variables), [layer.trainable for layer in network.layers]
    calm, noised, other = (
        labeled(tmp_path / name, network, **options).probabilities()
        for name, options in {
            "calm": {},
            "noised": {"training": True},
            "other": {"training": True, "seed": 1},
        }.items()
    )
    assert all(map(np.array_equal, before, tiny.values(network.variables)))
    assert trainable == [layer.trainable for layer in network.layers]
    assert abs(calm - noised).max() > 0.05
    assert abs(noised - other).max() > 0.05
    # Every batch draws for itself.
    differences = (noised - calm).reshape(-1)[:120].reshape(10, 12)
    assert len(np.unique(differences.round(5), axis=0)) == 10

    undropped = tiny.network("teacher", dropout=0.0)
    undropped.set_weights(network.get_weights())
    nested = keras.Sequential([keras.Input(tiny.IMAGE_SHAPE), undropped])
    np.testing.assert_array_equal(labeled(tmp_path / "nested", nested, training=True).probabilities(), calm)


def test_a_view_is_drawn_for_each_image_whatever_the_batches(tmp_path):
    def view(images, *, seed, position):
        shift = tf.cast((position * 37 + seed) % 101, tf.float32)
        return tf.cast(images, tf.float32) + tf.reshape(shift, (-1, 1, 1, 1))

    network = tiny.network("teacher")
    probabilities = labeled(tmp_path / "one", network, view=view, seed=5).probabilities()
    again = labeled(tmp_path / "two", network, view=view, seed=5, batch_size=7).probabilities()
    np.testing.assert_allclose(again, probabilities, atol=1e-6)
    shifted = view(
        array_images().examples[INDEX], seed=fold_in(5, "pseudo labels"), position=tf.constant(INDEX)
    )
    np.testing.assert_allclose(probabilities, softmax(network.predict(shifted, verbose=0)), atol=1e-6)


def test_a_method_labels_with_the_network_that_it_serves(tmp_path):
    method = Supervised(student=tiny.network("student"), ema_decay=0.9)
    method.student.set_weights([2 * w for w in method.student.get_weights()])
    expected = labeled(tmp_path / "average", method.student_average).probabilities()
    np.testing.assert_array_equal(labeled(tmp_path / "method", method).probabilities(), expected)


def test_progress_is_shown_in_lines_where_there_is_no_terminal(tmp_path, capsys):
    labeled(tmp_path / "lines", verbose="auto")
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"labels: 47 of 47 images, [\d.,]+ per second, 00:\d\d so far, 00:00 left, shard 5 of 5", line
    )
    labeled(tmp_path / "silent")
    assert capsys.readouterr().out == ""


def test_outputs_that_are_not_finite_stop_the_labeling_and_name_the_image(tmp_path):
    network = tiny.plain_network("teacher")
    last = network.layers[-1]
    last.set_weights([np.full_like(last.get_weights()[0], np.nan), last.get_weights()[1]])
    with pytest.raises(ValueError, match=rf"outputs of 'teacher' on image {INDEX[0]} are not finite"):
        labeled(tmp_path, network)
    assert created(tmp_path).missing() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"batch_size": 0}, {}, "batch_size=0 is out of range"),
        ({"batch_size": 2.5}, {}, "batch_size=2.5 is not a whole number: pass one of at least 1"),
        ({"workers": 0}, {}, "workers=0 is out of range"),
        ({"workers": 2, "worker": 2}, {}, "worker=2 is out of range: pass a value between 0 and 1"),
        ({"workers": 2, "worker": 0.5}, {}, "worker=0.5 is not a whole number: pass one between 0 and 1"),
        ({"seed": -1}, {}, "seed=-1 is out of range"),
        ({}, {"num_classes": 4}, "'teacher' has 3 outputs, but the label store .* is for 4 classes"),
        (
            {},
            {"fingerprint": "0123456789abcdef"},
            "is for images with the fingerprint 0123456789ab…, and these",
        ),
    ],
)
def test_validation(tmp_path, options, changes, message):
    store = created(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        labeling.label(tiny.network("teacher"), array_images(), store, **options)


def test_images_of_another_shape_are_refused(tmp_path):
    images = keras.Input((8, 8, 1))
    network = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)), name="large")
    with pytest.raises(ValueError, match=r"have the shape \(4, 4, 1\), but 'large' takes \(8, 8, 1\)"):
        labeled(tmp_path, network)


def test_a_store_is_made_labeled_and_continued_in_one_call(tmp_path):
    network = tiny.network("teacher")
    source = Source("tiny", tuple("abc"), array_images())
    request = {"index": INDEX, "teacher": {"name": "tiny"}, "shard_size": 20, "verbose": 0}
    expected = labeled(tmp_path / "apart", network).probabilities()
    for worker in range(2):
        store = labeling.label_into_store(
            network, source, tmp_path / "store", workers=2, worker=worker, batch_size=4, **request
        )
        assert bool(store.missing()) == (worker == 0)
    np.testing.assert_allclose(store.probabilities(), expected, atol=1e-6)
    assert (store.fingerprint, store.num_classes) == (source.train.fingerprint(), 3)
    with pytest.raises(ValueError, match=r"holds other labels .*teacher's name"):
        labeling.label_into_store(network, source, tmp_path / "store", **request | {"teacher": {"name": "b"}})
    # Files that are brought to the network's size in another way have other labels, though they are the same files.
    stretched = dataclasses.replace(source, resizing=Resizing("stretch"))
    with pytest.raises(
        ValueError, match=r"holds other labels .*teacher's resizing None there and 'stretch-bil"
    ):
        labeling.label_into_store(network, stretched, tmp_path / "store", **request)
