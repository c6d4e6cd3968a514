import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from mpl_tf.data.images.images import ArrayImages, TfdsImages
from mpl_tf.data.images.tfds import from_tfds, mirrors_keep_labels

FORMATS = ["tfrecord", "array_record"]
FIXED, VARIABLE = (6, 7, 3), (None, None, 3)


def features(shape=FIXED, encoding="png", names=("ant", "cat", "dog")):
    return {
        "image": tfds.features.Image(shape=shape, encoding_format=encoding),
        "label": tfds.features.ClassLabel(names=list(names)),
        "note": tfds.features.Text(),
    }


def drawn(rng, count, *, size=FIXED[:2], grow=0, label=None):
    """Examples, each `grow` pixels wider than the one before."""
    return [
        {
            "image": rng.integers(0, 256, (size[0], size[1] + grow * number, 3), dtype=np.uint8),
            "label": number % 3 if label is None else label,
            "note": f"number {number}",
        }
        for number in range(count)
    ]


def pixels(examples):
    return np.stack([example["image"] for example in examples])


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_images_are_those_that_tfds_gives(write_tfds, rng, file_format, encoding):
    splits = {"train": drawn(rng, 10), "test": drawn(rng, 4)}
    data_dir = write_tfds(splits, features(encoding=encoding), file_format=file_format)
    source = from_tfds("tiny", data_dir=data_dir)
    builder = tfds.builder("tiny", data_dir=data_dir)
    decode = builder.info.features["image"].decode_example
    for images, split in ((source.train, "train"), (source.test, "test")):
        encode = builder.info.features["image"].encode_example
        expected = [decode(tf.constant(encode(example["image"]))) for example in splits[split]]
        assert isinstance(images, ArrayImages)
        np.testing.assert_array_equal(images.examples, expected)
        assert images.labels.tolist() == [example["label"] for example in splits[split]]
    assert (source.name, source.class_names, source.image_shape) == ("tiny", ("ant", "cat", "dog"), FIXED)
    assert source.flip


@pytest.mark.parametrize("file_format", FORMATS)
def test_large_collections_stay_encoded_and_give_the_same(write_tfds, rng, file_format):
    examples = drawn(rng, 10, size=(12, 12), grow=5)
    data_dir = write_tfds({"train": examples}, features(VARIABLE), file_format=file_format)
    kept = from_tfds("tiny", data_dir=data_dir, image_size=40).train
    encoded = int(tfds.builder("tiny", data_dir=data_dir).info.splits["train"].num_bytes)
    assert encoded < 10 * 40 * 40 * 3
    left = from_tfds("tiny", data_dir=data_dir, image_size=40, memory_limit=encoded).train
    assert isinstance(kept, ArrayImages)
    assert isinstance(left, TfdsImages)
    dataset = tf.data.Dataset.from_tensors(np.array([9, 2, 2], np.int64)).map(left.fetch)
    np.testing.assert_array_equal(next(dataset.as_numpy_iterator()), kept.examples[[9, 2, 2]])
    np.testing.assert_array_equal(left.labels, kept.labels)
    assert left.fingerprint() == kept.fingerprint()


def test_records_on_disk_need_no_memory(write_tfds, rng):
    examples = drawn(rng, 10)
    data_dir = write_tfds({"train": examples}, features(), file_format="array_record")
    train = from_tfds("tiny", data_dir=data_dir, memory_limit=0).train
    np.testing.assert_array_equal(train.fetch(np.array([7, 1])), pixels(examples)[[7, 1]])


def test_other_collections_too_large_for_memory_are_refused(write_tfds, rng):
    data_dir = write_tfds({"train": drawn(rng, 10)}, features())
    with pytest.raises(
        ValueError,
        match=r"'tiny' takes .* GiB.* `tfds build tiny --file_format=array_record`, in a data_dir of",
    ):
        from_tfds("tiny", data_dir=data_dir, memory_limit=100)


def test_files_of_another_format_are_refused(write_tfds, rng, monkeypatch):
    data_dir = write_tfds({"train": drawn(rng, 4)}, features())
    formats = {tfds.core.FileFormat.PARQUET, tfds.core.FileFormat.RIEGELI}
    monkeypatch.setattr(tfds.core.DatasetInfo, "available_file_formats", lambda self: formats)
    with pytest.raises(
        ValueError, match="is stored as parquet, riegeli: prepare it as tfrecord or array_record"
    ):
        from_tfds("tiny", data_dir=data_dir)


@pytest.mark.parametrize("extra", ["extra", "unlabelled"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_further_training_splits_come_after_the_first(write_tfds, rng, extra, file_format):
    label = -1 if extra == "unlabelled" else None
    splits = {extra: drawn(rng, 5, label=label), "train": drawn(rng, 4)}
    data_dir = write_tfds(splits, features(), file_format=file_format)
    source = from_tfds("tiny", data_dir=data_dir)
    assert source.train.labels.tolist() == [0, 1, 2, 0, *([-1] * 5 if label else [0, 1, 2, 0, 1])]
    np.testing.assert_array_equal(source.train.examples, pixels(splits["train"] + splits[extra]))
    assert source.test is None


def test_a_test_split_without_labels_gives_way_to_validation(write_tfds, rng):
    splits = {"train": drawn(rng, 4), "test": drawn(rng, 5, label=-1), "validation": drawn(rng, 6)}
    assert len(from_tfds("tiny", data_dir=write_tfds(splits, features())).test) == 6
    splits["test"] = drawn(rng, 5)
    assert (
        len(from_tfds("tiny", data_dir=write_tfds(splits, features(), file_format="array_record")).test) == 5
    )


def test_images_of_several_sizes_need_one(write_tfds, rng):
    data_dir = write_tfds({"train": drawn(rng, 4, grow=3)}, features(VARIABLE))
    with pytest.raises(
        ValueError, match=r"images of the TFDS dataset 'tiny' differ in size: give .* as image_size"
    ):
        from_tfds("tiny", data_dir=data_dir)
    assert from_tfds("tiny", data_dir=data_dir, image_size=(4, 5)).image_shape == (4, 5, 3)


def test_the_one_image_and_the_one_label_are_found(write_tfds, rng):
    data_dir = write_tfds({"train": drawn(rng, 4)}, features(), supervised_keys=None)
    assert len(from_tfds("tiny", data_dir=data_dir).train) == 4


def test_of_several_labels_the_supervised_one_is_taken(write_tfds, rng):
    more = {"coarse": tfds.features.ClassLabel(num_classes=2), **features()}
    examples = [{**example, "coarse": 0} for example in drawn(rng, 4)]
    data_dir = write_tfds({"train": examples}, more)
    assert from_tfds("tiny", data_dir=data_dir).train.labels.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(("key", "kind"), [("image", "Image"), ("label", "ClassLabel")])
def test_datasets_without_images_or_labels_are_refused(write_tfds, rng, key, kind):
    kinds = features()
    del kinds[key]
    examples = [{name: example[name] for name in kinds} for example in drawn(rng, 4)]
    data_dir = write_tfds({"train": examples}, kinds, supervised_keys=None)
    message = rf"'tiny' has 0 features of the kind {kind} .* choose a dataset for image classification"
    with pytest.raises(ValueError, match=message):
        from_tfds("tiny", data_dir=data_dir)


def test_datasets_of_deeper_images_are_refused(write_tfds):
    kinds = {**features(), "image": tfds.features.Image(shape=(4, 4, 1), dtype=np.uint16)}
    examples = [{"image": np.zeros((4, 4, 1), np.uint16), "label": 0, "note": ""}]
    with pytest.raises(
        ValueError, match=r"'tiny' are uint16, and uint8 is needed: choose a dataset of 8-bit"
    ):
        from_tfds("tiny", data_dir=write_tfds({"train": examples}, kinds))


def test_datasets_without_a_training_split_are_refused(write_tfds, rng):
    data_dir = write_tfds({"holdout": drawn(rng, 4)}, features())
    with pytest.raises(ValueError, match="'tiny' has no training split but holdout: choose another"):
        from_tfds("tiny", data_dir=data_dir)


def test_unknown_names_get_the_nearest(tmp_path):
    with pytest.raises(
        ValueError, match=r"'cifr10' is unknown, to TFDS too: nearest are cifar10, .* digits, or a name"
    ):
        from_tfds("cifr10", data_dir=tmp_path, also_known=["digits"])
    with pytest.raises(ValueError, match="nearest are two_moons"):
        from_tfds("two_mons", data_dir=tmp_path, also_known=["two_moons"])


def test_unknown_configurations_carry_what_tfds_says(tmp_path):
    with pytest.raises(
        ValueError, match=r"TFDS cannot load 'mnist/foo' \(ValueError: .*BuilderConfig foo not found"
    ):
        from_tfds("mnist/foo", data_dir=tmp_path)


def test_what_cannot_be_downloaded_says_how_to_get_it(tmp_path, monkeypatch):
    def download_and_prepare(self, **_):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    with pytest.raises(
        ValueError,
        match=r"'mnist' is not prepared in .* \(ConnectionError: no route to host\): run `tfds build mnist` where",
    ):
        from_tfds("mnist", data_dir=tmp_path)


def test_fingerprints_tell_labels_apart(write_tfds, rng):
    examples = drawn(rng, 4)
    before = from_tfds("tiny", data_dir=write_tfds({"train": examples}, features())).train.fingerprint()
    examples[0]["label"] = 2
    data_dir = write_tfds({"train": examples}, features(), file_format="array_record")
    assert from_tfds("tiny", data_dir=data_dir).train.fingerprint() != before


def test_mirrored_digits_and_characters_are_others():
    for name in ("mnist", "svhn_cropped", "emnist/letters", "kmnist:3.0.1", "visual_domain_decathlon/gtsrb"):
        assert not mirrors_keep_labels(name)
    for name in ("cifar10", "fashion_mnist", "visual_domain_decathlon/cifar100"):
        assert mirrors_keep_labels(name)


def test_real_images_are_those_that_tfds_gives(real_data_dir):
    # The limit leaves them encoded, which saves the test the decoding of 60,000.
    source = from_tfds("cifar10", data_dir=real_data_dir, memory_limit=2**27)
    assert (len(source.train), len(source.test), source.image_shape) == (50_000, 10_000, (32, 32, 3))
    assert np.bincount(source.train.labels).tolist() == [5000] * 10
    some = tfds.load("cifar10", data_dir=real_data_dir, split="train[:500]", download=False).batch(500)
    expected = next(some.as_numpy_iterator())
    np.testing.assert_array_equal(source.train.fetch(np.arange(500)), expected["image"])
    np.testing.assert_array_equal(source.train.labels[:500], expected["label"])


def test_copies_in_a_published_dataset_are_counted_and_used(write_tfds, rng):
    splits = {"train": drawn(rng, 4), "test": drawn(rng, 3)}
    splits["train"].append(splits["train"][0])
    splits["test"].append({**splits["test"][0], "image": splits["train"][1]["image"]})
    source = from_tfds("tiny", data_dir=write_tfds(splits, features()))
    assert (len(source.train), len(source.test)) == (5, 4)
    assert str(source.reading) == "copies among labeled images: 1; test copies of labeled images: 1"
    assert source.reading.copy_examples["test copies of labeled images"] == [("test[3]", "train[1]")]
    on_disk = from_tfds(
        "tiny", data_dir=write_tfds(splits, features(), file_format="array_record"), memory_limit=0
    )
    assert on_disk.reading is None
