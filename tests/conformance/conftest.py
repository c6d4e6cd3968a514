import dataclasses
import pathlib
from collections.abc import Callable
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.base import Method
from tests.conformance.cases import CASES, Case
from tests.support import tiny


@dataclasses.dataclass
class Run:
    """An uninterrupted run of two epochs in eager steps, and what was written between them."""

    case: Case
    method: Method
    start: dict
    after_one_step: dict
    history: dict
    weights_file: pathlib.Path
    model_file: pathlib.Path
    evaluated: dict
    predicted: np.ndarray

    def data(self) -> tf.data.Dataset:
        """An epoch: enough for momentum, averages and ramps to be under way when it ends."""
        return self.case.data(batches=2)


@dataclasses.dataclass
class GraphRun:
    """The same run as a graph; `step` holds the only trace of its step."""

    method: Method
    step: Callable
    history: dict
    traces: int


def role_values(method: Method) -> dict:
    """Role → the values of its trainable weights."""
    return {role: tiny.values(getattr(method, role).trainable_variables) for role in method.roles}


def dropout(images, rate, seed, noise_shape=None):
    """`tf.nn.experimental.stateless_dropout`, from the bits themselves.

    Of the same bits TensorFlow and XLA make different fractions, and with them different masks.
    """
    bits = tf.random.stateless_uniform(tf.shape(images), seed, minval=None, maxval=None, dtype=tf.uint32)
    return images * tf.cast(bits >= int(rate * 2**32), images.dtype) / (1.0 - rate)


@pytest.fixture(scope="module")
def same_masks():
    """Eager steps, graphs and XLA drop the same activations."""
    with mock.patch.object(tf.nn.experimental, "stateless_dropout", dropout):
        yield


@pytest.fixture(scope="module", params=CASES)
def run(request, same_masks, tmp_path_factory):
    """Trains a case without interruption, saving it in both forms after the first epoch.

    Eagerly, as the runs that are compared with it to the bit: tracing each of them anew would take ten times as long.
    """
    case, folder = CASES[request.param], tmp_path_factory.mktemp("run")
    method = case.compiled(run_eagerly=True)
    start, after_one_step = role_values(method), {}
    files = {"weights_file": folder / "method.weights.h5", "model_file": folder / "method.keras"}
    between = {}

    def keep(batch, logs):
        if not after_one_step:
            after_one_step.update(role_values(method))

    def save(epoch, logs):
        if epoch == 0:
            method.save_weights(files["weights_file"])
            method.save(files["model_file"])
            between["evaluated"] = method.evaluate(tiny.evaluation_batch(), return_dict=True, verbose=0)
            between["predicted"] = method.predict(tiny.evaluation_batch(), verbose=0)

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=keep, on_epoch_end=save)
    begun = Run(case, method, start, after_one_step, {}, **files, evaluated={}, predicted=np.empty(0))
    history = method.fit(begun.data(), epochs=2, callbacks=[callback], verbose=0).history
    return dataclasses.replace(begun, history=history, **between)


@pytest.fixture(scope="module")
def graph_run(run):
    """Trains the same case as a graph, as users do."""
    method = run.case.compiled()
    step, traces = tf.function(method.train_step, autograph=False), []

    def counting(data):
        traces.append(data)
        return step(data)

    method.train_step = counting
    history = method.fit(run.data(), epochs=2, verbose=0).history
    return GraphRun(method, step, history, len(traces))
