"""What a label store holds, as rows for `table`."""

from collections.abc import Iterable, Sequence

import numpy as np

from mpl_tf.data.soft_labels.selection import SelectionReport

# Marked in the table itself, since a reader may take it for something that the labeling knew.
RIGHT = "right % (for information; true labels play no part)"


def confidence_rows(
    confidence: np.ndarray, classes: np.ndarray, labels: np.ndarray, thresholds: Iterable[float]
) -> list[dict]:
    """How many images reach each confidence and, where the truth is known, how many of those are right.

    Where the truth of only some is known, it says of how many.

    Args:
        confidence: float `[n]`, the largest probability of each image.
        classes: int `[n]`, its most likely class.
        labels: int `[n]`, its true class, -1 where unknown.
        thresholds: confidences.

    Returns:
        A row for each threshold, in ascending order.
    """
    known, rows = labels >= 0, []
    for threshold in sorted(set(thresholds)):
        reach = confidence >= threshold
        row: dict[str, str | None] = {
            "confidence from": f"{threshold:g}",
            "images": f"{reach.sum():,}",
            "fraction %": f"{100 * reach.mean():.1f}",
        }
        if known.any():
            right = (classes == labels)[reach & known]
            of = "" if known.all() else f" of {len(right):,}"
            row[RIGHT] = f"{100 * right.mean():.1f}{of}" if len(right) else None
        rows.append(row)
    return rows


def class_rows(
    class_names: Sequence[str],
    confidence: np.ndarray,
    classes: np.ndarray,
    selected: SelectionReport,
    *,
    most: int = 30,
) -> list[dict]:
    """What each predicted class has, and what a selection makes of it.

    Args:
        class_names: K names.
        confidence: float `[n]`, the largest probability of each image.
        classes: int `[n]`, its most likely class.
        selected: what `mpl_tf.data.selection_report` counted.
        most: how many classes are shown; of more, those that are predicted most often.

    Returns:
        A row for each class, in the order of the labels.
    """
    shown = np.sort(np.argsort(-selected.predicted, kind="stable")[:most])
    return [
        {
            "predicted class": class_names[label],
            "images": f"{selected.predicted[label]:,}",
            "mean confidence": f"{confidence[classes == label].mean():.3f}"
            if selected.predicted[label]
            else None,
            "selected": f"{selected.distinct[label]:,}",
            "dropped": f"{selected.dropped[label]:,}",
            "copies": f"{selected.duplicated[label]:,}",
        }
        for label in shown
    ]
