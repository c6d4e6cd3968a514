"""From a student that has just learned to the gradient that its teacher gets: step 3 of Meta Pseudo Labels.

Joins the estimators of `mpl_tf.feedback` with a real network. The student is run at its old and new weights
with the random state, the BatchNorm mode and the pictures of one moment, so that the two differ by its
weights alone and not by dropout or BatchNorm noise, which is larger than the signal.
"""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from mpl_tf import distribute, feedback, losses, schedules
from mpl_tf.feedback_settings import FeedbackSettings
from mpl_tf.methods import loss_scaling, refusals
from mpl_tf.methods.training_pass import TrainingPass, tensors


class Snapshot:
    """A network's weights and random state before a step, and its logits as a function of the weights.

    Args:
        training_pass: the student's, before it learns.
        optimizer: its optimizer, before that.
    """

    def __init__(self, training_pass: TrainingPass, optimizer: keras.optimizers.Optimizer):
        self.training_pass = training_pass
        self.network = training_pass.network
        # η of the coming step; Nesterov's momentum m moves the weights by η (1 + m) times a new gradient.
        inner = loss_scaling.inner(optimizer)
        boost = 1.0 + inner.momentum if getattr(inner, "nesterov", False) else 1.0
        self.learning_rate = tf.cast(optimizer.learning_rate, tf.float32) * boost
        self.loss_scale = loss_scaling.scale(optimizer)
        self.weights = tensors(self.network.trainable_variables)
        self.state = tensors(self.network.non_trainable_variables)

    def logits(self, images: tf.Tensor, weights: list) -> tf.Tensor:
        """Logits float32 `[B, K]` in training mode; neither weights nor moving statistics change."""
        return self.training_pass(images, weights, self.state)[0]

    def slopes(self, images: tf.Tensor, weights: list, direction: list, method: Callable) -> tf.Tensor:
        """Derivative of the logits at these weights along a direction, float32 `[B, K]`."""
        return self.training_pass.derivative(images, weights, self.state, along=direction, method=method)


def on_teacher_logits(
    settings: FeedbackSettings,
    before: Snapshot,
    data: dict,
    *,
    step: tf.Tensor,
    teacher_logits: tf.Tensor,
    student_logits: tf.Tensor,
    student_gradients: list,
    sampled_labels: tf.Tensor | None,
    baseline: keras.Variable,
):
    """The feedback's gradient on the teacher's logits.

    Args:
        settings: which estimator, and how strong.
        before: the student as it was when it learned; its network is already at the new weights.
        data: the batch.
        step: int64 scalar, for the warm-up.
        teacher_logits: float32 `[N, K]` on the pictures that the student learned from.
        student_logits: float32 `[N, K]`, the student's at its old weights.
        student_gradients: what the student descended, averaged over the replicas.
        sampled_labels: int64 `[N]` where the student learned from a draw, else None.
        baseline: float32 scalar variable, the moving average of a scalar feedback.

    Returns:
        float32 `[N, K]`, to be averaged over the replicas like any gradient of a mean, and a dict of scalars
        to track: `feedback`, the size before normalization, and `student_labeled_loss`.
    """
    if settings.estimator == "none":
        return tf.zeros_like(teacher_logits), {}
    labels = data["labeled"]["label"]
    unlabeled_logits = functools.partial(before.logits, data["unlabeled"]["strong"])
    labeled_logits = functools.partial(before.logits, data["labeled"]["image"])

    def labeled_loss(weights):
        return tf.reduce_mean(losses.cross_entropy(labels, labeled_logits(weights)))

    new_weights = tensors(before.network.trainable_variables)
    with tf.GradientTape() as tape:
        tape.watch(new_weights)
        new_loss = labeled_loss(new_weights)
    labeled_gradients = tape.gradient(new_loss, new_weights, output_gradients=before.loss_scale)
    labeled_gradients = distribute.replica_mean(loss_scaling.unscaled(labeled_gradients, before.loss_scale))
    if before.loss_scale is not None:
        # Where the student skips its step, or v itself overflows float16, nothing is fed back.
        both = loss_scaling.zero_unless_finite([*labeled_gradients, *student_gradients])
        labeled_gradients, student_gradients = both[: len(new_weights)], both[len(new_weights) :]

    if settings.estimator == "per_example":
        slopes = _slopes(settings, data["unlabeled"]["strong"], before, labeled_gradients, student_logits)
        gradient, size = _per_example(settings, teacher_logits, slopes, before.learning_rate)
    elif settings.estimator == "unrolled":
        refusals.one_replica_only("unrolled", distribute.replica_count())
        refusals.plain_pass_only("unrolled", before.training_pass)
        gradient = feedback.unrolled(
            teacher_logits,
            unlabeled_logits,
            labeled_loss,
            before.weights,
            learning_rate=before.learning_rate,
        )
        size = tf.norm(gradient)
    else:
        if settings.estimator == "dot_product":
            size = feedback.dot_product(
                labeled_gradients, student_gradients, learning_rate=before.learning_rate
            )
            moved = [before.learning_rate * slope for slope in student_gradients]
        else:
            size = distribute.replica_mean(labeled_loss(before.weights) - new_loss)
            moved = [old - new for old, new in zip(before.weights, new_weights, strict=True)]
        if settings.normalization == "cosine":
            size = feedback.cosine(size, labeled_gradients, moved)
        gradient = _scalar(settings, teacher_logits, sampled_labels, size, baseline)

    weight = settings.weight * schedules.linear_ramp(step, settings.warmup_steps)
    # A student whose learning rate is still zero has learned nothing that could be fed back.
    weight = tf.where(before.learning_rate > 0.0, weight, 0.0)
    return weight * gradient, {"feedback": size, "student_labeled_loss": new_loss}


def _slopes(settings, images, before, direction, student_logits):
    # TensorFlow would start this pass, which needs the old weights only, beside the student's own, and hold the
    # activations of both.
    with tf.control_dependencies(direction):
        weights = [tf.identity(weight) for weight in before.weights]
    if settings.finite_difference:
        unlabeled_logits = functools.partial(before.logits, images)
        return feedback.finite_difference(unlabeled_logits, weights, direction, outputs=student_logits)
    derivative = feedback.directional_derivative
    if distribute.replica_count() > 1:
        derivative = feedback.directional_derivative_by_reverse
    if before.loss_scale is None:
        return before.slopes(images, weights, direction, derivative)
    # The derivative is linear in the direction, whose numbers may be too small for float16.
    length = tf.maximum(tf.linalg.global_norm(direction), 1e-12)
    return length * before.slopes(images, weights, [slope / length for slope in direction], derivative)


def _per_example(settings, teacher_logits, slopes, learning_rate):
    probabilities = tf.nn.softmax(teacher_logits)
    centered = slopes - tf.reduce_sum(probabilities * slopes, axis=-1, keepdims=True)
    size = tf.sqrt(distribute.replica_mean(tf.reduce_mean(tf.square(centered))))
    if settings.normalization == "raw":
        return feedback.per_example(teacher_logits, slopes, learning_rate=learning_rate), size
    values = feedback.normalize(centered, root_mean_square=size, floor=settings.floor, clip=settings.clip)
    return feedback.per_example(teacher_logits, values, learning_rate=1.0), size


def _scalar(settings, teacher_logits, sampled_labels, value, baseline):
    if settings.baseline_decay:
        centered = value - baseline.value
        baseline.assign_add((1.0 - settings.baseline_decay) * centered)
        value = centered
    if settings.clip is not None:
        value = tf.clip_by_value(value, -settings.clip, settings.clip)
    gradient = feedback.scalar(teacher_logits, sampled_labels, value)
    if settings.cross_entropy == "mean":
        return gradient / tf.cast(tf.shape(teacher_logits)[0], tf.float32)
    # The caller averages over the replicas, but a sum over the global batch is not to be averaged.
    return gradient * distribute.replica_count()
