"""FixMatch (Sohn, Berthelot, Li et al.; NeurIPS 2020; arXiv 2001.07685, Algorithm 1).

    ℓ_s = 1/B Σ H(p_b, p_m(y | α(x_b)))                                                          (equation 3)
    ℓ_u = 1/μB Σ 1(max(q_b) ≥ τ) H(q̂_b, p_m(y | 𝒜(u_b)))                                        (equation 4)

The model's prediction on a weakly augmented unlabeled image, where it is confident, is the label of its strongly
augmented view. It is UDA with a pseudo label in place of a sharpened distribution.

| paper | here |
|---|---|
| p_m of α(x_b) and of 𝒜(u_b) | softmax of `logits_on_labeled`, `logits_on_strong` |
| q_b, q̂_b | softmax of `logits_on_weak`, and its most likely class |
| τ, λ_u | `threshold`, `consistency_weight` |
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Distribution, Number
from mpl_tf.methods.engine.pseudo_labeling import DistributionAlignment


@keras.saving.register_keras_serializable("mpl_tf")
class FixMatch(Method):
    """Trains one network on its own confident predictions, weak views teaching strong ones.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        consistency_weight: λ_u, the factor on the loss of the unlabeled images.
        threshold: τ, the confidence below which an unlabeled image is masked, in 0…1. The mean still runs over all.
        temperature: of the pseudo label; 0 takes the most likely class, above 0 the sharpened distribution.
        targets: whose predictions on weak views are pseudo labels: `"online"`, the network's, or `"average"`, its
            moving average's, in inference mode.
        class_prior: fraction of each class, `[K]`, that the pseudo labels are aligned to (ReMixMatch's distribution
            alignment); None aligns nothing.
        label_smoothing: of the loss on labeled images, in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on kernels.
        global_clipnorm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        name: name of the model.

    Raises:
        ValueError: for a value out of range or a network that does not return logits.
    """

    parameter_constraints = Method.parameter_constraints | {
        "consistency_weight": Number(),
        "threshold": Number(high=1.0),
        "temperature": Number(),
        "targets": Choice("online", "average"),
        "class_prior": Distribution(optional=True),
        "label_smoothing": Number(high=1.0),
    }

    def __init__(
        self,
        *,
        student: keras.Model,
        consistency_weight: float = 1.0,
        threshold: float = 0.95,
        temperature: float = 0.0,
        targets: str = "online",
        class_prior: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = 0.999,
        name: str | None = None,
    ):
        super().__init__(
            {"student": student},
            train_metrics=("loss", "labeled_loss", "consistency_loss", "mask_rate", "student_gradient_norm"),
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.consistency_weight = consistency_weight
        self.threshold = threshold
        self.temperature = temperature
        self.targets = targets
        self.class_prior = class_prior
        self.label_smoothing = label_smoothing
        self.check_parameters()
        validation.check_targets(targets, ema_decay=ema_decay)
        self.align = DistributionAlignment(self, class_prior, num_classes=student.output_shape[-1])
        self.class_prior = self.align.class_prior

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One step on `data["labeled"]` and `data["unlabeled"]`."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=True)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, strong = data["unlabeled"]["weak"], data["unlabeled"]["strong"]

        with tf.GradientTape() as tape:
            # One pass over all views, in one BatchNorm population; but for weak views that the average predicts.
            if self.targets == "online":
                logits = self.joint_logits("student", labeled, weak, strong)
                logits_on_labeled, logits_on_weak, logits_on_strong = logits
            else:
                with tape.stop_recording():
                    logits_on_weak = self.averaged_logits("student", weak)
                logits_on_labeled, logits_on_strong = self.joint_logits("student", labeled, strong)

            # ℓ_s = 1/B Σ H(p_b, p_m(y | α(x_b)))                                                (equation 3)
            labeled_losses = losses.cross_entropy(
                labels, logits_on_labeled, label_smoothing=self.label_smoothing
            )
            labeled_loss = losses.weighted_mean(labeled_losses, data["labeled"].get("weight"))

            # q_b = p_m(y | α(u_b)), aligned with the class prior where there is one.
            logits_on_weak = self.align(logits_on_weak, step=self.step.value)

            # ℓ_u = 1/μB Σ 1(max(q_b) ≥ τ) H(q̂_b, p_m(y | 𝒜(u_b)))                              (equation 4)
            mask = losses.confidence_mask(logits_on_weak, self.threshold)
            consistency = losses.pseudo_label_consistency(
                logits_on_weak, logits_on_strong, temperature=self.temperature, mask=mask
            )
            consistency_loss = tf.reduce_mean(consistency)

            # ℓ_s + λ_u ℓ_u
            loss = labeled_loss + self.consistency_weight * consistency_loss

        # θ ← θ - η ∇(ℓ_s + λ_u ℓ_u)
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        return self.update_metrics(
            loss=loss,
            labeled_loss=labeled_loss,
            consistency_loss=consistency_loss,
            mask_rate=tf.reduce_mean(mask),
            student_gradient_norm=norm,
        )
