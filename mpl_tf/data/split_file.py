"""A split in its JSON file: drawn once, read back ever after, never written over."""

import dataclasses
import json
import os
import pathlib

import numpy as np

from mpl_tf.data.source import Source
from mpl_tf.data.splits import Split, class_counts, draw_split
from mpl_tf.files import replacing


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
    document = {"arguments": arguments, **dataclasses.asdict(split)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, default=np.ndarray.tolist), encoding="utf-8")
    return split


def _read(path: pathlib.Path, source: Source, arguments: dict) -> Split:
    """The split in a file, where that is the one asked for."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = dict(document["arguments"])
        names = {field.name for field in dataclasses.fields(Split)} - {"validation_per_class"}
        values = {name: document[name] for name in names}
        indices = {key: np.array(values[key], np.int64) for key in ("labeled", "unlabeled", "validation")}
    except (ValueError, KeyError, TypeError) as error:
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
            f"{path} holds the split {values['name']!r} of pictures with the fingerprint "
            f"{values['fingerprint'][:12]}…, and those of {source.name!r} now have {fingerprint[:12]}…: bring the "
            "former back, or give another path."
        )
    _check_indices(path, len(source.train), **indices)
    values["validation_per_class"] = class_counts(source, indices["validation"])
    return Split(**{**values, **indices})


def _check_indices(path: pathlib.Path, count: int, labeled, unlabeled, validation) -> None:
    everything = np.concatenate([labeled, unlabeled, validation])
    if everything.min() < 0 or everything.max() >= count:
        raise ValueError(f"{path} has indices outside 0…{count - 1}: remove it, or give another path.")
    if np.isin(validation, np.concatenate([labeled, unlabeled])).any():
        raise ValueError(f"{path} trains on validation pictures: remove it, or give another path.")


def _listed(arguments: dict) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
