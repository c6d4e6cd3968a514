"""Labels that a trained network contradicts: which of them to check first."""

import numpy as np

from mpl_tf.evaluation.accuracy import Outcomes


def contradiction(outcomes: Outcomes) -> np.ndarray:
    """How surely a network contradicts each label: the probability of its prediction less that of the label.

    The margin, and not the confidence alone, puts an image with two likely classes, of which one is its label, behind
    one whose label the network finds impossible. A network that has learned the wrong labels by heart contradicts
    none of them: networks that were stopped early, averaged or trained on the trusted labels alone find more.

    Args:
        outcomes: what became of N images under their given labels.

    Returns:
        Float64 `[N]` in `[0, 1]`, 0 where the network predicts the label.
    """
    return outcomes.confidence - np.exp(-outcomes.loss)


def suspects(outcomes: Outcomes) -> np.ndarray:
    """The images whose label is not what the network predicts, the most surely contradicted first.

    Args:
        outcomes: what became of N images under their given labels.

    Returns:
        Int64 `[n]`, rows of the outcomes.
    """
    wrong = np.flatnonzero(~outcomes.correct)
    return wrong[np.argsort(-contradiction(outcomes)[wrong], kind="stable")]
