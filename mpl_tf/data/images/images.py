"""Collections of images that a graph can index: arrays in memory, files on disk, TFDS records."""

import abc
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from mpl_tf.data import prefetching
from mpl_tf.data.images import decoding

# Encoded images are decoded once, into memory, where all of them together take no more bytes than this.
MEMORY_LIMIT = 2**31


class Images(abc.ABC):
    """A random-access collection of equally sized images, or of points.

    Attributes:
        labels: int32 `[N]`, -1 where unknown.
        image_shape: `(H, W, C)` of every image, or `(D,)` of every point.
        names: what each example is called (its path) where it has a name, else None.
        resizing: how images of other sizes were brought to `image_shape`, which the fingerprint of files does not
            say; None where there were none.
    """

    def __init__(
        self,
        labels: np.ndarray,
        image_shape: tuple[int, ...],
        names: Sequence[str] | None = None,
        resizing: decoding.Resizing | None = None,
    ) -> None:
        self.labels = np.asarray(labels, np.int32)
        self.image_shape = tuple(int(size) for size in image_shape)
        self.names = names
        self.resizing = resizing

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        what = "images" if len(self.image_shape) == 3 else "points"
        labeled = int(np.sum(self.labels >= 0))
        known = "" if labeled == len(self) else f", {labeled:,} labeled"
        return f"{type(self).__name__}({len(self):,} {what} of {'×'.join(map(str, self.image_shape))}{known})"

    @property
    def true_labels(self) -> np.ndarray:
        """Int32 `[N]`: the labels, and before label noise where experiments have given them some."""
        return self.labels

    @abc.abstractmethod
    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """Reads some examples. Usable in a graph and inside `tf.data.Dataset.map`.

        Args:
            index: int64 `[n]`, each in 0…N-1.

        Returns:
            uint8 `[n, H, W, C]`, or float32 `[n, D]` for points.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """The SHA-256, in hexadecimal, of what identifies the examples, their order and their labels."""


class ArrayImages(Images):
    """Images or points in memory.

    Args:
        examples: uint8 `[N, H, W, C]` or float32 `[N, D]`.
        labels: int `[N]`, -1 where unknown.
        names: what each example is called, if anything.
        fingerprint: of the files that the examples were decoded from. None hashes the examples themselves.
        resizing: of the files to the examples' shape, if any.
    """

    def __init__(
        self,
        examples: np.ndarray,
        labels: np.ndarray,
        *,
        names: Sequence[str] | None = None,
        fingerprint: str | None = None,
        resizing: decoding.Resizing | None = None,
    ) -> None:
        super().__init__(labels, examples.shape[1:], names, resizing)
        if len(examples) != len(self.labels):
            raise ValueError(
                f"There are {len(examples)} examples and {len(self.labels)} labels: pass one for each."
            )
        self._fingerprint = fingerprint
        # One eager tensor, because a graph captures it by reference, where an array would be copied into every graph
        # that reads it; on the CPU, because a GPU would otherwise be given the whole set.
        with tf.device("CPU:0"):
            self._tensor = tf.constant(examples)

    @property
    def examples(self) -> np.ndarray:
        """All examples, read-only: uint8 `[N, H, W, C]` or float32 `[N, D]`."""
        return np.asarray(memoryview(self._tensor))

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """Copies examples out of memory."""
        with tf.device("CPU:0"):
            return tf.gather(self._tensor, index)

    def fingerprint(self) -> str:
        """Of the examples and their labels."""
        if self._fingerprint is None:
            self._fingerprint = content_fingerprint("array", self.examples, self.labels)
        return self._fingerprint


class FileImages(Images):
    """Images that stay in their files and are decoded by Pillow when they are fetched.

    Pillow rather than TensorFlow, because people's own photographs need what TensorFlow's decoder lacks: the
    camera's orientation tag, and JPEGs decoded at the fraction of their size that is wanted (a 12-megapixel one
    several times faster). It lets go of Python's lock while it decodes and resizes, so threads do help.

    Args:
        paths: one file per image.
        labels: int `[N]`, -1 where unknown.
        image_shape: `(H, W, C)` to bring them to.
        resizing: how.
        relative_names: the paths without the folders' location, which the fingerprint uses so that a folder may
            be moved. None takes the paths.

    Raises:
        ValueError: for another number of labels than of files.
    """

    resizing: decoding.Resizing

    def __init__(
        self,
        paths: Sequence[str],
        labels: np.ndarray,
        image_shape: tuple[int, int, int],
        *,
        resizing: decoding.Resizing = decoding.CROPPED,
        relative_names: Sequence[str] | None = None,
    ) -> None:
        self._paths = tuple(paths)
        super().__init__(labels, image_shape, self._paths, resizing)
        if len(self._paths) != len(self.labels):
            raise ValueError(
                f"There are {len(self._paths)} files and {len(self.labels)} labels: pass one for each, -1 where "
                "it is unknown."
            )
        self._relative_names = self._paths if relative_names is None else tuple(relative_names)
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """Reads and decodes files."""
        images = tf.numpy_function(self._decode, [index], tf.uint8, stateful=False)
        return tf.ensure_shape(images, (None, *self.image_shape))

    def fingerprint(self) -> str:
        """Of the files' names, their sizes in bytes and their labels."""
        sizes = np.array([os.path.getsize(path) for path in self._paths], np.int64)
        return content_fingerprint("files", "\n".join(self._relative_names), sizes, self.labels)

    def _decode(self, index: np.ndarray) -> np.ndarray:
        images = np.empty((len(index), *self.image_shape), np.uint8)

        def fill(row):
            path = self._paths[index[row]]
            try:
                images[row] = decoding.decode_file(path, self.image_shape, self.resizing)
            except Exception as error:
                raise ValueError(f"The image {path} cannot be decoded any more: {error}") from error

        for _ in self._threads.map(fill, range(len(index))):
            pass
        return images


class TfdsImages(Images):
    """Images that stay encoded, in TFDS records on disk or in memory, and are decoded when they are fetched.

    Decoded by TensorFlow, so that they are to the bit what TFDS would have given.

    Args:
        read: maps a list of indices to the encoded images (bytes) at these indices.
        labels: int `[N]`, -1 where unknown.
        image_shape: `(H, W, C)` of the result.
        resizing: how images of other sizes are brought to `image_shape`; None where there are none.
        identity: what identifies the records beside their labels: name, version, splits and sizes.
    """

    def __init__(
        self,
        read: Callable[[list[int]], list[bytes]],
        labels: np.ndarray,
        image_shape: tuple[int, int, int],
        *,
        resizing: decoding.Resizing | None,
        identity: str,
    ) -> None:
        super().__init__(labels, image_shape, resizing=resizing)
        self._read = read
        self._identity = identity

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """Reads and decodes records."""
        # Objects, because NumPy's own byte strings lose trailing zeros.
        encoded = tf.numpy_function(
            lambda rows: np.array(self._read(rows.tolist()), dtype=object), [index], tf.string, stateful=False
        )
        return tf.map_fn(
            lambda record: decoding.decode_record(record, self.image_shape, resizing=self.resizing),
            tf.ensure_shape(encoded, (None,)),
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.uint8),
            parallel_iterations=os.cpu_count(),
        )

    def fingerprint(self) -> str:
        """Of the dataset's name, version, splits and sizes, and of the labels."""
        return content_fingerprint("tfds", self._identity, self.labels)


class RelabeledImages(Images):
    """The same images under other labels, and with the fingerprint that they had.

    Args:
        images: a collection.
        labels: int `[N]`, -1 where unknown.
    """

    def __init__(self, images: Images, labels: np.ndarray) -> None:
        super().__init__(labels, images.image_shape, images.names, images.resizing)
        self.images = images

    @property
    def true_labels(self) -> np.ndarray:
        """Int32 `[N]`, those of the collection itself."""
        return self.images.true_labels

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """Reads examples of the collection."""
        return self.images.fetch(index)

    def fingerprint(self) -> str:
        """Of the collection."""
        return self.images.fingerprint()


def into_memory(images: Images) -> ArrayImages:
    """Decodes a whole collection once.

    Args:
        images: a collection of images.

    Returns:
        The same examples, labels, names and fingerprint, as arrays.
    """
    examples = np.empty((len(images), *images.image_shape), np.uint8)
    batches = tf.data.Dataset.range(len(images)).batch(256)
    start = 0
    for batch in prefetching.map_ahead(batches, images.fetch).as_numpy_iterator():
        examples[start : start + len(batch)] = batch
        start += len(batch)
    return decoded(images, examples)


def decoded(images: Images, examples: np.ndarray) -> ArrayImages:
    """A collection whose images have been decoded.

    Args:
        images: the collection.
        examples: uint8 `[N, H, W, C]`, what it holds.
    """
    return ArrayImages(
        examples,
        images.labels,
        names=images.names,
        fingerprint=images.fingerprint(),
        resizing=images.resizing,
    )


def content_fingerprint(*parts: str | np.ndarray) -> str:
    """Hashes text and arrays, each with its length or its type and shape.

    Args:
        *parts: strings and arrays.

    Returns:
        The SHA-256 in hexadecimal.
    """
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            data: bytes | memoryview = part.encode("utf-8", "surrogateescape")
            header = f"text {len(data)}"
        else:
            array = np.ascontiguousarray(part)
            data, header = array.tobytes(), f"array {array.dtype.str} {array.shape}"
        sha.update(f"{header}\n".encode())
        sha.update(data)
    return sha.hexdigest()
