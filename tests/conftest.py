import os
import pathlib

# Where each core has a process of pytest-xdist, more threads would only wait for one another. Before TensorFlow is.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import pytest

from tests import tiny

# The longest files, which start processes of their own: first, so that none is left over when all others are done.
LONGEST = (
    "conformance/test_methods.py", "test_killed.py", "test_distribute.py", "test_recipes.py", "test_notebook.py",
    "test_training.py", "test_mirrored_run.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Reorders the files; the tests of each stay in order."""
    tests = pathlib.Path(__file__).parent
    places = {tests / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def batch():
    """One batch of tensors: 4 labeled and 6 unlabeled pictures of 4×4×1 in 3 classes."""
    return tiny.tensors(tiny.batch())
