"""Reduced Meta Pseudo Labels (Pham, Dai, Xie, Le; CVPR 2021; arXiv 2003.10580, appendix).

For when teacher and student do not fit in memory together. A large teacher T labels all images once, and its
distributions are stored. A small network T' takes T's place: it adjusts T's distribution of an image, and is
trained by the student's feedback as Algorithm 1 trains the teacher.

1. The adjusted label of an unlabeled image:         ŷ_u = T'(log T(x_u); θ_T')
2. The student learns from it:                         θ_S' = θ_S - η_S ∇ CE(ŷ_u, S(x_u; θ_S))
3. The student's success on labeled images flows back into θ_T'.

| paper | here |
|---|---|
| T(x_u), stored | `data["unlabeled"]["probabilities"]` |
| T' | `self.calibrator`, see `models.build_calibrator` |
| T'(log T(x_u)) | `teacher_logits` |
| h · ∇CE(ŷ_u, T') | `student.feedback_on_logits`, carried into θ_T' by the calibrator's tape |
"""

from typing import Any

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Integer, Number, Settings
from mpl_tf.methods.feedback.settings import FEEDBACK_ON, FeedbackSettings
from mpl_tf.methods.feedback.student import FeedbackState, check_compiled, student_step

# Stored probabilities may be exactly 0, and a logarithm may not.
SMALLEST_PROBABILITY = 1e-7


@keras.saving.register_keras_serializable("mpl_tf")
class ReducedMetaPseudoLabels(Method):
    """Trains a student on a large teacher's stored labels and a small network that adjusts them.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        calibrator: built `keras.Model` from log-probabilities `[B, K]` to logits `[B, K]`.
        feedback: the name of an estimator or `FeedbackSettings`; with `"none"` and `labeled_weight=0` the
            calibrator stays as it is, which is plain learning from stored labels.
        feedback_on: the labeled images that the student's success is measured on: all, `"labeled"`, or the
            `"trusted"` ones of each batch, where the labels of the others are cheap and may be wrong.
        student_labels: `"soft"` trains the student on the adjusted distribution, `"sampled"` on one draw from
            it. None is `"sampled"` for the scalar feedbacks, which need it, and `"soft"` otherwise.
        labeled_weight: factor on the calibrator's own cross-entropy with the labels, which needs the stored labels
            of the labeled images too.
        label_smoothing: of that cross-entropy, in 0…1.
        weight_decay: λ of the L2 penalty on both networks' kernels.
        global_clipnorm: largest global norm of each network's gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        seed: of the sampled labels.
        name: name of the model.

    Raises:
        ValueError: for a value out of range, a combination without a meaning, or networks that do not fit.
    """

    learners = ("calibrator", "student")
    parameter_constraints = Method.parameter_constraints | {
        "feedback": Settings(FeedbackSettings),
        "feedback_on": Choice(*FEEDBACK_ON),
        "student_labels": Choice("soft", "sampled", optional=True),
        "labeled_weight": Number(),
        "label_smoothing": Number(high=1.0),
        "seed": Integer(),
    }

    def __init__(
        self,
        *,
        student: keras.Model,
        calibrator: keras.Model,
        feedback: str | FeedbackSettings = "per_example",
        feedback_on: str = "labeled",
        student_labels: str | None = None,
        labeled_weight: float = 0.0,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = 0.995,
        seed: int = 0,
        name: str | None = None,
    ):
        feedback = FeedbackSettings(feedback) if isinstance(feedback, str) else feedback
        metrics = ["loss", "agreement", "change", "student_gradient_norm"]
        if labeled_weight:
            metrics += ["calibrator_labeled_loss"]
        if feedback.estimator != "none":
            metrics += ["feedback", "student_labeled_loss"]
        if feedback.estimator != "none" or labeled_weight:
            metrics += ["calibrator_gradient_norm"]
        super().__init__(
            {"student": student},
            auxiliary={"calibrator": calibrator},
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.feedback = feedback
        self.feedback_on = feedback_on
        self.student_labels = student_labels or ("sampled" if feedback.is_scalar else "soft")
        self.labeled_weight = labeled_weight
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.check_parameters()
        validation.check_scalar_feedback(feedback, self.student_labels)
        validation.check_calibrator(calibrator, student)
        self.feedback_state = FeedbackState.of(self)

    @property
    def calibrates(self) -> bool:
        """Whether anything trains the calibrator."""
        return self.feedback.estimator != "none" or self.labeled_weight > 0

    def compile(
        self,
        calibrator_optimizer: str | keras.optimizers.Optimizer | None = None,
        student_optimizer: str | keras.optimizers.Optimizer | None = None,
        **options: Any,
    ) -> None:
        """Sets the optimizers, one for each network.

        Args:
            calibrator_optimizer: a Keras optimizer, or its name; not needed where nothing trains the calibrator.
            student_optimizer: a Keras optimizer, or its name. Learning-rate callbacks act on this one.
            **options: `jit_compile`, `micro_batches`, `rematerialize` as in `compile_roles`; `run_eagerly`,
                `steps_per_execution`.

        Raises:
            ValueError: when one of them is missing, and for one or an option that does not work here.
        """
        optimizers = {"calibrator": calibrator_optimizer, "student": student_optimizer}
        if not self.calibrates and calibrator_optimizer is None:
            del optimizers["calibrator"]
        self.compile_roles(optimizers, **options)
        check_compiled(self)

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One iteration on `data["labeled"]` and `data["unlabeled"]`, whose `"probabilities"` are stored."""
        data = self.views(data)
        streams = ("labeled", "unlabeled") if self.labeled_weight else ("unlabeled",)
        check_training_batch(
            data,
            self.student,
            unlabeled=True,
            probabilities=streams,
            trusted=self.feedback.trusted_reader(self.feedback_on),
        )
        metrics = {}

        with tf.GradientTape() as calibrator_tape:
            # T'(log T(x_u)), T(x_u) from the store.
            stored = _logarithm(data["unlabeled"]["probabilities"])
            teacher_logits = self.calibrator(stored, training=True)

            with calibrator_tape.stop_recording():
                # θ_S' = θ_S - η_S ∇ CE(ŷ_u, S(x_u; θ_S));  h: how much that helped it on the labeled images.
                student = student_step(self, data, teacher_logits=teacher_logits)
                metrics.update(student.metrics)

            # g_T' = h · ∇CE(ŷ_u, T'), here for any feedback on the logits.
            calibrator_loss = tf.reduce_sum(student.feedback_on_logits * teacher_logits)
            # The calibrator's own success on the labeled images.
            if self.labeled_weight:
                logits = self.calibrator(_logarithm(data["labeled"]["probabilities"]), training=True)
                labeled_losses = losses.cross_entropy(
                    data["labeled"]["label"], logits, label_smoothing=self.label_smoothing
                )
                metrics["calibrator_labeled_loss"] = losses.weighted_mean(
                    labeled_losses, data["labeled"].get("weight")
                )
                calibrator_loss += self.labeled_weight * metrics["calibrator_labeled_loss"]

        # θ_T'' = θ_T' - η g_T'
        if self.calibrates:
            gradients = self.gradients(calibrator_tape, calibrator=calibrator_loss)
            metrics["calibrator_gradient_norm"] = self.apply_gradients("calibrator", gradients["calibrator"])
        self.end_step(after=student.gradient_norm)

        return self.update_metrics(
            loss=student.loss,
            agreement=losses.accuracy(tf.argmax(teacher_logits, axis=-1), student.logits),
            # How far the adjusted labels are from the stored ones, in nats.
            change=tf.reduce_mean(losses.kl_divergence(stored, teacher_logits)),
            student_gradient_norm=student.gradient_norm,
            **metrics,
        )


def _logarithm(probabilities):
    return tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), SMALLEST_PROBABILITY))
