"""FreeMatch (Wang, Chen, Heng et al.; ICLR 2023; arXiv 2205.07246, Algorithm 1).

FixMatch whose threshold follows the model's own confidence, of all classes together and of each.

    τ_t = λ τ_{t-1} + (1-λ) 1/μB Σ max(q_b)                                                      (equation 5)
    p̃_t = λ p̃_{t-1} + (1-λ) 1/μB Σ q_b                                                           (equation 6)
    τ_t(c) = p̃_t(c) / max p̃_t · τ_t                                                              (equation 7)
    L_u = 1/μB Σ 1(max(q_b) ≥ τ_t(argmax q_b)) H(q̂_b, Q_b)                                       (equation 8)
    L_f = -H(SumNorm(p̃_t / h̃_t), SumNorm(p̄ / h̄))                                                (equation 11)
    L = L_s + w_u L_u + w_f L_f                                                                  (equation 12)

| paper | here |
|---|---|
| q_b, Q_b | softmax of `logits_on_weak`, `logits_on_strong` |
| τ_t, p̃_t, h̃_t (equation 10), all 1/C before the first step | state of `self.thresholds` |
| λ, w_u, w_f | `threshold_decay`, `consistency_weight`, `fairness_weight` (on its sign: docs/methods/freematch.md) |
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_training_batch
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Distribution, Number
from mpl_tf.methods.engine.pseudo_labeling import DistributionAlignment, SelfAdaptiveThreshold


@keras.saving.register_keras_serializable("mpl_tf")
class FreeMatch(Method):
    """Trains one network on its own predictions that are confident by its own measure.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        consistency_weight: w_u, the factor on the loss of the unlabeled images.
        fairness_weight: w_f, the factor on the class fairness; the paper's is 0.01 or, with more labels, 0.05.
        threshold_decay: λ of the moving averages that the thresholds are made of, in 0…1.
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
        "fairness_weight": Number(),
        "threshold_decay": Number(high=1.0),
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
        fairness_weight: float = 0.01,
        threshold_decay: float = 0.999,
        temperature: float = 0.0,
        targets: str = "online",
        class_prior: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = 0.999,
        name: str | None = None,
    ):
        metrics = ("loss", "labeled_loss", "consistency_loss", "fairness_loss", "mask_rate")
        super().__init__(
            {"student": student},
            train_metrics=(*metrics, "global_threshold", "lowest_threshold", "student_gradient_norm"),
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.consistency_weight = consistency_weight
        self.fairness_weight = fairness_weight
        self.threshold_decay = threshold_decay
        self.temperature = temperature
        self.targets = targets
        self.class_prior = class_prior
        self.label_smoothing = label_smoothing
        self.check_parameters()
        validation.check_targets(targets, ema_decay=ema_decay)
        num_classes = student.output_shape[-1]
        self.align = DistributionAlignment(self, class_prior, num_classes=num_classes)
        self.class_prior = self.align.class_prior
        self.thresholds = SelfAdaptiveThreshold(self, num_classes=num_classes, decay=threshold_decay)

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

            # Line 2: L_s                                                                        (equation 3)
            labeled_losses = losses.cross_entropy(
                labels, logits_on_labeled, label_smoothing=self.label_smoothing
            )
            labeled_loss = losses.weighted_mean(labeled_losses, data["labeled"].get("weight"))

            # Lines 3 to 5: this batch's q_b first move τ_t, p̃_t and h̃_t.                (equations 5, 6, 10)
            logits_on_weak = self.align(logits_on_weak, step=self.step.value)
            self.thresholds.update(tf.nn.softmax(logits_on_weak))

            # Lines 6 to 8: τ_t(c)                                                               (equation 7)
            class_thresholds = self.thresholds.of_classes()

            # Line 9: L_u, the mean over all images, confident or not                            (equation 8)
            thresholds = tf.gather(class_thresholds, tf.argmax(logits_on_weak, axis=-1))
            mask = losses.confidence_mask(logits_on_weak, thresholds)
            consistency = losses.pseudo_label_consistency(
                logits_on_weak, logits_on_strong, temperature=self.temperature, mask=mask
            )
            consistency_loss = tf.reduce_mean(consistency)

            # Lines 10 to 12: p̄ and h̄ of the confident images' strong views, and L_f      (equations 9 and 11)
            fairness_loss = self.thresholds.fairness(logits_on_strong, mask)

            # Line 13: L = L_s + w_u L_u + w_f L_f                                               (equation 12)
            loss = labeled_loss + self.consistency_weight * consistency_loss
            loss += self.fairness_weight * fairness_loss

        # θ ← θ - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        return self.update_metrics(
            loss=loss,
            labeled_loss=labeled_loss,
            consistency_loss=consistency_loss,
            fairness_loss=fairness_loss,
            mask_rate=tf.reduce_mean(mask),
            global_threshold=self.thresholds.global_threshold.value,
            lowest_threshold=tf.reduce_min(class_thresholds),
            student_gradient_norm=norm,
        )
