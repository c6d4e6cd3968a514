"""What several tests of networks compute without Keras."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def trainable_count(model):
    """Weights that learn."""
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def convolve(x, kernel, stride=1):
    """Convolution with zero padding; an odd number of zeros has the larger half below and right."""
    size = kernel.shape[0]
    out = -(-x.shape[1] // stride)
    total = max((out - 1) * stride + size - x.shape[1], 0)
    padding = (total // 2, total - total // 2)
    windows = sliding_window_view(np.pad(x, ((0, 0), padding, padding, (0, 0))), (size, size), axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows[:, ::stride, ::stride], kernel, optimize=True)
