"""What takes long to import, for the process from which `forked` forks the others."""

import gc
import os

import keras  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import PIL.Image  # noqa: F401
import scipy.ndimage
import scipy.optimize
import scipy.stats  # noqa: F401
import sklearn.datasets  # noqa: F401
import tensorboard  # noqa: F401
import tensorflow as tf

import mpl_tf  # noqa: F401

# As in the tests, see conftest.py.
if os.environ.get("TEST_GRAPHS") != "rewritten":
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

# The garbage collector need not look at all this in each forked process.
gc.collect()
gc.freeze()
gc.set_threshold(100_000, 50, 100)
