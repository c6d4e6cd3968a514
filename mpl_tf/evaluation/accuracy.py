"""How good a network is, in numbers: what its logits say about labeled images, in one pass over them."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from scipy import special

from mpl_tf.data.batches import check_evaluation_batch
from mpl_tf.distribute import replicas
from mpl_tf.evaluation import calibration
from mpl_tf.utils.progress import no_progress

TOP = 5


class Outcomes(NamedTuple):
    """What became of each of N images.

    Attributes:
        label: int `[N]`.
        prediction: int `[N]`, the most likely class.
        confidence: float64 `[N]`, its probability.
        loss: float64 `[N]`, cross-entropy in nats.
        brier: float64 `[N]`, Σ_k (p_k − [k = label])², in 0…2 (Brier 1950).
        in_top: bool `[N]`, whether fewer than five classes are likelier than the label.
    """

    label: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    loss: np.ndarray
    brier: np.ndarray
    in_top: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Bool `[N]`."""
        return self.prediction == self.label


def evaluate(
    network: keras.Model,
    batches: tf.data.Dataset,
    *,
    classes: Sequence[int] | None = None,
    advance: Callable[[int], None] = no_progress,
) -> dict:
    """Compares a network's predictions with the labels, in one pass.

    Args:
        network: `keras.Model` from images or points to logits `[B, K]`.
        batches: finite dataset of `{"image": float32 [B, …], "label": int32 [B]}`; the last batch may be
            smaller.
        classes: the logits to choose among, for images of some classes only; a label is then a position in
            this list, and K is its length. None for all.
        advance: is told how many more images are done, `Progress.update`.

    Returns:
        A dict of plain Python numbers and lists, ready for JSON:
        `accuracy`: the fraction of correct predictions, in 0…1.
        `standard_error`: that of the accuracy p on n images drawn independently, √(p (1 − p) / n).
        `balanced_accuracy`: the mean of the classes' accuracies, over the classes that have images.
        `macro_f1`: the mean of the classes' F1 scores, over the classes that have images or are predicted.
        `top5_accuracy`: the fraction of labels among the five most likely classes, where K is above 5.
        `nll`: negative log-likelihood, the mean cross-entropy in nats.
        `brier`: mean Σ_k (p_k − [k = label])², in 0…2.
        `ece`: expected calibration error, see `expected_calibration_error`.
        `count`: n.
        `per_class_accuracy`: K fractions, None for a class without images.
        `confusion`: K × K counts, `confusion[label][prediction]`.

    Raises:
        ValueError: for a dataset without batches, labels that the network has no output for, or outputs that
            are not finite.
    """
    found = collect_outcomes(network, batches, classes=classes, advance=advance)
    return summarize(found, network.output_shape[-1] if classes is None else len(classes))


def collect_outcomes(
    network: keras.Model,
    batches: tf.data.Dataset,
    *,
    classes: Sequence[int] | None = None,
    advance: Callable[[int], None] = no_progress,
) -> Outcomes:
    """Compares a network's predictions with the labels image by image, in one pass and in the order of the batches.

    Args:
        network: as for `evaluate`.
        batches: as for `evaluate`.
        classes: as for `evaluate`.
        advance: as for `evaluate`.

    Returns:
        What became of each image; `summarize` makes numbers of it.

    Raises:
        ValueError: as `evaluate`.
    """
    passes = _passes(network, batches, classes, advance)
    parts = [outcomes(logits, labels) for logits, labels in passes]
    return Outcomes(*map(np.concatenate, zip(*parts, strict=True)))


def predict(
    network: keras.Model, batches: tf.data.Dataset, *, advance: Callable[[int], None] = no_progress
) -> tuple[np.ndarray, np.ndarray]:
    """Collects a network's logits on labeled images.

    Args:
        network: as for `evaluate`.
        batches: as for `evaluate`.
        advance: as for `evaluate`.

    Returns:
        Logits, float32 `[N, K]`, and labels, int64 `[N]`.

    Raises:
        ValueError: as `evaluate`.
    """
    logits, labels = zip(*_passes(network, batches, None, advance), strict=True)
    return np.concatenate(logits), np.concatenate(labels)


def outcomes(logits: np.ndarray, labels: np.ndarray) -> Outcomes:
    """What was predicted of each image, and how well, from its logits.

    Args:
        logits: float `[N, K]`.
        labels: int `[N]`.

    Returns:
        `Outcomes`, computed in float64. Of equally likely classes the first is the prediction.
    """
    log_probabilities = special.log_softmax(np.asarray(logits, np.float64), axis=-1)
    rows = np.arange(len(labels))
    of_label = log_probabilities[rows, labels]
    probabilities = np.exp(log_probabilities)
    # Σ_k (p_k − [k = y])² = Σ_k p_k² − 2 p_y + 1.
    brier = np.square(probabilities).sum(axis=-1) - 2.0 * probabilities[rows, labels] + 1.0
    likelier = (log_probabilities > of_label[:, np.newaxis]).sum(axis=-1)
    return Outcomes(
        label=np.asarray(labels, np.int64),
        prediction=log_probabilities.argmax(axis=-1),
        confidence=probabilities.max(axis=-1),
        loss=-of_label,
        brier=brier,
        in_top=likelier < TOP,
    )


def summarize(result: Outcomes, num_classes: int) -> dict:
    """Turns outcomes into the numbers that `evaluate` returns.

    Args:
        result: `Outcomes` of at least one image.
        num_classes: K.

    Returns:
        As `evaluate`.
    """
    pairs = np.bincount(result.label * num_classes + result.prediction, minlength=num_classes**2)
    confusion = pairs.reshape(num_classes, num_classes)
    count, accuracy = len(result.label), float(result.correct.mean())
    hits, images, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    present, occurring = images > 0, images + predicted > 0
    return {
        "accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1.0 - accuracy) / count),
        "balanced_accuracy": float((hits[present] / images[present]).mean()),
        # F1 = 2 TP / (2 TP + FP + FN), whose denominator counts the images and the predictions of the class.
        "macro_f1": float((2 * hits[occurring] / (images + predicted)[occurring]).mean()),
        **({"top5_accuracy": float(result.in_top.mean())} if num_classes > TOP else {}),
        "nll": float(result.loss.mean()),
        "brier": float(result.brier.mean()),
        "ece": calibration.expected_calibration_error(result.confidence, result.correct),
        "count": count,
        "per_class_accuracy": [
            int(right) / int(total) if total else None for right, total in zip(hits, images, strict=True)
        ],
        "confusion": confusion.tolist(),
    }


def _passes(network, batches, classes, advance) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Logits, float32 `[B, K]`, and labels, int64 `[B]`, of each batch."""
    empty = True
    for batch in batches:
        images, labels = check_evaluation_batch(batch)
        # The network keeps the function that this compiles, for the next dataset.
        logits = replicas.predict(network, images).astype(np.float32)
        if classes is not None:
            logits = logits[:, classes]
        labels = np.asarray(labels, np.int64)
        _check_labels(labels, logits.shape[1])
        if not np.isfinite(logits).all():
            raise ValueError(
                f"The logits of {network.name!r} on the evaluated images are not finite: take a checkpoint from "
                "before its training diverged, and look for images that are not finite."
            )
        empty = False
        yield logits, labels
        advance(len(labels))
    if empty:
        raise ValueError(
            "The dataset to evaluate on is empty: pass at least one batch, and leave drop_remainder off where "
            "there are fewer images than a batch holds."
        )


def _check_labels(labels, num_classes):
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"The label {wrong[0]} is out of range for a network with {num_classes} outputs: evaluate on "
            f"labels in 0…{num_classes - 1}, or build the network for more classes."
        )
