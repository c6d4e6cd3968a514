"""The file of a split: drawn once, read back ever after, and never written over."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from mpl_tf.data.images.images import content_fingerprint
from mpl_tf.data.images.source import Source
from mpl_tf.data.splits import Split, class_counts, draw_split, no_indices, split_arguments, unlabeled_indices
from mpl_tf.utils import files

# Up to so many labeled and validation indices stand in the JSON file itself.
LISTED_INDICES = 1_000_000
# Arrays of a split that its file lists; those of the second line only where there are any.
_LISTED = ("labeled", "validation")
_LISTED_WHERE_ANY = ("trusted", "ignored", "mislabeled", "wrong_labels")


def load_or_draw_split(
    path: str | os.PathLike,
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
    """Reads a split from its file, or draws it and writes the file where there is none.

    Args:
        path: of the JSON file. One that exists is never written to.
        source: to draw from.
        num_labeled: as for `draw_split`.
        seed: as for `draw_split`.
        validation: as for `draw_split`.
        labeled_in_unlabeled: as for `draw_split`.
        trusted: as for `draw_split`.
        cheap_labels: as for `draw_split`.
        label_noise: as for `draw_split`.

    Returns:
        The `Split`.

    Raises:
        ValueError: for a file that holds another split or none at all, and for what `draw_split` refuses.
    """
    path = files.user_path(path)
    options: dict[str, Any] = {
        "num_labeled": num_labeled,
        "seed": seed,
        "validation": validation,
        "labeled_in_unlabeled": labeled_in_unlabeled,
        "trusted": trusted,
        "cheap_labels": cheap_labels,
        "label_noise": label_noise,
    }
    if path.exists():
        return _read(path, source, split_arguments(source, **options))
    split = draw_split(source, **options)
    write_split(path, split)
    return split


def write_split(path: str | os.PathLike, split: Split) -> None:
    """Writes a split that was drawn, where there is no file yet.

    Args:
        path: of the JSON file. One that exists is never written to.
        split: from `draw_split`.
    """
    path = files.user_path(path)
    if not path.exists():
        _write(path, split)


def _write(path: pathlib.Path, split: Split) -> None:
    """Writes the JSON file, and beside it an array file where there are many indices.

    The unlabeled images, which are what the others leave, are counted only.
    """
    fields = {field.name: getattr(split, field.name) for field in dataclasses.fields(split)}
    names = [*_LISTED, *(name for name in _LISTED_WHERE_ANY if len(fields[name]))]
    arrays = {name: fields[name] for name in names}
    arguments = fields.pop("arguments")
    counted = [name for name in ("labeled", "unlabeled", *names[1:]) if name != "wrong_labels"]
    fields["counts"] = {name: len(fields[name]) for name in counted}
    fields = {name: value for name, value in fields.items() if not isinstance(value, np.ndarray)}
    if sum(map(len, arrays.values())) > LISTED_INDICES:
        with files.replacing(_array_path(path)) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
        fields["indices"] = content_fingerprint(*arrays.values())
    else:
        fields |= arrays
    with files.replacing(path) as temporary:
        document = {"arguments": arguments, **fields}
        temporary.write_text(json.dumps(document, default=np.ndarray.tolist), encoding="utf-8")


def _array_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix(".npz")


def _read_arrays(path: pathlib.Path, document: dict) -> dict[str, np.ndarray]:
    """The listed arrays, from the document or from the file beside it."""
    if "indices" not in document:
        names = [*_LISTED, *(name for name in _LISTED_WHERE_ANY if name in document)]
        types = {"wrong_labels": np.int32}
        return {name: np.array(document[name], types.get(name, np.int64)) for name in names}
    with np.load(_array_path(path), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if content_fingerprint(*arrays.values()) != document["indices"]:
        raise ValueError(f"{_array_path(path).name} is not the one that it was written with")
    return arrays


def _read(path: pathlib.Path, source: Source, arguments: dict) -> Split:
    """The split in a file, where that is the one asked for."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = dict(document["arguments"])
        values = {name: document[name] for name in ("name", "labels_per_class", "fingerprint")}
        arrays = _read_arrays(path, document)
    except (OSError, *files.DAMAGED) as error:
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
            f"{values['fingerprint'][:12]}…, and those of {source.name!r} now have {fingerprint[:12]}…, since "
            "images or labels were added, removed or changed: bring the former back, or give another path, and a run "
            "another run_dir."
        )
    _check_indices(path, len(source.train), arrays)
    labeled, validation = arrays["labeled"], arrays["validation"]
    content: dict[str, Any] = {**values, **arrays}
    split = Split(
        **content,
        unlabeled=unlabeled_indices(
            len(source.train), labeled, validation, labeled_in_unlabeled=found["labeled_in_unlabeled"]
        ),
        validation_per_class=class_counts(source, validation),
        arguments=found,
    )
    _check_same_trust(path, source, split)
    return split


def _check_indices(path: pathlib.Path, count: int, arrays: dict[str, np.ndarray]) -> None:
    for name, indices in arrays.items():
        if name != "wrong_labels" and len(indices) and (indices.min() < 0 or indices.max() >= count):
            raise ValueError(f"{path} has indices outside 0…{count - 1}: remove it, or give another path.")
    held_out = np.zeros(count, bool)
    held_out[arrays["validation"]] = True
    if held_out[arrays["labeled"]].any():
        raise ValueError(f"{path} trains on validation images: remove it, or give another path.")


def _check_same_trust(path: pathlib.Path, source: Source, split: Split) -> None:
    """Raises where other labels are trusted than when the split was drawn."""
    if "trusted" in split.arguments:
        return
    drawn = np.union1d(split.labeled, split.ignored)
    now = no_indices() if source.trusted is None else drawn[source.trusted[drawn]]
    if not np.array_equal(now, split.trusted):
        raise ValueError(
            f"{path} holds the split {split.name!r} with {len(split.trusted)} trusted labels, and {len(now)} of "
            f"the same images, or others of them, are trusted in {source.name!r} now: bring the former back, or give "
            "another path."
        )


def _listed(arguments: dict) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
