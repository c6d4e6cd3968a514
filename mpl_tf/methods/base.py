"""What every training method shares: services, never control flow.

A method is a `keras.Model` made of networks with roles (a teacher, a student). It writes its own
`train_step`; from here it takes one optimizer per role, the descent step, the averaged student, the metrics,
evaluation, and saving. The networks are built before the method is, and the method is built when
`__init__` ends: under a strategy Keras would otherwise try to build it symbolically on the nested batch.
"""

from typing import ClassVar

import keras
import tensorflow as tf

from mpl_tf import distribute, schedules
from mpl_tf.methods import batch_refusals, constraints, loss_scaling, refusals
from mpl_tf.methods.constraints import Constraint, Number
from mpl_tf.methods.optimization import Optimization
from mpl_tf.methods.persistence import Persistence


class Method(Optimization, Persistence, keras.Model):
    """Base of the training methods.

    Args:
        networks: role → built `keras.Model` from pictures to logits. The role `"student"` is the one that is
            served: `call`, `evaluate` and `predict` mean it.
        auxiliary: role → built `keras.Model` that does not take pictures and is not evaluated (a generator, a
            calibrator).
        train_metrics: names of the scalars that `train_step` tracks.
        ema_decay: decay of the exponential moving average of the student's weights *and* BatchNorm
            statistics, warmed up as `schedules.average_decay`. Where it is kept, it is what is served. None
            keeps none.
        weight_decay: λ of an L2 penalty ½ λ ‖w‖² on the kernels of every network that learns.
        gradient_clip_norm: largest global norm of each network's gradient, weight decay included; None for no
            bound.
        name: name of the model.

    Raises:
        ValueError: when the networks do not fit each other, share weights, or end in a softmax.
    """

    # What every method's hyper-parameters may be; each class adds its own, see `constraints`.
    parameter_constraints: ClassVar[dict[str, Constraint]] = {
        "weight_decay": Number(),
        "gradient_clip_norm": Number(optional=True),
        "ema_decay": Number(high=1.0, optional=True),
    }
    # Whether `train_step` reads pictures; where it does not, `data.numbered_batches` is enough.
    takes_pictures = True
    # What makes a batch's views inside of the step, `mpl_tf.data.BatchViews`; None where the pipeline has made them.
    augmentation = None

    def __init__(
        self,
        networks: dict,
        *,
        auxiliary: dict | None = None,
        train_metrics: tuple,
        ema_decay: float | None,
        weight_decay: float,
        gradient_clip_norm: float | None,
        name: str | None,
    ):
        super().__init__(name=name)
        refusals.networks(networks, auxiliary)
        self.classifiers = tuple(networks)
        networks = {**networks, **(auxiliary or {})}
        self.roles = tuple(networks)
        for role, network in networks.items():
            setattr(self, role, network)
        self.ema_decay = ema_decay
        self.weight_decay = weight_decay
        self.gradient_clip_norm = gradient_clip_norm
        for parameter, constraint in Method.parameter_constraints.items():
            constraint.check(parameter, getattr(self, parameter))
        self.student_average = _clone(self.student) if ema_decay is not None else None
        # An own counter: loss-scaled optimizers skip steps, and theirs would differ from each other.
        self.step = self.add_state("step", dtype="int64")
        self.train_trackers = [keras.metrics.Mean(name=metric) for metric in train_metrics]
        self.scales_losses = loss_scaling.is_needed(networks.values())
        skipped = [f"{role}_skipped_steps" for role in networks if self.scales_losses]
        self.skip_trackers = [keras.metrics.Sum(name=metric) for metric in skipped]
        self.test_trackers = [keras.metrics.Mean(name="loss")]
        self.test_trackers += [keras.metrics.SparseCategoricalAccuracy(name=key) for key in self.evaluated()]
        self.built = True

    def check_parameters(self):
        """Checks every hyper-parameter by `parameter_constraints`, when the constructor has set them all."""
        constraints.check(self)

    # Keras calls this before the first batch; on a nested batch under MultiWorkerMirroredStrategy its
    # `strategy.reduce` fails, and there is nothing left to build. Private: see tests/methods/test_base.py.
    def _maybe_symbolic_build(self, *args, **kwargs):
        pass

    @property
    def served(self) -> keras.Model:
        """The network that `call`, `evaluate`, `predict` and the export mean."""
        return self.student if self.student_average is None else self.student_average

    def evaluated(self) -> dict:
        """Metric name → the network whose accuracy on labeled pictures it is."""
        others = {f"{role}_accuracy": getattr(self, role) for role in self.classifiers if role != "student"}
        return {"accuracy": self.served, **others}

    def call(self, inputs, training=False):
        """Logits `[B, K]` of the served student on pictures `[B, H, W, C]` in 0…255."""
        return self.served(inputs, training=training)

    def add_state(self, name: str, dtype: str = "float32", shape: tuple = (), initial: float = 0.0):
        """Numbers that start at `initial`, are the same on every replica, and are saved with the model."""
        shared = {"trainable": False, "aggregation": "only_first_replica"}
        initializer = keras.initializers.Constant(initial)
        state = self.add_weight(name=name, shape=shape, dtype=dtype, initializer=initializer, **shared)
        self.built = True
        return state

    # --- inside train_step -----------------------------------------------------------------------------

    def views(self, data: dict) -> dict:
        """The batch with its weak and strong views, which are made here where `augmentation` is set."""
        if self.augmentation is None:
            return data
        return self.augmentation(data)

    def finish_step(self, *, after):
        """Averages BatchNorm statistics over replicas, updates the averaged student, counts the step.

        Args:
            after: a tensor that was computed from the batch. TensorFlow runs what does not depend on the batch even
                when the dataset turns out to have ended, and that step is not to be counted.
        """
        for role in self.roles:
            distribute.average_moving_statistics(getattr(self, role).non_trainable_weights)
        if self.student_average is not None:
            decay = schedules.average_decay(self.step.value, self.ema_decay)
            for average, value in zip(self.student_average.weights, self.student.weights, strict=True):
                mixed = tf.cast(value, tf.float32) * (1.0 - decay) + tf.cast(average, tf.float32) * decay
                average.assign(tf.cast(mixed, average.dtype))
        with tf.control_dependencies([after]):
            self.step.assign_add(1)

    def track(self, **values):
        """Adds one step's scalars to the metrics and returns the running means, as `train_step` must.

        Args:
            **values: one scalar for each name in `train_metrics`.
        """
        for tracker in self.train_trackers:
            tracker.update_state(values.pop(tracker.name))
        refusals.all_tracked(values)
        return distribute.as_logs([*self.train_trackers, *self.skip_trackers])

    # --- labels of unlabeled pictures ------------------------------------------------------------------

    def label(self, images, index) -> tf.Tensor:
        """What the method would label unlabeled pictures with: the teacher where one learns, else the student.

        Args:
            images: float32 `[n, H, W, C]` in 0…255, not augmented.
            index: int64 `[n]`, their places among the training pictures; for methods that keep labels.

        Returns:
            float32 `[n, K]`, probabilities in inference mode; a row of zeros where there is no label yet.
        """
        return probabilities(self.teacher if hasattr(self, "teacher_optimizer") else self.student, images)

    def end_epoch(self, unlabeled: tf.data.Dataset) -> None:
        """What a method does between two epochs, before the checkpoint that has to hold it: here, nothing.

        Args:
            unlabeled: each unlabeled picture once and not augmented, `{"image", "index"}`.
        """

    # --- evaluation -------------------------------------------------------------------------------------

    def test_step(self, data):
        """Loss (nats) of the served student and accuracy of every network on labeled pictures."""
        images, labels = batch_refusals.evaluation_batch(data)
        loss, *accuracies = self.test_trackers
        for tracker, network in zip(accuracies, self.evaluated().values(), strict=True):
            logits = network(images, training=False)
            tracker.update_state(labels, logits)
            if tracker.name == "accuracy":
                entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, tf.cast(logits, tf.float32)
                )
                loss.update_state(entropies)
        return distribute.as_logs(self.test_trackers)


def probabilities(network: keras.Model, images) -> tf.Tensor:
    """A network's predictions `[n, K]` on pictures, in float32 and inference mode."""
    return tf.nn.softmax(tf.cast(network(images, training=False), tf.float32))


def _clone(network: keras.Model) -> keras.Model:
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    return clone
