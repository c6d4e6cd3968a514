"""Seeds of what is drawn in a test: initial weights, dropout, NumPy's numbers."""

from unittest import mock

import keras


def set_random_seed(seed: int) -> None:
    """All seeds but TensorFlow's own, from which no test draws.

    With that one TensorFlow forgets the kernels that it has prepared, and prepares them anew: half of what an
    operation outside of a graph takes here.
    """
    with mock.patch("tensorflow.random.set_seed"):
        keras.utils.set_random_seed(seed)
