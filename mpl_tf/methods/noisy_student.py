"""Noisy Student (Xie, Luong, Hovy, Le; CVPR 2020; arXiv 1911.04252): the student's training within one round.

    L(θ_S) = 1/n Σ CE(y_i, S_noised(x_i; θ_S)) + 1/m Σ CE(ỹ_j, S_noised(x̃_j; θ_S))       (Algorithm 1, step 3)

ỹ_j are the distributions that the teacher, without noise, gave the unlabeled images before the round (step 2);
they come with the batch, from a label store. The noise is in what is handed in: RandAugment in the views, dropout
and stochastic depth in the student. The rounds around this step are `mpl_tf.training.self_training`.

| paper | here |
|---|---|
| ỹ_j | `data["unlabeled"]["probabilities"]`, made hard where `targets="hard"` |
| S_noised(x_i), S_noised(x̃_j) | `student_logits_on_labeled`, `student_logits_on_unlabeled`, from one pass |

Loss normalization (Zoph, Ghiasi, Lin et al., NeurIPS 2020, arXiv 2006.06882), an option here, makes self-training
less sensitive to the weight α of the pseudo labels:

    L = 1/(1 + α) (L_h + α L̄_h / L̄_p L_p)

L_h and L_p are the losses of the human and of the pseudo labels, the two sums above; L̄_h and L̄_p are their moving
averages over training, through which no gradient flows.
"""

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Boolean, Choice, Number
from mpl_tf.methods.engine.moving_averages import move_average


@keras.saving.register_keras_serializable("mpl_tf")
class NoisyStudent(Method):
    """Trains a noised student on labeled images and on a finished teacher's stored labels.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`, with the dropout
            and stochastic depth that are its noise.
        targets: `"soft"` learns the stored distributions, `"hard"` their most likely classes.
        labeled_weight: factor on the loss of the labeled images; 0 trains on the teacher's labels alone, to be
            fine-tuned on the labeled images afterwards.
        unlabeled_weight: factor on the loss of the unlabeled images. None, as in the released code, weights
            every image alike: it is μ, their number per labeled image. Under `loss_normalization` it is α.
        loss_normalization: scales the loss of the unlabeled images to the size that the loss of the labeled ones has
            on average, and the sum of both by 1/(1 + α) (arXiv 2006.06882).
        loss_average_decay: decay of the moving averages of the two losses that this takes, in 0…1.
        label_smoothing: of the labels and, where the targets are hard, of those too; in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on kernels.
        global_clipnorm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        name: name of the model.

    Raises:
        ValueError: for a value out of range or a network that does not return logits.
    """

    parameter_constraints = Method.parameter_constraints | {
        "targets": Choice("soft", "hard"),
        "labeled_weight": Number(),
        "unlabeled_weight": Number(optional=True),
        "loss_normalization": Boolean(),
        "loss_average_decay": Number(high=1.0),
        "label_smoothing": Number(high=1.0),
    }

    def __init__(
        self,
        *,
        student: keras.Model,
        targets: str = "soft",
        labeled_weight: float = 1.0,
        unlabeled_weight: float | None = None,
        loss_normalization: bool = False,
        loss_average_decay: float = 0.99,
        label_smoothing: float = 0.1,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = 0.999,
        name: str | None = None,
    ):
        metrics = ["loss", "labeled_loss", "unlabeled_loss", "agreement", "student_gradient_norm"]
        if loss_normalization:
            metrics.append("loss_ratio")
        super().__init__(
            {"student": student},
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.targets = targets
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.loss_normalization = loss_normalization
        self.loss_average_decay = loss_average_decay
        self.label_smoothing = label_smoothing
        self.check_parameters()
        if loss_normalization:
            # L̄_h and L̄_p. Both begin at 0 and move alike: what that makes them too small by cancels in their ratio.
            self.loss_averages = self.add_state("loss_averages", shape=(2,))

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One step on `data["labeled"]` and `data["unlabeled"]`, whose `"probabilities"` are the teacher's."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=True, probabilities=("unlabeled",))
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        unlabeled, probabilities = data["unlabeled"]["strong"], data["unlabeled"]["probabilities"]

        with tf.GradientTape() as tape:
            # S_noised(x), S_noised(x̃): one pass over both streams, in one BatchNorm population.
            logits = self.joint_logits("student", labeled, unlabeled)
            student_logits_on_labeled, student_logits_on_unlabeled = logits

            # 1/n Σ CE(y_i, S_noised(x_i))
            labeled_losses = losses.cross_entropy(
                labels, student_logits_on_labeled, label_smoothing=self.label_smoothing
            )
            labeled_loss = losses.weighted_mean(labeled_losses, data["labeled"].get("weight"))

            # 1/m Σ CE(ỹ_j, S_noised(x̃_j))
            teacher_classes = tf.argmax(probabilities, axis=-1)
            if self.targets == "soft":
                unlabeled_losses = losses.soft_cross_entropy(probabilities, student_logits_on_unlabeled)
            else:
                unlabeled_losses = losses.cross_entropy(
                    teacher_classes, student_logits_on_unlabeled, label_smoothing=self.label_smoothing
                )
            unlabeled_loss = tf.reduce_mean(unlabeled_losses)

            weight = self.unlabeled_weight
            if weight is None:
                num_labeled, num_unlabeled = (tf.shape(views)[0] for views in (labeled, unlabeled))
                weight = tf.cast(num_unlabeled, tf.float32) / tf.cast(num_labeled, tf.float32)
            if self.loss_normalization:
                # 1/(1 + α) (L_h + α L̄_h / L̄_p L_p)                                        (arXiv 2006.06882)
                ratio = self._average_loss_ratio(labeled_loss, unlabeled_loss)
                normalized_loss = self.labeled_weight * labeled_loss + weight * ratio * unlabeled_loss
                loss = normalized_loss / (1.0 + weight)
            else:
                loss = self.labeled_weight * labeled_loss + weight * unlabeled_loss

        # θ_S ← θ_S - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        return self.update_metrics(
            loss=loss,
            labeled_loss=labeled_loss,
            unlabeled_loss=unlabeled_loss,
            agreement=losses.accuracy(teacher_classes, student_logits_on_unlabeled),
            student_gradient_norm=norm,
            **({"loss_ratio": ratio} if self.loss_normalization else {}),
        )

    def _average_loss_ratio(self, labeled_loss: tf.Tensor, unlabeled_loss: tf.Tensor) -> tf.Tensor:
        """Moves L̄_h and L̄_p towards this batch's losses, over all replicas, and returns L̄_h / L̄_p."""
        batch_losses = tf.stack([labeled_loss, unlabeled_loss])
        move_average(self.loss_averages, batch_losses, decay=self.loss_average_decay)
        labeled_average, unlabeled_average = tf.unstack(self.loss_averages.value)
        return tf.math.divide_no_nan(labeled_average, unlabeled_average)
