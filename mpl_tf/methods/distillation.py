"""Knowledge distillation (Hinton, Vinyals, Dean 2015; arXiv 1503.02531).

    L(θ_S) = w_l CE(y_l, S(x_l)) + w_d T² KL(softmax(T(x_u) / T) ‖ softmax(S(x̂_u) / T))        (section 2)

The teacher is frozen and runs in inference mode. With `same_view=False` it sees the weak view x_u of an image and
the student the strong view x̂_u; with `same_view=True` both see the strong view, which is the "function matching" of
Beyer et al. 2022 (arXiv 2106.05237): the student copies the teacher as a function, on whatever image.

| paper | here |
|---|---|
| z_i / T, v_i / T | `student_logits_on_unlabeled`, `teacher_logits_on_unlabeled`, divided in `losses.distillation` |
| the two weights | `distillation_weight`, `labeled_weight`; 0 for the latter leaves the labels out of the loss |
"""

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Boolean, Number


@keras.saving.register_keras_serializable("mpl_tf")
class Distillation(Method):
    """Trains a student to predict what a finished teacher predicts.

    Args:
        teacher: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`. It does not change.
        student: another one, with the same input shape and number of classes.
        temperature: T, above 0. Higher temperatures show more of how the teacher ranks the wrong classes.
        distillation_weight: factor on the distillation loss.
        labeled_weight: factor on the cross-entropy with the labels; 0 leaves them out.
        same_view: whether the teacher sees the strong view that the student sees, or the weak one.
        label_smoothing: of the cross-entropy with the labels, in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on the student's kernels.
        global_clipnorm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        name: name of the model.

    Raises:
        ValueError: for a value out of range, or networks that do not fit each other.
    """

    parameter_constraints = Method.parameter_constraints | {
        "temperature": Number(low=1e-3),
        "distillation_weight": Number(),
        "labeled_weight": Number(),
        "same_view": Boolean(),
        "label_smoothing": Number(high=1.0),
    }

    def __init__(
        self,
        *,
        teacher: keras.Model,
        student: keras.Model,
        temperature: float = 4.0,
        distillation_weight: float = 1.0,
        labeled_weight: float = 1.0,
        same_view: bool = False,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = None,
        name: str | None = None,
    ):
        metrics = ("loss", "labeled_loss", "distillation_loss", "agreement", "student_gradient_norm")
        networks = {"teacher": teacher, "student": student}
        super().__init__(
            networks,
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.temperature = temperature
        self.distillation_weight = distillation_weight
        self.labeled_weight = labeled_weight
        self.same_view = same_view
        self.label_smoothing = label_smoothing
        self.check_parameters()

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One step on `data["unlabeled"]` and, where they have a weight, the labels of `data["labeled"]`."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=True)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, strong = data["unlabeled"]["weak"], data["unlabeled"]["strong"]

        # v_i: the teacher's logits, in inference mode.
        teacher_logits_on_unlabeled = self.teacher(strong if self.same_view else weak, training=False)
        teacher_logits_on_unlabeled = tf.cast(teacher_logits_on_unlabeled, tf.float32)

        with tf.GradientTape() as tape:
            # z_i: one pass over both streams, in one BatchNorm population.
            logits = self.joint_logits("student", labeled, strong)
            student_logits_on_labeled, student_logits_on_unlabeled = logits

            # T² KL(softmax(v / T) ‖ softmax(z / T))
            distillation_losses = losses.distillation(
                teacher_logits_on_unlabeled, student_logits_on_unlabeled, temperature=self.temperature
            )
            distillation_loss = tf.reduce_mean(distillation_losses)

            # CE(y_l, S(x_l)), at temperature 1
            labeled_losses = losses.cross_entropy(
                labels, student_logits_on_labeled, label_smoothing=self.label_smoothing
            )
            labeled_loss = losses.weighted_mean(labeled_losses, data["labeled"].get("weight"))
            loss = self.distillation_weight * distillation_loss + self.labeled_weight * labeled_loss

        # θ_S ← θ_S - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        teacher_classes = tf.argmax(teacher_logits_on_unlabeled, axis=-1)
        return self.update_metrics(
            loss=loss,
            labeled_loss=labeled_loss,
            distillation_loss=distillation_loss,
            agreement=losses.accuracy(teacher_classes, student_logits_on_unlabeled),
            student_gradient_norm=norm,
        )
