import io
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mpl_tf.data.images.images import ArrayImages, FileImages, TfdsImages, content_fingerprint, into_memory
from mpl_tf.data.images.source import Source


def fetched_in_a_pipeline(images, index):
    dataset = tf.data.Dataset.from_tensors(np.array(index, np.int64)).map(images.fetch)
    assert dataset.element_spec.shape.as_list()[1:] == list(images.image_shape)
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
def images(request, arrays, paths):
    examples, labels = arrays
    if request.param == "array":
        return ArrayImages(examples, labels)
    if request.param == "files":
        return FileImages(paths, labels, (4, 5, 3))

    def read(rows):
        return [pathlib.Path(paths[row]).read_bytes() for row in rows]

    return TfdsImages(read, labels, (4, 5, 3), resizing=None, identity="tiny")


def test_examples_come_in_the_order_asked_for(images, arrays):
    index = [8, 0, 3, 3]
    np.testing.assert_array_equal(fetched_in_a_pipeline(images, index), arrays[0][index])
    assert images.fetch(tf.constant(index, tf.int64)).dtype == tf.uint8
    assert fetched_in_a_pipeline(images, []).shape == (0, 4, 5, 3)
    assert len(images) == 9
    assert images.labels.dtype == np.int32
    np.testing.assert_array_equal(images.labels, arrays[1])


def test_in_memory_they_stay_what_they_are(images, arrays):
    loaded = into_memory(images)
    np.testing.assert_array_equal(loaded.examples, arrays[0])
    np.testing.assert_array_equal(loaded.labels, images.labels)
    assert loaded.names == images.names
    assert loaded.fingerprint() == images.fingerprint()


def test_points_are_fetched_too(rng):
    points = rng.normal(size=(5, 2)).astype(np.float32)
    images = ArrayImages(points, np.zeros(5))
    assert images.image_shape == (2,)
    np.testing.assert_array_equal(fetched_in_a_pipeline(images, [4, 1]), points[[4, 1]])


def test_arrays_are_not_copied_into_graphs(rng):
    images = ArrayImages(rng.integers(0, 256, (100, 8, 8, 1), dtype=np.uint8), np.zeros(100))
    graph = tf.function(images.fetch).get_concrete_function(tf.TensorSpec([None], tf.int64)).graph
    assert graph.as_graph_def().ByteSize() < 6400


def test_examples_cannot_be_written_to(arrays):
    images = ArrayImages(*arrays)
    with pytest.raises(ValueError, match="read-only"):
        images.examples[0] = 0


def test_a_label_for_each_example(arrays):
    with pytest.raises(ValueError, match="There are 9 examples and 8 labels: pass one for each"):
        ArrayImages(arrays[0], arrays[1][:8])
    for labels in ([0], [0, 1, 1]):
        with pytest.raises(
            ValueError, match=rf"There are 2 files and {len(labels)} labels: pass one for each"
        ):
            FileImages(["a.png", "b.png"], labels, (4, 5, 3))


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
    fingerprints = [ArrayImages(*variant).fingerprint() for variant in variants]
    assert len(set(fingerprints)) == 4
    assert fingerprints[0] == ArrayImages(examples.copy(), labels.copy()).fingerprint()
    assert all(len(fingerprint) == 64 for fingerprint in fingerprints)


def test_file_fingerprints_tell_names_sizes_and_labels_apart(arrays, paths):
    names = [os.path.basename(path) for path in paths]

    def fingerprint(labels=arrays[1], names=names, shape=(4, 5, 3)):
        return FileImages(paths, labels, shape, relative_names=names).fingerprint()

    before = fingerprint()
    assert fingerprint(shape=(2, 2, 3)) == before
    assert fingerprint(labels=arrays[1] + 1) != before
    assert fingerprint(names=names[::-1]) != before
    with open(paths[0], "ab") as file:
        file.write(b"\0")
    assert fingerprint() != before


def test_text_in_a_digest_cannot_run_into_the_next():
    assert content_fingerprint("ab", "c") != content_fingerprint("a", "bc")
    assert content_fingerprint("a", "b") != content_fingerprint("a\nb")
    assert content_fingerprint("ab") != content_fingerprint(np.frombuffer(b"ab", np.uint8))


def test_a_file_that_has_gone_is_named(paths, arrays):
    images = FileImages(paths, arrays[1], (4, 5, 3))
    os.remove(paths[2])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"2\.png cannot be decoded any more"):
        fetched_in_a_pipeline(images, [1, 2])


def test_records_keep_zeros_at_their_end():
    file = io.BytesIO()
    Image.new("RGB", (5, 4)).save(file, "BMP")  # Ends with its pixels, which are black.
    images = TfdsImages(
        lambda rows: [file.getvalue()] * len(rows), [0], (4, 5, 3), resizing=None, identity="tiny"
    )
    np.testing.assert_array_equal(images.fetch(np.array([0])), np.zeros((1, 4, 5, 3)))


def test_sources_have_at_least_two_classes_with_names_of_their_own(arrays):
    images = ArrayImages(*arrays)
    with pytest.raises(ValueError, match="'mine' has 1 class: a classifier needs at least two"):
        Source("mine", ("cat",), images)
    with pytest.raises(ValueError, match="repeats a name: give every class a name of its own"):
        Source("mine", ("cat", "dog", "cat"), images)


def test_test_images_have_the_shape_of_training_images(arrays):
    examples, labels = arrays
    with pytest.raises(
        ValueError, match=r"shape \(4, 4, 3\) and training images \(4, 5, 3\): give both the same"
    ):
        Source("mine", ("a", "b"), ArrayImages(examples, labels), ArrayImages(examples[:, :, :4], labels))
