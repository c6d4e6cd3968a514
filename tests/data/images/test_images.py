import io
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mpl_tf.data.images.images import ArrayPictures, FilePictures, TfdsPictures, digest, into_memory
from mpl_tf.data.images.source import Source


def fetched_in_a_pipeline(pictures, index):
    dataset = tf.data.Dataset.from_tensors(np.array(index, np.int64)).map(pictures.fetch)
    assert dataset.element_spec.shape.as_list()[1:] == list(pictures.image_shape)
    return next(dataset.as_numpy_iterator())


@pytest.fixture
def arrays(rng):
    return rng.integers(0, 256, (9, 4, 5, 3), dtype=np.uint8), rng.integers(-1, 3, 9)


@pytest.fixture
def paths(arrays, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(9)]
    for path, pixels in zip(paths, arrays[0], strict=True):
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture(params=["array", "files", "records"])
def pictures(request, arrays, paths):
    examples, labels = arrays
    if request.param == "array":
        return ArrayPictures(examples, labels)
    if request.param == "files":
        return FilePictures(paths, labels, (4, 5, 3))

    def read(rows):
        return [pathlib.Path(paths[row]).read_bytes() for row in rows]

    return TfdsPictures(read, labels, (4, 5, 3), resize=False, identity="tiny")


def test_examples_come_in_the_order_asked_for(pictures, arrays):
    index = [8, 0, 3, 3]
    np.testing.assert_array_equal(fetched_in_a_pipeline(pictures, index), arrays[0][index])
    assert pictures.fetch(tf.constant(index, tf.int64)).dtype == tf.uint8
    assert fetched_in_a_pipeline(pictures, []).shape == (0, 4, 5, 3)
    assert len(pictures) == 9
    assert pictures.labels.dtype == np.int32
    np.testing.assert_array_equal(pictures.labels, arrays[1])


def test_in_memory_they_stay_what_they_are(pictures, arrays):
    loaded = into_memory(pictures)
    np.testing.assert_array_equal(loaded.examples, arrays[0])
    np.testing.assert_array_equal(loaded.labels, pictures.labels)
    assert loaded.names == pictures.names
    assert loaded.fingerprint() == pictures.fingerprint()


def test_points_are_fetched_too(rng):
    points = rng.normal(size=(5, 2)).astype(np.float32)
    pictures = ArrayPictures(points, np.zeros(5))
    assert pictures.image_shape == (2,)
    np.testing.assert_array_equal(fetched_in_a_pipeline(pictures, [4, 1]), points[[4, 1]])


def test_arrays_are_not_copied_into_graphs(rng):
    pictures = ArrayPictures(rng.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8), np.zeros(100))
    graph = tf.function(pictures.fetch).get_concrete_function(tf.TensorSpec([None], tf.int64)).graph
    assert graph.as_graph_def().ByteSize() < 6400


def test_examples_cannot_be_written_to(arrays):
    pictures = ArrayPictures(*arrays)
    with pytest.raises(ValueError, match="read-only"):
        pictures.examples[0] = 0


def test_a_label_for_each_example(arrays):
    with pytest.raises(ValueError, match="There are 9 examples and 8 labels: pass one for each"):
        ArrayPictures(arrays[0], arrays[1][:8])


def test_array_fingerprints_tell_pixels_labels_and_shapes_apart(arrays):
    examples, labels = arrays
    changed_pixel, changed_label = examples.copy(), labels.copy()
    changed_pixel[3, 2, 1, 0] ^= 1
    changed_label[3] += 1
    variants = [
        (examples, labels),
        (changed_pixel, labels),
        (examples, changed_label),
        (examples.reshape(9, 5, 4, 3), labels),
    ]
    fingerprints = [ArrayPictures(*variant).fingerprint() for variant in variants]
    assert len(set(fingerprints)) == 4
    assert fingerprints[0] == ArrayPictures(examples.copy(), labels.copy()).fingerprint()
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)


def test_file_fingerprints_tell_names_sizes_and_labels_apart(arrays, paths):
    names = [os.path.basename(path) for path in paths]

    def fingerprint(labels=arrays[1], names=names, shape=(4, 5, 3)):
        return FilePictures(paths, labels, shape, relative_names=names).fingerprint()

    before = fingerprint()
    assert fingerprint(shape=(2, 2, 3)) == before
    assert fingerprint(labels=arrays[1] + 1) != before
    assert fingerprint(names=names[::-1]) != before
    with open(paths[0], "ab") as file:
        file.write(b"\0")
    assert fingerprint() != before


def test_text_in_a_digest_cannot_run_into_the_next():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("a", "b") != digest("a\nb")
    assert digest("ab") != digest(np.frombuffer(b"ab", np.uint8))


def test_a_file_that_has_gone_is_named(paths, arrays):
    pictures = FilePictures(paths, arrays[1], (4, 5, 3))
    os.remove(paths[2])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"2\.png cannot be decoded any more"):
        fetched_in_a_pipeline(pictures, [1, 2])


def test_records_keep_zeros_at_their_end():
    file = io.BytesIO()
    Image.new("RGB", (5, 4)).save(file, "BMP")  # Ends with its pixels, which are black.
    pictures = TfdsPictures(
        lambda rows: [file.getvalue()] * len(rows), [0], (4, 5, 3), resize=False, identity="tiny"
    )
    np.testing.assert_array_equal(pictures.fetch(np.array([0])), np.zeros((1, 4, 5, 3)))


def test_sources_have_at_least_two_classes_with_names_of_their_own(arrays):
    pictures = ArrayPictures(*arrays)
    with pytest.raises(ValueError, match="'mine' has 1 class: a classifier needs at least two"):
        Source("mine", ("cat",), pictures)
    with pytest.raises(ValueError, match="repeats a name: give every class a name of its own"):
        Source("mine", ("cat", "dog", "cat"), pictures)


def test_test_pictures_have_the_shape_of_training_pictures(arrays):
    examples, labels = arrays
    with pytest.raises(
        ValueError, match=r"shape \(4, 4, 3\) and training pictures \(4, 5, 3\): give both the same"
    ):
        Source("mine", ("a", "b"), ArrayPictures(examples, labels), ArrayPictures(examples[:, :, :4], labels))
