"""How good a network is, in numbers."""

import math

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.methods import refusals


def evaluate(network: keras.Model, batches: tf.data.Dataset) -> dict:
    """Compares a network's predictions with the labels, in one pass.

    Args:
        network: `keras.Model` from pictures or points to logits `[B, K]`.
        batches: finite dataset of `{"image": float32 [B, …], "label": int32 [B]}`; the last batch may be
            smaller.

    Returns:
        A dict of plain Python numbers and lists, ready for JSON:
        `accuracy`: the share of correct predictions, in 0…1.
        `standard_error`: that of the accuracy p on n pictures drawn independently, √(p (1 − p) / n).
        `loss`: mean cross-entropy, in nats.
        `count`: n.
        `per_class_accuracy`: K shares, None for a class without pictures.
        `confusion`: K × K counts, `confusion[label][prediction]`.

    Raises:
        ValueError: for a dataset without batches, labels that the network has no output for, or outputs that
            are not finite.
    """
    confusion, total_loss = _count(network, batches)
    count = int(confusion.sum())
    correct, of_class = np.diag(confusion), confusion.sum(axis=1)
    accuracy = float(correct.sum() / count)
    return {
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1.0 - accuracy) / count),
        "loss": total_loss / count,
        "count": count,
        "per_class_accuracy": [
            int(hits) / int(total) if total else None for hits, total in zip(correct, of_class, strict=True)
        ],
        "confusion": confusion.tolist(),
    }


def _count(network, batches):
    """The confusion matrix, int `[K, K]`, and the sum of all cross-entropies, a float."""
    confusion, total_loss = None, 0.0
    for batch in batches:
        images, labels = refusals.evaluation_batch(batch)
        # The network keeps the function that this compiles, for the next dataset.
        logits = tf.cast(network.predict_on_batch(images), tf.float32)
        num_classes = logits.shape[-1]
        _refuse_labels(np.asarray(labels), num_classes)
        counts = tf.math.confusion_matrix(labels, tf.argmax(logits, axis=-1), num_classes, dtype=tf.int64)
        confusion = counts if confusion is None else confusion + counts
        total_loss += tf.reduce_sum(tf.cast(losses.cross_entropy(labels, logits), tf.float64))
    if confusion is None:
        raise ValueError(
            "The dataset to evaluate on is empty: pass at least one batch, and leave drop_remainder off where "
            "there are fewer pictures than a batch holds."
        )
    if not np.isfinite(total_loss):
        raise ValueError(
            f"The loss of {network.name!r} on the evaluated pictures is {float(total_loss)}: take a checkpoint "
            "from before its training diverged, and look for pictures that are not finite."
        )
    return confusion.numpy(), float(total_loss)


def _refuse_labels(labels, num_classes):
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"The label {wrong[0]} is out of range for a network with {num_classes} outputs: evaluate on "
            f"labels in 0…{num_classes - 1}, or build the network for more classes."
        )
