"""The difference between two networks that have seen the same images."""

import math

import numpy as np


def paired_difference(correct: np.ndarray, other: np.ndarray) -> dict:
    """Compares which of the same images two networks get right.

    Images that both get right, or both wrong, tell nothing of their difference, so that this is sharper than to
    compare two accuracies. The standard error is that of the 2×2 table with half an image added to each of its cells
    (Agresti and Min 2005, Simple improved confidence intervals for comparing matched proportions), which is not 0
    where the networks agree on everything.

    Args:
        correct: bool `[N]`, whether a network is right on each image.
        other: bool `[N]`, whether the other one is.

    Returns:
        Plain numbers, ready for JSON: `difference` of the accuracies, in −1…1; its `standard_error`; `wins` and
        `losses`, the images that only the first and only the other one gets right; `count`, N.
    """
    correct, other = np.asarray(correct, bool), np.asarray(other, bool)
    if correct.shape != other.shape or not correct.size:
        raise ValueError(
            f"The networks were asked about {correct.size} and {other.size} images: compare them on the same ones, "
            "and at least on one."
        )
    wins, losses, count = int((correct & ~other).sum()), int((other & ~correct).sum()), correct.size
    more, fewer, total = wins + 0.5, losses + 0.5, count + 2.0
    variance = (more + fewer - (more - fewer) ** 2 / total) / total**2
    return {
        "difference": (wins - losses) / count,
        "standard_error": math.sqrt(variance),
        "wins": wins,
        "losses": losses,
        "count": count,
    }
