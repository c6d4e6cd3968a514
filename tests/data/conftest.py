"""Datasets that tests write themselves: folders of images, and TFDS directories without a network."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

REPOSITORY = pathlib.Path(__file__).parents[2]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def save_image(rng):
    """Writes an image (drawn at random where none is given) and returns its pixels."""

    def save(path, pixels=None, *, size=(6, 6), **options):
        if pixels is None:
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return pixels

    return save


@pytest.fixture
def write_tfds(tmp_path):
    """Writes a dataset named "tiny" in TFDS's layout and returns the data_dir."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

    def write(splits, features, *, file_format="tfrecord", supervised_keys=("image", "label")):
        data_dir = tmp_path / f"tfds_{file_format}"
        folder = data_dir / "tiny" / "1.0.0"
        folder.mkdir(parents=True)
        features = tfds.features.FeaturesDict(features)
        infos = []
        for split, examples in splits.items():
            path = str(folder / f"tiny-{split}.{file_format}-00000-of-00001")
            records = [features.serialize_example(features.encode_example(example)) for example in examples]
            if file_format == "tfrecord":
                writer = tf.io.TFRecordWriter(path)
            else:
                writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
            for record in records:
                writer.write(record)
            writer.close()
            size = sum(map(len, records))
            infos.append(
                tfds.core.SplitInfo(
                    name=split, shard_lengths=[len(records)], num_bytes=size, filename_template=None
                )
            )
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=infos,
            supervised_keys=supervised_keys,
            # The check reads with TFDS's tf.data reader, which array_record files do not have.
            check_data=False,
        )
        return data_dir

    return write


@pytest.fixture(scope="session")
def real_data_dir():
    """A TFDS directory with CIFAR-10, where this machine has one."""
    folder = pathlib.Path(os.environ.get("MPL_TF_TEST_DATA", REPOSITORY.parent / "shared" / "data" / "tfds"))
    if not (folder / "cifar10").is_dir():
        pytest.skip(f"no CIFAR-10 in {folder}: set MPL_TF_TEST_DATA to a TFDS data_dir that holds it")
    return folder
