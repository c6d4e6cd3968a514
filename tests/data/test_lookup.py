import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data import lookup, pipeline
from mpl_tf.data.lookup import Lookup
from tests.data.test_pipeline import a_source, a_split, view


@pytest.fixture(params=[lookup.TENSOR_LIMIT, 0], ids=["small", "large"])
def limit(request, monkeypatch):
    monkeypatch.setattr(lookup, "TENSOR_LIMIT", request.param)
    return request.param


@pytest.mark.parametrize("shape", [(50,), (50, 3)], ids=str)
def test_entries_are_those_of_the_array(limit, shape):
    values = np.random.default_rng(0).integers(-5, 100, shape, np.int16)
    look_up, index = Lookup(values, tf.int64), np.array([7, 0, 49, 7])
    assert len(look_up) == 50
    eager = look_up(tf.constant(index))
    np.testing.assert_array_equal(eager, values[index])
    assert eager.dtype == tf.int64
    dataset = tf.data.Dataset.from_tensor_slices(index).batch(2, drop_remainder=True).map(look_up)
    assert dataset.element_spec == tf.TensorSpec((2, *shape[1:]), tf.int64)
    np.testing.assert_array_equal(np.concatenate(list(dataset.as_numpy_iterator())), values[index])


def test_a_large_array_is_not_copied_and_may_lie_in_a_file(monkeypatch, tmp_path):
    monkeypatch.setattr(lookup, "TENSOR_LIMIT", 0)
    values = np.arange(1000)
    assert np.shares_memory(Lookup(values, tf.int64).values, values)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    assert Lookup(mapped, tf.int32)(tf.constant([998, 3])).numpy().tolist() == [998, 3]


@pytest.mark.parametrize("balance", pipeline.BALANCES)
def test_batches_do_not_depend_on_the_way_of_looking_up(monkeypatch, balance):
    def drawn():
        batches = pipeline.training_batches(
            a_source(), a_split(), batch_size=4, unlabeled_ratio=2, weak=view, strong=view, balance=balance
        )
        shown = pipeline.evaluation_batches(a_source().train, [7, 3, 5], batch_size=2)
        return batches.element_spec, [*batches.take(3).as_numpy_iterator(), *shown.as_numpy_iterator()]

    spec, batches = drawn()
    monkeypatch.setattr(lookup, "TENSOR_LIMIT", 0)
    large_spec, large_batches = drawn()
    assert large_spec == spec
    for one, other in zip(batches, large_batches, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)
