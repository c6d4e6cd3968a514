"""Several steps in one call from Python: how many suit, and that they are the same steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import models
from mpl_tf.methods.engine import execution
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder
from mpl_tf.training import loop
from tests.support import tiny
from tests.support.runs import QUIET, network, run_data, stage


def batches(examples=4):
    images = tf.zeros([examples, *tiny.IMAGE_SHAPE])
    return tf.data.Dataset.from_tensors(
        {"labeled": {"image": images, "label": tf.zeros([examples])}}
    ).repeat()


def products_in_the_graph(built):
    """Of one image: each number that TensorFlow's products return is a sum of as many as the weights' other axes."""
    spec = tf.TensorSpec([1, *built.input_shape[1:]])
    graph = tf.function(lambda images: built(images, training=False)).get_concrete_function(spec).graph
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("Conv2D", "MatMul"):
            summed = operation.inputs[1].shape[:-1].num_elements()
            total += operation.outputs[0].shape.num_elements() * summed
    return total


@pytest.mark.parametrize(
    ("name", "shape"), [("convnet", (8, 8, 1)), ("wrn-10-1", (8, 8, 3)), ("mlp", (4, 4, 1))]
)
def test_products_are_those_of_the_graph(name, shape):
    built = models.build(name, 5, shape)
    assert execution.products_of_pass(built) == products_in_the_graph(built)


@pytest.mark.parametrize(
    ("epoch_steps", "total_steps", "expected"),
    [(50, 1000, 50), (100, 1000, 50), (64, 1000, 32), (211, 4220, 1), (1, 1000, 1), (50, 450, 1)],
)
def test_calls_divide_the_epoch_and_are_worth_their_trace(epoch_steps, total_steps, expected):
    networks = [tiny.plain_network("student")]
    found = execution.suitable_steps(networks, batches(), epoch_steps=epoch_steps, total_steps=total_steps)
    assert found == expected


def test_large_networks_and_batches_and_unknown_ones_make_single_steps():
    def found(built, data):
        return execution.suitable_steps([built], data, epoch_steps=60, total_steps=6000)

    dense = keras.Sequential(
        [keras.Input(tiny.IMAGE_SHAPE), keras.layers.Flatten(), keras.layers.Dense(1000)]
    )
    products = 1000 * int(np.prod(tiny.IMAGE_SHAPE))
    # Half a second at 10^10 products, three of a pass for each image.
    seven = int(0.5 * 1e10 / (3 * products) / 7.9)
    assert found(dense, batches(seven)) == 6
    assert found(dense, batches(100 * seven)) == 1
    assert found(dense, (batch for batch in batches())) == 1
    assert found(dense, tf.data.Dataset.range(20).batch(3)) == 1
    any_size = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(2, 3)])
    assert found(any_size, batches()) == 1


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(execution, "_FEWEST_STEPS", 4)


def build(steps_per_execution):
    method = Supervised(student=network(2), ema_decay=0.9)
    method.compile(keras.optimizers.SGD(0.05, momentum=0.9), steps_per_execution=steps_per_execution)
    return method


def test_the_steps_are_the_same_and_the_calls_fewer(short, tmp_path):
    ends, calls = {}, {}
    # Two epochs of four steps, and three steps.
    settings = stage(steps=11, epoch_steps=4, unlabeled_ratio=0)
    for steps in (1, "auto"):
        method = build(steps)
        make, made = method.make_train_function, []

        def counting(force=False, make=make, method=method, made=made):
            if method.train_function is not None:
                return
            make(force)
            function = method.train_function

            def call(iterator):
                made.append(int(method.step))
                return function(iterator)

            method.train_function = call

        method.make_train_function = counting
        loop.fit(method, run_data(), settings, RunFolder(tmp_path / str(steps)), QUIET)
        ends[steps], calls[steps] = method.get_weights(), made
    assert calls == {1: list(range(11)), "auto": [0, 4, 8, 9, 10]}
    for one, other in zip(*ends.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    histories = [RunFolder(tmp_path / str(steps)).read_history() for steps in ends]
    for row, expected in zip(*histories, strict=True):
        assert {name: row[name] for name in row if "seconds" not in name} == {
            name: expected[name] for name in expected if "seconds" not in name
        }


def test_a_word_that_is_not_auto_is_refused():
    method = Supervised(student=tiny.plain_network("student"))
    with pytest.raises(ValueError, match="steps_per_execution='many' is not a whole number"):
        method.compile("sgd", steps_per_execution="many")
    method.compile("sgd", steps_per_execution="auto", run_eagerly=True)
    assert method.steps_per_execution == 1
