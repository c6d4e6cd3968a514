"""How networks bear common corruptions and perturbations: errors, flips, and their scores.

Hendrycks, Dietterich 2019, *Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*,
arXiv 1903.12261, section 4; Noisy Student (Xie et al. 2020, arXiv 1911.04252) reports these scores.
"""

from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.data.batches import check_evaluation_batch
from mpl_tf.distribute import replicas
from mpl_tf.evaluation.robustness import corruptions, perturbations
from mpl_tf.utils.progress import no_progress

# Images whose sequences go through the networks together.
_SEQUENCES_AT_ONCE = 8


def corruption_errors(
    networks: Mapping[str, keras.Model],
    batches: tf.data.Dataset,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = no_progress,
) -> dict[str, dict[str, list[float]]]:
    """The fraction of wrong predictions under each corruption at each severity.

    Args:
        networks: role → `keras.Model` from images in 0…255 to logits. All see the same corrupted images.
        batches: finite dataset of `{"image": float32 [B, H, W, C], "label": int32 [B]}`.
        seed: of the corruptions, which also depend on an image's position among the batches.
        advance: is told how many more images are done, `Progress.update`; an image counts once for each corruption
            and severity.

    Returns:
        role → corruption → five errors in 0…1.

    Raises:
        ValueError: for a dataset without batches, or what are no images.
    """
    wrong = {role: np.zeros((len(corruptions.NAMES), len(corruptions.SEVERITIES))) for role in networks}
    count = 0
    for images, labels, index in _numbered(batches):
        count += len(labels)
        for row, name in enumerate(corruptions.NAMES):
            for column, severity in enumerate(corruptions.SEVERITIES):
                corrupted = corruptions.corrupt(images, name, severity, index=index, seed=seed)
                for role, network in networks.items():
                    wrong[role][row, column] += np.sum(predictions(network, corrupted) != labels)
                advance(len(labels))
    return {
        role: dict(zip(corruptions.NAMES, (counts / count).tolist(), strict=True))
        for role, counts in wrong.items()
    }


def mean_corruption_error(
    errors: Mapping[str, list[float]], baseline: Mapping[str, list[float]] | None = None
) -> float | None:
    """mCE: the mean over the corruptions of Σ_s E_s / Σ_s E_s of the baseline.

    Args:
        errors: corruption → errors at each severity, see `corruption_errors`.
        baseline: the same of another network; the paper takes AlexNet. None leaves out the division, and gives
            the plain mean of all errors.

    Returns:
        The score, 1 for the baseline itself. None where the baseline makes no error under one of the corruptions,
        since the ratio does not exist then.
    """
    if baseline is None:
        return float(np.mean(list(errors.values())))
    return _mean_ratio(
        {name: sum(values) for name, values in errors.items()},
        {name: sum(values) for name, values in baseline.items()},
    )


def flip_probabilities(
    networks: Mapping[str, keras.Model],
    batches: tf.data.Dataset,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = no_progress,
) -> dict[str, dict[str, float]]:
    """How often the prediction changes within the sequences of each perturbation.

    Args:
        networks: as for `corruption_errors`.
        batches: as for `corruption_errors`.
        seed: as for `corruption_errors`.
        advance: as for `corruption_errors`; an image counts once for each perturbation.

    Returns:
        role → perturbation → probability, see `flip_probability`.

    Raises:
        ValueError: as `corruption_errors`.
    """
    flips = {role: dict.fromkeys(perturbations.NAMES, 0.0) for role in networks}
    count = 0
    for images, _, index in _numbered(batches, _SEQUENCES_AT_ONCE):
        count += len(images)
        for name in perturbations.NAMES:
            frames = perturbations.perturb(images, name, index=index, seed=seed)
            for role, network in networks.items():
                predicted = predictions(network, frames.reshape(-1, *frames.shape[2:]))
                predicted = predicted.reshape(frames.shape[:2])
                noise = name in perturbations.NOISES
                flips[role][name] += flip_probability(predicted, noise=noise) * len(images)
            advance(len(images))
    return {role: {name: total / count for name, total in totals.items()} for role, totals in flips.items()}


def flip_probability(predicted: np.ndarray, *, noise: bool) -> float:
    """The fraction of frames that are predicted otherwise than the frame before.

    Args:
        predicted: int `[m, n]`, the classes of n frames of each of m sequences.
        noise: whether the frames are independent draws of noise after a clean first one; they are compared with
            that one then.

    Returns:
        Σ_i Σ_{j ≥ 2} [f(x_j) ≠ f(x_{j−1})] / (m (n − 1)), with x_1 for x_{j−1} where `noise`.
    """
    reference = predicted[:, :1] if noise else predicted[:, :-1]
    return float(np.mean(predicted[:, 1:] != reference))


def mean_flip_rate(flips: Mapping[str, float], baseline: Mapping[str, float] | None = None) -> float | None:
    """mFR: the mean over the perturbations of the flip probability over that of the baseline.

    Args:
        flips: perturbation → flip probability, see `flip_probabilities`.
        baseline: the same of another network; the paper takes AlexNet. None leaves out the division.

    Returns:
        The score, 1 for the baseline itself. None where the baseline never flips under one of the perturbations.
    """
    return float(np.mean(list(flips.values()))) if baseline is None else _mean_ratio(flips, baseline)


def predictions(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """Classifies images.

    Args:
        network: `keras.Model` from images in 0…255 to logits.
        images: uint8 `[B, H, W, C]`.

    Returns:
        int `[B]`.
    """
    return np.argmax(replicas.predict(network, images.astype(np.float32)), axis=-1)


def _mean_ratio(values, baseline):
    if not all(baseline[name] for name in values):
        return None
    return float(np.mean([value / baseline[name] for name, value in values.items()]))


def _numbered(batches, size=None) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images, labels and positions, cut into pieces of `size` where it is given."""
    start = 0
    for batch in batches:
        images, labels = map(np.asarray, check_evaluation_batch(batch))
        for first in range(0, len(images), size or len(images)):
            piece = slice(first, first + (size or len(images)))
            yield images[piece], labels[piece], start + np.arange(len(images))[piece]
        start += len(images)
    if not start:
        raise ValueError("The dataset to test robustness on is empty: pass at least one batch.")
