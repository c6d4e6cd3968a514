"""Soft labels by image index, readable in a graph: from memory when they are few, from the disk when many."""

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from mpl_tf.data.lookup import Lookup

if TYPE_CHECKING:
    from mpl_tf.data.soft_labels.store import LabelStore

# Soft labels that take no more bytes than this are one table in memory.
TABLE_LIMIT = 2**28


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

    def __init__(self, store: "LabelStore", num_images: int) -> None:
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
