"""SGD's step as one operation per weight, against Keras' own optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.engine.momentum import MomentumSteps
from mpl_tf.methods.supervised import Supervised
from tests.support import graphs, tiny

OPTIONS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "schedule": {
        "momentum": 0.5,
        "learning_rate": keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.3, 0.01]),
    },
}
NOT_PLAIN = {
    "weight decay": {"weight_decay": 1e-3},
    "clipping": {"global_clipnorm": 1.0},
    "averages": {"use_ema": True},
    "accumulation": {"gradient_accumulation_steps": 2},
}


def optimizer(**options):
    return keras.optimizers.SGD(**{"learning_rate": 0.1, **options})


def variables(dtype):
    return [keras.Variable(np.full(shape, 0.5), dtype=dtype) for shape in ((2, 3), (3,))]


def gradients(step, dtype):
    generator = np.random.default_rng(step)
    return [tf.constant(generator.normal(size=shape), dtype) for shape in ((2, 3), (3,))]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_steps_are_the_optimizers(options, dtype):
    (ours, theirs), (moved, expected) = (
        [optimizer(**options) for _ in range(2)],
        [variables(dtype) for _ in range(2)],
    )
    steps = MomentumSteps(ours, moved)
    for step in range(3):
        assert steps.apply(gradients(step, dtype))
        theirs.apply(gradients(step, dtype), expected)
    assert int(ours.iterations) == 3
    for one, other in zip([*moved, *ours.variables], [*expected, *theirs.variables], strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-6)


@pytest.mark.parametrize("options", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_does_more_is_left_to_the_optimizer(options):
    moved = variables("float32")
    assert not MomentumSteps(optimizer(**options), moved).apply(gradients(0, "float32"))
    assert all((np.array(variable) == 0.5).all() for variable in moved)


def test_so_are_other_optimizers_other_gradients_and_slots_of_an_unknown_order():
    moved, dense = variables("float32"), gradients(0, "float32")
    assert not MomentumSteps(keras.optimizers.Adam(), moved).apply(dense)
    assert not MomentumSteps(keras.optimizers.LossScaleOptimizer(optimizer()), moved).apply(dense)
    sparse = tf.IndexedSlices(tf.ones([1, 3]), tf.constant([1]), dense_shape=tf.constant([2, 3]))
    assert not MomentumSteps(optimizer(), moved).apply([sparse, dense[1]])
    assert not MomentumSteps(optimizer(), moved).apply([None, dense[1]])
    built = optimizer()
    built.build(moved[::-1])
    assert not MomentumSteps(built, moved).apply(dense)
    bounded = [keras.Variable(np.ones(shape), dtype="float32") for shape in ((2, 3), (3,))]
    bounded[0].constraint = keras.constraints.NonNeg()
    assert not MomentumSteps(optimizer(), bounded).apply(dense)
    assert all((np.array(variable) == 0.5).all() for variable in moved)


def test_a_step_of_a_method_has_one_update_per_weight(batch):
    method = Supervised(student=tiny.network("student"), ema_decay=None)
    method.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    found = graphs.operations(method.train_step, batch)
    assert found.count("ResourceApplyKerasMomentum") == len(method.student.trainable_variables)
