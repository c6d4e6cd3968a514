"""Meta Pseudo Labels (Pham, Dai, Xie, Le; CVPR 2021; arXiv 2003.10580, Algorithm 1).

1. The teacher labels unlabeled images:              ŷ_u ~ T(x_u; θ_T)
2. The student learns from them:                       θ_S' = θ_S - η_S ∇ CE(ŷ_u, S(x_u; θ_S))
3. The student's success on labeled images, L_l(θ_S') = CE(y_l, S(x_l; θ_S')), flows back to the teacher,
   which descends it together with its own supervised loss and UDA's consistency loss.

| paper | here |
|---|---|
| T(x_u; θ_T) | `teacher_logits_on_strong` |
| ŷ_u, θ_S, θ_S' | `targets`, `before.weights` and `new_weights` of `student_step` |
| h · ∇CE(ŷ_u, T(x_u; θ_T)) | `student.feedback_on_logits`, carried into θ_T by the teacher's tape |

Where this departs from the released code, and why, is in docs/methods/mpl.md.
"""

from typing import Any

import keras
import tensorflow as tf

from mpl_tf import losses, schedules
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Integer, Number, Settings
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.feedback.student import student_step


@keras.saving.register_keras_serializable("mpl_tf")
class MetaPseudoLabels(Method):
    """Trains a teacher and a student together; the student is served.

    Args:
        teacher: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        student: another one, with the same input shape and number of classes.
        feedback: the name of an estimator or `FeedbackSettings`; `"none"` is the ablation.
        student_labels: `"soft"` trains the student on the teacher's distribution, `"sampled"` on one draw
            from it. None is `"sampled"` for the scalar feedbacks, which need it, and `"soft"` otherwise.
        label_smoothing: of the teacher's supervised loss, in 0…1.
        uda_weight: factor on the teacher's consistency loss.
        uda_temperature: sharpening of its target.
        uda_threshold: confidence below which an unlabeled image is masked.
        uda_ramp_steps: steps over which the consistency's weight rises linearly from 0.
        weight_decay: λ of the L2 penalty on both networks' kernels.
        global_clipnorm: largest global norm of each network's gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        seed: of the sampled labels.
        name: name of the model.

    Raises:
        ValueError: for a value out of range, a combination without a meaning, or networks that do not fit.
    """

    learners = ("teacher", "student")
    parameter_constraints = Method.parameter_constraints | {
        "feedback": Settings(FeedbackSettings),
        "student_labels": Choice("soft", "sampled", optional=True),
        "label_smoothing": Number(high=1.0),
        "uda_weight": Number(),
        "uda_temperature": Number(low=1e-3),
        "uda_threshold": Number(high=1.0),
        "uda_ramp_steps": Integer(),
        "seed": Integer(),
    }

    def __init__(
        self,
        *,
        teacher: keras.Model,
        student: keras.Model,
        feedback: str | FeedbackSettings = "per_example",
        student_labels: str | None = None,
        label_smoothing: float = 0.0,
        uda_weight: float = 8.0,
        uda_temperature: float = 0.7,
        uda_threshold: float = 0.6,
        uda_ramp_steps: int = 5000,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = 0.995,
        seed: int = 0,
        name: str | None = None,
    ):
        metrics = [
            "loss", "teacher_labeled_loss", "consistency_loss", "mask_rate",
            "agreement", "student_gradient_norm", "teacher_gradient_norm",
        ]  # fmt: skip
        feedback = FeedbackSettings(feedback) if isinstance(feedback, str) else feedback
        if feedback.estimator != "none":
            metrics += ["feedback", "student_labeled_loss"]
        networks = {"teacher": teacher, "student": student}
        super().__init__(
            networks,
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.feedback = feedback
        self.student_labels = student_labels or ("sampled" if self.feedback.is_scalar else "soft")
        self.label_smoothing = label_smoothing
        self.uda_weight = uda_weight
        self.uda_temperature = uda_temperature
        self.uda_threshold = uda_threshold
        self.uda_ramp_steps = uda_ramp_steps
        self.seed = seed
        self.check_parameters()
        validation.check_scalar_feedback(self.feedback, self.student_labels)
        self.feedback_baseline = self.add_state("feedback_baseline")

    def compile(
        self,
        teacher_optimizer: str | keras.optimizers.Optimizer | None = None,
        student_optimizer: str | keras.optimizers.Optimizer | None = None,
        **options: Any,
    ) -> None:
        """Sets the optimizers, one for each network.

        Args:
            teacher_optimizer: a Keras optimizer, or its name.
            student_optimizer: a Keras optimizer, or its name. Learning-rate callbacks act on this one.
            **options: `jit_compile`, `micro_batches`, `rematerialize` as in `compile_roles`; `run_eagerly`,
                `steps_per_execution`.

        Raises:
            ValueError: when one of them is missing, and for one or an option that does not work here.
        """
        self.compile_roles({"teacher": teacher_optimizer, "student": student_optimizer}, **options)

    def train_step(self, data):
        """One iteration of Algorithm 1 on `data["labeled"]` and `data["unlabeled"]`."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=True)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, strong = data["unlabeled"]["weak"], data["unlabeled"]["strong"]
        sizes = [rows.shape[0] or tf.shape(rows)[0] for rows in (labeled, weak, strong)]

        with tf.GradientTape() as teacher_tape:
            # T(x_l), T(x_u): one pass over all three views, in one BatchNorm population.
            teacher_logits = self.training_logits("teacher", tf.concat([labeled, weak, strong], axis=0))
            teacher_logits = tf.split(teacher_logits, sizes)
            teacher_logits_on_labeled, teacher_logits_on_weak, teacher_logits_on_strong = teacher_logits

            with teacher_tape.stop_recording():
                # ŷ_u ~ T(x_u; θ_T);  θ_S' = θ_S - η_S ∇ CE(ŷ_u, S(x_u; θ_S));  h: how much that helped it.
                student = student_step(self, data, teacher_logits=teacher_logits_on_strong)

            # g_T = h · ∇CE(ŷ_u, T(x_u; θ_T)), here for any feedback on the logits.
            meta_loss = tf.reduce_sum(student.feedback_on_logits * teacher_logits_on_strong)
            # g_T,supervised
            labeled_loss = losses.cross_entropy(
                labels, teacher_logits_on_labeled, label_smoothing=self.label_smoothing
            )
            labeled_loss = tf.reduce_mean(labeled_loss)
            # g_T,UDA; the mean runs over all images, kept or not.
            mask = losses.confidence_mask(teacher_logits_on_weak, self.uda_threshold)
            consistency = losses.consistency(
                teacher_logits_on_weak, teacher_logits_on_strong, temperature=self.uda_temperature, mask=mask
            )
            consistency_loss = tf.reduce_mean(consistency)
            ramp = schedules.linear_ramp(self.step.value, self.uda_ramp_steps)
            teacher_loss = labeled_loss + ramp * self.uda_weight * consistency_loss + meta_loss

        # θ_T' = θ_T - η_T (g_T + g_T,supervised + g_T,UDA)
        teacher_gradients = self.gradients(teacher_tape, teacher=teacher_loss)["teacher"]
        teacher_norm = self.apply_gradients("teacher", teacher_gradients)
        self.end_step(after=teacher_norm)

        same_class = tf.equal(
            tf.argmax(student.logits, axis=-1), tf.argmax(teacher_logits_on_strong, axis=-1)
        )
        return self.update_metrics(
            loss=student.loss,
            teacher_labeled_loss=labeled_loss,
            consistency_loss=consistency_loss,
            mask_rate=tf.reduce_mean(mask),
            agreement=tf.reduce_mean(tf.cast(same_class, tf.float32)),
            student_gradient_norm=student.gradient_norm,
            teacher_gradient_norm=teacher_norm,
            **student.metrics,
        )
