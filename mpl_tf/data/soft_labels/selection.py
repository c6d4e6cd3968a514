"""Which soft labels a student learns from: the confident ones, equally many of each predicted class.

Noisy Student (Xie et al. 2020, arXiv 1911.04252, "data filtering and balancing") drops images on which the teacher
is not confident, takes the most confident ones of each predicted class, and repeats images of classes that have
too few. The paper's 130,000 per class belong to its 300 million images; here the number is an argument. The paper
repeats images at random; here whole copies are made and the most confident go first, so that nothing is drawn.
"""

import dataclasses
import warnings

import numpy as np

from mpl_tf.utils.validation import check_integer, check_range


@dataclasses.dataclass(frozen=True, eq=False)
class SelectionReport:
    """What a selection did to each predicted class.

    Attributes:
        predicted: int64 `[K]`, rows whose most likely class this is.
        distinct: int64 `[K]`, how many of them are in the selection.
        dropped: int64 `[K]`, how many are not.
        duplicated: int64 `[K]`, copies beyond the first of each selected row.
    """

    predicted: np.ndarray
    distinct: np.ndarray
    dropped: np.ndarray
    duplicated: np.ndarray

    @property
    def selected(self) -> np.ndarray:
        """int64 `[K]`, rows of each class in the selection, copies included."""
        return self.distinct + self.duplicated


def select_indices(
    confidence: np.ndarray,
    classes: np.ndarray,
    num_classes: int,
    *,
    threshold: float = 0.3,
    per_class: int | None = None,
    balance: bool = True,
) -> np.ndarray:
    """Filters and balances soft labels.

    Args:
        confidence: float `[n]`, `LabelStore.confidence()`.
        classes: int `[n]`, `LabelStore.classes()`.
        num_classes: K.
        threshold: smallest confidence, the largest probability of a row, that is selected, in `[0, 1]`.
        per_class: rows that each predicted class gets. Of more, the most confident are taken; of fewer, all are
            repeated as often as they fit in whole, and the most confident once more. None takes the mean number of
            selected rows over the classes that have any, rounded, which leaves the number of images about as it is.
        balance: whether to make the classes equal; False takes every row above the threshold once.

    Returns:
        int64 row numbers in ascending order, some repeated. Of equally confident rows the first are taken.

    Raises:
        ValueError: for a value out of range, vectors that are none or not of one length, a confidence that is not
            finite, or a threshold that no row reaches.
    """
    check_range("threshold", threshold, low=0.0, high=1.0)
    check_integer("per_class", per_class, low=1, optional=True)
    confidence, classes = np.asarray(confidence), np.asarray(classes)
    vectors = confidence.ndim == 1 and confidence.shape == classes.shape and len(confidence)
    if not vectors or confidence.dtype.kind != "f" or classes.dtype.kind not in "iu":
        raise ValueError(
            f"confidence and classes are {confidence.dtype} {confidence.shape} and {classes.dtype} {classes.shape}: "
            "pass a float and an integer for each row, of at least one."
        )
    if not np.isfinite(confidence).all():
        raise ValueError(
            f"Row {np.argmin(np.isfinite(confidence))} has a confidence that is not finite: label with a network "
            "that has not diverged."
        )
    confident = np.flatnonzero(confidence >= threshold)
    if not len(confident):
        raise ValueError(
            f"threshold={threshold:g} keeps none of {len(confidence)} images, the most confident of which has "
            f"{confidence.max():.6g}: lower the threshold, or train the teacher longer."
        )
    counts = np.bincount(classes[confident], minlength=num_classes)
    _warn_of_empty(np.flatnonzero(counts == 0), threshold)
    if not balance:
        return confident
    if per_class is None:
        per_class = round(counts[counts > 0].mean())
    # By class, in it by confidence, and of equal confidence by row.
    order = confident[np.lexsort((confident, -confidence[confident], classes[confident]))]
    starts = np.cumsum(counts) - counts
    chosen = [
        # Row number i of a class comes i mod its count: cut off where there are more, around again where fewer.
        order[start + np.arange(per_class) % count]
        for start, count in zip(starts, counts, strict=True)
        if count
    ]
    return np.sort(np.concatenate(chosen))


def selection_report(classes: np.ndarray, rows: np.ndarray, num_classes: int) -> SelectionReport:
    """Counts what a selection took, dropped and repeated.

    Args:
        classes: int `[n]`, the most likely class of every row that there was to select from.
        rows: int `[m]`, what `select_indices` returned.
        num_classes: K.

    Returns:
        A `SelectionReport`.
    """
    predicted = np.bincount(classes, minlength=num_classes)
    distinct = np.bincount(classes[np.unique(rows)], minlength=num_classes)
    selected = np.bincount(classes[rows], minlength=num_classes)
    return SelectionReport(predicted, distinct, predicted - distinct, selected - distinct)


def _warn_of_empty(empty: np.ndarray, threshold: float) -> None:
    if len(empty):
        some = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
        warnings.warn(
            f"No image is predicted as class {some} with a confidence of at least {threshold:g}, so the student "
            "sees no soft label of it: lower the threshold, or train the teacher longer.",
            stacklevel=3,
        )
