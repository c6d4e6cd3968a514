"""Unsupervised Data Augmentation (Xie, Dai, Hovy, Luong, Le; NeurIPS 2020; arXiv 1904.12848).

    L(θ) = E CE(y_l, S(x_l; θ)) + λ E KL(S(x_u; θ̃) ‖ S(x̂_u; θ))                               (equation 1)

x̂_u is the strong view of x_u, and θ̃ a copy of θ that no gradient reaches. The prediction on the weak view is
sharpened with a temperature, unlabeled pictures on which the unsharpened one is not confident are masked
(section 3.2), and labeled pictures that the network already has right drop out of the loss until late
(training signal annealing, section 3.2).

| paper | here |
|---|---|
| S(x_l), S(x_u), S(x̂_u) | `logits_on_labeled`, `logits_on_weak`, `logits_on_strong`, from one pass |
| η_t of training signal annealing | `schedules.annealing_threshold` |
| β, τ | `threshold`, `temperature` |
"""

import keras
import tensorflow as tf

from mpl_tf import checks, distribute, losses, schedules
from mpl_tf.methods import batch_refusals
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Integer, Number


@keras.saving.register_keras_serializable("mpl_tf")
class UDA(Method):
    """Trains one network to predict the strong view of a picture as it does the weak one.

    Args:
        student: built `keras.Model` from pictures `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        consistency_weight: λ, the factor on the consistency loss.
        temperature: sharpening of the target, above 0.
        threshold: confidence below which an unlabeled picture is masked, in 0…1. The mean still runs over all.
        entropy_weight: factor on the entropy of the predictions on the weak view.
        annealing: `"none"`, `"linear"`, `"exponential"` or `"logarithmic"`: how fast labeled pictures that are
            predicted well come back into the loss.
        annealing_steps: the step at which all are back. Needed unless `annealing="none"`.
        label_smoothing: of the loss on labeled pictures, in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on kernels.
        gradient_clip_norm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        name: name of the model.

    Raises:
        ValueError: for a value out of range or a network that does not return logits.
    """

    parameter_constraints = Method.parameter_constraints | {
        "consistency_weight": Number(),
        "temperature": Number(low=1e-3),
        "threshold": Number(high=1.0),
        "entropy_weight": Number(),
        "annealing": Choice("none", *schedules.ANNEALING),
        "annealing_steps": Integer(),
        "label_smoothing": Number(high=1.0),
    }

    def __init__(
        self,
        *,
        student: keras.Model,
        consistency_weight: float = 1.0,
        temperature: float = 0.4,
        threshold: float = 0.8,
        entropy_weight: float = 0.0,
        annealing: str = "none",
        annealing_steps: int = 0,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        gradient_clip_norm: float | None = None,
        ema_decay: float | None = 0.999,
        name: str | None = None,
    ):
        metrics = (
            "loss", "labeled_loss", "consistency_loss", "mask_rate", "annealed_rate", "entropy",
            "student_gradient_norm",
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
        self.temperature = temperature
        self.threshold = threshold
        self.entropy_weight = entropy_weight
        self.annealing = annealing
        self.annealing_steps = annealing_steps
        self.label_smoothing = label_smoothing
        self.check_parameters()
        checks.whole("annealing_steps", annealing_steps, low=0 if annealing == "none" else 1)

    def train_step(self, data):
        """One step on `data["labeled"]` and `data["unlabeled"]`."""
        data = self.views(data)
        batch_refusals.training_batch(data, self.student, unlabeled=True)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, strong = data["unlabeled"]["weak"], data["unlabeled"]["strong"]
        sizes = [rows.shape[0] or tf.shape(rows)[0] for rows in (labeled, weak, strong)]

        with tf.GradientTape() as tape:
            # S(x_l), S(x_u), S(x̂_u): one pass over all three, in one BatchNorm population.
            logits = self.training_logits("student", tf.concat([labeled, weak, strong], axis=0))
            logits = tf.split(logits, sizes)
            logits_on_labeled, logits_on_weak, logits_on_strong = logits

            # CE(y_l, S(x_l)) over the pictures that training signal annealing leaves in.
            kept = self._kept_by_annealing(labels, logits_on_labeled)
            labeled_losses = losses.cross_entropy(
                labels, logits_on_labeled, label_smoothing=self.label_smoothing
            )
            # The released code divides by the number that is kept, over all replicas.
            kept_share = distribute.replica_mean(tf.reduce_mean(kept))
            labeled_loss = tf.math.divide_no_nan(tf.reduce_mean(kept * labeled_losses), kept_share)

            # KL(S(x_u; θ̃) ‖ S(x̂_u)), masked where S(x_u) is not confident; the mean divides by all pictures.
            mask = losses.confidence_mask(logits_on_weak, self.threshold)
            consistency = losses.consistency(
                logits_on_weak, logits_on_strong, temperature=self.temperature, mask=mask
            )
            consistency_loss = tf.reduce_mean(consistency)

            # Entropy minimization on the weak view, an option of the released code.
            entropy = tf.reduce_mean(losses.entropy(logits_on_weak))

            loss = labeled_loss + self.consistency_weight * consistency_loss + self.entropy_weight * entropy

        # θ ← θ - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.descend("student", gradients["student"])
        self.finish_step(after=norm)

        return self.track(
            loss=loss,
            labeled_loss=labeled_loss,
            consistency_loss=consistency_loss,
            mask_rate=tf.reduce_mean(mask),
            annealed_rate=1.0 - tf.reduce_mean(kept),
            entropy=entropy,
            student_gradient_norm=norm,
        )

    def _kept_by_annealing(self, labels, logits):
        """1 for the labeled pictures `[B]` whose correct class is not yet more likely than η_t, 0 elsewhere."""
        if self.annealing == "none":
            return tf.ones_like(labels, tf.float32)
        num_classes = logits.shape[-1]
        correct = tf.reduce_sum(tf.one_hot(labels, num_classes) * tf.nn.softmax(logits), axis=-1)
        threshold = schedules.annealing_threshold(
            self.step.value, self.annealing_steps, num_classes=num_classes, kind=self.annealing
        )
        return tf.stop_gradient(tf.cast(correct <= threshold, tf.float32))
