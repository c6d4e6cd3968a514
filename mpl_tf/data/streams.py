"""Endless streams of indices: which training images a step takes, as a function of the seed and the step."""

import abc
from typing import Any

import numpy as np
import tensorflow as tf

from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.lookup import Lookup


class Positions(abc.ABC):
    """Which positions of an endless stream a step takes, or a shard of them.

    Args:
        size: positions per step, over all shards.
        seed: of all streams of a run.
        stream: the name of this one.
        shard: `(index, count)`.
    """

    def __init__(self, size: int, seed: int, stream: str, shard: tuple[int, int]):
        self.size = size
        self.rows = size // shard[1]
        self.own = shard[0] * self.rows + np.arange(self.rows)
        self.seed = fold_in(seed, stream)

    def draw(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The indices of a step's images, int64 `[rows]`, and their positions in the stream."""
        position = step * self.size + self.own
        return self.at(position), position

    @abc.abstractmethod
    def at(self, position: tf.Tensor) -> tf.Tensor:
        """The indices at some positions, int64 `[rows]`."""

    def shuffled(self, walk: tf.Tensor, position: tf.Tensor, count: Any) -> tf.Tensor:
        """Where endless walks over 0…count-1, shuffled anew in each of their epochs, are at some positions.

        Args:
            walk: int64 `[n]`, the number of the walk that each entry is about.
            position: int64 `[n]`, in its walk.
            count: int64, a scalar or `[n]`.

        Returns:
            int64 `[n]`, each in 0…count-1.
        """
        # A bijection of 0…count-1 for each epoch. The public index_shuffle takes one seed for the whole vector,
        # but a batch may span several epochs of a few labeled images.
        seeds = [np.full(self.rows, self.seed, np.int32)]
        seeds += [tf.cast(part, tf.int32) for part in (walk, position // count)]
        return tf.raw_ops.RandomIndexShuffle(
            index=position % count, seed=tf.stack(seeds, 1), max_index=count - 1
        )


class Stream(Positions):
    """An endless, reshuffled walk over some indices, readable at any position.

    Args:
        indices: int64 `[n]`.
        *placed: as for `Positions`.
    """

    def __init__(self, indices: np.ndarray, *placed: Any):
        super().__init__(*placed)
        self.indices = Lookup(indices, tf.int64)
        self.count = len(indices)

    def at(self, position: tf.Tensor) -> tf.Tensor:
        """Where the walk is."""
        return self.indices(self.shuffled(tf.zeros_like(position), position, self.count))


class BalancedStream(Stream):
    """A walk over the classes, and in each class over its own indices: all classes come equally often.

    Args:
        indices: int64 `[n]`.
        labels: int `[N]`, of all training images.
        *placed: as for `Positions`.
    """

    def __init__(self, indices: np.ndarray, labels: np.ndarray, *placed: Any):
        indices = np.asarray(indices)
        own = np.asarray(labels)[indices]
        super().__init__(indices[np.argsort(own, kind="stable")], *placed)
        _, counts = np.unique(own, return_counts=True)
        self.counts = tf.constant(counts, tf.int64)
        self.starts = tf.constant(np.cumsum(counts) - counts, tf.int64)
        self.num_classes = len(counts)

    def at(self, position: tf.Tensor) -> tf.Tensor:
        """Where the walk of the class is whose turn it is."""
        # Each class once per round; in round r, the class is at position r of its own walk.
        turn = position // self.num_classes
        chosen = self.shuffled(tf.zeros_like(turn), position, self.num_classes)
        member = self.shuffled(1 + chosen, turn, tf.gather(self.counts, chosen))
        return self.indices(tf.gather(self.starts, chosen) + member)


class AlternatingStream(Positions):
    """Two streams in turn: half of every batch, and of every part of one, is of the first.

    Args:
        first: the stream that begins.
        second: the other one, with a size, a seed and a shard like it.
        *placed: as for `Positions`.
    """

    def __init__(self, first: Stream, second: Stream, *placed: Any):
        super().__init__(*placed)
        self.streams = (first, second)
        # An epoch is over when the longer one has been gone through.
        self.count = 2 * max(first.count, second.count)

    def at(self, position: tf.Tensor) -> tf.Tensor:
        """Where that one of the two is whose turn it is."""
        first, second = (stream.at(position // 2) for stream in self.streams)
        return tf.where(position % 2 == 0, first, second)
