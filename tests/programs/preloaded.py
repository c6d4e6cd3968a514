"""What takes long to import, for the process from which `forked` forks the others."""

# ruff: noqa: E402, F401

import gc
import os

# Nothing that is imported is garbage.
gc.disable()

import keras
import matplotlib.backends.backend_agg
import matplotlib.figure
import PIL.Image
import scipy.ndimage
import scipy.optimize
import scipy.stats
import sklearn.datasets
import tensorboard
import tensorflow as tf

import mpl_tf
from tests.support import graphs

# As in the tests, see conftest.py.
if os.environ.get("TEST_GRAPHS") != "rewritten":
    graphs.set_rewriting(False)

# The garbage collector need not look at all this in each forked process.
gc.collect()
gc.freeze()
gc.set_threshold(100_000, 50, 100)
gc.enable()
