"""What the benchmarks of training have in common: the options, the networks, the batches, the clock."""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

import mpl_tf

NUM_CLASSES = 10


def parser(description: str) -> argparse.ArgumentParser:
    """The options that say which network sees how many images of which size."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", default="wrn-28-2")
    options.add_argument("--size", type=int, default=32)
    options.add_argument("--labeled", type=int, default=16)
    options.add_argument("--ratio", type=int, default=3)
    return options


def described(options) -> str:
    """The options in words."""
    unlabeled = options.labeled * options.ratio
    return f"{options.model}, {options.labeled} labeled and {unlabeled} unlabeled images of {options.size} pixels"


def network(options, seed: int) -> keras.Model:
    """A freshly initialized network."""
    shape = (options.size, options.size, 3)
    return mpl_tf.models.build(options.model, NUM_CLASSES, shape, seed=seed)


def batch(options, labeled: int, unlabeled: int) -> dict:
    """One batch of random images, with stored labels for the methods that read them."""
    generator = np.random.default_rng(0)

    def images(count):
        shape = (count, options.size, options.size, 3)
        return tf.constant(generator.uniform(0, 255, shape).astype(np.float32))

    def probabilities(count):
        return tf.constant(generator.dirichlet(np.ones(NUM_CLASSES), count).astype(np.float32))

    data = {"image": images(labeled), "label": tf.range(labeled) % NUM_CLASSES}
    data = {"labeled": {**data, "probabilities": probabilities(labeled)}}
    if unlabeled:
        views = {"weak": images(unlabeled), "strong": images(unlabeled)}
        index = tf.range(unlabeled, dtype=tf.int64)
        data["unlabeled"] = {**views, "index": index, "probabilities": probabilities(unlabeled)}
    return data


def seconds_of(step, data) -> float:
    """How long one step takes, its results included."""
    start = time.perf_counter()
    logs = step(data)
    float(next(iter(logs.values())))
    return time.perf_counter() - start
