"""Any image-classification dataset of TensorFlow Datasets, by its name."""

import difflib
import os
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf

from mpl_tf.data.images import copies, decoding
from mpl_tf.data.images.images import MEMORY_LIMIT, ArrayImages, Images, TfdsImages, into_memory
from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.data.images.source import Source
from mpl_tf.utils import files

# Splits that are put together to train on: SVHN's easier images and STL-10's unlabeled ones come after the first.
TRAINING_SPLITS = ("train", "extra", "unlabelled", "unlabeled")
TEST_SPLITS = ("test", "validation")
# Characters, digits and signs: a mirrored one is another one, or none.
MIRRORED_LABELS_CHANGE = frozenset(
    {
        "binarized_mnist",
        "binary_alpha_digits",
        "cmaterdb",
        "emnist",
        "kmnist",
        "mnist",
        "mnist_corrupted",
        "omniglot",
        "svhn_cropped",
        "visual_domain_decathlon/gtsrb",
        "visual_domain_decathlon/omniglot",
        "visual_domain_decathlon/svhn",
    }
)
_TFRECORD, _ARRAY_RECORD = "tfrecord", "array_record"
_CHUNK = 1024


def from_tfds(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    resize: str = "crop",
    interpolation: str = "bilinear",
    flip: bool | None = None,
    memory_limit: int = MEMORY_LIMIT,
    also_known: Iterable[str] = (),
) -> Source:
    """A dataset of TensorFlow Datasets with images and one class label each.

    It is prepared (downloaded) where it is not yet. Collections that fit in memory are decoded once; larger ones
    are read when needed from array_record files, or from memory in their encoded form where that fits.

    Args:
        name: as TFDS has it, with a configuration after a slash.
        data_dir: where TFDS keeps its datasets; None for its default.
        image_size: H = W, or (H, W), to bring images to. Needed where the dataset's images differ in size.
        resize: how, as for `from_folders`.
        interpolation: as for `from_folders`.
        flip: whether a mirrored image keeps its label; None is False for digits, characters and signs.
        memory_limit: bytes of memory for the images of a collection.
        also_known: further names to suggest for a name that is not TFDS's.

    Returns:
        A `Source`. Training images are those of the splits train, extra (SVHN) and unlabelled (STL-10); test
        images those of test, or else of validation, whichever has labels.

    Raises:
        ValueError: for a name that TFDS does not know or cannot prepare, a dataset without images or class
            labels, and one that is too large to hold and not stored for random access.
    """
    resizing = decoding.checked_resizing(resize, interpolation)
    builder = _prepared_builder(name, data_dir, also_known)
    image_key, label_key = _feature_keys(name, builder.info)
    reader = _Reader(name, builder, image_key, label_key, image_size, resizing, memory_limit)
    available = tuple(builder.info.splits)
    splits = [split for split in TRAINING_SPLITS if split in available]
    if not splits:
        raise ValueError(
            f"The TFDS dataset {name!r} has no training split but {', '.join(available)}: choose another."
        )
    train = reader.images(splits)
    tests = (reader.images([split]) for split in TEST_SPLITS if split in available)
    # Some datasets keep the labels of their test split to themselves.
    test = next((images for images in tests if (images.labels >= 0).all()), None)
    class_names = tuple(builder.info.features[label_key].names)
    return Source(
        name,
        class_names,
        train,
        test,
        flip=mirrors_keep_labels(name) if flip is None else flip,
        resizing=resizing,
        reading=_count_copies(train, test),
    )


def _count_copies(train: Images, test: Images | None) -> ReadingReport | None:
    """The images that are there twice, which a published dataset keeps; None without any, and for those on disk."""
    given = {"train": train, **({} if test is None else {"test": test})}
    parts = {part: images for part, images in given.items() if isinstance(images, ArrayImages)}
    if len(parts) < len(given):
        return None
    names = [f"{part}[{index}]" for part, images in parts.items() for index in range(len(images))]
    hashes = [copies.content_hash(pixels) for images in parts.values() for pixels in images.examples]
    streams = np.where(train.labels >= 0, copies.LABELED, copies.UNLABELED)
    streams = np.concatenate([streams, np.full(len(hashes) - len(train), copies.TEST)])
    report = ReadingReport()
    for copy in copies.find_copies(hashes, streams):
        report.add_copy(copy.kind, names[copy.index], names[copy.original])
    return report if report.copies else None


def mirrors_keep_labels(name: str) -> bool:
    """Whether a mirrored image of this TFDS dataset still has its label.

    Args:
        name: of the dataset, with or without a configuration and a version.

    Returns:
        False for digits, characters and signs.
    """
    name = name.lower().partition(":")[0]
    return name not in MIRRORED_LABELS_CHANGE and name.partition("/")[0] not in MIRRORED_LABELS_CHANGE


class _Reader:
    """Makes collections from the splits of one prepared dataset."""

    def __init__(self, name, builder, image_key, label_key, image_size, resizing, memory_limit) -> None:
        self.name, self.builder = name, builder
        self.image_key, self.label_key = image_key, label_key
        self.memory_limit = memory_limit
        height, width, channels = builder.info.features[image_key].shape
        if image_size is None and (height is None or width is None):
            raise ValueError(
                f"The images of the TFDS dataset {name!r} differ in size: give the size to resize them to as "
                "image_size."
            )
        size = (height, width) if image_size is None else decoding.checked_image_size(image_size)
        self.image_shape = (*size, channels or 3)
        self.resizing = None if size == (height, width) else resizing
        self.formats = {form.value for form in builder.info.available_file_formats()}
        if not self.formats & {_TFRECORD, _ARRAY_RECORD}:
            raise ValueError(
                f"The TFDS dataset {name!r} is stored as {', '.join(sorted(self.formats))}: prepare it as "
                f"{_TFRECORD} or {_ARRAY_RECORD}, in a data_dir of its own."
            )

    def images(self, splits: list[str]) -> Images:
        infos = [self.builder.info.splits[split] for split in splits]
        count = sum(info.num_examples for info in infos)
        encoded = sum(int(info.num_bytes) for info in infos)
        decoded = count * int(np.prod(self.image_shape))
        if _ARRAY_RECORD in self.formats:
            read, labels = self._on_disk("+".join(splits))
        elif min(decoded, encoded) <= self.memory_limit:
            read, labels = self._in_memory([str(path) for info in infos for path in info.filepaths])
        else:
            raise ValueError(
                f"The TFDS dataset {self.name!r} takes {encoded / 2**30:.1f} GiB, more than the "
                f"{self.memory_limit / 2**30:.1f} GiB that are kept in memory: prepare it for reading from disk "
                f"with `tfds build {self.name} --file_format={_ARRAY_RECORD}`, in a data_dir of its own."
            )
        identity = f"{self.builder.info.full_name} {'+'.join(splits)} {count} {encoded}"
        if self.resizing not in (None, decoding.CROPPED):
            identity += f" {'-'.join(self.resizing)}"
        images = TfdsImages(read, labels, self.image_shape, resizing=self.resizing, identity=identity)
        return into_memory(images) if decoded <= self.memory_limit else images

    # Both read raw records and take the image and the label out of them. TFDS would decode the other features too,
    # and needs ten times as long for small images.

    def _on_disk(self, split: str) -> tuple[Callable[[list[int]], list[bytes]], np.ndarray]:
        import tensorflow_datasets as tfds

        source = self.builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES, file_format=_ARRAY_RECORD
        )

        def features(rows):
            return (
                tf.train.Example.FromString(record).features.feature for record in source.__getitems__(rows)
            )

        def read(rows):
            return [feature[self.image_key].bytes_list.value[0] for feature in features(rows)]

        labels = np.empty(len(source), np.int32)
        for start in range(0, len(source), _CHUNK):
            rows = list(range(start, min(start + _CHUNK, len(source))))
            labels[rows] = [feature[self.label_key].int64_list.value[0] for feature in features(rows)]
        return read, labels

    def _in_memory(self, paths: list[str]) -> tuple[Callable[[list[int]], list[bytes]], np.ndarray]:
        features = {
            self.image_key: tf.io.FixedLenFeature([], tf.string),
            self.label_key: tf.io.FixedLenFeature([], tf.int64),
        }
        chunks = tf.data.TFRecordDataset(paths).batch(_CHUNK)
        encoded, labels = [], []
        for chunk in chunks.map(lambda records: tf.io.parse_example(records, features)).as_numpy_iterator():
            encoded.extend(chunk[self.image_key])
            labels.extend(chunk[self.label_key])
        return lambda rows: [encoded[row] for row in rows], np.array(labels, np.int32)


def _prepared_builder(name: str, data_dir, also_known: Iterable[str]):
    # Imported here, because data of one's own needs none of it.
    import tensorflow_datasets as tfds

    data_dir = None if data_dir is None else str(files.user_path(data_dir))
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        nearest = difflib.get_close_matches(name.lower(), [*also_known, *tfds.list_builders()], cutoff=0.5)
        hint = f"nearest are {', '.join(nearest)}; or " if nearest else ""
        raise ValueError(
            f"The dataset {name!r} is unknown, to TFDS too: {hint}choose one of {', '.join(also_known)}, or a name "
            "from https://www.tensorflow.org/datasets/catalog."
        ) from error
    # Whatever TFDS, its download or the disk objects to is said with its own words and what to do.
    except Exception as error:
        raise ValueError(
            f"TFDS cannot load {name!r} ({_first_line(error)}): check the name, its configuration and data_dir."
        ) from error
    if not builder.is_prepared():
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise ValueError(
                f"The TFDS dataset {name!r} is not prepared in {builder.data_dir} and cannot be "
                f"({_first_line(error)}): run `tfds build {name}` where there is a network, "
                "and give the folder that it fills as data_dir."
            ) from error
    return builder


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0].rstrip(':')}"


def _feature_keys(name: str, info) -> tuple[str, str]:
    """The keys of the image and of the label: those TFDS names supervised, or the only ones there are."""
    import tensorflow_datasets as tfds

    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    supervised = info.supervised_keys if isinstance(info.supervised_keys, tuple) else ()

    def find(kind, what):
        keys = [key for key, feature in features.items() if isinstance(feature, kind)]
        named = [key for key in keys if key in supervised]
        if len(named or keys) != 1:
            raise ValueError(
                f"The TFDS dataset {name!r} has {len(keys)} features of the kind {what} "
                f"(among {', '.join(features)}), and one is needed: choose a dataset for image classification."
            )
        return (named or keys)[0]

    image_key, label_key = find(tfds.features.Image, "Image"), find(tfds.features.ClassLabel, "ClassLabel")
    if features[image_key].np_dtype != np.uint8:
        raise ValueError(
            f"The images of the TFDS dataset {name!r} are {np.dtype(features[image_key].np_dtype).name}, and "
            "uint8 is needed: choose a dataset of 8-bit images."
        )
    return image_key, label_key
