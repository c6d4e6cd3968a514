"""Which training pictures are labeled, unlabeled and held out, drawn under a seed."""

import dataclasses
import numbers
import warnings

import numpy as np

from mpl_tf.data.source import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Indices into the training pictures of a source.

    Attributes:
        name: `<dataset>.<seed>@<labels>`, as FixMatch (Sohn et al., 2020) names its splits: `cifar10.3@4000`.
        labeled: int64, sorted: pictures whose labels may be looked at.
        unlabeled: int64, sorted: pictures to learn from without a label.
        validation: int64, sorted: pictures with labels that are in neither of the others.
        labels_per_class: how many labeled pictures each class has, by its name.
        fingerprint: of the pictures that were drawn from.
    """

    name: str
    labeled: np.ndarray
    unlabeled: np.ndarray
    validation: np.ndarray
    labels_per_class: dict[str, int]
    fingerprint: str


def draw_split(
    source: Source,
    *,
    num_labeled: int | None,
    seed: int,
    validation: int | float = 0.1,
    labeled_in_unlabeled: bool = True,
) -> Split:
    """Draws labeled, unlabeled and validation pictures.

    Each class is shuffled under the seed (NumPy's PCG64). The first pictures of each class, in proportion to its
    size, are held out; they do not depend on `num_labeled`. The next ones are labeled, equally many of each class.
    What does not divide evenly goes to the first classes of an order drawn under the seed, and what a class is
    short of to the others. Under one seed, the labeled pictures are thus among those of any larger number.

    Args:
        source: to draw from. Pictures of unknown class (label -1) are always unlabeled.
        num_labeled: labels over all classes; None for all that the validation split leaves.
        seed: of the draw, at least 0.
        validation: number of pictures with known labels to hold out, or (as a float) which fraction of them.
        labeled_in_unlabeled: whether the labeled pictures are among the unlabeled ones too.

    Returns:
        A `Split`.

    Raises:
        ValueError: for more labels than there are, fewer than classes, a class without a label, or a validation
            split that leaves a class none.
    """
    labels = source.train.labels
    class_order, queues = _shuffled_classes(source, seed)
    fractions = [(np.arange(len(queue)) + 0.5) / len(queue) for queue in queues]
    held_out = _merged(queues, fractions)[: _validation_size(labels, validation)]
    counts = np.bincount(labels[held_out], minlength=source.num_classes)[class_order]
    queues = [queue[count:] for queue, count in zip(queues, counts, strict=True)]
    _check_labels_left(source, class_order, queues, num_labeled, validation)
    labeled = _merged(queues, [np.arange(len(queue)) for queue in queues])[:num_labeled]
    unlabeled = np.ones(len(labels), bool)
    unlabeled[held_out] = False
    unlabeled[labeled] &= labeled_in_unlabeled
    return Split(
        name=f"{source.name}.{seed}@{len(labeled)}",
        labeled=np.sort(labeled),
        unlabeled=np.flatnonzero(unlabeled),
        validation=np.sort(held_out),
        labels_per_class=_labels_per_class(source, labeled, num_labeled),
        fingerprint=source.train.fingerprint(),
    )


def _shuffled_classes(source: Source, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The classes in the order of the draw, and the shuffled indices of the pictures of each."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed={seed!r} is no seed: pass a whole number of at least 0.")
    labels = source.train.labels
    if labels.min() < -1 or labels.max() >= source.num_classes:
        wrong = labels[(labels < -1) | (labels >= source.num_classes)][0]
        raise ValueError(
            f"The label {wrong} of a picture of {source.name!r} is outside 0…{source.num_classes - 1}: mend the "
            "labels or the class names (-1 stands for unknown)."
        )
    generator = np.random.default_rng(int(seed))
    order = generator.permutation(source.num_classes)
    queues = [generator.permutation(np.flatnonzero(labels == label)) for label in order]
    for label, queue in zip(order, queues, strict=True):
        if not len(queue):
            raise ValueError(
                f"The class {source.class_names[label]!r} of {source.name!r} has no picture with a label: "
                "add some, or remove the class."
            )
    return order, queues


def _merged(queues: list[np.ndarray], keys: list[np.ndarray]) -> np.ndarray:
    """The members of all queues by their keys, and in the order of the queues where these are equal."""
    return np.concatenate(queues)[np.argsort(np.concatenate(keys), kind="stable")]


def _validation_size(labels: np.ndarray, validation: int | float) -> int:
    known = int(np.sum(labels >= 0))
    if isinstance(validation, bool) or not isinstance(validation, numbers.Real):
        raise ValueError(
            f"validation={validation!r} is neither a number of pictures nor a fraction: pass one."
        )
    if isinstance(validation, numbers.Integral):
        if not 0 <= validation < known:
            raise ValueError(
                f"validation={validation} is out of range: {known} pictures have a label, so pass a whole number "
                f"from 0 to {known - 1}, or a fraction."
            )
        return int(validation)
    if not 0 <= validation < 1:
        raise ValueError(
            f"validation={validation} is out of range: pass a fraction of at least 0 and below 1, or a whole number "
            "of pictures."
        )
    return round(validation * known)


def _check_labels_left(source, class_order, queues, num_labeled, validation) -> None:
    left = sum(map(len, queues))
    for label, queue in zip(class_order, queues, strict=True):
        if not len(queue):
            raise ValueError(
                f"validation={validation} leaves no label to the class {source.class_names[label]!r}: "
                "hold out fewer pictures."
            )
    if num_labeled is None:
        return
    if isinstance(num_labeled, bool) or not isinstance(num_labeled, numbers.Integral) or num_labeled < 1:
        raise ValueError(
            f"num_labeled={num_labeled!r} is no number of labels: pass one of at least 1, or None."
        )
    if num_labeled < source.num_classes:
        raise ValueError(
            f"num_labeled={num_labeled} leaves a class without labels: {source.name!r} has {source.num_classes} "
            "classes, so pass at least as many."
        )
    if num_labeled > left:
        raise ValueError(
            f"num_labeled={num_labeled} is more than the {left} labels of {source.name!r} that validation="
            f"{validation} leaves: ask for fewer, or hold out fewer."
        )


def _labels_per_class(source, labeled, num_labeled) -> dict[str, int]:
    counts = np.bincount(source.train.labels[labeled], minlength=source.num_classes).tolist()
    counts = dict(zip(source.class_names, counts, strict=True))
    even = 0 if num_labeled is None else num_labeled // source.num_classes
    short = {name: count for name, count in counts.items() if count < even}
    if short:
        warnings.warn(
            f"{source.name!r} has fewer than {even} labels for some classes, {short}: other classes have more.",
            stacklevel=3,
        )
    return counts
