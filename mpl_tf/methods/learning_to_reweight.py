"""Learning to Reweight Examples (Ren, Zeng, Yang, Urtasun; ICML 2018; arXiv 1803.09050, Algorithm 1).

A cheaply labeled image counts as much as learning from it would lower the loss on trusted ones:

    θ̂(ε) = θ - α ∇ Σ ε_i f_i(θ)                                                                  (equations 4, 5)
    u_i = -η ∂/∂ε_i 1/m Σ_j f_j^v(θ̂(ε)) at ε = 0                                                 (equation 7)
        = α η ⟨∇ 1/m Σ_j f_j^v(θ), ∇f_i(θ)⟩                                                      (equation 12)
    w̃_i = max(u_i, 0),   w_i = w̃_i / (Σ_j w̃_j + δ(Σ_j w̃_j))                                      (equations 8, 9)
    θ' = θ - α ∇ Σ w_i f_i(θ)                                                                    (line 14)

| paper | here |
|---|---|
| f_i, f_j^v | `labeled_losses` of the cheap and of the trusted images of a batch |
| ∇ 1/m Σ_j f_j^v | `trusted_gradients` |
| u_i / (α η), a factor that equation 9 cancels | `benefits` |
| w_i | `example_weights`, which are those of the whole batch |

At ε = 0 the virtual step moves nothing, θ̂ = θ. So one pass serves lines 4, 8 and 12, and the derivative of each f_i
along the trusted gradient, which Meta Pseudo Labels' exact feedback computes too, takes the place of line 10.
"""

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_training_batch
from mpl_tf.distribute import replicas
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Number
from mpl_tf.methods.engine import loss_scaling
from mpl_tf.methods.feedback.estimators import TransposedGradient
from mpl_tf.methods.feedback.student import Snapshot, subset_weights


@keras.saving.register_keras_serializable("mpl_tf")
class LearningToReweight(Method):
    """Minimizes the cross-entropy on labeled images, of which the cheap ones count as much as they help the trusted.

    All labeled images of a batch pass together, in one BatchNorm population, as they do in `Supervised`: what a label
    is worth is measured with the statistics that the step is made with. The released code passes the two kinds apart.

    Algorithm 1 learns from the weighted images alone. Here each trusted image counts besides, 1 as the cheap ones do
    on average, so that a batch has its usual size, also for the learning rate. It needs no weight of its own: its
    gradient agrees with a mean that it is in, and it would take most of the weight from the cheap ones. In the
    released code the trusted images are not among those that are weighed; the paper's proof has them there.

    A batch without trusted images gives its cheap ones no weight, one without cheap images is learned from as usual.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        trusted_weight: what a trusted image counts in the step, where a cheap one counts 1 on average; 0, as in the
            paper, measures with them alone.
        label_smoothing: fraction of the target spread over all classes, in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on kernels.
        global_clipnorm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        name: name of the model.

    Raises:
        ValueError: for a value out of range or a network that does not return logits.
    """

    parameter_constraints = Method.parameter_constraints | {
        "trusted_weight": Number(),
        "label_smoothing": Number(high=1.0),
    }

    def __init__(
        self,
        *,
        student: keras.Model,
        trusted_weight: float = 1.0,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = None,
        name: str | None = None,
    ):
        metrics = ("loss", "trusted_loss", "helpful_fraction", "train_accuracy", "student_gradient_norm")
        super().__init__(
            {"student": student},
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.trusted_weight = trusted_weight
        self.label_smoothing = label_smoothing
        self.check_parameters()

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One iteration of Algorithm 1 on `data["labeled"]`, which says what is `"trusted"`."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=False, trusted="LearningToReweight")
        images, labels = data["labeled"]["image"], data["labeled"]["label"]
        trusted, class_weights = data["labeled"]["trusted"], data["labeled"].get("weight")
        before = Snapshot(self.student_pass, self.student_optimizer)
        plain = self.student_pass.is_plain

        with tf.GradientTape(persistent=True) as tape:
            # Line 4: ŷ_f; and line 8: ŷ_g, since θ̂ = θ
            logits = self.student_pass.logits(images, transposable=plain)
            labeled_losses = losses.cross_entropy(labels, logits, label_smoothing=self.label_smoothing)

            # Line 9: l_g
            trusted_loss = losses.weighted_mean(labeled_losses, subset_weights(trusted, class_weights))
            transposed = TransposedGradient(logits) if plain else None
            measured = trusted_loss + (transposed.term if transposed else 0.0)

            with tape.stop_recording():
                # Lines 5 to 7 and 10: -∇ε, but for a factor                                 (equations 7 and 12)
                trusted_gradients = self._trusted_gradients(tape, measured, before, transposed)
                tangents = before.jvp(images, trusted_gradients, transposed=transposed)
                benefits = tf.reduce_sum(tape.gradient(labeled_losses, logits) * tangents, axis=-1)

                # Line 11: w, B times what it is there, for a mean in the place of a sum     (equations 8 and 9)
                cheap_weights = subset_weights(~trusted, class_weights)
                rectified = tf.maximum(benefits, 0.0) * cheap_weights
                total = replicas.replica_mean(tf.reduce_mean(rectified))
                example_weights = tf.math.divide_no_nan(rectified, total)

            # Line 12: l̂_f; and beside it the trusted images' own
            reweighted_loss = losses.weighted_mean(labeled_losses, example_weights)
            fraction = self._trusted_fraction(trusted)
            loss = (1.0 - fraction) * reweighted_loss + fraction * trusted_loss

        # Lines 13 and 14: θ' = θ - α ∇l̂_f
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        helpful_fraction = losses.weighted_mean(tf.cast(benefits > 0.0, tf.float32), cheap_weights)
        return self.update_metrics(
            loss=loss,
            trusted_loss=trusted_loss,
            helpful_fraction=helpful_fraction,
            train_accuracy=losses.accuracy(labels, logits),
            student_gradient_norm=norm,
        )

    def _trusted_gradients(self, tape, loss, before, transposed):
        """∇ 1/m Σ_j f_j^v over the global batch, as far as the student's step goes along it."""

        def gradients_here():
            scale = before.loss_scale
            # Of TensorFlow, which does not know the types of Keras'.
            variables = [variable.value for variable in before.network.trainable_variables]
            zero = tf.UnconnectedGradients.ZERO
            return loss_scaling.unscaled(tape.gradient(loss, variables, scale, zero), scale)

        # What is transposed is the gradient of this replica: its own images are to be weighed.
        gradients = replicas.replica_mean(
            transposed.record(gradients_here) if transposed else gradients_here()
        )
        if before.loss_scale is not None:
            gradients = loss_scaling.zero_unless_finite(gradients)
        return self.backbone_steps["student"].scale(gradients)

    def _trusted_fraction(self, trusted):
        """How much of the loss is the trusted images', where each of them counts `trusted_weight` times."""
        trusted_fraction = replicas.replica_mean(tf.reduce_mean(tf.cast(trusted, tf.float32)))
        counted = self.trusted_weight * trusted_fraction
        return tf.math.divide_no_nan(counted, counted + 1.0 - trusted_fraction)
