"""The student's step in Meta Pseudo Labels, and what it tells the teacher: steps 2 and 3 of Algorithm 1.

`student_step` is shared by `MetaPseudoLabels` and `ReducedMetaPseudoLabels`. It joins the estimators beside
this file with a real network: the student is run at its old and new weights with the random state, the
BatchNorm mode and the images of one moment, so that the two differ by its weights alone and not by dropout or
BatchNorm noise, which is larger than the signal.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from mpl_tf import losses, schedules
from mpl_tf.data.batches import batch_size
from mpl_tf.distribute import replicas
from mpl_tf.methods import validation
from mpl_tf.methods.engine import loss_scaling, sampling
from mpl_tf.methods.engine.microbatching import TrainingPass, tensors
from mpl_tf.methods.feedback import estimators
from mpl_tf.methods.feedback.estimators import Weights
from mpl_tf.methods.feedback.settings import FeedbackSettings


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
        nesterov_factor = 1.0 + inner.momentum if getattr(inner, "nesterov", False) else 1.0
        self.learning_rate = tf.cast(optimizer.learning_rate, tf.float32) * nesterov_factor
        self.loss_scale = loss_scaling.scale(optimizer)
        self.weights = tensors(self.network.trainable_variables)
        self.state = tensors(self.network.non_trainable_variables)

    def logits(self, images: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Logits float32 `[B, K]` in training mode; neither weights nor moving statistics change."""
        return self.training_pass(images, list(weights), self.state, statistics=False)[0]

    def jvp(
        self,
        images: tf.Tensor,
        direction: list[tf.Tensor],
        *,
        transposed: estimators.TransposedGradient | None = None,
    ) -> tf.Tensor:
        """Derivative of the logits at these weights along a direction.

        Args:
            images: `[B, H, W, C]`.
            direction: of the trainable weights' shapes, the same on every replica.
            transposed: of logits on these images, or on some of them, whose gradient has been recorded; None where
                the images are to be passed once more.

        Returns:
            float32 `[B, K]`, or as many rows as `transposed` has.

        Raises:
            ValueError: for a network with an operation that TensorFlow cannot differentiate twice.
        """
        try:
            return self._jvp(images, direction, transposed)
        except LookupError as error:
            raise ValueError(
                f"TensorFlow has no second derivative of an operation of {self.network.name!r} ({error}): build it "
                "without, or, for a feedback, pass FeedbackSettings(finite_difference=True)."
            ) from error

    def _jvp(self, images, direction, transposed):
        length = 1.0
        if self.loss_scale is not None:
            # The derivative is linear in the direction, whose numbers may be too small for float16.
            length = tf.maximum(tf.linalg.global_norm(direction), 1e-12)
            direction = [tangent / length for tangent in direction]
        if transposed is not None:
            if self.loss_scale is None:
                return transposed.directional_derivative(direction)
            # The gradients have been divided by the scale.
            scaled = [tangent * self.loss_scale for tangent in direction]
            return length / self.loss_scale * transposed.directional_derivative(scaled)
        derivative = estimators.directional_derivative
        if replicas.replica_count() > 1:
            derivative = estimators.directional_derivative_by_reverse
        weights = self.weights_after(direction)
        return length * self.training_pass.derivative(
            images, weights, self.state, along=direction, method=derivative
        )

    def weights_after(self, computed: list[tf.Tensor]) -> list[tf.Tensor]:
        """These weights, for a pass that is to begin when something else has been computed.

        TensorFlow would start a pass that needs the old weights only beside the student's own, and hold the
        activations of both.
        """
        with tf.control_dependencies(computed):
            return [tf.identity(weight) for weight in self.weights]


@dataclasses.dataclass(frozen=True)
class FeedbackState:
    """What the feedback of a method remembers, saved with it.

    Args:
        baseline: float32 scalar variable, the moving average of a scalar feedback.
        mean_size: float32 scalar variable, the mean size of the per-example feedback over the training so far.
    """

    baseline: keras.Variable
    mean_size: keras.Variable

    @classmethod
    def of(cls, method: Any) -> "FeedbackState":
        """The state of a method that is being built."""
        return cls(*(method.add_state(f"feedback_{field.name}") for field in dataclasses.fields(cls)))

    def mean_with(self, size: tf.Tensor, *, step: tf.Tensor) -> tf.Tensor:
        """The mean size with that of this step, the `step`-th from 0."""
        mean = self.mean_size.value + (size - self.mean_size.value) / (tf.cast(step, tf.float32) + 1.0)
        # One overflow is not to stay in the mean for good.
        self.mean_size.assign(tf.where(tf.math.is_finite(mean), mean, self.mean_size.value))
        return self.mean_size.value


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What an estimator of the feedback may look at, once the student has made its step.

    Args:
        before: the student as it was when it learned; its network is already at the new weights.
        images: `[M, H, W, C]` that it learned from, of which the last N are unlabeled.
        teacher_logits: float32 `[N, K]`, of what the student learned.
        sampled_labels: int64 `[N]` where it learned from a draw, else None.
        student_logits: float32 `[N, K]` at the old weights.
        student_gradients: g, what it descended, averaged over the replicas.
        transposed: what knows the student's derivative along any direction from how these came about; None where it
            was not recorded.
        labeled_loss: weights → L_l, the loss on the labeled images or on the trusted ones of them, a scalar.
        other_loss: weights → what it minimized beside the cross-entropy to the pseudo labels; None for nothing.
        new_weights: θ_S'.
        new_loss: L_l(θ_S').
        step: int64 scalar, of the training, from 0.
        labeled_gradients: v, the gradient of L_l at θ_S', averaged over the replicas.
        direction: F v, which is v but for a backbone that makes smaller steps, where it is v times their factor: with
            θ_S' = θ_S - η F g, it is what a change of g meets.
        state: what the feedback remembers from step to step.
    """

    before: Snapshot
    images: tf.Tensor
    teacher_logits: tf.Tensor
    sampled_labels: tf.Tensor | None
    student_logits: tf.Tensor
    student_gradients: list[tf.Tensor]
    transposed: estimators.TransposedGradient | None
    labeled_loss: Callable[[Weights], tf.Tensor]
    other_loss: Callable[[Weights], tf.Tensor] | None
    new_weights: list[tf.Tensor]
    new_loss: tf.Tensor
    step: tf.Tensor
    labeled_gradients: list[tf.Tensor]
    direction: list[tf.Tensor]
    state: FeedbackState

    def unlabeled_logits(self, weights: Weights) -> tf.Tensor:
        """The student's logits `[N, K]` on the unlabeled images at these weights."""
        return self.before.logits(self.images, weights)[-self.count :]

    @property
    def count(self) -> int | tf.Tensor:
        """N."""
        return batch_size(self.teacher_logits)


# From settings and evidence to the gradient on the teacher's logits, float32 [N, K], to be averaged over the replicas
# like any gradient of a mean, and the feedback's size before normalization, a scalar.
Estimator = Callable[[FeedbackSettings, Evidence], tuple[tf.Tensor, tf.Tensor]]


def per_example(settings: FeedbackSettings, evidence: Evidence) -> tuple[tf.Tensor, tf.Tensor]:
    """The exact gradient through the derivative of the student's logits along F v, an `Estimator`."""
    tangents = _tangents(settings, evidence)
    if settings.placebo:
        tangents = tf.roll(tangents, shift=1, axis=0)
    probabilities = tf.nn.softmax(evidence.teacher_logits)
    centered = tangents - tf.reduce_sum(probabilities * tangents, axis=-1, keepdims=True)
    size = tf.sqrt(replicas.replica_mean(tf.reduce_mean(tf.square(centered))))
    values, learning_rate = tangents, evidence.before.learning_rate
    if settings.normalization == "rms":
        # Relative to the mean: sizes differ between networks by orders of magnitude.
        floor = settings.floor * evidence.state.mean_with(size, step=evidence.step)
        values = estimators.normalize(centered, root_mean_square=size, floor=floor, clip=settings.clip)
        learning_rate = 1.0
    return estimators.per_example(evidence.teacher_logits, values, learning_rate=learning_rate), size


def unrolled(settings: FeedbackSettings, evidence: Evidence) -> tuple[tf.Tensor, tf.Tensor]:
    """Automatic differentiation through the student's whole step, an `Estimator`."""
    gradient = estimators.unrolled(
        evidence.teacher_logits,
        evidence.unlabeled_logits,
        evidence.labeled_loss,
        evidence.before.weights,
        learning_rate=evidence.before.learning_rate,
        other_loss=evidence.other_loss,
    )
    return gradient, tf.norm(gradient)


def dot_product(settings: FeedbackSettings, evidence: Evidence) -> tuple[tf.Tensor, tf.Tensor]:
    """The paper's scalar h = η ⟨F v, g⟩, an `Estimator`."""
    learning_rate = evidence.before.learning_rate
    value = estimators.dot_product(
        evidence.direction, evidence.student_gradients, learning_rate=learning_rate
    )
    moved = [tf.cast(learning_rate, g.dtype) * g for g in evidence.student_gradients]
    return _scalar(settings, evidence, value, gradients=evidence.direction, moved=moved)


def loss_difference(settings: FeedbackSettings, evidence: Evidence) -> tuple[tf.Tensor, tf.Tensor]:
    """The scalar h = L_l(θ_S) - L_l(θ_S'), old minus new, an `Estimator`."""
    weights = evidence.before.weights
    value = replicas.replica_mean(evidence.labeled_loss(weights) - evidence.new_loss)
    moved = [old - new for old, new in zip(weights, evidence.new_weights, strict=True)]
    # The weights have moved by their factors already.
    return _scalar(settings, evidence, value, gradients=evidence.labeled_gradients, moved=moved)


ESTIMATORS: dict[str, Estimator] = {
    "per_example": per_example,
    "unrolled": unrolled,
    "dot_product": dot_product,
    "loss_difference": loss_difference,
}


@dataclasses.dataclass(frozen=True)
class StudentStep:
    """What a student's step leaves to its method.

    Args:
        loss: what it minimized, a scalar.
        logits: float32 `[N, K]`, at its old weights, on the unlabeled images.
        gradient_norm: a scalar.
        feedback_on_logits: float32 `[N, K]`, the gradient on the teacher's logits; zeros without a feedback.
        metrics: name → scalar, for `Method.update_metrics`.
    """

    loss: tf.Tensor
    logits: tf.Tensor
    gradient_norm: tf.Tensor
    feedback_on_logits: tf.Tensor
    metrics: dict[str, tf.Tensor]


def check_compiled(method: Any) -> None:
    """Checks that the estimator of a method that has been compiled can be computed for its student's step.

    Args:
        method: with a `feedback`.

    Raises:
        ValueError: for a step that the estimator cannot go through.
    """
    if method.feedback.estimator == "unrolled":
        validation.check_one_replica("unrolled", replicas.replica_count())
        validation.check_plain_pass("unrolled", method.student_pass)
        validation.check_one_learning_rate("unrolled", method.backbone_learning_rate_factor)


def student_step(
    method: Any, data: dict, *, teacher_logits: tf.Tensor, labeled_weight: float = 0.0
) -> StudentStep:
    """The student learns what its teacher says about the strong views, and feeds back how much that helped it.

    Args:
        method: whose `student` learns, with `feedback`, `feedback_on`, `feedback_state`, `student_labels` and `seed`.
        data: the batch.
        teacher_logits: float32 `[N, K]`, what the student is to learn on the unlabeled images.
        labeled_weight: factor on the student's own cross-entropy with the labels; 0 as in the paper.

    Returns:
        What the method needs of it. No gradient reaches the teacher: that is what the feedback is for.
    """
    images, labels = data["unlabeled"]["strong"], data["labeled"]["label"]

    # ŷ_u ~ T(x_u; θ_T)
    targets, sampled_labels = sampling.student_targets(
        tf.stop_gradient(teacher_logits), method.student_labels, seed=method.seed, step=method.step.value
    )

    # θ_S' = θ_S - η_S ∇ CE(ŷ_u, S(x_u; θ_S)); the old weights and random state stay at hand.
    before = Snapshot(method.student_pass, method.student_optimizer)
    count = batch_size(images)
    other_loss, metrics = None, {}
    if labeled_weight:
        images = tf.concat([data["labeled"]["image"], images], axis=0)

        def labeled_losses(logits):
            smoothing = method.label_smoothing
            return losses.cross_entropy(labels, logits[:-count], label_smoothing=smoothing)

        def mean_labeled_loss(logits):
            return losses.weighted_mean(labeled_losses(logits), data["labeled"].get("weight"))

        def other_loss(weights):
            return labeled_weight * mean_labeled_loss(before.logits(images, weights))

    transposed = None
    transposable = _can_transpose(method.feedback, before.training_pass)
    with tf.GradientTape() as tape:
        logits = before.training_pass.logits(images, transposable=transposable)
        loss = descended = tf.reduce_mean(losses.soft_cross_entropy(targets, logits[-count:]))
        if labeled_weight:
            metrics["labeled_loss"] = mean_labeled_loss(logits)
            loss = descended = loss + labeled_weight * metrics["labeled_loss"]
        if transposable:
            transposed = estimators.TransposedGradient(logits[-count:])
            descended = loss + transposed.term

    def descended_gradients():
        return method.gradients(tape, student=descended)["student"]

    student_gradients = transposed.record(descended_gradients) if transposed else descended_gradients()
    gradient_norm = method.apply_gradients("student", student_gradients)
    logits = logits[-count:]

    # h: how much better the student has become on the labeled images.
    feedback_on_logits = tf.zeros_like(teacher_logits)
    if method.feedback.estimator != "none":
        new_weights = tensors(before.network.trainable_variables)
        labeled_loss = _labeled_loss(before, data, on=method.feedback_on)
        new_loss, labeled_gradients = _loss_and_gradients(before, labeled_loss, new_weights)
        if before.loss_scale is not None:
            # Where the student skips its step, or v itself overflows float16, nothing is fed back.
            both = loss_scaling.zero_unless_finite([*labeled_gradients, *student_gradients])
            labeled_gradients, student_gradients = both[: len(new_weights)], both[len(new_weights) :]
        evidence = Evidence(
            before=before,
            images=images,
            teacher_logits=teacher_logits,
            sampled_labels=sampled_labels,
            student_logits=logits,
            student_gradients=student_gradients,
            transposed=transposed,
            labeled_loss=labeled_loss,
            other_loss=other_loss,
            new_weights=new_weights,
            new_loss=new_loss,
            labeled_gradients=labeled_gradients,
            direction=method.backbone_steps["student"].scale(labeled_gradients),
            state=method.feedback_state,
            step=method.step.value,
        )
        feedback_on_logits, size = _weighted_feedback(method.feedback, evidence)
        metrics |= {"feedback": size, "student_labeled_loss": new_loss}
    return StudentStep(loss, logits, gradient_norm, feedback_on_logits, metrics)


def _weighted_feedback(settings, evidence):
    """The gradient on the teacher's logits, float32 `[N, K]`, with the feedback's weight at this step; its size."""
    gradient, size = ESTIMATORS[settings.estimator](settings, evidence)
    weight = settings.weight * schedules.linear_ramp(evidence.step, settings.warmup_steps)
    # A student whose learning rate is still zero has learned nothing that could be fed back.
    weight = tf.where(evidence.before.learning_rate > 0.0, weight, 0.0)
    return tf.stop_gradient(weight * tf.cast(gradient, tf.float32)), size


def _labeled_loss(before, data, *, on):
    """L_l as a function of the student's weights: on all labeled images, or on the trusted ones alone.

    Where classes are weighted, it is the weighted loss too: the teacher is to be praised for what helps the student
    by the measure that the run minimizes, or the feedback would pull it back to the frequent classes.
    """
    example_weights = data["labeled"].get("weight")
    if on == "trusted":
        example_weights = subset_weights(data["labeled"]["trusted"], example_weights)

    def labeled_loss(weights):
        logits = before.logits(data["labeled"]["image"], weights)
        labeled_losses = losses.cross_entropy(data["labeled"]["label"], logits)
        return losses.weighted_mean(labeled_losses, example_weights)

    return labeled_loss


def subset_weights(subset: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """Weights that make `losses.weighted_mean` the mean over some images of the global batch, as the trusted ones.

    A replica divides by its own B, and replicas average: 1/B Σ t_i L_i / t̄, with t̄ over all of them, is
    Σ t_i L_i / Σ t_i, however unequally the chosen images lie.

    Args:
        subset: bool `[B]`, which images.
        weights: float `[B]`, what each of them counts for beside that; None for all alike.

    Returns:
        float32 `[B]`; zeros where the global batch has none of them.
    """
    chosen = tf.cast(subset, tf.float32)
    scaled = tf.math.divide_no_nan(chosen, replicas.replica_mean(tf.reduce_mean(chosen)))
    return scaled if weights is None else scaled * tf.cast(weights, tf.float32)


def _loss_and_gradients(before, labeled_loss, weights):
    """L_l and v, its gradient, of the global batch and without a loss scale."""
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = labeled_loss(weights)
    gradients = tape.gradient(loss, weights, before.loss_scale, tf.UnconnectedGradients.ZERO)
    return loss, replicas.replica_mean(loss_scaling.unscaled(gradients, before.loss_scale))


def _can_transpose(settings, training_pass):
    """Whether the tangents come from the gradient that the student descends.

    Not in micro-batches, nor where activations are not kept, nor on several replicas: there v has been averaged over
    them when the derivative is taken, and the gradient that it is taken of has too.
    """
    exact = settings.estimator == "per_example" and not settings.finite_difference
    return exact and training_pass.is_plain and replicas.replica_count() == 1


def _tangents(settings, evidence):
    """u: the derivative of the student's logits `[N, K]` on the unlabeled images along F v, at its old weights."""
    before, direction = evidence.before, evidence.direction
    if settings.finite_difference:
        weights = before.weights_after(direction)
        return estimators.finite_difference(
            evidence.unlabeled_logits, weights, direction, outputs=evidence.student_logits
        )
    return before.jvp(evidence.images, direction, transposed=evidence.transposed)[-evidence.count :]


def _scalar(settings, evidence, value, *, gradients, moved):
    """The gradient for one value of the whole batch, the inner product of these two, exactly or to first order."""
    if settings.normalization == "cosine":
        value = estimators.cosine(value, gradients, moved)
    size = value = tf.cast(value, tf.float32)
    if settings.baseline_decay:
        value -= evidence.state.baseline.value
        evidence.state.baseline.assign_add((1.0 - settings.baseline_decay) * value)
    if settings.clip is not None:
        value = tf.clip_by_value(value, -settings.clip, settings.clip)
    gradient = estimators.scalar(evidence.teacher_logits, evidence.sampled_labels, value)
    if settings.cross_entropy == "mean":
        return gradient / tf.cast(evidence.count, tf.float32), size
    # The caller averages over the replicas, but a sum over the global batch is not to be averaged.
    return gradient * replicas.replica_count(), size
