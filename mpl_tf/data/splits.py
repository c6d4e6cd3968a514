"""Which training images are labeled, unlabeled and held out, drawn under a seed."""

import dataclasses
import json
import math
import numbers
import warnings
from typing import Any

import numpy as np

from mpl_tf.data.images.images import RelabeledImages
from mpl_tf.data.images.source import Source
from mpl_tf.data.label_noise import LabelNoise
from mpl_tf.utils.validation import check_choice, check_integer

CHEAP_LABELS = ("use", "ignore")

# A validation split that leaves an accuracy more uncertain than this (95 %) comes with a warning.
_WIDE_INTERVAL = 0.1


def no_indices() -> np.ndarray:
    """None of the images: int64 `[0]`."""
    return np.zeros(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Indices into the training images of a source.

    Attributes:
        name: `<dataset>.<seed>@<labels>`, as FixMatch (Sohn et al., 2020) names its splits: `cifar10.3@4000`.
        labeled: int64, sorted: images whose labels are learned from.
        unlabeled: int64, sorted: images to learn from without a label.
        validation: int64, sorted: images with labels that are in neither of the others.
        labels_per_class: how many labeled images each class has, by its name.
        validation_per_class: how many validation images each class has, likewise.
        fingerprint: of the images that were drawn from.
        trusted: int64, sorted: those of the labeled images whose labels somebody has checked; empty where nothing
            says so of any.
        ignored: int64, sorted: images whose cheap labels are not looked at, and which count as unlabeled.
        mislabeled: int64, sorted: images that label noise has given a wrong label.
        wrong_labels: int32, these labels.
        arguments: that the split was drawn with.
    """

    name: str
    labeled: np.ndarray
    unlabeled: np.ndarray
    validation: np.ndarray
    labels_per_class: dict[str, int]
    validation_per_class: dict[str, int]
    fingerprint: str
    trusted: np.ndarray = dataclasses.field(default_factory=no_indices)
    ignored: np.ndarray = dataclasses.field(default_factory=no_indices)
    mislabeled: np.ndarray = dataclasses.field(default_factory=no_indices)
    wrong_labels: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        parts = [
            f"{len(self.labeled)} labeled",
            *([f"{len(self.trusted)} of these trusted"] if len(self.trusted) else []),
            *([f"{len(self.mislabeled)} cheap labels wrong"] if self.label_noise else []),
            f"{len(self.unlabeled)} unlabeled",
            *([f"{len(self.ignored)} of these with ignored labels"] if len(self.ignored) else []),
            f"{len(self.validation)} validation",
        ]
        return f"Split({self.name!r}: {', '.join(parts)})"

    @property
    def cheap(self) -> np.ndarray:
        """Int64, sorted: images with a label that nobody is known to have checked, learned from or ignored."""
        return np.union1d(np.setdiff1d(self.labeled, self.trusted), self.ignored)

    @property
    def hidden(self) -> np.ndarray:
        """Int64, sorted: unlabeled images that are not among the labeled ones."""
        return self.unlabeled[~np.isin(self.unlabeled, self.labeled, assume_unique=True)]

    @property
    def label_noise(self) -> str | None:
        """The noise that cheap labels were given, as in `"symmetric:0.3"`; None for none."""
        return self.arguments.get("label_noise")

    def given_labels(self, labels: np.ndarray) -> np.ndarray:
        """The labels as they were given to the run: with the wrong ones of label noise.

        Args:
            labels: int32 `[N]`, of the source.

        Returns:
            Int32 `[N]`.
        """
        if not len(self.mislabeled):
            return labels
        given = np.array(labels)
        given[self.mislabeled] = self.wrong_labels
        return given

    def as_trained(self, source: Source) -> Source:
        """The source as training sees it: with label noise, and without the labels that are ignored.

        Args:
            source: that was drawn from, or what this method has returned for it.
        """
        train = source.train
        if isinstance(train, RelabeledImages) or not (len(self.mislabeled) or len(self.ignored)):
            return source
        labels = np.array(self.given_labels(train.labels))
        labels[self.ignored] = -1
        return dataclasses.replace(source, train=RelabeledImages(train, labels))


def draw_split(
    source: Source,
    *,
    num_labeled: int | None,
    seed: int,
    validation: int | float = 0.1,
    labeled_in_unlabeled: bool = True,
    trusted: int | None = None,
    cheap_labels: str = "use",
    label_noise: str | None = None,
) -> Split:
    """Draws labeled, unlabeled and validation images.

    Each class is shuffled under the seed (NumPy's PCG64). The first images of each class, in proportion to its
    size but at least one where the class has two, are held out; they do not depend on `num_labeled`. The next ones
    are labeled, equally many of each class. What does not divide evenly goes to the first classes of an order drawn
    under the seed, and what a class is short of to the others. Under one seed, the labeled images are thus among
    those of any larger number. A validation split on which an accuracy would be uncertain by more than 10 points, or
    that lacks a class, comes with a warning.

    Where the source says which labels are trusted, validation images are drawn from these alone, since cheap labels
    are nothing to measure with, and of each class the trusted images come first among the labeled ones.

    Args:
        source: to draw from. Images of unknown class (label -1) are always unlabeled.
        num_labeled: labels over all classes, trusted and cheap ones; None for all that the validation split leaves.
        seed: of the draw, at least 0.
        validation: number of images with known (trusted) labels to hold out, or (as a float) which fraction of them.
            A fraction above 0 holds out more where it takes more to have one of every class that has two or more.
        labeled_in_unlabeled: whether the labeled images are among the unlabeled ones too.
        trusted: of the labeled images, how many count as trusted and all others as cheap, equally many of each class
            and under one seed always the same; None for what the source says.
        cheap_labels: `"use"`, or `"ignore"`: images whose labels are not trusted then count as unlabeled.
        label_noise: wrong labels to give to cheap images, `"symmetric:0.3"` or `"pairs:0.4"`, see `LabelNoise`; those
            of trusted, validation and test images stay as they are. None for none.

    Returns:
        A `Split`.

    Raises:
        ValueError: for more labels than there are, fewer than classes, a class without a label, a validation split
            that leaves a class none, and cheap labels to ignore where none is trusted.
    """
    noise = None if label_noise is None else LabelNoise.parse(label_noise)
    check_choice("cheap_labels", cheap_labels, CHEAP_LABELS)
    labels = source.train.labels
    class_order, queues = _shuffled_classes(source, seed)
    held_out = _held_out(_to_measure_with(source, queues), validation)
    counts = np.bincount(labels[held_out], minlength=source.num_classes)[class_order]
    queues = [queue[count:] for queue, count in zip(queues, counts, strict=True)]
    _check_labels_left(source, class_order, queues, num_labeled, validation)
    drawn = np.concatenate(queues) if num_labeled is None else _evenly(queues, num_labeled)
    _warn_of_short_classes(source, drawn, num_labeled)
    checked = _trusted(source, queues, drawn, trusted)
    labeled, cheap = drawn, np.setdiff1d(drawn, checked)
    if cheap_labels == "ignore":
        _check_trusted_suffice(source, checked)
        labeled = checked
    wrong = (no_indices(), np.zeros(0, np.int32))
    if noise is not None:
        wrong = noise.draw(labels, cheap, num_classes=source.num_classes, seed=seed)
    validation_per_class = class_counts(source, held_out)
    if validation:
        _warn_of_uncertainty(validation_per_class)
    split = Split(
        name=f"{source.name}.{seed}@{len(labeled)}",
        labeled=np.sort(labeled),
        unlabeled=unlabeled_indices(
            len(labels), labeled, held_out, labeled_in_unlabeled=labeled_in_unlabeled
        ),
        validation=np.sort(held_out),
        labels_per_class={},
        validation_per_class=validation_per_class,
        fingerprint=source.train.fingerprint(),
        trusted=np.sort(checked),
        ignored=cheap if cheap_labels == "ignore" else no_indices(),
        mislabeled=wrong[0],
        wrong_labels=wrong[1],
        arguments=split_arguments(
            source,
            num_labeled=num_labeled,
            seed=seed,
            validation=validation,
            labeled_in_unlabeled=labeled_in_unlabeled,
            trusted=trusted,
            cheap_labels=cheap_labels,
            label_noise=label_noise,
        ),
    )
    return dataclasses.replace(split, labels_per_class=class_counts(split.as_trained(source), split.labeled))


def split_arguments(source: Source, **options: Any) -> dict[str, Any]:
    """What a split's file says about its draw; what is at its default since before there was anything else, not.

    Args:
        source: that is drawn from.
        **options: of `draw_split`, all of them.
    """
    defaults = {"trusted": None, "cheap_labels": "use", "label_noise": None}
    said = {name: value for name, value in options.items() if name not in defaults or value != defaults[name]}
    arguments = {"dataset": source.name, **said}
    # Through JSON and back, so that what is compared with a file is what a file can hold.
    return json.loads(json.dumps(arguments, default=lambda value: value.item()))


def _to_measure_with(source: Source, queues: list[np.ndarray]) -> list[np.ndarray]:
    """The images of each class whose labels are right, as far as anybody knows."""
    trusted = source.trusted
    return queues if trusted is None else [queue[trusted[queue]] for queue in queues]


def _held_out(queues: list[np.ndarray], validation: int | float) -> np.ndarray:
    """The validation images: the first of each class, in proportion to its size."""
    # The first of each class comes before all others, unless it is the only one, which is needed as a labeled one.
    several = sum(len(queue) > 1 for queue in queues)
    known = sum(map(len, queues))
    size = _validation_size(known, validation, several)
    # No class can hold out more than these, so that only so many are sorted, of however many there are.
    heads = [queue[: math.ceil((size + len(queues)) / known * len(queue)) + 2] for queue in queues]
    keys = [(np.arange(len(head)) + 0.5) / len(queue) for queue, head in zip(queues, heads, strict=True)]
    for queue, key in zip(queues, keys, strict=True):
        if len(queue) > 1:
            key[0] = 0.0
    return _merged(heads, keys)[:size]


def _evenly(queues: list[np.ndarray], count: int) -> np.ndarray:
    """So many images, equally many of each class as far as these have them."""
    heads = [queue[:count] for queue in queues]
    return _merged(heads, [np.arange(len(head)) for head in heads])[:count]


def _trusted(source: Source, queues, drawn: np.ndarray, count: int | None) -> np.ndarray:
    """The trusted ones of the labeled images that were drawn."""
    if source.trusted is not None:
        if count is not None:
            raise ValueError(
                f"trusted={count} draws what is trusted, and {source.name!r} says which labels are: leave it out."
            )
        return drawn[source.trusted[drawn]]
    if count is None:
        return no_indices()
    whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    if not whole or not 1 <= count <= len(drawn):
        raise ValueError(
            f"trusted={count!r} is out of range: {len(drawn)} images are labeled, so pass 1 to {len(drawn)} of them."
        )
    return _evenly(queues, int(count))


def _check_trusted_suffice(source: Source, trusted: np.ndarray) -> None:
    """Raises where ignoring all other labels would leave a class without any."""
    if not len(trusted):
        raise ValueError(
            "cheap_labels='ignore' leaves no label to learn from, since none is trusted: say which are, by "
            "trusted or trusted_dir, or pass 'use'."
        )
    for name, count in class_counts(source, trusted).items():
        if not count:
            raise ValueError(
                f"cheap_labels='ignore' leaves no label to the class {name!r}, of which none is trusted: trust one "
                "of each class or more, or pass 'use'."
            )


def unlabeled_indices(
    count: int, labeled: np.ndarray, validation: np.ndarray, *, labeled_in_unlabeled: bool
) -> np.ndarray:
    """The images to learn from without a label: all that are not held out.

    Args:
        count: of all training images.
        labeled: int `[n]`, their indices.
        validation: int `[m]`, those held out.
        labeled_in_unlabeled: whether the labeled ones are among them too.

    Returns:
        int64, sorted.
    """
    chosen = np.ones(count, bool)
    chosen[validation] = False
    chosen[labeled] &= labeled_in_unlabeled
    return np.flatnonzero(chosen)


def class_counts(source: Source, indices: np.ndarray) -> dict[str, int]:
    """How many of some training images each class has.

    Args:
        source: of the images.
        indices: int `[n]`, images of known class.

    Returns:
        Class name → number, in the order of the labels.
    """
    counts = np.bincount(source.train.labels[indices], minlength=source.num_classes).tolist()
    return dict(zip(source.class_names, counts, strict=True))


def _shuffled_classes(source: Source, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The classes in the order of the draw, and the shuffled indices of the images of each, trusted ones first."""
    check_integer("seed", seed, low=0)
    labels = source.train.labels
    if labels.min() < -1 or labels.max() >= source.num_classes:
        wrong = labels[(labels < -1) | (labels >= source.num_classes)][0]
        raise ValueError(
            f"The label {wrong} of an image of {source.name!r} is outside 0…{source.num_classes - 1}: mend the "
            "labels or the class names (-1 stands for unknown)."
        )
    generator = np.random.default_rng(int(seed))
    order = generator.permutation(source.num_classes)
    # One sort for all classes: the images of each in ascending order, one class after the other.
    known = np.flatnonzero(labels >= 0)
    known = known[np.argsort(labels[known], kind="stable")]
    counts = np.bincount(labels[known], minlength=source.num_classes)
    members = np.split(known, np.cumsum(counts)[:-1])
    queues = [generator.permutation(members[label]) for label in order]
    if (trusted := source.trusted) is not None:
        queues = [np.concatenate([queue[trusted[queue]], queue[~trusted[queue]]]) for queue in queues]
    for label, queue in zip(order, queues, strict=True):
        if not len(queue):
            raise ValueError(
                f"The class {source.class_names[label]!r} of {source.name!r} has no image with a label: "
                "add some, or remove the class."
            )
    return order, queues


def _merged(queues: list[np.ndarray], keys: list[np.ndarray]) -> np.ndarray:
    """The members of all queues by their keys, and in the order of the queues where these are equal."""
    return np.concatenate(queues)[np.argsort(np.concatenate(keys), kind="stable")]


def _validation_size(known: int, validation: int | float, num_classes: int) -> int:
    if isinstance(validation, bool) or not isinstance(validation, numbers.Real):
        raise ValueError(f"validation={validation!r} is neither a number of images nor a fraction: pass one.")
    if isinstance(validation, numbers.Integral):
        if not 0 <= validation < known:
            raise ValueError(
                f"validation={validation} is out of range: {known} images have a label, so pass a whole number "
                f"from 0 to {known - 1}, or a fraction."
            )
        return int(validation)
    if not 0 <= validation < 1:
        raise ValueError(
            f"validation={validation} is out of range: pass a fraction of at least 0 and below 1, or a whole number "
            "of images."
        )
    return max(round(validation * known), num_classes) if validation else 0


def _check_labels_left(source, class_order, queues, num_labeled, validation) -> None:
    left = sum(map(len, queues))
    for label, queue in zip(class_order, queues, strict=True):
        if not len(queue):
            raise ValueError(
                f"validation={validation} leaves no label to the class {source.class_names[label]!r}: "
                "hold out fewer images."
            )
    if num_labeled is None:
        return
    whole = isinstance(num_labeled, numbers.Integral) and not isinstance(num_labeled, bool)
    if not whole or num_labeled < 1:
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


def _warn_of_short_classes(source, labeled, num_labeled) -> None:
    counts = class_counts(source, labeled)
    even = 0 if num_labeled is None else num_labeled // source.num_classes
    short = {name: count for name, count in counts.items() if count < even}
    if short:
        warnings.warn(
            f"{source.name!r} has fewer than {even} labels for some classes, {short}: other classes have more.",
            stacklevel=3,
        )


def _warn_of_uncertainty(validation_per_class: dict[str, int]) -> None:
    """Says how little a small validation split tells, and of which classes it tells nothing."""
    count = sum(validation_per_class.values())
    # The widest 95 % interval of a fraction of `count`, that of one half, by the normal approximation.
    half_width = 1.96 * math.sqrt(0.25 / count) if count else math.inf
    missing = [name for name, number in validation_per_class.items() if not number]
    said = []
    if half_width > _WIDE_INTERVAL:
        said.append(
            f"an accuracy on them is uncertain by up to ±{100 * min(half_width, 1):.0f} points (95 %)"
        )
    if missing:
        some = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
        said.append(f"it says nothing of the classes without one ({some})")
    if said:
        fewest, most = min(validation_per_class.values()), max(validation_per_class.values())
        each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        warnings.warn(
            f"{count} images are held out for validation, {each} of each class: {', and '.join(said)}. Label more "
            "images, or hold out more of them.",
            stacklevel=3,
        )
