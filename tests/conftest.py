import keras
import pytest

from tests import tiny


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def batch():
    """One batch of tensors: 4 labeled and 6 unlabeled pictures of 4×4×1 in 3 classes."""
    return tiny.tensors(tiny.batch())
