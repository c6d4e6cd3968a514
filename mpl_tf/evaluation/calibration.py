"""Whether a network knows what it does not know: calibration, temperature, and prediction with a reject option."""

import math
import warnings

import numpy as np
from scipy import optimize, special

from mpl_tf.utils.validation import check_integer

BINS = 15
TEMPERATURES = (0.01, 100.0)


def reliability(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> list[dict]:
    """Sorts predictions by confidence into bins, for a reliability diagram.

    Bin m of M holds the confidences in ((m − 1)/M, m/M], as in Guo et al. 2017, arXiv 1706.04599, section 2.

    Args:
        confidence: float `[N]`, the probability of the predicted class, in 0…1.
        correct: bool `[N]`.
        bins: M.

    Returns:
        M dicts with the bin's bounds `low` and `high`, its `count`, and the mean `confidence` and `accuracy` of
        its predictions, None where it has none.

    Raises:
        ValueError: for no predictions, or confidences that are not probabilities.
    """
    confidence, correct = _checked(confidence, correct)
    check_integer("bins", bins, low=1)
    edges = np.linspace(0.0, 1.0, bins + 1)
    # The first bin takes a confidence of 0 too, which no softmax returns.
    member = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(member, minlength=bins)
    sums = (np.bincount(member, weights=values, minlength=bins) for values in (confidence, correct))
    return [
        {
            "low": float(low),
            "high": float(high),
            "count": int(count),
            "confidence": float(confidences / count) if count else None,
            "accuracy": float(hits / count) if count else None,
        }
        for low, high, count, confidences, hits in zip(edges[:-1], edges[1:], counts, *sums, strict=True)
    ]


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> float:
    """The mean distance of accuracy and confidence over the bins of `reliability`, Σ_m n_m/n |acc_m − conf_m|.

    Args:
        confidence: as for `reliability`.
        correct: as for `reliability`.
        bins: M equally wide bins.

    Returns:
        The error in 0…1 (Guo et al. 2017, equation 3).

    Raises:
        ValueError: as `reliability`.
    """
    filled = [entry for entry in reliability(confidence, correct, bins=bins) if entry["count"]]
    gaps = sum(entry["count"] * abs(entry["accuracy"] - entry["confidence"]) for entry in filled)
    return gaps / len(confidence)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Finds the T for which softmax(logits / T) has the smallest cross-entropy.

    The cross-entropy is convex in 1/T, so that it has one valley in log T too, where a bounded scalar search
    finds it. Fit on images that were neither trained on nor are reported on.

    Args:
        logits: float `[N, K]`.
        labels: int `[N]`.

    Returns:
        T within 0.01…100; above 1 where the network is overconfident (Guo et al. 2017, section 4.2). Where every
        prediction is right, the cross-entropy only falls as T goes to 0, and 1 is returned, with a warning. Where
        the logits know nothing about the labels it only falls as T grows: 100, with a warning.

    Raises:
        ValueError: for no logits.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.int64)
    if not logits.size:
        raise ValueError("There are no logits to fit a temperature on: pass those of a validation split.")
    rows = np.arange(len(labels))
    if (logits[rows, labels] == logits.max(axis=-1)).all():
        warnings.warn(
            f"All {len(labels)} predictions are right, so that no temperature fits best, and 1 is returned: fit on "
            "more images.",
            stacklevel=2,
        )
        return 1.0

    def loss(log_temperature):
        return -special.log_softmax(logits / math.exp(log_temperature), axis=-1)[rows, labels].mean()

    low, high = map(math.log, TEMPERATURES)
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-7})
    if high - found.x < 1e-3:
        warnings.warn(
            f"The best temperature is {TEMPERATURES[1]:g}, the largest that is searched, since the logits are no "
            "better than none: look at the accuracy first.",
            stacklevel=2,
        )
    return math.exp(found.x)


def selective(confidence: np.ndarray, correct: np.ndarray, *, points: int = 20) -> dict:
    """Accuracy when only the most confident predictions are kept.

    Equally confident predictions count as if they came in random order, so the result does not depend on theirs.

    Args:
        confidence: float `[N]`, in 0…1.
        correct: bool `[N]`.
        points: of the curve.

    Returns:
        A dict of `aurc`, the area under the risk-coverage curve, (1/N) Σ_n (errors among the n most confident) / n
        (Geifman, El-Yaniv 2017, arXiv 1705.08500; smaller is better), and `curve`, dicts of the `coverage`
        1/points, …, 1, the `accuracy` on the ⌈coverage · N⌉ most confident predictions, and the `threshold` on
        the confidence that keeps them.

    Raises:
        ValueError: as `reliability`.
    """
    confidence, correct = _checked(confidence, correct)
    check_integer("points", points, low=1)
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], 1.0 - correct[order]
    kept = np.arange(1, len(confidence) + 1)
    # Errors at the ends of runs of equal confidence, and on the line between: their mean over all orders.
    ends = np.append(np.flatnonzero(np.diff(confidence)) + 1, len(confidence))
    errors = np.interp(kept, np.append(0, ends), np.append(0.0, np.cumsum(wrong)[ends - 1]))
    last = [math.ceil(len(kept) * (point + 1) / points) - 1 for point in range(points)]
    return {
        "aurc": float(np.mean(errors / kept)),
        "curve": [
            {
                "coverage": (point + 1) / points,
                "accuracy": float(1.0 - errors[index] / kept[index]),
                "threshold": float(confidence[index]),
            }
            for point, index in enumerate(last)
        ],
    }


def _checked(confidence, correct):
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.ndim != 1 or confidence.shape != correct.shape or not confidence.size:
        raise ValueError(
            f"Confidences of shape {confidence.shape} and outcomes of shape {correct.shape} do not go together: "
            "pass [N] and [N], and at least one."
        )
    if not ((confidence >= 0.0) & (confidence <= 1.0 + 1e-9)).all():
        raise ValueError(
            f"Confidences lie in {confidence.min():g}…{confidence.max():g}: pass probabilities, the softmax of "
            "logits."
        )
    return confidence, correct
