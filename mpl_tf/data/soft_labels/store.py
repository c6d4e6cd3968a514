"""What a network predicted on many images, on disk: made shard by shard, by one process or by several.

    <store>/store.json  index.npy  shard_00000.npy  shard_00001.npy  …

Row r of the store is a probability for each class of the training image `index[r]`. The rows lie in shards of
equal size, the last one possibly smaller, and NumPy reads them without this library. A shard is written beside its
place and renamed, so a labeling that was killed left whole shards only, and goes on with the missing ones.

`LabelTargets` finds the rows by image in a graph: from memory when they are few, from the disk when many.
"""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from mpl_tf.data.images.images import content_fingerprint
from mpl_tf.data.lookup import Lookup
from mpl_tf.data.soft_labels.shards import ShardedTable
from mpl_tf.utils import files
from mpl_tf.utils.files import replacing
from mpl_tf.utils.validation import check_choice, check_integer

FORMAT = 1
# Soft labels that take no more bytes than this are one table in memory.
TABLE_LIMIT = 2**28


class LabelStore(ShardedTable):
    """A folder of soft labels. Made by `create`, read by `open`.

    Attributes:
        path: of the folder.
        index: int64 `[n]`, the training image of each row.
        num_classes: K.
        fingerprint: of the images that `index` counts.
        teacher: which network made the labels, and how.
    """

    def __init__(self, path: pathlib.Path, request: dict, index: np.ndarray) -> None:
        layout = {key: request[key] for key in ("count", "num_classes", "shard_size", "dtype")}
        super().__init__(path, **layout)
        self.index = index
        self.fingerprint = request["fingerprint"]
        self.teacher = request["teacher"]

    def __repr__(self) -> str:
        size = f"{len(self)} images, {self.num_classes} classes, {self.num_shards} shards"
        return f"LabelStore({str(self.path)!r}: {size})"

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        *,
        index: np.ndarray,
        num_classes: int,
        teacher: dict,
        fingerprint: str,
        shard_size: int = 4096,
        dtype: str = "float32",
    ) -> LabelStore:
        """Makes an empty store, or reopens the one that was made by the very same request.

        The folder appears in one step: of several processes that ask for it at once, one makes it and the others
        open it.

        Args:
            path: of the folder.
            index: int `[n]`, the training images to label, each once.
            num_classes: K, at least 2.
            teacher: names the network and all that its labels depend on; whatever JSON holds.
            fingerprint: of the images, `source.train.fingerprint()`.
            shard_size: rows per shard: what a killed labeling loses at most, and what several processes deal out.
            dtype: of the numbers on disk, "float32" or "float16".

        Returns:
            The store, with whatever shards it has already.

        Raises:
            ValueError: for a value out of range, or a folder that holds another store or something else.
        """
        path, index = files.user_path(path), _checked_index(index)
        check_integer("num_classes", num_classes, low=2)
        check_integer("shard_size", shard_size, low=1)
        check_choice("dtype", dtype, ["float32", "float16"])
        request = {
            "format": FORMAT,
            "count": len(index),
            "index": content_fingerprint(index),
            "num_classes": int(num_classes),
            "shard_size": int(shard_size),
            "dtype": dtype,
            "fingerprint": fingerprint,
            # Through JSON and back, so that what is compared with a file is what a file can hold.
            "teacher": json.loads(json.dumps(teacher)),
        }
        if not _holds_something(path):
            try:
                with replacing(path) as temporary:
                    temporary.mkdir()
                    np.save(temporary / "index.npy", index, allow_pickle=False)
                    (temporary / "store.json").write_text(json.dumps(request, indent=1) + "\n")
            except OSError:
                # Another process may have made it meanwhile: then it is there.
                if not _holds_something(path):
                    raise
        store, found = cls._read(path)
        if found != request:
            raise ValueError(
                f"The folder {str(path)!r} holds other labels ({_differences(found, request)}): choose another "
                "folder, or ask for the same to continue."
            )
        return store

    @classmethod
    def open(cls, path: str | os.PathLike) -> LabelStore:
        """Opens a finished store.

        Args:
            path: of the folder.

        Returns:
            The store, all of whose shards are there.

        Raises:
            FileNotFoundError: when there is no such folder.
            ValueError: for a folder that holds no store, or one that lacks shards.
        """
        store, _ = cls._read(files.user_path(path))
        store.require_complete()
        return store

    @classmethod
    def _read(cls, path):
        """The store in a folder, whatever shards it has, and the request that made it."""
        if not path.is_dir():
            raise FileNotFoundError(
                f"There is no label store at {str(path)!r}: label images into it first, or mend the path."
            )
        try:
            request = json.loads((path / "store.json").read_text())
            version = request["format"]
            if version == FORMAT:
                index = np.load(path / "index.npy", allow_pickle=False)
                if content_fingerprint(index) != request["index"]:
                    raise ValueError("index.npy is not the one that store.json was written for")
                return cls(path, request, index), request
        except (OSError, *files.DAMAGED) as error:
            raise ValueError(
                f"The folder {str(path)!r} holds no label store ({type(error).__name__}: {error}): give another path."
            ) from error
        raise ValueError(
            f"The label store {str(path)!r} has the format {version!r}, and this version reads {FORMAT}: label "
            "again, or use the version that wrote it."
        )

    # --- reading ---------------------------------------------------------------------------------------

    def probabilities(self) -> np.ndarray:
        """Every row, float32 `[n, K]`: a read-only memory map where one float32 shard holds all, else an array.

        Stores larger than memory are read shard by shard with `read`, or through `targets`.
        """
        self.require_complete()
        if self.num_shards == 1:
            return self.read(0).astype(np.float32, copy=False)
        return self.map_rows(lambda values: values, (len(self), self.num_classes), np.float32)

    def confidence(self) -> np.ndarray:
        """The largest probability of each row, float32 `[n]`."""
        return self.map_rows(lambda values: values.max(axis=1), (len(self),), np.float32)

    def classes(self) -> np.ndarray:
        """The most likely class of each row, int64 `[n]`; the first of several equally likely ones."""
        return self.map_rows(lambda values: values.argmax(axis=1), (len(self),), np.int64)

    def targets(self, num_images: int) -> LabelTargets:
        """The soft labels by image, for `mpl_tf.data.training_batches`.

        Args:
            num_images: how many images the source has, `len(source.train)`.

        Returns:
            An object whose `fetch` maps image indices, int64 `[b]`, to probabilities, float32 `[b, K]`, in a
            graph too.

        Raises:
            ValueError: for a store that is not finished, or of images that the source does not have.
        """
        self.require_complete()
        return LabelTargets(self, num_images)


class LabelTargets:
    """The soft labels of a finished store, by image. Made by `LabelStore.targets`.

    Args:
        store: a `LabelStore`.
        num_images: how many images the source has that the store's index counts.

    Attributes:
        num_classes: K.

    Raises:
        ValueError: when the store labels images that the source does not have.
    """

    def __init__(self, store: LabelStore, num_images: int) -> None:
        if store.index.max() >= num_images:
            raise ValueError(
                f"The label store {str(store.path)!r} labels image {store.index.max()}, but there are only "
                f"{num_images} images: pass the number in the source that was labeled."
            )
        self.num_classes = store.num_classes
        self._store = store
        position_of_index = np.full(num_images, -1, np.int64 if len(store) > 2**31 else np.int32)
        position_of_index[store.index] = np.arange(len(store))
        self._position_of_index = Lookup(position_of_index, tf.int64)
        in_memory = 4 * len(store) * store.num_classes <= TABLE_LIMIT
        # An eager tensor, which a graph captures by reference; on the CPU, where the pipeline runs.
        with tf.device("CPU:0"):
            self._table = tf.constant(store.probabilities()) if in_memory else None

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """Looks up some images. Usable in a graph and inside `tf.data.Dataset.map`.

        Args:
            index: int64 `[b]`, image indices.

        Returns:
            float32 `[b, K]`.

        Raises:
            tf.errors.InvalidArgumentError: for an image that the store lacks.
        """
        with tf.device("CPU:0"):
            rows = self._position_of_index(index)
            lacking = tf.boolean_mask(index, rows < 0)
            check = tf.debugging.Assert(
                tf.equal(tf.size(lacking), 0),
                [f"The label store {str(self._store.path)!r} has no labels of the images", lacking],
            )
            # In a graph the operation is there to wait for; eagerly it has raised already.
            with tf.control_dependencies([] if check is None else [check]):
                if self._table is not None:
                    return tf.gather(self._table, rows)
                found = tf.numpy_function(self._read, [rows], tf.float32, stateful=False)
            return tf.ensure_shape(found, (*rows.shape, self.num_classes))

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), self.num_classes), np.float32)
        shards, positions = np.divmod(rows, self._store.shard_size)
        for shard in np.unique(shards):
            chosen = shards == shard
            found[chosen] = self._store.read(int(shard))[positions[chosen]]
        return found


def _checked_index(index) -> np.ndarray:
    index = np.asarray(index)
    if index.ndim != 1 or not index.size or index.dtype.kind not in "iu" or index.min() < 0:
        raise ValueError(
            f"index is {index.dtype} of the shape {index.shape}: pass the positions of the images to label, at "
            "least one, whole numbers from 0 on."
        )
    if len(np.unique(index)) < len(index):
        raise ValueError(
            "index names an image more than once: label each image once, and repeat rows afterwards with "
            "mpl_tf.data.select_indices."
        )
    return index.astype(np.int64)


def _differences(found: dict, request: dict) -> str:
    def flat(values):
        teacher = {f"teacher's {key}": value for key, value in values["teacher"].items()}
        return {**{key: value for key, value in values.items() if key != "teacher"}, **teacher}

    def shown(value):
        return f"{value!r:.40}"

    there, here = flat(found), flat(request)
    return ", ".join(
        f"{key} {shown(there.get(key))} there and {shown(here.get(key))} here"
        for key in dict.fromkeys([*here, *there])
        if there.get(key) != here.get(key)
    )


def _holds_something(path: pathlib.Path) -> bool:
    return path.exists() and not (path.is_dir() and not any(path.iterdir()))
