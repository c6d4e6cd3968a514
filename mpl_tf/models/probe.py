"""Linear probes: a network's features, computed once and stored, and a logistic regression on them.

The cheapest baseline for a network that has learned elsewhere, in seconds; and the start of its new head, without
which the first steps of fine-tuning send a random head's gradients through all of its layers.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import optimize, special

from mpl_tf.models.fingerprints import weights_fingerprint
from mpl_tf.models.heads import find_features, set_head, without_nested_head
from mpl_tf.models.surgery import as_functional
from mpl_tf.utils import files

# Inverse strengths of the penalty that are tried, from strong to weak.
REGULARIZATIONS = (1.0, 3.0, 10.0, 30.0, 100.0)
_FOLDS = 5

_IRRELEVANT = re.compile(r"name|trainable|seed|batch_shape|.*_initializer|.*_regularizer")


@dataclasses.dataclass(frozen=True)
class Probe:
    """A logistic regression on features, as a dense layer takes it.

    Attributes:
        kernel: float32 `[F, K]`.
        bias: float32 `[K]`.
        regularization: C, the inverse strength of the penalty ½ ‖w‖² on normalized features.
        temperature: that the regression's logits were divided by, so that its confidence is about right on images
            that it was not fitted to; 1 where there was nothing to measure that by.
        cross_validated_nll: nats per image over folds of the labeled images, at the best temperature, for each C that
            was tried; empty where there was nothing to choose by.
    """

    kernel: np.ndarray
    bias: np.ndarray
    regularization: float
    temperature: float
    cross_validated_nll: dict[float, float]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits, float32 `[N, K]`, on features `[N, F]`."""
        return np.asarray(features, np.float32) @ self.kernel + self.bias


def feature_model(network: keras.Model) -> keras.Model:
    """Makes the part of a network that ends before its head.

    Args:
        network: functional or sequential; the part shares its layers.

    Returns:
        A model from images to features, float32 `[B, F]`.
    """
    network = without_nested_head(as_functional(network))
    tensor = find_features(network)
    if len(tensor.shape) == 4:
        tensor = keras.layers.GlobalAveragePooling2D()(tensor)
    return keras.Model(network.input, tensor)


def extract_features(
    network: keras.Model,
    images: Any,
    indices: Sequence[int] | np.ndarray,
    *,
    cache_dir: str | os.PathLike | None = None,
    batch_size: int = 128,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Computes the features of images that are not augmented, each image's once and for all where they are stored.

    Args:
        network: from images to logits, or a backbone.
        images: `mpl_tf.data` images, with `fetch`, `image_shape`, `fingerprint` and perhaps `resizing`.
        indices: int `[N]`, which of them.
        cache_dir: folder in which features are stored, under the fingerprints of network and images; None for none.
        batch_size: images per batch.
        advance: called with how many images are done, for a progress bar.

    Returns:
        float32 `[N, F]`.

    Raises:
        ValueError: when features are not finite.
    """
    model, indices = feature_model(network), np.asarray(indices, np.int64)
    folder = None if cache_dir is None else _folder(cache_dir, model, images)
    known, rows = _stored(folder, model.output_shape[-1])
    missing = np.setdiff1d(indices, known)
    advance(len(indices) - np.isin(indices, missing).sum())
    if len(missing):
        computed = _compute(model, images, missing, batch_size, advance)
        if not np.isfinite(computed).all():
            raise ValueError(
                f"The features of {network.name!r} are not finite: take a network from before its training diverged, "
                "and look for images that are not finite."
            )
        if folder is not None:
            _store(folder, missing, computed)
        known, rows = np.concatenate([known, missing]), np.concatenate([rows, computed])
    order = np.argsort(known, kind="stable")
    return rows[order[np.searchsorted(known, indices, sorter=order)]]


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    regularization: float | None = None,
    seed: int = 0,
) -> Probe:
    """Fits a multinomial logistic regression to normalized features.

    Features are divided by their lengths, whose differences tell little of the classes: with four images per class
    that is worth a point. The dense layer that is returned divides all by the mean length instead, which was seen to
    make no difference there, and leaves the network's head linear.

    Args:
        features: float `[N, F]`.
        labels: int `[N]`, with at least one example of each class.
        num_classes: K.
        regularization: C; None chooses among `REGULARIZATIONS` by the cross-validated negative log-likelihood on
            these examples, and takes the middle one where a class has a single example. Each C is given its best
            temperature first: otherwise a weak penalty would win for its confidence, not for what it gets right.
        seed: of the folds.

    Returns:
        The probe.

    Raises:
        ValueError: for a class without an example.
    """
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes or not counts.all():
        raise ValueError(
            f"The labels of the {len(labels)} examples cover {np.count_nonzero(counts)} of {num_classes} classes: a "
            "probe needs at least one labeled image of each."
        )
    lengths = np.linalg.norm(features, axis=1)
    mean_length = lengths.mean() or 1.0
    directions = features / np.maximum(lengths, 1e-12)[:, np.newaxis]
    # The penalized solution lies in the span of the examples, where it is the same and cheaper to find.
    basis = np.eye(features.shape[1])
    if len(features) < features.shape[1]:
        _, _, basis = np.linalg.svd(directions, full_matrices=False)
    reduced = directions @ basis.T
    scores, temperatures = {}, {}
    if regularization is None and counts.min() > 1:
        scores, temperatures = _cross_validate(
            reduced, lengths / mean_length, labels, smallest_class=int(counts.min()), seed=seed
        )
    if regularization is None:
        middle = REGULARIZATIONS[len(REGULARIZATIONS) // 2]
        regularization = min(scores, key=lambda strength: scores[strength]) if scores else middle
    temperature = temperatures.get(regularization, 1.0)
    weights, bias = _regress(reduced, labels, regularization)
    kernel = basis.T @ weights / (mean_length * temperature)
    bias = bias / temperature
    return Probe(
        kernel.astype(np.float32), bias.astype(np.float32), float(regularization), temperature, scores
    )


def start_head(
    network: keras.Model,
    images: Any,
    indices: Sequence[int],
    *,
    cache_dir: str | os.PathLike | None = None,
    regularization: float | None = None,
    seed: int = 0,
) -> Probe:
    """Gives a network's head the weights of a linear probe of the features before it.

    Args:
        network: whose last layer is dense, from features to logits.
        images: as for `extract_features`, with `labels`.
        indices: int `[N]`, the labeled ones among them.
        cache_dir: as for `extract_features`.
        regularization: as for `fit_probe`.
        seed: as for `fit_probe`.

    Returns:
        The probe.
    """
    features = extract_features(network, images, indices, cache_dir=cache_dir)
    labels = np.asarray(images.labels)[np.asarray(indices, np.int64)]
    probe = fit_probe(features, labels, network.output_shape[-1], regularization=regularization, seed=seed)
    set_head(network, probe.kernel, probe.bias)
    return probe


def _compute(model, images, indices, batch_size, advance):
    @tf.function
    def features_of(index):
        return tf.cast(model(tf.cast(images.fetch(index), tf.float32), training=False), tf.float32)

    parts = []
    for start in range(0, len(indices), batch_size):
        index = indices[start : start + batch_size]
        # Of one size, so that one trace serves all.
        filled = np.resize(index, min(batch_size, len(indices)))
        parts.append(features_of(tf.constant(filled)).numpy()[: len(index)])
        advance(len(index))
    return np.concatenate(parts)


def _cross_validate(directions, lengths, labels, *, smallest_class, seed):
    """C → negative log-likelihood over folds, and C → temperature; features are seen with their lengths."""
    # Imported where it is needed: it takes a second, and most processes never fit a probe.
    from sklearn.model_selection import StratifiedKFold

    # With many examples C matters little and each fit takes long.
    folds = min(_FOLDS if len(labels) <= 1000 else 3, smallest_class)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    logits = {c: np.zeros((len(labels), labels.max() + 1)) for c in REGULARIZATIONS}
    for train, held_out in splitter.split(directions, labels):
        start = None
        for regularization in REGULARIZATIONS:
            start = _regress(directions[train], labels[train], regularization, start=start)
            weights, bias = start
            logits[regularization][held_out] = (
                lengths[held_out, np.newaxis] * (directions[held_out] @ weights) + bias
            )

    def nll(log_temperature, regularization):
        log_probabilities = special.log_softmax(logits[regularization] / np.exp(log_temperature), axis=1)
        return -log_probabilities[np.arange(len(labels)), labels].mean()

    # Where all held-out examples are right, no temperature is low enough: it ends at e^-2.5, a twelfth.
    found = {
        c: optimize.minimize_scalar(nll, bounds=(-2.5, 4), args=(c,), method="bounded")
        for c in REGULARIZATIONS
    }
    return (
        {c: float(result.fun) for c, result in found.items()},
        {c: float(np.exp(result.x)) for c, result in found.items()},
    )


def _regress(features, labels, regularization, *, start=None):
    """Weights `[F, K]` and bias `[K]` of scikit-learn's logistic regression, from another's on where given."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = int(labels.max()) + 1
    regression = LogisticRegression(C=regularization, max_iter=500, tol=1e-4, warm_start=start is not None)
    if start is not None and classes > 2:
        regression.coef_, regression.intercept_ = start[0].T.copy(), start[1].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(features, labels)
    if classes == 2:
        # One logit of the second class is as good as two halves.
        half = regression.coef_.T / 2
        return np.concatenate([-half, half], axis=1), np.array([-1.0, 1.0]) * regression.intercept_ / 2
    return regression.coef_.T, regression.intercept_


def _folder(cache_dir, model, images):
    # Names, seeds and which layers learn change nothing in what a finished network computes.
    layers = [
        (
            type(layer).__name__,
            [(k, v) for k, v in layer.get_config().items() if not _IRRELEVANT.fullmatch(k)],
        )
        for layer in model.layers
    ]
    pixels = images.fingerprint(), tuple(images.image_shape), getattr(images, "resizing", None)
    parts = layers, weights_fingerprint(model), *pixels
    return pathlib.Path(cache_dir) / hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _stored(folder, width):
    """The indices and the features of what a folder holds."""
    indices, rows = [np.zeros(0, np.int64)], [np.zeros((0, width), np.float32)]
    for file in sorted(folder.glob("*.npz")) if folder is not None else ():
        if file.name.startswith("."):
            continue
        try:
            with np.load(file) as stored:
                part = stored["index"], stored["features"]
        except files.DAMAGED as error:
            warnings.warn(
                f"The stored features {file} cannot be read ({type(error).__name__}: {error}): they are removed, and "
                "computed again.",
                stacklevel=3,
            )
            file.unlink(missing_ok=True)
            continue
        indices.append(part[0])
        rows.append(part[1])
    return np.concatenate(indices), np.concatenate(rows)


def _store(folder, indices, features):
    name = hashlib.sha256(indices.tobytes()).hexdigest()[:16]
    with files.replacing(folder / f"{name}.npz") as temporary:
        np.savez(temporary, index=indices, features=features)
