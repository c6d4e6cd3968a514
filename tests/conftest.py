import os

# Where each core has a process of pytest-xdist, more threads would only wait for one another. Before TensorFlow is.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import pytest

from tests.support import tiny


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def batch():
    """One batch of tensors: 4 labeled and 6 unlabeled images of 4×4×1 in 3 classes."""
    return tiny.tensors(tiny.batch())
