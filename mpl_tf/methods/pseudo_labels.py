"""Pseudo Labels (Lee 2013, ICML workshop) with the regularization of Arazo et al. 2020 (arXiv 1908.02983).

    L(θ) = 1/n Σ CE(y, S(x_l; θ)) + α(t) 1/n' Σ CE(y', S(x_u; θ)) + λ_A R_A + λ_H R_H

The first two terms are Lee's equation 15, the other two Arazo's. y' comes from the current model at every step
(`labels="online"`, Lee), from a finished teacher, once (`"fixed"`, what Meta Pseudo Labels is compared with), or from
the student at the end of every epoch (`"stored"`, Arazo). Arazo trains on mixtures of labeled and unlabeled images.
With `labels="online"` and `view="strong"` the second term is FixMatch's (Sohn et al. 2020, arXiv 2001.07685).

| paper | here |
|---|---|
| S(x_l), S(x_u) | `logits`, labeled rows first, from one pass |
| y' | `targets`, and `mask`, 0 for unlabeled images without a confident label |
| α(t): α_f times a ramp from T1 to T2 | `unlabeled_weight`, `schedules.delayed_ramp`, `ramp_start`, `ramp_end` |
| x = δ x_p + (1 - δ) x_q | `mix` |
| R_A, R_H | `prior_divergence`, `entropy` |
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import losses, schedules
from mpl_tf.data.augmentation import mixup
from mpl_tf.data.batches import batch_size, check_training_batch
from mpl_tf.distribute import replicas, workers
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method, fit_arguments
from mpl_tf.methods.constraints import Boolean, Choice, Integer, Number
from mpl_tf.models.heads import probabilities
from mpl_tf.utils.validation import check_integer


@keras.saving.register_keras_serializable("mpl_tf")
class PseudoLabels(Method):
    """Trains a student on labels that itself, or a teacher, gives the unlabeled images.

    The defaults are Lee's but for the threshold, of which Lee has none (0). Labels that are kept are the rows of a
    non-trainable weight, 4 · `num_images` · K bytes, so every checkpoint has them; `relabel` fills them in. An
    unlabeled image whose row is still zero does not count.

    Args:
        student: built `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`.
        labels: `"online"`, `"fixed"` (call `relabel` with a teacher before training) or `"stored"` (refreshed by
            `end_epoch`; with plain `fit`, pass the callback `mpl_tf.training.callbacks.EndEpoch`).
        num_images: how many training images the source has, labeled or not, where labels are kept: they are
            looked up by `data["unlabeled"]["index"]`.
        hard: whether the label is the most likely class or the whole distribution.
        threshold: confidence below which an unlabeled image is masked, in 0…1. The mean still runs over all.
        labeled_weight: factor on the loss of the labeled images. With 1 / (1 + μ) here and μ / (1 + μ) for the
            unlabeled ones, μ unlabeled images to a labeled one, every image weighs the same, as in Arazo.
        unlabeled_weight: α_f, what the factor on the loss of the unlabeled images rises to.
        ramp_start: T1, the step until which that factor is 0.
        ramp_end: T2, the step at which it has risen, linearly, to α_f.
        view: `"weak"` or `"strong"`, the view of an unlabeled image that the student learns from.
        mixup: α of mixup's Beta distribution; 0 mixes nothing.
        prior_weight: λ_A, the factor on the divergence of the mean prediction from the uniform one; Arazo's is 0.8.
        entropy_weight: λ_H, the factor on the predictions' entropy; Arazo's is 0.4.
        label_smoothing: of the labeled images' labels, in 0…1.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on kernels.
        global_clipnorm: largest global norm of the gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        seed: of the mixtures.
        name: name of the model.

    Raises:
        ValueError: for a value out of range or a network that does not return logits.
    """

    parameter_constraints = Method.parameter_constraints | {
        "labels": Choice("online", "fixed", "stored"),
        "num_images": Integer(),
        "hard": Boolean(),
        "threshold": Number(high=1.0),
        "labeled_weight": Number(),
        "unlabeled_weight": Number(),
        "ramp_start": Integer(),
        "ramp_end": Integer(),
        "view": Choice("weak", "strong"),
        "mixup": Number(),
        "prior_weight": Number(),
        "entropy_weight": Number(),
        "label_smoothing": Number(high=1.0),
        "seed": Integer(),
    }

    def __init__(
        self,
        *,
        student: keras.Model,
        labels: str = "online",
        num_images: int = 0,
        hard: bool = True,
        threshold: float = 0.95,
        labeled_weight: float = 1.0,
        unlabeled_weight: float = 3.0,
        ramp_start: int = 100,
        ramp_end: int = 600,
        view: str = "weak",
        mixup: float = 0.0,
        prior_weight: float = 0.0,
        entropy_weight: float = 0.0,
        label_smoothing: float = 0.0,
        weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
        name: str | None = None,
    ):
        metrics = (
            "loss", "labeled_loss", "unlabeled_loss", "mask_rate", "prior_divergence", "entropy",
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
        self.labels = labels
        self.num_images = num_images
        self.hard = hard
        self.threshold = threshold
        self.labeled_weight = labeled_weight
        self.unlabeled_weight = unlabeled_weight
        self.ramp_start = ramp_start
        self.ramp_end = ramp_end
        self.view = view
        self.mixup = mixup
        self.prior_weight = prior_weight
        self.entropy_weight = entropy_weight
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.check_parameters()
        check_integer("num_images", num_images, low=0 if labels == "online" else 1)
        check_integer("ramp_end", ramp_end, low=ramp_start)
        self.stores_labels = labels != "online"
        if self.stores_labels:
            self.stored_labels = self.add_state("stored_labels", shape=(num_images, student.output_shape[-1]))

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One step on `data["labeled"]` and `data["unlabeled"]`."""
        data = self.views(data)
        check_training_batch(data, self.student, unlabeled=True, index=self.stores_labels)
        labeled, labels = data["labeled"]["image"], data["labeled"]["label"]
        weak, unlabeled = data["unlabeled"]["weak"], data["unlabeled"][self.view]
        num_labeled, num_unlabeled = map(batch_size, (labeled, unlabeled))
        num_images = num_labeled + num_unlabeled

        # x = δ x_p + (1 - δ) x_q, over labeled and unlabeled images together.
        mix = self._draw_mixing(num_images)
        images = mix(tf.concat([labeled, unlabeled], axis=0))

        with tf.GradientTape() as tape:
            # S(x_l), S(x_u): one pass. The current model's labels come from it too; where it would not see the
            # weak views as they are, they are appended.
            if not self.stores_labels and (self.view == "strong" or self.mixup):
                images = tf.concat([images, weak], axis=0)
            logits = self.training_logits("student", images)
            logits, logits_on_weak = logits[:num_images], logits[-num_unlabeled:]

            # y': no gradient reaches it.
            if self.stores_labels:
                predictions = tf.gather(self.stored_labels.value, data["unlabeled"]["index"])
            else:
                predictions = tf.stop_gradient(tf.nn.softmax(logits_on_weak))
            targets, mask = self._pseudo_labels(predictions)

            # Each stream's targets in rows of all images, zeros in the other's, so that both may be mixed.
            labeled_targets = losses.smoothed_one_hot(
                labels, logits.shape[-1], label_smoothing=self.label_smoothing
            )
            if "weight" in data["labeled"]:
                # The loss is linear in its targets, so that a weight may be in them, and be mixed with them.
                labeled_targets *= tf.cast(data["labeled"]["weight"], tf.float32)[:, tf.newaxis]
            labeled_targets = tf.pad(labeled_targets, [[0, num_unlabeled], [0, 0]])
            unlabeled_targets = tf.pad(mask[:, tf.newaxis] * targets, [[num_labeled, 0], [0, 0]])

            # 1/n Σ CE(y, S(x_l)) and 1/n' Σ CE(y', S(x_u)); n' counts the masked images too.
            labeled_losses = losses.soft_cross_entropy(mix(labeled_targets), logits)
            labeled_loss = tf.reduce_sum(labeled_losses) / tf.cast(num_labeled, tf.float32)
            unlabeled_losses = losses.soft_cross_entropy(mix(unlabeled_targets), logits)
            unlabeled_loss = tf.reduce_sum(unlabeled_losses) / tf.cast(num_unlabeled, tf.float32)

            # R_A, of the mean prediction over the global batch, and R_H.
            mean_prediction = replicas.replica_mean(tf.reduce_mean(tf.nn.softmax(logits), axis=0))
            prior_divergence = losses.prior_divergence(mean_prediction)
            entropy = tf.reduce_mean(losses.entropy(logits))

            # L = 1/n Σ … + α(t) 1/n' Σ … + λ_A R_A + λ_H R_H
            ramp = schedules.delayed_ramp(self.step.value, start=self.ramp_start, end=self.ramp_end)
            loss = self.labeled_weight * labeled_loss + ramp * self.unlabeled_weight * unlabeled_loss
            loss += self.prior_weight * prior_divergence + self.entropy_weight * entropy

        # θ ← θ - η ∇L
        gradients = self.gradients(tape, student=loss)
        norm = self.apply_gradients("student", gradients["student"])
        self.end_step(after=norm)

        return self.update_metrics(
            loss=loss,
            labeled_loss=labeled_loss,
            unlabeled_loss=unlabeled_loss,
            mask_rate=tf.reduce_mean(mask),
            prior_divergence=prior_divergence,
            entropy=entropy,
            student_gradient_norm=norm,
        )

    def table_size(self) -> int | None:
        """Rows of the stored labels."""
        return self.num_images if self.stores_labels else None

    def _draw_mixing(self, rows):
        if not self.mixup:
            return mixup.unmixed
        return mixup.draw(mixup.beta_quantiles(self.mixup), rows=rows, seed=self.seed, step=self.step.value)

    def _pseudo_labels(self, predictions):
        """The targets `[N, K]` that predictions become, and a mask `[N]`, 1 where they are confident."""
        confidence = tf.reduce_max(predictions, axis=-1)
        mask = tf.cast((confidence >= self.threshold) & (confidence > 0.0), tf.float32)
        if self.hard:
            predictions = tf.one_hot(tf.argmax(predictions, axis=-1), predictions.shape[-1])
        return predictions, mask

    # --- labels that are kept --------------------------------------------------------------------------

    def relabel(self, network: keras.Model, batches: tf.data.Dataset) -> None:
        """Keeps a network's predictions, in inference mode, as the labels of unlabeled images.

        Args:
            network: from images to logits `[b, K]`. It is not kept.
            batches: finite dataset of `{"image": float32 [b, H, W, C], "index": int64 [b]}`, not augmented.

        Raises:
            ValueError: when labels are not kept, or the network has another number of classes.
        """
        validation.check_relabeling(network, self.student, labels=self.labels)
        self._store_labels(tf.function(lambda images: probabilities(network, images)), batches)

    def end_epoch(self, unlabeled: tf.data.Dataset) -> None:
        """Refreshes stored labels with the served student's predictions."""
        if self.labels == "stored":
            self._store_labels(self._predict, unlabeled)

    # Compiled once; a function of `relabel`'s own would be compiled anew in every epoch.
    @tf.function(reduce_retracing=True)
    def _predict(self, images):
        return probabilities(self.inference_model, images)

    def _store_labels(self, predict, batches):
        kept = self.stored_labels.numpy()
        table, labeled = np.zeros_like(kept), np.zeros(len(kept), bool)
        for batch in batches:
            rows = np.asarray(batch["index"])
            validation.check_indices(rows, len(table))
            table[rows], labeled[rows] = predict(batch["image"]), True
        table, labeled = workers.merge(self.distribute_strategy, table, labeled)
        self.stored_labels.assign(np.where(labeled[:, np.newaxis], table, kept))

    def pseudo_label(self, images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """The labels that are kept, or else what the student predicts."""
        return (
            tf.gather(self.stored_labels.value, index)
            if self.stores_labels
            else super().pseudo_label(images, index)
        )

    def fit(self, *arguments: Any, **options: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; raises for stored labels that nobody has given and nobody will give."""
        callbacks = tf.nest.flatten(fit_arguments(self, *arguments, **options).get("callbacks") or [])
        refreshed = self.labels == "stored" and any(
            getattr(each, "calls_end_epoch", False) for each in callbacks
        )
        if self.stores_labels and not refreshed:
            validation.check_labels_stored(self.stored_labels, labels=self.labels)
        return super().fit(*arguments, **options)
