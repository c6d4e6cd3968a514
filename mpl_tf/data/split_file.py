"""A split in its JSON file: drawn once, read back ever after, never written over."""

import dataclasses
import json
import os
import pathlib
import zipfile

import numpy as np

from mpl_tf.data.images.images import content_fingerprint
from mpl_tf.data.images.source import Source
from mpl_tf.data.splits import Split, class_counts, draw_split, unlabeled_indices
from mpl_tf.utils.files import replacing

# Up to so many labeled and validation indices stand in the JSON file itself.
LISTED_INDICES = 1_000_000


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
    path = pathlib.Path(path)
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
    return Split(
        **values,
        **indices,
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
