"""Pseudo labels of unlabeled images: FreeMatch's thresholds, distribution alignment, and consistency losses by name.

Thresholds and alignment are state of the method that owns them: saved with it, and the same on every replica.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from mpl_tf import losses, schedules
from mpl_tf.distribute import replicas
from mpl_tf.methods.engine.moving_averages import move_average
from mpl_tf.utils.validation import check_distribution


class SelfAdaptiveThreshold:
    """FreeMatch's thresholds, a global one times a local one for each class (arXiv 2205.07246, section 4.1).

    Args:
        method: the `Method` whose state the statistics are.
        num_classes: C.
        decay: λ of the exponential moving averages, in 0…1.
    """

    def __init__(self, method: keras.Model, *, num_classes: int, decay: float):
        self.decay = decay
        initial = {"initial": 1.0 / num_classes}
        self.global_threshold = method.add_state("global_threshold", **initial)
        self.mean_prediction = method.add_state("mean_prediction", shape=(num_classes,), **initial)
        self.label_histogram = method.add_state("label_histogram", shape=(num_classes,), **initial)

    def update(self, predictions: tf.Tensor) -> None:
        """Moves τ_t, p̃_t and h̃_t towards those of a batch (equations 5, 6 and 10).

        Args:
            predictions: float32 `[μB, C]`, q_b, the probabilities on this replica's weak views.
        """
        most_likely = tf.one_hot(tf.argmax(predictions, axis=-1), predictions.shape[-1])
        move_average(
            self.global_threshold, tf.reduce_mean(tf.reduce_max(predictions, axis=-1)), decay=self.decay
        )
        move_average(self.mean_prediction, tf.reduce_mean(predictions, axis=0), decay=self.decay)
        move_average(self.label_histogram, tf.reduce_mean(most_likely, axis=0), decay=self.decay)

    def of_classes(self) -> tf.Tensor:
        """τ_t(c) = p̃_t(c) / max p̃_t · τ_t, float32 `[C]` (equation 7)."""
        mean_prediction = self.mean_prediction.value
        return mean_prediction / tf.reduce_max(mean_prediction) * self.global_threshold.value

    def fairness(self, logits_on_strong: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """L_f of the confident images' strong views, over all replicas (equations 9 and 11).

        Args:
            logits_on_strong: float32 `[μB, C]`, those of Q_b.
            mask: float32 `[μB]`, 1 where the weak view is confident.

        Returns:
            float32 scalar, the same on every replica.
        """
        most_likely = tf.one_hot(tf.argmax(logits_on_strong, axis=-1), logits_on_strong.shape[-1])
        mask = tf.stop_gradient(mask)[:, tf.newaxis]
        strong_prediction = replicas.replica_mean(
            tf.reduce_mean(mask * tf.nn.softmax(logits_on_strong), axis=0)
        )
        strong_histogram = replicas.replica_mean(tf.reduce_mean(mask * most_likely, axis=0))
        return losses.self_adaptive_fairness(
            self.mean_prediction.value, self.label_histogram.value, strong_prediction, strong_histogram
        )


class DistributionAlignment:
    """Makes pseudo labels as frequent as the classes are known to be (ReMixMatch, arXiv 1911.09785, section 3.1).

    A prediction q becomes Normalize(q · p(y) / p̃(y)), where p(y) are the classes' frequencies and p̃(y) the running
    mean of the predictions on unlabeled images. The paper takes the mean over the last 128 batches; here it is an
    exponential moving average, whose decay is warmed up as `schedules.average_decay`.

    Args:
        method: the `Method` whose state the running mean is.
        class_prior: p(y), as many fractions as there are classes; None aligns nothing.
        num_classes: K.
        decay: of the moving average, in 0…1.

    Raises:
        ValueError: for a prior that is no distribution over the classes.
    """

    # ReMixMatch's, in both terms of the ratio: a class that is never predicted keeps a finite factor.
    epsilon = 1e-6

    def __init__(
        self,
        method: keras.Model,
        class_prior: Sequence[float] | None,
        *,
        num_classes: int,
        decay: float = 0.999,
    ):
        self.class_prior = None
        self.decay = decay
        if class_prior is not None:
            check_distribution("class_prior", class_prior, size=num_classes)
            # What a saved method comes back with, whatever sequence was handed in.
            self.class_prior = [float(fraction) for fraction in class_prior]
            self.mean_prediction = method.add_state(
                "prediction_mean", shape=(num_classes,), initial=1.0 / num_classes
            )

    def __call__(self, logits: tf.Tensor, *, step: tf.Tensor) -> tf.Tensor:
        """Moves the running mean towards a batch's predictions and aligns them.

        Args:
            logits: float32 `[N, K]`, on this replica's weak views.
            step: int64 scalar, counted from 0.

        Returns:
            float32 `[N, K]`, the logits of the aligned predictions; `logits` itself where nothing is aligned. No
            gradient flows back.
        """
        if self.class_prior is None:
            return logits
        return tf.stop_gradient(logits + self.shift(logits, step=step))

    def shift(self, logits: tf.Tensor, *, step: tf.Tensor) -> tf.Tensor:
        """Moves the running mean and returns what aligning adds to logits, which is the same for every image.

        Args:
            logits: as in a call.
            step: as in a call.

        Returns:
            float32 `[K]`, log p(y) - log p̃(y), without a gradient; 0 where nothing is aligned.
        """
        if self.class_prior is None:
            return tf.constant(0.0)
        mean = tf.reduce_mean(tf.nn.softmax(logits), axis=0)
        move_average(self.mean_prediction, mean, decay=schedules.average_decay(step, self.decay))
        prior = tf.constant(self.class_prior, tf.float32)
        return tf.math.log((prior + self.epsilon) / (self.mean_prediction.value + self.epsilon))


CONSISTENCIES = ("uda", "fixmatch", "freematch")


class Consistency:
    """What a network is asked about the two views of an unlabeled image, by the name of the method that asks it.

    Args:
        method: the `Method` whose state FreeMatch's thresholds are.
        kind: `"uda"`, `"fixmatch"` or `"freematch"`.
        num_classes: K.
        temperature: sharpening of UDA's target.
        threshold: confidence of UDA and FixMatch.
        threshold_decay: of FreeMatch's thresholds.
        fairness_weight: of FreeMatch's class fairness.
    """

    def __init__(
        self,
        method: keras.Model,
        kind: str,
        *,
        num_classes: int,
        temperature: float,
        threshold: float,
        threshold_decay: float,
        fairness_weight: float,
    ):
        self.kind = kind
        self.temperature, self.threshold, self.fairness_weight = temperature, threshold, fairness_weight
        self.thresholds: SelfAdaptiveThreshold | None = None
        if kind == "freematch":
            self.thresholds = SelfAdaptiveThreshold(method, num_classes=num_classes, decay=threshold_decay)

    def __call__(
        self, logits_on_weak: tf.Tensor, logits_on_strong: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """The loss of a step, whose mean runs over all images, confident or not.

        Args:
            logits_on_weak: float32 `[N, K]`, of which the targets are made, without a gradient.
            logits_on_strong: float32 `[N, K]`.

        Returns:
            The loss, float32 scalar; the mask, float32 `[N]`; and further metrics by name.
        """
        threshold, metrics = self.threshold, {}
        if self.thresholds is not None:
            self.thresholds.update(tf.nn.softmax(logits_on_weak))
            threshold = tf.gather(self.thresholds.of_classes(), tf.argmax(logits_on_weak, axis=-1))
            metrics["global_threshold"] = self.thresholds.global_threshold.value
        mask = losses.confidence_mask(logits_on_weak, threshold)
        loss_of_views, temperature = losses.pseudo_label_consistency, 0.0
        if self.kind == "uda":
            loss_of_views, temperature = losses.consistency, self.temperature
        loss = tf.reduce_mean(
            loss_of_views(logits_on_weak, logits_on_strong, temperature=temperature, mask=mask)
        )
        if self.thresholds is not None:
            loss += self.fairness_weight * self.thresholds.fairness(logits_on_strong, mask)
        return loss, mask, metrics
