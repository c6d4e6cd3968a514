"""Distribution alignment: predictions on unlabeled images keep to a marginal distribution of the classes.

    q̃ ∝ q p(y) / p̃(y)        (ReMixMatch: Berthelot et al. 2020, arXiv 1911.09785, section 3.1)

p̃(y) is a moving average of the predictions q on unlabeled images and p(y) the distribution that they are to have:
that of the labels, or the uniform one. In logits the product is a sum, so that aligning is adding one vector.
"""

from typing import Any

import keras
import tensorflow as tf

from mpl_tf.distribute import replicas

KINDS = ("none", "uniform", "labeled")


class DistributionAlignment(keras.layers.Layer):
    """Keeps the moving averages of a method and returns what is to be added to its logits.

    Args:
        num_classes: K.
        kind: `"uniform"`, or `"labeled"` for the moving average of the labels in the batches.
        decay: of the moving averages; the paper averages over the last 128 batches.
    """

    def __init__(self, num_classes: int, *, kind: str, decay: float = 0.99, **options: Any):
        super().__init__(dtype="float32", **options)
        self.num_classes, self.kind, self.decay = num_classes, kind, decay
        # As differences from the uniform distribution, which is where both averages begin.
        state = {"shape": (num_classes,), "initializer": "zeros", "trainable": False}
        self.predicted = self.add_weight(name="predicted", aggregation="only_first_replica", **state)
        self.labeled = self.add_weight(name="labeled", aggregation="only_first_replica", **state)
        self.built = True

    def call(self, logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Takes a batch into the averages.

        Args:
            logits: float32 `[N, K]` on unlabeled images.
            labels: int `[B]` of the batch's labeled ones.

        Returns:
            float32 `[K]`: log p(y) - log p̃(y), without a gradient, the same on every replica.
        """
        predictions = tf.reduce_mean(tf.nn.softmax(tf.stop_gradient(logits)), axis=0)
        predicted = self._averaged(self.predicted, predictions)
        if self.kind == "uniform":
            return -tf.math.log(predicted)
        frequencies = tf.reduce_mean(tf.one_hot(labels, self.num_classes), axis=0)
        return tf.math.log(self._averaged(self.labeled, frequencies)) - tf.math.log(predicted)

    def _averaged(self, state, values):
        """The moving average, this batch's values included."""
        values = replicas.replica_mean(values) - 1.0 / self.num_classes
        average = self.decay * state.value + (1.0 - self.decay) * values
        state.assign(average)
        # A class that is never predicted is not to be boosted without bound.
        return tf.maximum(average + 1.0 / self.num_classes, 1e-6)


def make(network: keras.Model, kind: str) -> DistributionAlignment | None:
    """The alignment of a classifier's predictions, None for `"none"`."""
    return None if kind == "none" else DistributionAlignment(network.output_shape[-1], kind=kind)
