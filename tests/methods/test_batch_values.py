import keras
import numpy as np
import pytest
import tensorflow as tf

import mpl_tf
from mpl_tf.methods.batch_values import BatchValues, check_pixels, takes_bytes
from tests.support import tiny


def changed(entry: str, function) -> tf.data.Dataset:
    """A black batch and one of which an entry is changed, of somebody's own."""
    good, bad = tiny.batch(), tiny.batch()
    for stream in good.values():
        stream |= {key: np.zeros_like(stream[key]) for key in ("image", "weak", "strong") if key in stream}
    stream, key = entry.split()
    bad[stream][key] = function(bad[stream][key])
    stacked = tf.nest.map_structure(lambda *arrays: np.stack(arrays), good, bad)
    return tf.data.Dataset.from_tensor_slices(stacked).repeat()


def labels_from_one(labels):
    return labels + 1


def unknown_labels(labels):
    return labels - 1


def fractions(images):
    return images / 255


def standardized(images):
    return (images - images.mean()) / images.std()


def with_nan(images):
    return np.where(images == images.max(), np.nan, images)


@pytest.fixture(scope="module")
def method():
    method = mpl_tf.FixMatch(student=tiny.plain_network("student"), ema_decay=None)
    method.compile("sgd", run_eagerly=True)
    return method


@pytest.mark.parametrize(
    ("entry", "function", "message"),
    [
        (
            "labeled label",
            labels_from_one,
            r"A labeled image has the label 3, and the classes of the networks are 0…2: number",
        ),
        ("labeled label", unknown_labels, r"A labeled image has the label -1, .* leave out images without"),
        (
            "labeled image",
            fractions,
            r"labeled image images have values in 0.*…(1|0\.9.*), and 'student', .*: multiply them by 255",
        ),
        ("unlabeled weak", fractions, r"The batch's unlabeled weak images .* takes 0…255: multiply them by"),
        ("unlabeled strong", fractions, r"The batch's unlabeled strong images have values in"),
        ("labeled image", standardized, r"values in -1.*…1.*, .* takes 0…255: undo what standardized them"),
        ("labeled image", with_nan, r"labeled image images hold NaN or infinity: mend or leave out"),
    ],
)
def test_batches_of_ones_own_are_refused_before_they_are_learned_from(method, entry, function, message):
    step = int(method.step)
    with pytest.raises(ValueError, match=message):
        method.fit(changed(entry, function), steps_per_epoch=3, verbose=0)
    assert int(method.step) <= step + 1  # of the black batch before it


def test_validation_images_are_looked_at_too(method):
    images, labels = tiny.examples(4)
    wrong = {
        "A validation image has the label 3": {"image": images, "label": labels + 1},
        "The batch's validation image images have": (images / 255, labels),
    }
    for message, data in wrong.items():
        with pytest.raises(ValueError, match=message):
            method.fit(
                changed("labeled image", np.copy),
                steps_per_epoch=1,
                validation_data=tf.data.Dataset.from_tensors(data),
                verbose=0,
            )


def test_indices_beyond_the_stored_labels():
    method = mpl_tf.PseudoLabels(student=tiny.plain_network("student"), labels="fixed", num_images=8)
    method.compile("sgd", run_eagerly=True)
    method.relabel(tiny.plain_network("teacher", seed=1), tiny.unlabeled_images(8))
    for offset, index in ((3, 8), (-6, -1)):
        with pytest.raises(ValueError, match=rf"has the index {index}, and num_images=8 keeps labels of 0…7"):
            method.fit(
                changed("unlabeled index", lambda rows, offset=offset: rows + offset),
                steps_per_epoch=3,
                verbose=0,
            )


def test_batches_that_fit_go_by_as_they_are():
    batches = tiny.dataset()
    values = BatchValues([tiny.plain_network("student")], num_images=6)
    watched = values.watch(batches)
    assert watched.element_spec == batches.element_spec
    assert int(watched.cardinality()) == 3
    for old, new in zip(batches, watched, strict=True):
        assert all(map(np.array_equal, tf.nest.flatten(old), tf.nest.flatten(new)))
    for others in (tiny.numbers(), [1], tf.data.Dataset.range(3)):
        assert values.watch(others) is others


def network_that_begins_with(layer):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Conv2D(2, 8)(layer(inputs)))


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (keras.layers.Rescaling(1 / 255), True),
        (keras.layers.Rescaling(1 / 127.5, offset=-1.0), True),
        (keras.layers.Rescaling([1 / 58.4, 1 / 57.1, 1 / 57.4], offset=[-2.1, -2.0, -1.8]), True),
        (keras.layers.Rescaling(1.0, offset=[-103.9, -116.8, -123.7]), True),
        # Of images in 0…1, by these.
        (keras.layers.Rescaling(2.0, offset=-1.0), False),
        (keras.layers.Rescaling(255.0, offset=-127.5), False),
        # Nobody knows what a network without one was made for.
        (keras.layers.Identity(), False),
        (lambda x: keras.layers.Rescaling(1 / 255)(keras.layers.Conv2D(3, 1)(x)), False),
    ],
)
def test_which_networks_bring_pixels_in_0_to_255_to_another_range(layer, expected):
    assert takes_bytes(network_that_begins_with(layer)) == expected


@pytest.mark.parametrize("values", [(0, 255), (0, 20), (-12, 260), (-3, 40), (2, 2)])
def test_dark_images_and_those_that_interpolation_overshoots_pass(values):
    images = np.linspace(*values, 64).reshape(1, 8, 8, 1)
    check_pixels(images, tiny.plain_network("student"), "labeled image")


def test_a_network_that_may_take_any_range_gets_any():
    check_pixels(np.linspace(-2, 2, 64).reshape(1, 8, 8, 1), None, "labeled image")
