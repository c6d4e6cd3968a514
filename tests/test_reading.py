"""The benchmark of reading: the dataset that it writes is the same from disk and from memory."""

import argparse
import runpy

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.images.images import ArrayImages, TfdsImages
from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "reading.py"))


@pytest.mark.filterwarnings("ignore:.* images are held out")
def test_images_and_batches_from_disk_are_those_from_memory(tmp_path):
    PROGRAM["write_dataset"](tmp_path, 40, 8)
    disk, memory = PROGRAM["read_both"](tmp_path)
    assert isinstance(disk.train, TfdsImages)
    assert isinstance(memory.train, ArrayImages)
    everything = tf.range(40)
    images = disk.train.fetch(everything).numpy()
    np.testing.assert_array_equal(images, memory.train.fetch(everything))
    assert len(np.unique(images, axis=0)) == 40
    np.testing.assert_array_equal(disk.train.labels, np.arange(40) % 10)
    options = argparse.Namespace(images=40, labeled=2, ratio=2, batches=3)
    one, other = (next(iter(PROGRAM["batches"](source, options))) for source in (disk, memory))
    tf.nest.map_structure(np.testing.assert_array_equal, one, other)
    assert PROGRAM["pipeline_rate"](memory, options)() > 0
