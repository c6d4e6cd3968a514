"""Meta Pseudo Labels (Pham, Dai, Xie, Le; CVPR 2021; arXiv 2003.10580, Algorithm 1).

1. The teacher labels unlabeled images:                ŷ_u ~ T(x_u; θ_T)
2. The student learns from them:                       θ_S' = θ_S - η_S ∇ CE(ŷ_u, S(x_u; θ_S))
3. The student's success on labeled images, L_l(θ_S') = CE(y_l, S(x_l; θ_S')), flows back to the teacher,
   which descends it together with its own supervised loss and UDA's consistency loss.

| paper | here |
|---|---|
| T(x_u; θ_T) | `pseudo_label_logits`, by default `teacher_logits_on_strong` |
| ŷ_u, θ_S, θ_S' | `targets`, `before.weights` and `new_weights` of `student_step` |
| h · ∇CE(ŷ_u, T(x_u; θ_T)) | `student.feedback_on_logits`, carried into θ_T by the teacher's tape |

Where this departs from the released code, and why, is in docs/methods/mpl.md.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from mpl_tf import losses, schedules
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Distribution, Integer, Number, Settings
from mpl_tf.methods.engine.pseudo_labeling import CONSISTENCIES, Consistency, DistributionAlignment
from mpl_tf.methods.feedback.settings import FEEDBACK_ON, FeedbackSettings
from mpl_tf.methods.feedback.student import FeedbackState, check_compiled, student_step
from mpl_tf.models.heads import probabilities
from mpl_tf.models.surgery import clone


@keras.saving.register_keras_serializable("mpl_tf")
class MetaPseudoLabels(Method):
    """Trains a teacher and a student together; the student is served.

    Args:
        teacher: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        student: another one, with the same input shape and number of classes.
        feedback: the name of an estimator or `FeedbackSettings`; `"none"` is the ablation.
        feedback_on: the labeled images that the student's success is measured on: all, `"labeled"`, as in the paper;
            or the `"trusted"` ones of each batch, where the labels of the others are cheap and may be wrong.
        student_targets: what labels the unlabeled images for the student: the teacher on their `"strong"` views, as
            in the paper, or on their `"weak"` ones; or the `"average"` of the teacher, in inference mode and on the
            weak ones, which no feedback reaches.
        student_labeled_weight: factor on the student's own cross-entropy with the labels, in the step in which it
            learns from the teacher; 0, as in the paper, leaves the labels to the teacher.
        student_labels: `"soft"` trains the student on the teacher's distribution, `"sampled"` on one draw
            from it. None is `"sampled"` for the scalar feedbacks, which need it, and `"soft"` otherwise.
        label_smoothing: of the losses on labeled images, in 0…1.
        consistency: the teacher's consistency loss: `"uda"`'s, as in the paper; `"fixmatch"`'s (arXiv 2001.07685),
            whose target is the most likely class; or `"freematch"`'s (arXiv 2205.07246), whose thresholds follow the
            teacher's confidence.
        uda_weight: factor on the consistency loss, whichever it is.
        uda_temperature: sharpening of UDA's target.
        uda_threshold: confidence below which UDA and FixMatch mask an unlabeled image.
        uda_ramp_steps: steps over which the consistency's weight rises linearly from 0.
        uda_targets: `"online"` takes the consistency's targets from the teacher itself, `"average"` from its moving
            average in inference mode.
        threshold_decay: λ of the moving averages that FreeMatch's thresholds are made of, in 0…1.
        fairness_weight: factor on FreeMatch's class fairness, inside of the consistency loss.
        weak_view: `"joint"` passes the teacher's weak view together with the others, as the released code does;
            `"separate"` in a pass of its own, with BatchNorm statistics of its own and without keeping activations.
        class_prior: K fractions, how frequent the classes are; the teacher's labels and targets are then made as
            frequent (`DistributionAlignment`, ReMixMatch). None leaves them as they are.
        teacher_ema_decay: decay of the averaged teacher, which is then evaluated in the teacher's place; None keeps
            none.
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
        "feedback_on": Choice(*FEEDBACK_ON),
        "student_targets": Choice("strong", "weak", "average"),
        "student_labeled_weight": Number(),
        "student_labels": Choice("soft", "sampled", optional=True),
        "label_smoothing": Number(high=1.0),
        "consistency": Choice(*CONSISTENCIES),
        "uda_weight": Number(),
        "uda_temperature": Number(low=1e-3),
        "uda_threshold": Number(high=1.0),
        "uda_ramp_steps": Integer(),
        "uda_targets": Choice("online", "average"),
        "threshold_decay": Number(high=1.0),
        "fairness_weight": Number(),
        "weak_view": Choice("joint", "separate"),
        "class_prior": Distribution(optional=True),
        "teacher_ema_decay": Number(high=1.0, optional=True),
        "seed": Integer(),
    }

    def __init__(
        self,
        *,
        teacher: keras.Model,
        student: keras.Model,
        feedback: str | FeedbackSettings = "per_example",
        feedback_on: str = "labeled",
        student_targets: str = "strong",
        student_labeled_weight: float = 0.0,
        student_labels: str | None = None,
        label_smoothing: float = 0.0,
        consistency: str = "uda",
        uda_weight: float = 8.0,
        uda_temperature: float = 0.7,
        uda_threshold: float = 0.6,
        uda_ramp_steps: int = 5000,
        uda_targets: str = "online",
        threshold_decay: float = 0.999,
        fairness_weight: float = 0.01,
        weak_view: str = "joint",
        class_prior: Sequence[float] | None = None,
        teacher_ema_decay: float | None = None,
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
        if student_labeled_weight:
            metrics += ["labeled_loss"]
        if consistency == "freematch":
            metrics += ["global_threshold"]
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
        self.feedback_on = feedback_on
        self.student_targets = student_targets
        self.student_labeled_weight = student_labeled_weight
        self.student_labels = student_labels or ("sampled" if self.feedback.is_scalar else "soft")
        self.label_smoothing = label_smoothing
        self.consistency = consistency
        self.uda_weight = uda_weight
        self.uda_temperature = uda_temperature
        self.uda_threshold = uda_threshold
        self.uda_ramp_steps = uda_ramp_steps
        self.uda_targets = uda_targets
        self.threshold_decay = threshold_decay
        self.fairness_weight = fairness_weight
        self.weak_view = weak_view
        self.class_prior = class_prior
        self.teacher_ema_decay = teacher_ema_decay
        self.seed = seed
        self.check_parameters()
        self._check_targets()
        validation.check_scalar_feedback(self.feedback, self.student_labels)
        self.align = DistributionAlignment(self, class_prior, num_classes=student.output_shape[-1])
        self.class_prior = self.align.class_prior
        self.consistency_of_views = Consistency(
            self,
            consistency,
            num_classes=teacher.output_shape[-1],
            temperature=uda_temperature,
            threshold=uda_threshold,
            threshold_decay=threshold_decay,
            fairness_weight=fairness_weight,
        )
        self.teacher_average = clone(teacher) if teacher_ema_decay is not None else None
        self.feedback_state = FeedbackState.of(self)

    def _check_targets(self):
        for name in ("uda_targets", "student_targets"):
            validation.check_targets(
                getattr(self, name), ema_decay=self.teacher_ema_decay, name=name, decay="teacher_ema_decay"
            )
        if self.feedback.estimator != "none":
            validation.check_feedback_reaches(self.student_targets, self.weak_view)

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
        check_compiled(self)

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One iteration of Algorithm 1 on `data["labeled"]` and `data["unlabeled"]`."""
        data = self.views(data)
        trusted = self.feedback.trusted_reader(self.feedback_on)
        check_training_batch(data, self.student, unlabeled=True, trusted=trusted)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, strong = data["unlabeled"]["weak"], data["unlabeled"]["strong"]

        with tf.GradientTape() as teacher_tape:
            # T(x_l), T(x_u)
            teacher_logits = self._teacher_logits(teacher_tape, labeled, weak, strong)
            teacher_logits_on_labeled = teacher_logits["labeled"]
            teacher_logits_on_strong = teacher_logits["strong"]

            # Which of them are pseudo labels and which UDA's targets, made as frequent as the classes are.
            pseudo_label_logits = teacher_logits[self.student_targets]
            target_logits = teacher_logits["average" if self.uda_targets == "average" else "weak"]
            shift = self.align.shift(target_logits, step=self.step.value)
            pseudo_label_logits, target_logits = pseudo_label_logits + shift, target_logits + shift

            with teacher_tape.stop_recording():
                # ŷ_u ~ T(x_u; θ_T);  θ_S' = θ_S - η_S ∇ CE(ŷ_u, S(x_u; θ_S));  h: how much that helped it.
                student = student_step(
                    self,
                    data,
                    teacher_logits=pseudo_label_logits,
                    labeled_weight=self.student_labeled_weight,
                )

            # g_T = h · ∇CE(ŷ_u, T(x_u; θ_T)), here for any feedback on the logits.
            meta_loss = tf.reduce_sum(student.feedback_on_logits * pseudo_label_logits)
            # g_T,supervised
            labeled_losses = losses.cross_entropy(
                labels, teacher_logits_on_labeled, label_smoothing=self.label_smoothing
            )
            labeled_loss = losses.weighted_mean(labeled_losses, data["labeled"].get("weight"))
            # g_T,UDA, or FixMatch's or FreeMatch's consistency in its place
            consistency_loss, mask, consistency_metrics = self.consistency_of_views(
                target_logits, teacher_logits_on_strong
            )
            ramp = schedules.linear_ramp(self.step.value, self.uda_ramp_steps)
            teacher_loss = labeled_loss + ramp * self.uda_weight * consistency_loss + meta_loss

        # θ_T' = θ_T - η_T (g_T + g_T,supervised + g_T,UDA)
        teacher_gradients = self.gradients(teacher_tape, teacher=teacher_loss)["teacher"]
        teacher_norm = self.apply_gradients("teacher", teacher_gradients)
        self.end_step(after=teacher_norm, averages={"teacher": self.teacher_ema_decay})

        return self.update_metrics(
            loss=student.loss,
            teacher_labeled_loss=labeled_loss,
            consistency_loss=consistency_loss,
            mask_rate=tf.reduce_mean(mask),
            agreement=losses.accuracy(tf.argmax(pseudo_label_logits, axis=-1), student.logits),
            student_gradient_norm=student.gradient_norm,
            teacher_gradient_norm=teacher_norm,
            **consistency_metrics,
            **student.metrics,
        )

    def _teacher_logits(self, tape, labeled, weak, strong):
        """View → the teacher's logits; one pass, in one BatchNorm population, over all that need a gradient."""
        logits = {}
        if self.teacher_average is not None and "average" in (self.uda_targets, self.student_targets):
            logits["average"] = self.averaged_logits("teacher", weak)
        views = {"labeled": labeled, "strong": strong}
        if self.uda_targets == "online" or self.student_targets == "weak":
            if self.weak_view == "joint":
                views = {"labeled": labeled, "weak": weak, "strong": strong}
            else:
                # In training mode too, but no activations are kept.
                with tape.stop_recording():
                    logits["weak"] = self.training_logits("teacher", weak)
        return logits | dict(zip(views, self.joint_logits("teacher", *views.values()), strict=True))

    def pseudo_label(self, images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """What the student learns from: the averaged teacher's predictions where it labels, else the teacher's."""
        if self.student_targets == "average":
            return probabilities(self.teacher_average, images)
        return super().pseudo_label(images, index)
