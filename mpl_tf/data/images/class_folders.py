"""Which files are images in a folder per class, and of which class."""

import dataclasses
import os
import pathlib
import unicodedata
import warnings

from mpl_tf.data.images import copies
from mpl_tf.data.images.image_files import (
    ImageFile,
    existing_folder,
    image_files,
    is_hidden_or_system,
    reason_against,
    shown,
    walk,
)
from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.utils.files import user_path

_TRAINING_NAMES = {"train", "training", "train_set", "trainset", "labeled", "labelled"}
_OTHER_NAMES = {
    "val", "valid", "validation", "validate", "dev", "eval", "evaluation", "test", "testing", "tests", "test_set",
    "testset", "holdout", "held_out", "unlabeled", "unlabelled", "extra",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ListedFile:
    """A file that is an image, as its first bytes say.

    Attributes:
        path: of the file.
        relative_name: below the folder that was given.
        label: its class; -1 where unknown.
        stream: `copies.LABELED`, `UNLABELED`, `TEST` or `TRUSTED`.
    """

    path: str
    relative_name: str
    label: int
    stream: int


def list_files(
    labeled_dir: str | os.PathLike,
    unlabeled_dir: str | os.PathLike | None,
    test_dir: str | os.PathLike | None,
    report: ReadingReport,
    trusted_dir: str | os.PathLike | None = None,
) -> tuple[list[ListedFile], tuple[str, ...]]:
    """The labeled files, the unlabeled ones and those to test on, each once, and the names of the classes.

    A file that is both in `labeled_dir` and in `trusted_dir` is a trusted one, with the label that it has there.

    Args:
        labeled_dir: holds a folder per class.
        unlabeled_dir: holds images at any depth, or None.
        test_dir: laid out as `labeled_dir`, or None.
        report: takes up what is passed over.
        trusted_dir: laid out as `labeled_dir`, or None.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for folders laid out in another way or inside of a class, and images in both `labeled_dir` and
            `test_dir`.
    """
    labeled, class_names = list_class_files("labeled_dir", labeled_dir, report)
    others = {"trusted_dir": trusted_dir, "test_dir": test_dir, "unlabeled_dir": unlabeled_dir}
    for argument, other in others.items():
        if other is not None:
            _check_outside_classes(argument, other, labeled_dir)
    trusted: list[tuple[ImageFile, int]] = []
    if trusted_dir is not None:
        trusted, _ = list_class_files("trusted_dir", trusted_dir, report, class_names)
        checked = {file.identity for file, _ in trusted}
        labeled = [(file, label) for file, label in labeled if file.identity not in checked]
    test = [] if test_dir is None else list_class_files("test_dir", test_dir, report, class_names)[0]
    for argument, group in (("labeled_dir", labeled), ("trusted_dir", trusted)):
        own = {file.identity for file, _ in group}
        if shared := [file.path for file, _ in test if file.identity in own]:
            raise ValueError(
                f"{len(shared)} images are in {argument} and in test_dir, such as {shown(min(shared))}: keep each in "
                "one."
            )
    unlabeled = [] if unlabeled_dir is None else image_files("unlabeled_dir", unlabeled_dir, report)
    known = {file.identity for file, _ in (*labeled, *trusted, *test)}
    if unlabeled_dir is not None and all(file.identity in known for file in unlabeled):
        warnings.warn(
            f"unlabeled_dir={shown(unlabeled_dir)} brings nothing, since all of its images lie in labeled_dir, "
            "trusted_dir or test_dir too: give a folder of others, or leave it out.",
            stacklevel=3,
        )
    files = [
        ListedFile(file.path, file.relative_name, label, stream)
        for stream, group in ((copies.TRUSTED, trusted), (copies.LABELED, labeled))
        for file, label in group
    ]
    for file in unlabeled:
        # Links to a file are that file.
        if file.identity not in known:
            known.add(file.identity)
            files.append(ListedFile(file.path, file.relative_name, -1, copies.UNLABELED))
    files += [ListedFile(file.path, file.relative_name, label, copies.TEST) for file, label in test]
    return files, class_names


def list_class_files(
    argument: str,
    folder: str | os.PathLike,
    report: ReadingReport,
    class_names: tuple[str, ...] | None = None,
) -> tuple[list[tuple[ImageFile, int]], tuple[str, ...]]:
    """The files in the folders of classes, each with its label, and the names of the classes.

    Args:
        argument: what the folder was given as, for messages.
        folder: holds a folder per class.
        report: takes up what is passed over.
        class_names: those that are known; None takes the folders' names, sorted.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for a folder laid out in another way, or with a class that is not known.
    """
    folder = existing_folder(argument, folder)
    found = _class_folders(argument, folder, report)
    if class_names is None:
        _check_layout(argument, folder, found)
        class_names = tuple(sorted(found))
    files = []
    for name in sorted(found):
        if name not in class_names:
            raise ValueError(
                f"{argument}={shown(folder)} has a class {name!r} that labeled_dir lacks: "
                f"name its folders as those are, {', '.join(class_names)}."
            )
        own = ReadingReport()
        members = [file for path in found[name] for file in walk(path, name, own)]
        if not members:
            raise ValueError(
                f"The class folder {shown(found[name][0])} has no images{own.why_nothing()}: add some, or remove it."
            )
        report.merge(own)
        files += [(file, class_names.index(name)) for file in members]
    return files, class_names


def _class_folders(
    argument: str, folder: pathlib.Path, report: ReadingReport
) -> dict[str, list[pathlib.Path]]:
    """The name of each class, composed (NFC), and its folder; several where their Unicode forms differ."""
    found: dict[str, list[pathlib.Path]] = {}
    loose = None
    for entry in sorted(folder.iterdir()):
        if not _is_folder(entry):
            if reason := reason_against(str(entry), entry.name):
                report.pass_over(str(entry), reason)
            else:
                loose = loose or entry.name
            continue
        if is_hidden_or_system(entry.name):
            report.pass_over(
                str(entry), "hidden folder" if entry.name.startswith(".") else "folder of the system"
            )
            continue
        _check_class_name(argument, entry)
        found.setdefault(unicodedata.normalize("NFC", entry.name), []).append(entry)
    if loose is not None:
        raise ValueError(
            f"{argument}={shown(folder)} has images outside any class, such as {shown(loose)}: move each into the "
            "folder of its class, or give images without labels as unlabeled_dir."
        )
    if not found:
        raise ValueError(
            f"{argument}={shown(folder)} has no class folders: make one folder per class in it, with its images."
        )
    _check_names_differ(argument, folder, found)
    return found


def _check_class_name(argument: str, entry: pathlib.Path) -> None:
    """Class names are written into files and shown on pages, so they have to be text, on one line."""
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        raw = os.fsencode(entry.name)
        raise ValueError(
            f"{argument} has a class folder whose name is not UTF-8, {shown(entry)}: rename it, perhaps to "
            f"{raw.decode('cp1252', 'replace')!r}."
        ) from None
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in entry.name):
        raise ValueError(
            f"{argument} has a class folder with a line break or a control character in its name, {entry.name!r}: "
            "rename it."
        )


def _check_names_differ(argument: str, folder: pathlib.Path, found) -> None:
    """Names that nobody can tell apart, by spaces or characters that are not shown, are a mistake."""
    visible: dict[str, str] = {}
    for name in found:
        seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
        other = visible.setdefault(" ".join(seen.split()), name)
        if other != name:
            raise ValueError(
                f"{argument}={shown(folder)} has two classes whose names look the same, {other!a} and {name!a}: "
                "rename one, or put their images together."
            )


def _check_layout(argument: str, folder: pathlib.Path, found: dict[str, list[pathlib.Path]]) -> None:
    """Recognizes the folder above those that are meant."""
    inside = {name: _folder_names(paths[0]) for name, paths in found.items()}
    training = [name for name in found if name.casefold() in _TRAINING_NAMES]
    others = [name for name in found if name.casefold() in _OTHER_NAMES]
    if training and (others or len(found) == 1) and inside[training[0]]:
        tests = [name for name in others if inside[name] & inside[training[0]]]
        unlabeled = [name for name in others if name.casefold().startswith("unlabel")]
        parts = [f"give {shown(folder / training[0])} as {argument}"]
        parts += [f"{shown(folder / name)} as test_dir" for name in tests[:1]]
        parts += [f"{shown(folder / name)} as unlabeled_dir" for name in unlabeled[:1]]
        raise ValueError(
            f"{argument}={shown(folder)} holds the folders {', '.join(found)}, which are parts of a dataset and not "
            f"classes: {', '.join(parts)}."
        )
    if len(found) == 1:
        (name,) = found
        if len(inside[name]) > 1:
            raise ValueError(
                f"{argument}={shown(folder)} holds nothing but the folder {name!r}, which holds "
                f"{len(inside[name])} folders: if these are the classes, give {shown(folder / name)}."
            )


def _check_outside_classes(argument: str, folder: str | os.PathLike, labeled_dir: str | os.PathLike) -> None:
    """Raises for a folder in that of a class, whose images have a label by that: `labeled/unlabeled` is a class."""
    real = pathlib.Path(os.path.realpath(user_path(folder)))
    for entry in user_path(labeled_dir).iterdir():
        if not is_hidden_or_system(entry.name) and real.is_relative_to(os.path.realpath(entry)):
            raise ValueError(
                f"{argument}={shown(folder)} lies in labeled_dir, where its images have the class "
                f"{unicodedata.normalize('NFC', entry.name)!r}: move it out of {shown(labeled_dir)}."
            )


def _folder_names(folder: pathlib.Path) -> set[str]:
    folder = existing_folder("The class folder", folder)
    return {
        unicodedata.normalize("NFC", entry.name)
        for entry in folder.iterdir()
        if _is_folder(entry) and not is_hidden_or_system(entry.name)
    }


def _is_folder(path: pathlib.Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # A link that leads nowhere or in a circle, or into a folder that is locked.
        return False
