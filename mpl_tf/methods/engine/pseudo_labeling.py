"""FreeMatch's thresholds, which follow the predictions on unlabeled images, and the consistency losses by name.

The thresholds are state of the method that owns them: saved with it, and the same on every replica.
"""

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.distribute import replicas


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
        _move(self.global_threshold, tf.reduce_mean(tf.reduce_max(predictions, axis=-1)), self.decay)
        _move(self.mean_prediction, tf.reduce_mean(predictions, axis=0), self.decay)
        _move(self.label_histogram, tf.reduce_mean(most_likely, axis=0), self.decay)

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
        self.thresholds = None
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
        if self.kind == "freematch":
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
        if self.kind == "freematch":
            loss += self.fairness_weight * self.thresholds.fairness(logits_on_strong, mask)
        return loss, mask, metrics


def _move(state: keras.Variable, value: tf.Tensor, decay: float | tf.Tensor) -> None:
    """Assigns decay · state + (1 - decay) · the replicas' mean of the value."""
    moved = decay * state.value + (1.0 - decay) * replicas.replica_mean(tf.stop_gradient(value))
    # A float16 pass may overflow. Its step is skipped, and a running mean would never recover from a nan.
    state.assign(tf.where(tf.math.is_finite(moved), moved, state.value))
