"""How fast images are read from array_record files, one by one where they lie, against images that are in memory.

A dataset of TFDS's layout is written first, of JPEG images of random blobs. It is read twice, as one that is larger
than the memory that it may have, and as one that fits, decoded; both take turns. Two ratios: of the input pipeline by
itself, in which reading and decoding show most, and of a training by UDA, whose step they hide behind.
Options: --model, --size, --labeled, --ratio, --images, --batches, --turns, --folder.
"""

import pathlib
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
import workload

import mpl_tf
from mpl_tf.data.images.source import Source
from mpl_tf.data.images.tfds import from_tfds

NAME = "blobs"


def main() -> None:
    parser = workload.parser(__doc__)
    parser.set_defaults(model="convnet")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument(
        "--folder", help="of the dataset, which is written where it is not; else a temporary one"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.folder or temporary)
        write_dataset(folder, options.images, options.size)
        disk, memory = read_both(folder)
        print(f"{workload.described(options)}, {options.images} JPEG files in array_record\n")
        print(f"{'':18s} images/s, disk  images/s, memory  ratio")
        for name, rate in (("pipeline", pipeline_rate), ("training", training_rate)):
            measure = [rate(source, options) for source in (disk, memory)]
            for timed in measure:
                timed()
            turns = [[timed() for timed in measure] for _ in range(options.turns)]
            rates = [statistics.median(column) for column in zip(*turns, strict=True)]
            ratio = statistics.median(mine / other for mine, other in turns)
            print(f"{name:18s} {rates[0]:14,.0f}  {rates[1]:16,.0f}  {ratio:5.2f}", flush=True)


def write_dataset(folder: pathlib.Path, count: int, size: int) -> None:
    """Writes a dataset of array_record files as TFDS lays them out; does nothing where it is.

    Args:
        folder: the data_dir.
        count: images.
        size: height and width, in pixels.
    """
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

    features = tfds.features.FeaturesDict({
        "image": tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=workload.NUM_CLASSES),
    })  # fmt: skip
    place = folder / NAME / "1.0.0"
    if place.exists():
        return
    place.mkdir(parents=True)
    generator, size_of_all = np.random.default_rng(0), 0
    # Each record is found by itself: readers unpack whole groups.
    writer = array_record_module.ArrayRecordWriter(
        str(place / f"{NAME}-train.array_record-00000-of-00001"), "group_size:1"
    )
    for index in range(count):
        small = generator.integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
        image = tf.cast(tf.image.resize(small, (size, size), "bicubic")[0], tf.int32)
        image = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8).numpy()
        example = {"image": image, "label": index % workload.NUM_CLASSES}
        record = features.serialize_example(features.encode_example(example))
        writer.write(record)
        size_of_all += len(record)
    writer.close()
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=[count], num_bytes=size_of_all, filename_template=None
    )
    tfds.folder_dataset.write_metadata(
        data_dir=place,
        features=features,
        split_infos=[split],
        supervised_keys=("image", "label"),
        # TFDS checks with a reader that array_record files do not have.
        check_data=False,
    )


def read_both(folder: pathlib.Path) -> tuple[Source, Source]:
    """The dataset read from disk, and from memory.

    Args:
        folder: the data_dir.
    """
    return from_tfds(NAME, data_dir=folder, memory_limit=0), from_tfds(NAME, data_dir=folder)


def batches(source: Source, options) -> tf.data.Dataset:
    """Training batches with both views, as runs have them."""
    split = mpl_tf.data.draw_split(source, num_labeled=min(100, options.images // 2), seed=0)
    weak, strong = mpl_tf.data.make_views(source.image_shape)
    return mpl_tf.data.training_batches(
        source, split, batch_size=options.labeled, unlabeled_ratio=options.ratio, weak=weak, strong=strong
    )


def pipeline_rate(source: Source, options):
    """A function that draws batches and returns how many images a second that were."""
    data = batches(source, options)

    def timed() -> float:
        # Not the one of the last turn, which has filled its buffers since.
        iterator = iter(data)
        next(iterator)
        start = time.perf_counter()
        for _ in range(options.batches):
            next(iterator)
        return _images(options) / (time.perf_counter() - start)

    return timed


def training_rate(source: Source, options):
    """A function that trains by UDA and returns how many images a second that were."""
    method = mpl_tf.UDA(student=workload.network(options, 0))
    method.compile(keras.optimizers.SGD(1e-3, momentum=0.9))
    data = batches(source, options)

    def timed() -> float:
        start = time.perf_counter()
        method.fit(data, steps_per_epoch=options.batches, verbose=0)
        return _images(options) / (time.perf_counter() - start)

    return timed


def _images(options) -> int:
    return options.batches * options.labeled * (1 + options.ratio)


if __name__ == "__main__":
    main()
