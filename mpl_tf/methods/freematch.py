"""FreeMatch (Wang, Chen, Heng et al.; ICLR 2023; arXiv 2205.07246, Algorithm 1).

FixMatch whose threshold follows the model's own confidence, for all classes together and for each, and which rewards
predictions on strong views that are spread over the classes.

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
| p̄, h̄ (equation 9) | in `self.thresholds.fairness` |
| λ, w_u, w_f | `threshold_decay`, `consistency_weight`, `fairness_weight` |

What the sign of L_f does is in docs/methods/freematch.md.
"""

import keras
import tensorflow as tf

from mpl_tf import checks, losses
from mpl_tf.methods import batch_refusals
from mpl_tf.methods.base import Method
from mpl_tf.methods.engine.pseudo_labeling import DistributionAlignment, SelfAdaptiveThreshold


@keras.saving.register_keras_serializable("mpl_tf")
class FreeMatch(Method):
    """Trains one network on its own predictions that are confident by its own measure.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        consistency_weight: w_u, the factor on the loss of the unlabeled images.
        fairness_weight: w_f, the factor on the class fairness. The paper's is 0.01 where labels are few and 0.05
            elsewhere.
        threshold_decay: λ of the moving averages that the thresholds are made of, in 0…1.
        temperature: of the pseudo label; 0 takes the most likely class, above 0 the sharpened distribution.
        class_prior: fraction of each class, `[K]`, that the pseudo labels are aligned to (ReMixMatch's distribution
            alignment); None aligns nothing.
        label_smoothing: of the loss on labeled images, in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on kernels.
        gradient_clip_norm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        name: name of the model.

    Raises:
        ValueError: for a value out of range or a network that does not return logits.
    """

    def __init__(
        self,
        *,
        student: keras.Model,
        consistency_weight: float = 1.0,
        fairness_weight: float = 0.01,
        threshold_decay: float = 0.999,
        temperature: float = 0.0,
        class_prior: tuple[float, ...] | None = None,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        gradient_clip_norm: float | None = None,
        ema_decay: float | None = 0.999,
        name: str | None = None,
    ):
        metrics = (
            "loss", "labeled_loss", "consistency_loss", "fairness_loss", "mask_rate", "global_threshold",
            "lowest_threshold", "student_gradient_norm",
        )  # fmt: skip
        super().__init__(
            {"student": student},
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            gradient_clip_norm=gradient_clip_norm,
            name=name,
        )
        self.consistency_weight = consistency_weight
        self.fairness_weight = fairness_weight
        self.threshold_decay = threshold_decay
        self.temperature = temperature
        self.class_prior = None if class_prior is None else tuple(map(float, class_prior))
        self.label_smoothing = label_smoothing
        self._check_settings()
        num_classes = student.output_shape[-1]
        self.align = DistributionAlignment(self, self.class_prior, num_classes=num_classes)
        self.thresholds = SelfAdaptiveThreshold(self, num_classes=num_classes, decay=threshold_decay)

    def _check_settings(self):
        checks.within("consistency_weight", self.consistency_weight, low=0.0)
        checks.within("fairness_weight", self.fairness_weight, low=0.0)
        checks.within("threshold_decay", self.threshold_decay, low=0.0, high=1.0)
        checks.within("temperature", self.temperature, low=0.0)
        checks.within("label_smoothing", self.label_smoothing, low=0.0, high=1.0)

    def train_step(self, data):
        """One step on `data["labeled"]` and `data["unlabeled"]`."""
        data = self.views(data)
        batch_refusals.training_batch(data, self.student, unlabeled=True)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, strong = data["unlabeled"]["weak"], data["unlabeled"]["strong"]
        sizes = [images.shape[0] or tf.shape(images)[0] for images in (labeled, weak, strong)]

        with tf.GradientTape() as tape:
            # Predictions on labeled, weak and strong views: one pass, in one BatchNorm population.
            logits = self.training_logits("student", tf.concat([labeled, weak, strong], axis=0))
            logits_on_labeled, logits_on_weak, logits_on_strong = tf.split(logits, sizes)

            # Line 2: L_s                                                                        (equation 3)
            labeled_loss = tf.reduce_mean(
                losses.cross_entropy(labels, logits_on_labeled, label_smoothing=self.label_smoothing)
            )

            # Lines 3 to 5: this batch's q_b first move τ_t, p̃_t and h̃_t.                (equations 5, 6, 10)
            logits_on_weak = self.align(logits_on_weak, step=self.step.value)
            self.thresholds.update(tf.nn.softmax(logits_on_weak))

            # Lines 6 to 8: τ_t(c)                                                               (equation 7)
            class_thresholds = self.thresholds.of_classes()

            # Line 9: L_u, the mean over all images, confident or not                            (equation 8)
            thresholds = tf.gather(class_thresholds, tf.argmax(logits_on_weak, axis=-1))
            mask = losses.confidence_mask(logits_on_weak, thresholds)
            consistency_loss = tf.reduce_mean(
                losses.pseudo_label_consistency(
                    logits_on_weak, logits_on_strong, temperature=self.temperature, mask=mask
                )
            )

            # Lines 10 to 12: p̄ and h̄ of the confident images' strong views, and L_f      (equations 9 and 11)
            fairness_loss = self.thresholds.fairness(logits_on_strong, mask)

            # Line 13: L = L_s + w_u L_u + w_f L_f                                               (equation 12)
            loss = labeled_loss + self.consistency_weight * consistency_loss
            loss += self.fairness_weight * fairness_loss

        # θ ← θ - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.descend("student", gradients["student"])
        self.finish_step(after=norm)

        return self.track(
            loss=loss,
            labeled_loss=labeled_loss,
            consistency_loss=consistency_loss,
            fairness_loss=fairness_loss,
            mask_rate=tf.reduce_mean(mask),
            global_threshold=self.thresholds.global_threshold.value,
            lowest_threshold=tf.reduce_min(class_thresholds),
            student_gradient_norm=norm,
        )
