"""Making batches ahead of the steps that take them."""

import os
from collections.abc import Callable

import tensorflow as tf

# More batches at once would be many that lie in memory.
_MOST_CALLS = 16


def map_ahead(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Maps a dataset, on all cores and some elements ahead of those that are taken, in order.

    TensorFlow would choose the number of calls itself (`tf.data.AUTOTUNE`), in a thread that looks again after 10 ms,
    then 20, 40 and so on up to a minute. An iterator that is let go often waits for that thread to wake up, which can
    double the time of a short evaluation and add a minute to a training.

    Args:
        dataset: what to map.
        function: of an element, to be traced.

    Returns:
        A dataset of what the function returns.
    """
    calls = min(os.cpu_count() or 1, _MOST_CALLS)
    return untuned(dataset.map(function, num_parallel_calls=calls, deterministic=True).prefetch(1))


def untuned(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same dataset without TensorFlow's tuning, for the reason that `map_ahead` gives."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
