"""A table of probabilities on disk, in files of equal numbers of rows that are made one by one."""

import functools
import math
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mpl_tf.utils.files import replacing

# Softmax in float32 over many classes, and more so 16-bit floats, do not add up to exactly 1.
_SUM_TOLERANCE = 1e-3
# Each open shard holds a file descriptor, of which a process has about a thousand.
_OPEN_SHARDS = 256


class ShardedTable:
    """Rows of probabilities in `shard_00000.npy`, `shard_00001.npy` and so on.

    Args:
        path: of the folder that holds them.
        count: n, the number of rows.
        num_classes: K.
        shard_size: rows per shard; the last may have fewer.
        dtype: of the numbers on disk.
    """

    def __init__(
        self, path: str | os.PathLike, *, count: int, num_classes: int, shard_size: int, dtype: str
    ) -> None:
        self.path = pathlib.Path(path)
        self.count = count
        self.num_classes = num_classes
        self.shard_size = shard_size
        self.dtype = dtype
        self._checked: dict[int, tuple] = {}
        self._kept_open = functools.lru_cache(maxsize=_OPEN_SHARDS)(self._open)

    def __len__(self) -> int:
        return self.count

    @property
    def num_shards(self) -> int:
        """How many shards the finished table has."""
        return math.ceil(self.count / self.shard_size)

    def missing(self, shards: Iterable[int] | None = None) -> list[int]:
        """The shards that are still to be made: those that are not there, and files that are none.

        Args:
            shards: which ones to look at; None for all. A process that looks at its own ones only does not make a
                network disk remember that another's were not there yet.

        A file counts when it has the right type, shape and length; once per change of the file its contents are
        read too, because a machine that lost its power may leave a file of zeros.
        """
        shards = range(self.num_shards) if shards is None else shards
        return [shard for shard in shards if not self._is_whole(shard)]

    def rows(self, shard: int) -> slice:
        """The rows of the table that are in a shard."""
        return slice(shard * self.shard_size, min((shard + 1) * self.shard_size, self.count))

    def write(self, shard: int, probabilities: np.ndarray) -> None:
        """Adds a shard. One that is there already stays as it is.

        Args:
            shard: its number.
            probabilities: float `[rows in the shard, K]`, each row a distribution over the classes.

        Raises:
            ValueError: for a shard that the table does not have, another shape, or a row that is no distribution.
        """
        if shard not in range(self.num_shards):
            raise ValueError(
                f"shard={shard} is out of range: pass one of the table's shards, 0…{self.num_shards - 1}."
            )
        probabilities = np.asarray(probabilities)
        if probabilities.shape != self._shape(shard):
            raise ValueError(
                f"The probabilities for shard {shard} have the shape {probabilities.shape}: pass "
                f"{self._shape(shard)}, a row for each image of the shard and a column for each class."
            )
        wrong = _first_wrong_row(probabilities)
        if wrong is not None:
            row = probabilities[wrong]
            raise ValueError(
                f"Row {wrong} of the probabilities for shard {shard} is no distribution, as it lies in "
                f"{row.min():g}…{row.max():g} and adds up to {row.sum():g}: pass the softmax of finite logits."
            )
        if not self._is_whole(shard):
            with replacing(self._file(shard)) as temporary:
                np.save(temporary, np.ascontiguousarray(probabilities, self.dtype), allow_pickle=False)

    def read(self, shard: int) -> np.ndarray:
        """A shard's probabilities, `[rows in the shard, K]` of the type on disk: a memory map, not yet read."""
        return self._kept_open(shard)

    def map_rows(self, function: Callable, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Applies a function to each shard, and puts the results one below the other.

        Args:
            function: from `[rows in the shard, K]` to `[rows in the shard, …]`.
            shape: of the whole result.
            dtype: of the result.

        Raises:
            ValueError: when shards are missing.
        """
        self.require_complete()
        result = np.empty(shape, dtype)
        for shard in range(self.num_shards):
            result[self.rows(shard)] = function(self._open(shard))
        return result

    def require_complete(self) -> None:
        """Raises for a table that lacks shards.

        Raises:
            ValueError: naming them.
        """
        missing = self.missing()
        if missing:
            some = ", ".join(map(str, missing[:5])) + (", …" if len(missing) > 5 else "")
            raise ValueError(
                f"{str(self.path)!r} lacks {len(missing)} of {self.num_shards} shards ({some}): run the labeling "
                "that began it again, which makes only the missing ones."
            )

    def _file(self, shard):
        return self.path / f"shard_{shard:05d}.npy"

    def _shape(self, shard):
        rows = self.rows(shard)
        return rows.stop - rows.start, self.num_classes

    def _open(self, shard):
        return np.load(self._file(shard), mmap_mode="r", allow_pickle=False)

    def _is_whole(self, shard):
        try:
            status = self._file(shard).stat()
            identity = (status.st_size, status.st_mtime_ns)
            if self._checked.get(shard) != identity:
                values = self._open(shard)
                if (values.shape, values.dtype) != (self._shape(shard), np.dtype(self.dtype)):
                    return False
                if _first_wrong_row(values) is not None:
                    return False
                self._checked[shard] = identity
            return True
        except (OSError, ValueError, EOFError):
            return False


def _first_wrong_row(probabilities: np.ndarray) -> int | None:
    """The first row that is not finite, not negative and adding up to 1."""
    sums = probabilities.sum(axis=1, dtype=np.float64)
    # Comparisons with NaN are false, so that NaN is wrong.
    right = (probabilities.min(axis=1) >= 0) & (abs(sums - 1) <= _SUM_TOLERANCE)
    return None if right.all() else int(np.argmin(right))
