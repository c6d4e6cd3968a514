import keras
import pytest
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.methods import base_validation
from mpl_tf.methods.base import Method
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


# --- a class of somebody's own -----------------------------------------------------------------------------


NO_OPTIONS = {"ema_decay": None, "weight_decay": 0.0, "global_clipnorm": None, "name": None}


class Own(Method):
    """Two networks, of which the student learns."""

    def __init__(self, teacher, student, tracked=("loss",)):
        super().__init__({"teacher": teacher, "student": student}, train_metrics=tracked, **NO_OPTIONS)
        self.tracked = tracked

    def losses(self, data):
        return losses.cross_entropy(data["label"], self.training_logits("student", data["image"]))

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.losses(data["labeled"]))
        gradients = self.gradients(tape, student=loss)["student"]
        self.end_step(after=self.apply_gradients("student", gradients))
        return self.update_metrics(loss=loss)


def own(kind=Own, **settings):
    return kind(tiny.plain_network("teacher"), tiny.plain_network("student", seed=1), **settings)


def test_a_class_of_ones_own_that_is_right(batch):
    method = own()
    method.compile("sgd", run_eagerly=True)
    loss = method.losses(batch["labeled"]).numpy().mean()
    assert float(method.train_step(batch)["loss"]) == pytest.approx(loss)
    assert int(method.step) == 1


def test_networks_without_a_student():
    class Nobody(Method):
        def __init__(self, teacher):
            super().__init__({"teacher": teacher}, train_metrics=(), **NO_OPTIONS)

    with pytest.raises(
        ValueError, match=r"have the roles 'teacher', and 'student' is the one that .* this role"
    ):
        Nobody(tiny.plain_network("teacher"))


def test_an_argument_that_is_not_kept_is_named_before_training():
    class Forgetful(Own):
        def __init__(self, teacher, student, strength=1.0, **options):
            super().__init__(teacher, student, **options)

    method = own(Forgetful)
    with pytest.raises(
        ValueError, match=r"Forgetful does not keep the argument 'strength'.*set self\.strength ="
    ):
        method.compile("sgd")
    # Who saves a class in another way need not.
    Forgetful.get_config = lambda self: {}
    method.compile("sgd")


@pytest.mark.parametrize(
    "optimizers", [{"teacher_optimizer": "sgd", "student_optimizer": "sgd"}, {"optimizer": "sgd"}]
)
def test_two_learners_without_a_compile_of_their_own(optimizers):
    class Two(Own):
        learners = ("teacher", "student")

    message = (
        "Two trains the teacher and the student, and the compile that it has is for a student alone: give the class "
        "one that takes teacher_optimizer and student_optimizer"
    )
    with pytest.raises(ValueError, match=message):
        own(Two).compile(**optimizers)


def test_a_training_pass_and_a_step_of_a_network_that_does_not_learn(batch):
    method = own()
    method.compile("sgd", run_eagerly=True)
    message = r"The teacher is none of the learners \('student',\) of Own: add it to them, and an optimizer"
    with pytest.raises(ValueError, match=message):
        method.training_logits("teacher", batch["labeled"]["image"])
    with pytest.raises(ValueError, match=message):
        method.apply_gradients("teacher", [])


def test_a_loss_for_each_example(batch):
    method = own()
    method.compile("sgd", run_eagerly=True)
    with tf.GradientTape() as tape:
        several = method.losses(batch["labeled"])
    with pytest.raises(ValueError, match=rf"student has the shape \({len(several)},\), .*sum: pass the mean"):
        method.gradients(tape, student=several)


def test_a_metric_without_a_value(batch):
    method = own(tracked=("loss", "norm"))
    method.compile("sgd", run_eagerly=True)
    with pytest.raises(
        ValueError, match=r"The metrics \['norm'\] were declared and have no value: pass them"
    ):
        method.train_step(batch)


def test_a_step_that_is_not_ended(batch):
    class Endless(Own):
        def end_step(self, **options):
            pass

    method = own(Endless)
    method.compile("sgd", run_eagerly=True)
    with pytest.raises(ValueError, match=r"Endless does not end its step.*call self\.end_step\(after=…\)"):
        method.train_step(batch)
