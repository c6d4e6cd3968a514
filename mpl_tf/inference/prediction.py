"""What an exported classifier says about all images in a folder, written into a CSV file."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from mpl_tf.data import prefetching
from mpl_tf.data.images import decoding
from mpl_tf.data.images.image_files import image_files
from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.export.exported_classifier import ExportedClassifier
from mpl_tf.inference.prediction_table import PredictionTable
from mpl_tf.utils import files
from mpl_tf.utils.progress import Progress
from mpl_tf.utils.validation import check_integer


def predict_folder(
    classifier: ExportedClassifier,
    folder: str | os.PathLike,
    output: str | os.PathLike,
    *,
    top_k: int = 1,
    batch_size: int = 64,
    verbose: int | str = "auto",
) -> PredictionTable:
    """Classifies the images in a folder that have no row in a CSV file yet.

    Images that have changed since the file was written, or came to lie where another one was, are classified anew.
    Images are decoded as in training on folders, by Pillow in several threads, while the model computes. A batch
    always has the same images, whatever rows are there already, so a process that is killed at any moment and
    started again leaves the file that it would have left at once. Images that cannot be read get a row with the
    reason, and are tried again next time.

    Args:
        classifier: the exported model.
        folder: holds images at any depth, in the formats that `data.from_folders` reads.
        output: the CSV file; `PredictionTable` describes it.
        top_k: how many of the likeliest classes to write, at most `classifier.top_k`.
        batch_size: images per call of the model.
        verbose: 0 for silence, 1 for a progress bar, 2 for a line now and then, `"auto"` for the bar in a terminal
            and lines elsewhere. Both tell how much time is left.

    Returns:
        The table, with a row for every image in the folder.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for one without images, a value out of range, a file that holds the predictions of another model
            or of another folder's images, and confidences that are not finite.
        files.DiskFullError: when there is no room for a row; those before it are kept.
    """
    check_integer("batch_size", batch_size, low=1)
    check_integer("top_k", top_k, low=1, high=classifier.top_k)
    reading = ReadingReport()
    found = image_files("folder", folder, reading)
    reading.take(file.path for file in found)
    paths, names = [file.path for file in found], [file.relative_name for file in found]
    table = PredictionTable(
        output,
        model=str(classifier.path),
        sha256=classifier.fingerprint(),
        folder=str(files.user_path(folder).resolve()),
        top_k=top_k,
    )
    table.reading = reading
    with table.filling(dict(zip(names, map(_changed, paths), strict=True))):
        starts = range(0, len(names), batch_size)
        batches = [range(start, min(start + batch_size, len(names))) for start in starts]
        batches = [batch for batch in batches if any(names[index] not in table.rows for index in batch)]
        decoded = _decoded([paths[index] for batch in batches for index in batch], classifier, batch_size)
        with Progress(sum(map(len, batches)), "predictions", verbose=verbose) as progress:
            for batch, (images, errors) in zip(batches, decoded, strict=True):
                classes, scores = classifier(images)
                batch_names = [names[index] for index in batch]
                table.add(_rows(batch_names, classes[:, :top_k], scores[:, :top_k], errors))
                progress.update(len(batch))
        table.arrange(names)
    return table


def _changed(path: str) -> int:
    """When a file, or what its path stands for, last changed, in nanoseconds; 0 where it cannot be looked at."""
    try:
        known = os.stat(path), os.lstat(path)
    except OSError:
        return 0
    # The time of the contents may be that of the original of a copy; the other one is when it came to lie here.
    return max(time for status in known for time in (status.st_mtime_ns, status.st_ctime_ns))


def _decoded(
    paths: Sequence[str], classifier: ExportedClassifier, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images, uint8 `[n, H, W, C]`, and why they cannot be read, bytes `[n]`, empty where they can."""

    def read(path):
        try:
            return decoding.decode_file(os.fsdecode(path), classifier.image_shape, classifier.resizing), b""
        # Pillow raises OSError, SyntaxError, ValueError, struct.error and others for broken files.
        except Exception as error:
            # An image of zeros keeps the place in the batch.
            reason = " ".join(str(error).split()) or type(error).__name__
            return np.zeros(classifier.image_shape, np.uint8), os.fsencode(reason)

    def decode(path):
        image, error = tf.numpy_function(read, [path], [tf.uint8, tf.string], stateful=False)
        return tf.ensure_shape(image, classifier.image_shape), tf.ensure_shape(error, ())

    encoded = tf.constant([os.fsencode(path) for path in paths], tf.string)
    images = prefetching.map_ahead(tf.data.Dataset.from_tensor_slices(encoded), decode)
    return images.batch(batch_size).prefetch(1).as_numpy_iterator()


def _rows(names, classes, scores, errors) -> Iterator[list[str]]:
    for name, named, confidences, error in zip(names, classes, scores, errors, strict=True):
        if error:
            yield [name, *[""] * (2 * len(named)), os.fsdecode(error)]
            continue
        if not np.isfinite(confidences).all():
            raise ValueError(
                f"The confidences for the image {name} are not finite: export a network from before its training "
                "diverged."
            )
        pairs = zip(named, confidences, strict=True)
        yield [name, *(text for label, score in pairs for text in (label.decode(), f"{score:.6f}")), ""]
