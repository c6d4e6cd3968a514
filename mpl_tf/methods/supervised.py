"""Supervised training on the labeled images alone: the baseline, and the fine-tuning of a finished student.

Meta Pseudo Labels' student never sees a label directly; at the end the paper trains it on the labeled
images with a small learning rate (section 3.2), which is this method too.
"""

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Number


@keras.saving.register_keras_serializable("mpl_tf")
class Supervised(Method):
    """Minimizes the cross-entropy on labeled images.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        label_smoothing: fraction of the target spread over all classes, in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on kernels.
        global_clipnorm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        name: name of the model.

    Raises:
        ValueError: for a value out of range or a network that does not return logits.
    """

    parameter_constraints = Method.parameter_constraints | {"label_smoothing": Number(high=1.0)}

    def __init__(
        self,
        *,
        student: keras.Model,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = None,
        name: str | None = None,
    ):
        metrics = ("loss", "train_accuracy", "student_gradient_norm")
        super().__init__(
            {"student": student},
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.label_smoothing = label_smoothing
        self.check_parameters()

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One step on `data["labeled"]`; anything else in the batch is ignored."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=False)
        images, labels = data["labeled"]["image"], data["labeled"]["label"]

        # L = CE(y_l, S(x_l; θ_S))
        with tf.GradientTape() as tape:
            logits = self.training_logits("student", images)
            labeled_losses = losses.cross_entropy(labels, logits, label_smoothing=self.label_smoothing)
            loss = losses.weighted_mean(labeled_losses, data["labeled"].get("weight"))

        # θ_S ← θ_S - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        accuracy = losses.accuracy(labels, logits)
        return self.update_metrics(loss=loss, train_accuracy=accuracy, student_gradient_norm=norm)
