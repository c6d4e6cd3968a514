"""Unsupervised Data Augmentation (Xie, Dai, Hovy, Luong, Le; NeurIPS 2020; arXiv 1904.12848).

    L(θ) = E CE(y_l, S(x_l; θ)) + λ E KL(S(x_u; θ̃) ‖ S(x̂_u; θ))                               (equation 1)

x̂_u is the strong view of x_u, and θ̃ a copy of θ that no gradient reaches. The prediction on the weak view is
sharpened with a temperature, unlabeled images on which the unsharpened one is not confident are masked
(section 3.2), and labeled images that the network already has right drop out of the loss until late
(training signal annealing, section 3.2).

| paper | here |
|---|---|
| S(x_l), S(x_u), S(x̂_u) | `logits_on_labeled`, `logits_on_weak`, `logits_on_strong`, from one pass |
| η_t of training signal annealing | `schedules.tsa_threshold` |
| β, τ | `threshold`, `temperature` |
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mpl_tf import losses, schedules
from mpl_tf.data.batches import check_training_batch
from mpl_tf.distribute import replicas
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Distribution, Integer, Number
from mpl_tf.methods.engine.pseudo_labeling import DistributionAlignment
from mpl_tf.utils.validation import check_integer


@keras.saving.register_keras_serializable("mpl_tf")
class UDA(Method):
    """Trains one network to predict the strong view of an image as it does the weak one.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        consistency_weight: λ, the factor on the consistency loss.
        temperature: sharpening of the target, above 0.
        threshold: confidence below which an unlabeled image is masked, in 0…1. The mean still runs over all.
        entropy_weight: factor on the entropy of the predictions on the weak view.
        tsa_schedule: `"none"`, `"linear"`, `"exponential"` or `"logarithmic"`: how fast labeled images that are
            predicted well come back into the loss.
        tsa_steps: the step at which all are back. Needed unless `tsa_schedule="none"`.
        targets: `"online"` takes the prediction on the weak view from the network that learns; `"average"` from its
            moving average in inference mode, as Mean Teacher does (Tarvainen and Valpola 2017, arXiv 1703.01780).
        weak_view: `"joint"` passes the weak view together with the others, as the paper does; `"separate"` in a pass
            of its own, with BatchNorm statistics of its own and without keeping activations.
        class_prior: K fractions, how frequent the classes are; the targets are then made as frequent
            (`DistributionAlignment`, ReMixMatch). None leaves them as they are.
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
        "temperature": Number(low=1e-3),
        "threshold": Number(high=1.0),
        "entropy_weight": Number(),
        "tsa_schedule": Choice("none", *schedules.TSA_SCHEDULES),
        "tsa_steps": Integer(),
        "targets": Choice("online", "average"),
        "weak_view": Choice("joint", "separate"),
        "class_prior": Distribution(optional=True),
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
        tsa_schedule: str = "none",
        tsa_steps: int = 0,
        targets: str = "online",
        weak_view: str = "joint",
        class_prior: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = 0.999,
        name: str | None = None,
    ):
        metrics = (
            "loss", "labeled_loss", "consistency_loss", "mask_rate", "tsa_rate", "entropy",
            "student_gradient_norm",
        )  # fmt: skip
        super().__init__(
            {"student": student},
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.consistency_weight = consistency_weight
        self.temperature = temperature
        self.threshold = threshold
        self.entropy_weight = entropy_weight
        self.tsa_schedule = tsa_schedule
        self.tsa_steps = tsa_steps
        self.targets = targets
        self.weak_view = weak_view
        self.class_prior = class_prior
        self.label_smoothing = label_smoothing
        self.check_parameters()
        check_integer("tsa_steps", tsa_steps, low=0 if tsa_schedule == "none" else 1)
        validation.check_targets(targets, ema_decay=ema_decay)
        validation.check_weak_view(
            entropy_weight, "entropy_weight", learns=weak_view == "joint" and targets == "online"
        )
        self.align = DistributionAlignment(self, class_prior, num_classes=student.output_shape[-1])
        self.class_prior = self.align.class_prior

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One step on `data["labeled"]` and `data["unlabeled"]`."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=True)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, strong = data["unlabeled"]["weak"], data["unlabeled"]["strong"]

        with tf.GradientTape() as tape:
            # S(x_l), S(x_u), S(x̂_u)
            if self.weak_view == "joint" and self.targets == "online":
                logits = self.joint_logits("student", labeled, weak, strong)
                logits_on_labeled, logits_on_weak, logits_on_strong = logits
            else:
                with tape.stop_recording():
                    logits_on_weak = self._target_logits(weak)
                logits_on_labeled, logits_on_strong = self.joint_logits("student", labeled, strong)

            # CE(y_l, S(x_l)) over the images that training signal annealing leaves in.
            selected = self._selected_by_tsa(labels, logits_on_labeled)
            labeled_losses = losses.cross_entropy(
                labels, logits_on_labeled, label_smoothing=self.label_smoothing
            )
            # The released code divides by the number that is selected, over all replicas.
            selected_fraction = replicas.replica_mean(tf.reduce_mean(selected))
            labeled_loss = losses.weighted_mean(selected * labeled_losses, data["labeled"].get("weight"))
            labeled_loss = tf.math.divide_no_nan(labeled_loss, selected_fraction)

            # KL(S(x_u; θ̃) ‖ S(x̂_u)), masked where S(x_u) is not confident; the mean divides by all images.
            target_logits = self.align(logits_on_weak, step=self.step.value)
            mask = losses.confidence_mask(target_logits, self.threshold)
            consistency = losses.consistency(
                target_logits, logits_on_strong, temperature=self.temperature, mask=mask
            )
            consistency_loss = tf.reduce_mean(consistency)

            # Entropy minimization on the weak view, an option of the released code.
            entropy = tf.reduce_mean(losses.entropy(logits_on_weak))

            loss = labeled_loss + self.consistency_weight * consistency_loss + self.entropy_weight * entropy

        # θ ← θ - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        return self.update_metrics(
            loss=loss,
            labeled_loss=labeled_loss,
            consistency_loss=consistency_loss,
            mask_rate=tf.reduce_mean(mask),
            tsa_rate=1.0 - tf.reduce_mean(selected),
            entropy=entropy,
            student_gradient_norm=norm,
        )

    def _target_logits(self, weak):
        """S(x_u; θ̃) from a pass of its own, of which no activations are kept."""
        if self.targets == "average":
            return self.averaged_logits("student", weak)
        return self.training_logits("student", weak)

    def _selected_by_tsa(self, labels, logits):
        """1 for the labeled images `[B]` whose correct class is not yet more likely than η_t, 0 elsewhere."""
        if self.tsa_schedule == "none":
            return tf.ones_like(labels, tf.float32)
        num_classes = logits.shape[-1]
        one_hot = losses.smoothed_one_hot(labels, num_classes)
        correct = tf.reduce_sum(one_hot * tf.nn.softmax(logits), axis=-1)
        threshold = schedules.tsa_threshold(
            self.step.value, self.tsa_steps, num_classes=num_classes, kind=self.tsa_schedule
        )
        return tf.stop_gradient(tf.cast(correct <= threshold, tf.float32))
