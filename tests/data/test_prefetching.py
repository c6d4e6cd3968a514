"""Batches that are made ahead: in order, and without the thread for which an iterator that is let go would wait."""

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import data
from mpl_tf.data import prefetching


def test_elements_stay_in_order():
    mapped = prefetching.map_ahead(tf.data.Dataset.range(100), lambda number: number * 2)
    assert [int(number) for number in mapped] == list(range(0, 200, 2))


def datasets():
    source = data.from_arrays(np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 4)
    split = data.draw_split(source, num_labeled=8, seed=0)
    weak, strong = data.make_views(source.image_shape, flip=False)
    views = {"weak": weak, "strong": strong}
    return {
        "training": data.training_batches(source, split, batch_size=4, unlabeled_ratio=1, **views),
        "evaluation": data.evaluation_batches(source.train),
        "evaluation of some": data.evaluation_batches(source.train, np.arange(5)),
        "labeling": data.image_batches(source.train),
        "numbers": data.index_batches(8),
    }


@pytest.mark.parametrize("name", ["training", "evaluation", "evaluation of some", "labeling", "numbers"])
def test_no_thread_tunes_our_datasets(name):
    assert datasets()[name].options().autotune.enabled is False
