import numpy as np
import pytest
from sklearn import datasets

from mpl_tf.data.images.load import from_arrays, load


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)


LABELS = [0, 1, 2, 0, 1, 2]


def rows(examples):
    return examples.reshape(len(examples), -1).tolist()


def test_digits_are_split_once_for_everybody():
    source = load("digits")
    again = load("digits", seed=5)
    assert source.train.fingerprint() == again.train.fingerprint()
    assert source.test.fingerprint() == again.test.fingerprint()
    values, labels = datasets.load_digits(return_X_y=True)
    expected = sorted(
        [*pixels, label] for pixels, label in zip((values * 255 / 16).round(), labels, strict=True)
    )
    found = [
        [*pixels, label]
        for part in (source.train, source.test)
        for pixels, label in zip(rows(part.examples), part.labels, strict=True)
    ]
    assert sorted(found) == expected
    counts, test_counts = np.bincount(labels), np.bincount(source.test.labels)
    assert abs(len(source.test) - len(labels) / 5) < 1
    np.testing.assert_allclose(test_counts, counts / 5, atol=1)
    assert source.train.examples.dtype == np.uint8
    assert (source.image_shape, source.class_names, source.flip) == ((8, 8, 1), tuple("0123456789"), False)


def test_moons_are_seeded_and_tested_on_others():
    source = load("two_moons", seed=3)
    assert (source.image_shape, source.num_classes, source.flip) == ((2,), 2, False)
    assert source.train.examples.dtype == np.float32
    assert np.bincount(source.train.labels).tolist() == [1000, 1000]
    assert np.bincount(source.test.labels).tolist() == [500, 500]
    assert load("two_moons", seed=3).train.fingerprint() == source.train.fingerprint()
    assert load("two_moons", seed=4).train.fingerprint() != source.train.fingerprint()
    assert not set(map(tuple, rows(source.train.examples))) & set(map(tuple, rows(source.test.examples)))


def test_moons_have_noise_of_a_tenth_around_two_half_circles():
    source = load("two_moons")
    centers = np.array([[0, 0], [1, 0.5]])[source.train.labels]
    distance = np.linalg.norm(source.train.examples - centers, axis=1) - 1
    np.testing.assert_allclose(distance.std(), 0.1, rtol=0.05)


def test_seeds_of_the_moons_are_whole_numbers():
    for seed in (-1, 0.5, True):
        with pytest.raises(ValueError, match=r"seed=.*: pass (one|a value) of at least 0\."):
            load("two_moons", seed=seed)


def test_folders_are_loaded_by_name(tmp_path, save_image):
    for name in ("labeled/a", "labeled/b", "unlabeled", "test/b"):
        save_image(tmp_path / name / "image.png")
    broken = tmp_path / "unlabeled" / "broken.png"
    broken.write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"):
        source = load(
            "folders",
            labeled_dir=tmp_path / "labeled",
            unlabeled_dir=tmp_path / "unlabeled",
            test_dir=tmp_path / "test",
            image_size=3,
            skip_unreadable=True,
        )
    assert (len(source.train), len(source.test), source.image_shape) == (3, 1, (3, 3, 3))
    assert source.unreadable == (str(broken),)


def test_folders_need_a_folder():
    with pytest.raises(
        ValueError, match="'folders' needs labeled_dir: give the folder that holds one per class"
    ):
        load("folders")


@pytest.mark.parametrize("argument", ["labeled_dir", "unlabeled_dir", "test_dir"])
def test_folders_go_with_nothing_else(argument):
    with pytest.raises(
        ValueError, match=rf"{argument}=x is read for the dataset 'folders' and not for 'digits'"
    ):
        load("digits", **{argument: "x"})


@pytest.mark.parametrize("name", ["digits", "two_moons"])
def test_sizes_are_for_images_that_have_several(name):
    with pytest.raises(
        ValueError, match=f"image_size=32 does not apply to '{name}', which has one size: leave it out"
    ):
        load(name, image_size=32)


def test_unknown_names_get_the_nearest_of_ours_too(tmp_path):
    with pytest.raises(
        ValueError, match=r"'digit' is unknown, .*nearest are digits.*digits, two_moons, folders, or"
    ):
        load("digit", data_dir=tmp_path)


def test_tfds_gets_the_folder_and_the_size(write_tfds, rng):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(4, 4, 3)),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    examples = [{"image": rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), "label": 1}]
    source = load("tiny", data_dir=write_tfds({"train": examples}, features), image_size=2)
    assert (source.name, source.image_shape) == ("tiny", (2, 2, 3))


def test_arrays_become_a_source(images):
    source = from_arrays(
        images,
        LABELS,
        unlabeled_images=images[:2] // 2,
        test=(images[:1], [2]),
        class_names=["a", "b", "c", "d"],
        name="mine",
        flip=False,
    )
    np.testing.assert_array_equal(source.train.examples, np.concatenate([images, images[:2] // 2]))
    assert source.train.labels.tolist() == [*LABELS, -1, -1]
    np.testing.assert_array_equal(source.test.examples, images[:1])
    assert source.test.labels.tolist() == [2]
    assert (source.name, source.class_names, source.flip) == ("mine", ("a", "b", "c", "d"), False)


def test_classes_without_names_are_numbered(images):
    assert from_arrays(images, LABELS).class_names == ("0", "1", "2")
    assert from_arrays(images, LABELS, test=(images, [3] * 6)).class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32, np.float64])
def test_numbers_up_to_255_are_images(images, dtype):
    source = from_arrays(images.astype(dtype), LABELS)
    assert source.train.examples.dtype == np.uint8
    np.testing.assert_array_equal(source.train.examples, images)


def test_fractions_are_rounded():
    source = from_arrays(np.array([1.4, 1.6, 254.7]).reshape(3, 1, 1), [0, 1, 0])
    assert source.train.examples.ravel().tolist() == [1, 2, 255]


def test_gray_images_get_a_channel(images):
    assert from_arrays(images[..., 0], LABELS).image_shape == (4, 5, 1)


def test_labels_may_stand_in_a_column_as_those_of_keras_datasets_do(images):
    assert from_arrays(images, np.reshape(LABELS, (6, 1))).train.labels.tolist() == LABELS


def test_points_are_taken_as_they_are(rng):
    points = rng.normal(size=(6, 3))
    source = from_arrays(points, LABELS)
    assert source.image_shape == (3,)
    np.testing.assert_array_equal(source.train.examples, points.astype(np.float32))


def with_value(images, value):
    images = images.astype(np.float32)
    images[1, 2, 3, 0] = value
    return images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x / 255.0,
            r"images are float64 with values in .*: images must be in 0…255, so multiply by 255",
        ),
        (lambda x: with_value(x, -1), r"images have values in -1\.0….*: images must be in 0…255"),
        (lambda x: x.astype(int) + 1, r"images have values in .*…256: images must be in 0…255"),
        (lambda x: with_value(x, np.nan), "images hold NaN or infinity: mend or remove"),
        (lambda x: with_value(x, np.inf), "images hold NaN or infinity: mend or remove"),
        (lambda x: x.reshape(6, -1), r"images are uint8 of the shape \(6, 60\): reshape flattened images"),
        (
            lambda x: x.transpose(0, 3, 1, 2),
            r"images have the shape \(6, 3, 4, 5\): the channels, 1 to 4 of them, must come last",
        ),
        (
            lambda x: x[0, 0, 0],
            r"images are uint8 of the shape \(3,\): pass numbers, images \[N, H, W, C\]",
        ),
        (lambda x: x[:0], r"images are uint8 of the shape \(0, 4, 5, 3\): .* at least one"),
        (lambda x: x.astype(str), r"images are <U3 of the shape .*: pass numbers"),
    ],
)
def test_arrays_that_are_no_images_are_refused(images, change, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(change(images), LABELS)
    with pytest.raises(ValueError, match=f"unlabeled_{message}|shape .*: give both the same"):
        from_arrays(images, LABELS, unlabeled_images=change(images))
    with pytest.raises(ValueError, match=f"test {message}|shape .*: give both the same"):
        from_arrays(images, LABELS, test=(change(images), LABELS))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.eye(3)[LABELS], r"labels have the shape \(6, 3\), as if one-hot: pass their argmax"),
        (np.array(LABELS, float), "labels are float64: pass whole numbers, one class index per image"),
        (LABELS[:5], r"labels have the shape \(5,\), and there are 6 images: pass \[6\]"),
        ([0, 1, 2, 0, 1, -1], "labels hold -1, and classes count from 0: .* as unlabeled_images"),
        ([0, 1, 2, 0, 1, 2**32], "labels hold 4294967296, and classes count from 0: number the classes"),
        ([0, 1, 2, 0, 1, 3], "labels hold 3, outside 0…2: mend them or give more class_names"),
    ],
)
def test_labels_that_are_none_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images, labels, class_names="abc")
    with pytest.raises(ValueError, match=f"test {message}"):
        from_arrays(images, LABELS, test=(images, labels), class_names="abc")


def test_labels_that_do_not_fit_are_not_cut(images):
    with pytest.raises(
        ValueError, match="labels hold 4294967297, and classes count from 0: number the classes"
    ):
        from_arrays(images, 2**32 + np.arange(6) % 2)


def test_unlabeled_images_have_the_shape_of_labeled_ones(images):
    with pytest.raises(
        ValueError, match=r"unlabeled_images have the shape \(4, 4, 3\) and images \(4, 5, 3\)"
    ):
        from_arrays(images, LABELS, unlabeled_images=images[:, :, :4])
