"""Which training images are labeled, unlabeled and held out: drawn under a seed, and kept in a file.

A split's JSON file is drawn once, read back ever after, and never written over.
"""

import dataclasses
import json
import math
import numbers
import os
import pathlib
import warnings
import zipfile
from typing import Any

import numpy as np

from mpl_tf.data.images.images import content_fingerprint
from mpl_tf.data.images.source import Source
from mpl_tf.utils import files
from mpl_tf.utils.files import replacing

# Up to so many labeled and validation indices stand in the JSON file itself.
LISTED_INDICES = 1_000_000

# A validation split that leaves an accuracy more uncertain than this (95 %) comes with a warning.
_WIDE_INTERVAL = 0.1


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Indices into the training images of a source.

    Attributes:
        name: `<dataset>.<seed>@<labels>`, as FixMatch (Sohn et al., 2020) names its splits: `cifar10.3@4000`.
        labeled: int64, sorted: images whose labels may be looked at.
        unlabeled: int64, sorted: images to learn from without a label.
        validation: int64, sorted: images with labels that are in neither of the others.
        labels_per_class: how many labeled images each class has, by its name.
        validation_per_class: how many validation images each class has, likewise.
        fingerprint: of the images that were drawn from.
    """

    name: str
    labeled: np.ndarray
    unlabeled: np.ndarray
    validation: np.ndarray
    labels_per_class: dict[str, int]
    validation_per_class: dict[str, int]
    fingerprint: str

    def __repr__(self) -> str:
        return (
            f"Split({self.name!r}: {len(self.labeled)} labeled, {len(self.unlabeled)} unlabeled, "
            f"{len(self.validation)} validation)"
        )


def draw_split(
    source: Source,
    *,
    num_labeled: int | None,
    seed: int,
    validation: int | float = 0.1,
    labeled_in_unlabeled: bool = True,
) -> Split:
    """Draws labeled, unlabeled and validation images.

    Each class is shuffled under the seed (NumPy's PCG64). The first images of each class, in proportion to its
    size but at least one where the class has two, are held out; they do not depend on `num_labeled`. The next ones
    are labeled, equally many of each class. What does not divide evenly goes to the first classes of an order drawn
    under the seed, and what a class is short of to the others. Under one seed, the labeled images are thus among
    those of any larger number. A validation split on which an accuracy would be uncertain by more than 10 points, or
    that lacks a class, comes with a warning.

    Args:
        source: to draw from. Images of unknown class (label -1) are always unlabeled.
        num_labeled: labels over all classes; None for all that the validation split leaves.
        seed: of the draw, at least 0.
        validation: number of images with known labels to hold out, or (as a float) which fraction of them. A fraction
            above 0 holds out more where it takes more to have one of every class that has two or more.
        labeled_in_unlabeled: whether the labeled images are among the unlabeled ones too.

    Returns:
        A `Split`.

    Raises:
        ValueError: for more labels than there are, fewer than classes, a class without a label, or a validation
            split that leaves a class none.
    """
    labels = source.train.labels
    class_order, queues = _shuffled_classes(source, seed)
    # The first of each class comes before all others, unless it is the only one, which is needed as a labeled one.
    several = sum(len(queue) > 1 for queue in queues)
    size = _validation_size(labels, validation, several)
    known = sum(map(len, queues))
    # No class can hold out more than these, so that only so many are sorted, of however many there are.
    heads = [queue[: math.ceil((size + len(queues)) / known * len(queue)) + 2] for queue in queues]
    keys = [(np.arange(len(head)) + 0.5) / len(queue) for queue, head in zip(queues, heads, strict=True)]
    for queue, key in zip(queues, keys, strict=True):
        if len(queue) > 1:
            key[0] = 0.0
    held_out = _merged(heads, keys)[:size]
    counts = np.bincount(labels[held_out], minlength=source.num_classes)[class_order]
    queues = [queue[count:] for queue, count in zip(queues, counts, strict=True)]
    _check_labels_left(source, class_order, queues, num_labeled, validation)
    labeled = np.concatenate(queues)
    if num_labeled is not None:
        heads = [queue[:num_labeled] for queue in queues]
        labeled = _merged(heads, [np.arange(len(head)) for head in heads])[:num_labeled]
    validation_per_class = class_counts(source, held_out)
    if validation:
        _warn_of_uncertainty(validation_per_class)
    return Split(
        name=f"{source.name}.{seed}@{len(labeled)}",
        labeled=np.sort(labeled),
        unlabeled=unlabeled_indices(
            len(labels), labeled, held_out, labeled_in_unlabeled=labeled_in_unlabeled
        ),
        validation=np.sort(held_out),
        labels_per_class=_labels_per_class(source, labeled, num_labeled),
        validation_per_class=validation_per_class,
        fingerprint=source.train.fingerprint(),
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


def load_or_draw_split(
    path: str | os.PathLike,
    source: Source,
    *,
    num_labeled: int | None,
    seed: int,
    validation: int | float = 0.1,
    labeled_in_unlabeled: bool = True,
) -> Split:
    """Reads a split from its file, or draws it and writes the file where there is none.

    Args:
        path: of the JSON file. One that exists is never written to.
        source: to draw from.
        num_labeled: as for `draw_split`.
        seed: as for `draw_split`.
        validation: as for `draw_split`.
        labeled_in_unlabeled: as for `draw_split`.

    Returns:
        The `Split`.

    Raises:
        ValueError: for a file that holds another split or none at all, and for what `draw_split` refuses.
    """
    path = files.user_path(path)
    arguments = {
        "dataset": source.name,
        "num_labeled": num_labeled,
        "seed": seed,
        "validation": validation,
        "labeled_in_unlabeled": labeled_in_unlabeled,
    }
    # Through JSON and back, so that what is compared with a file is what a file can hold.
    arguments = json.loads(json.dumps(arguments, default=lambda value: value.item()))
    if path.exists():
        return _read(path, source, arguments)
    split = draw_split(
        source,
        num_labeled=num_labeled,
        seed=seed,
        validation=validation,
        labeled_in_unlabeled=labeled_in_unlabeled,
    )
    _write(path, split, arguments)
    return split


def _shuffled_classes(source: Source, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The classes in the order of the draw, and the shuffled indices of the images of each."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed={seed!r} is no seed: pass a whole number of at least 0.")
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
    members = np.flatnonzero(labels >= 0)
    members = members[np.argsort(labels[members], kind="stable")]
    counts = np.bincount(labels[members], minlength=source.num_classes)
    members = np.split(members, np.cumsum(counts)[:-1])
    queues = [generator.permutation(members[label]) for label in order]
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


def _validation_size(labels: np.ndarray, validation: int | float, num_classes: int) -> int:
    known = int(np.sum(labels >= 0))
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


def _labels_per_class(source, labeled, num_labeled) -> dict[str, int]:
    counts = class_counts(source, labeled)
    even = 0 if num_labeled is None else num_labeled // source.num_classes
    short = {name: count for name, count in counts.items() if count < even}
    if short:
        warnings.warn(
            f"{source.name!r} has fewer than {even} labels for some classes, {short}: other classes have more.",
            stacklevel=3,
        )
    return counts


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


def _write(path: pathlib.Path, split: Split, arguments: dict) -> None:
    """Writes the JSON file, and beside it an array file where there are many indices.

    The unlabeled images, which are what the others leave, are counted only.
    """
    fields = {field.name: getattr(split, field.name) for field in dataclasses.fields(split)}
    fields["counts"] = {name: len(fields[name]) for name in ("labeled", "unlabeled", "validation")}
    del fields["unlabeled"]
    if len(split.labeled) + len(split.validation) > LISTED_INDICES:
        indices = {name: fields.pop(name) for name in ("labeled", "validation")}
        with replacing(_array_path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **indices)
        fields["indices"] = content_fingerprint(indices["labeled"], indices["validation"])
    with replacing(path) as temporary:
        document = {"arguments": arguments, **fields}
        temporary.write_text(json.dumps(document, default=np.ndarray.tolist), encoding="utf-8")


def _array_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix(".npz")


def _read_indices(path: pathlib.Path, document: dict) -> dict[str, np.ndarray]:
    """Labeled and validation indices, from the document or from the file beside it."""
    if "indices" not in document:
        return {name: np.array(document[name], np.int64) for name in ("labeled", "validation")}
    with np.load(_array_path(path), allow_pickle=False) as arrays:
        indices = {name: arrays[name] for name in ("labeled", "validation")}
    if content_fingerprint(indices["labeled"], indices["validation"]) != document["indices"]:
        raise ValueError(f"{_array_path(path).name} is not the one that it was written with")
    return indices


def _read(path: pathlib.Path, source: Source, arguments: dict) -> Split:
    """The split in a file, where that is the one asked for."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = dict(document["arguments"])
        values = {name: document[name] for name in ("name", "labels_per_class", "fingerprint")}
        indices = _read_indices(path, document)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} holds no split ({type(error).__name__}: {error}): remove it, or give another path."
        ) from error
    if found != arguments:
        raise ValueError(
            f"{path} holds the split {values['name']!r} ({_listed(found)}), and another is asked for "
            f"({_listed(arguments)}): ask for the same, or give another path."
        )
    fingerprint = source.train.fingerprint()
    if values["fingerprint"] != fingerprint:
        raise ValueError(
            f"{path} holds the split {values['name']!r} of images with the fingerprint "
            f"{values['fingerprint'][:12]}…, and those of {source.name!r} now have {fingerprint[:12]}…: bring the "
            "former back, or give another path."
        )
    _check_indices(path, len(source.train), **indices)
    content: dict[str, Any] = {**values, **indices}
    return Split(
        **content,
        unlabeled=unlabeled_indices(
            len(source.train), **indices, labeled_in_unlabeled=found["labeled_in_unlabeled"]
        ),
        validation_per_class=class_counts(source, indices["validation"]),
    )


def _check_indices(path: pathlib.Path, count: int, labeled, validation) -> None:
    for indices in (labeled, validation):
        if len(indices) and (indices.min() < 0 or indices.max() >= count):
            raise ValueError(f"{path} has indices outside 0…{count - 1}: remove it, or give another path.")
    held_out = np.zeros(count, bool)
    held_out[validation] = True
    if held_out[labeled].any():
        raise ValueError(f"{path} trains on validation images: remove it, or give another path.")


def _listed(arguments: dict) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
