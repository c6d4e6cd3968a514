"""Arrays that a graph looks entries up in, without a copy of the large ones."""

import numpy as np
import tensorflow as tf

# An array of no more bytes becomes a tensor, which a look-up finds a little faster than NumPy's memory.
TENSOR_LIMIT = 2**26


class Lookup:
    """Takes entries of an array by their indices, in a graph and inside `tf.data.Dataset.map` too.

    A small array becomes one tensor, on the CPU, that graphs capture by reference. A large one stays where it is, in
    memory or in a file that is mapped into memory, and NumPy is asked: labels and indices of a hundred million images
    are then neither copied nor part of any graph.

    Args:
        values: `[N, …]`, not changed from here on.
        dtype: of the entries that are returned.
    """

    def __init__(self, values: np.ndarray, dtype: tf.DType) -> None:
        self.values = np.asarray(values)
        self.dtype = tf.as_dtype(dtype)
        self._tensor = None
        if self.values.nbytes <= TENSOR_LIMIT:
            with tf.device("CPU:0"):
                self._tensor = tf.constant(self.values, self.dtype)

    def __len__(self) -> int:
        return len(self.values)

    def __call__(self, index: tf.Tensor) -> tf.Tensor:
        """Takes entries.

        Args:
            index: int64 `[n]`, each in 0…N-1.

        Returns:
            `dtype` `[n, …]`.
        """
        with tf.device("CPU:0"):
            if self._tensor is not None:
                return tf.gather(self._tensor, index)
            found = tf.numpy_function(self._take, [index], self.dtype, stateful=False)
            return tf.ensure_shape(found, (*index.shape, *self.values.shape[1:]))

    def _take(self, index: np.ndarray) -> np.ndarray:
        return self.values[index].astype(self.dtype.as_numpy_dtype, copy=False)
