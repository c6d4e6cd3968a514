"""What takes long to import, for the process from which `forked` forks the others."""

import gc
import struct

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
from mpl_tf.data.images import upright


def translate_the_reading_of_orientations():
    """AutoGraph translates this routine wherever a model is exported, in seconds; forked processes find it done."""
    translated = tf.autograph.to_graph(upright.find_orientation)
    entry = struct.pack("<HHIf", 0x0112, 11, 1, 6.0)
    note = b"II*\0" + struct.pack("<IH", 8, 1) + entry
    for file in (note, b"\xff\xd8" + note, b"\x89PNG" + note, b"RIFF" + note):

        def read(position, count, file=file):
            return int.from_bytes(file[position : position + count].ljust(count, b"\0"), "big")

        assert translated(read, len(file)) == upright.orientation(file)


translate_the_reading_of_orientations()

# The garbage collector need not look at all this in each forked process.
gc.collect()
gc.freeze()
gc.set_threshold(100_000, 50, 100)
