import keras
import pytest
import tensorflow as tf

from mpl_tf.methods import base_validation
from mpl_tf.methods.mpl import MetaPseudoLabels
from tests.support import tiny


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"use_ema": True}, "optimizer has use_ema=True.*pass ema_decay to the method instead"),
        ({"clipnorm": 1.0}, "optimizer clips gradients.*pass global_clipnorm to the method instead"),
        ({"global_clipnorm": 1.0}, "optimizer clips gradients.*pass global_clipnorm"),
        ({"clipvalue": 1.0}, "optimizer clips gradients.*pass global_clipnorm"),
        ({"loss_scale_factor": 128.0}, r"optimizer has loss_scale_factor=128\.0 and divides gradients by it"),
        (
            {"gradient_accumulation_steps": 4},
            "optimizer has gradient_accumulation_steps=4.*pass micro_batches",
        ),
    ],
)
def test_optimizer_options_that_go_wrong(role, option, message):
    method = MetaPseudoLabels(teacher=tiny.network("teacher"), student=tiny.network("student", seed=1))
    optimizers = {"teacher_optimizer": "sgd", "student_optimizer": "sgd"}
    optimizers[f"{role}_optimizer"] = keras.optimizers.SGD(0.1, **option)
    with pytest.raises(ValueError, match=f"The {role}'s {message}"):
        method.compile(**optimizers)


def test_an_optimizer_that_is_made_of_several():
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD(clipnorm=1.0))
    )
    method = MetaPseudoLabels(teacher=tiny.network("teacher"), student=tiny.network("student", seed=1))
    with pytest.raises(
        ValueError, match=r"The student's optimizer is made of several.*backbone_learning_rate_f"
    ):
        method.compile("sgd", several)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_an_optimizer_for_a_frozen_network(role):
    method = MetaPseudoLabels(teacher=tiny.network("teacher"), student=tiny.network("student", seed=1))
    getattr(method, role).trainable = False
    with pytest.raises(
        ValueError, match=f"The {role} has no trainable weights, so its optimizer has nothing"
    ):
        method.compile("sgd", "sgd")


def test_a_loss_scaling_optimizer_is_refused_where_nothing_computes_in_float16():
    method = MetaPseudoLabels(teacher=tiny.network("teacher"), student=tiny.network("student", seed=1))
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"The student's optimizer scales its loss, for mixed_float16"):
        method.compile("sgd", scaling)


def test_batches_that_do_not_divide_over_the_replicas():
    batches = tiny.dataset(labeled=4, unlabeled=6)
    with pytest.raises(
        ValueError, match="Batches of 6 do not divide over 4 replicas: choose a multiple of 4"
    ):
        base_validation.check_batches_divide(batches, 4)
    for fitting in (batches, tiny.numbers(), [1], tf.data.Dataset.range(3)):
        assert base_validation.check_batches_divide(fitting, 2) is None
