"""People's own images: one folder per class, and a folder of unlabeled ones."""

import dataclasses
import os
import pathlib
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpl_tf.data.images import copies, decoding, upright, value_range
from mpl_tf.data.images.image_files import (
    ImageFile,
    existing_folder,
    image_files,
    is_hidden_or_system,
    reason_against,
    shown,
    walk,
)
from mpl_tf.data.images.images import MEMORY_LIMIT, ArrayImages, FileImages, Images
from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.data.images.source import Source
from mpl_tf.utils.validation import check_choice

DUPLICATES = ("drop", "drop_near", "keep")
# In how many of 64 bits two images differ that are one photograph, compressed anew.
NEAR = 4
_TRAINING_NAMES = {"train", "training", "train_set", "trainset", "labeled", "labelled"}
_OTHER_NAMES = {
    "val", "valid", "validation", "validate", "dev", "eval", "evaluation", "test", "testing", "tests", "test_set",
    "testset", "holdout", "held_out", "unlabeled", "unlabelled", "extra",
}  # fmt: skip


def from_folders(
    labeled_dir: str | os.PathLike,
    unlabeled_dir: str | os.PathLike | None = None,
    *,
    test_dir: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    skip_unreadable: bool = False,
    channels: int = 3,
    flip: bool = True,
    resize: str = "crop",
    interpolation: str = "bilinear",
    duplicates: str = "drop",
    near_duplicates: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Source:
    """Images from folders.

    Every image is decoded once before training, so that a broken one is found now. Images are turned upright
    and brought to one size, as `resize` and `interpolation` say; those that have it keep every pixel.
    The networks of a run carry both, and exported models do the same; without a run, hand them on by
    `models.set_resizing(network, source.resizing)`. Which files are images is told by their content: JPEG,
    PNG, GIF, BMP, WebP, TIFF, AVIF, and HEIC where pillow-heif is installed. Hidden files and folders, those
    that disks, clouds and archives leave behind, camera raws and unfinished downloads are passed over;
    `Source.reading` says what and why.

    Images with the same pixels, at the size that is trained on, are one image. Of copies the first labeled
    one is used, else the first test image, else the first: so none is in two of labeled, validation, test and
    unlabeled data. One image with two labels is refused.

    Args:
        labeled_dir: holds one folder per class, named as the class, with images at any depth. Names that
            differ in nothing but their Unicode form are one.
        unlabeled_dir: holds images at any depth. Those that are also labeled or test images are left out.
        test_dir: laid out as `labeled_dir`, with the same class names or some of them.
        image_size: H = W, or (H, W). None takes the size that all labeled images share.
        skip_unreadable: leaves out images that cannot be decoded, and warns, instead of refusing them.
        channels: 3 (RGB) or 1 (gray).
        flip: whether a mirrored image keeps its label: pass False for texts, signs, arrows, and whatever has
            a left and a right. `make_views` mirrors half of the images where it is True.
        resize: what becomes of other aspect ratios: `"crop"` fits the shorter side and keeps the middle,
            `"stretch"` fits both sides, `"pad"` fits the longer side and adds gray (128) beside the shorter one.
        interpolation: `"bilinear"`, `"bicubic"`, `"lanczos"` or `"nearest"`; all but the last are antialiased.
        duplicates: `"drop"` leaves copies out; `"drop_near"` also images that look like another one of the
            same class or of an unknown one, by the hash of `near_duplicates`; `"keep"` counts copies, warns
            where they are in two kinds of data or have two labels, and uses them all.
        near_duplicates: looks for images that look alike too, by a perceptual hash of 64 bits of which so
            many may differ; 4 finds the same photograph compressed anew. They are named in a warning and in
            `Source.reading`, and used, but with `duplicates="drop_near"`. None looks for none, or is 4 there.
        memory_limit: bytes up to which each collection is kept decoded in memory; beyond, files are decoded
            when they are needed.

    Returns:
        A `Source` named "folders"; names are paths, `unreadable` lists what was left out, `reading` all of
        it.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for folders laid out in another way, unreadable images, sizes that differ, images with two
            labels or in `labeled_dir` and `test_dir`, and pixels that do not use their range.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels={channels} is not possible: pass 3 for RGB or 1 for gray.")
    resizing = decoding.checked_resizing(resize, interpolation)
    check_choice("duplicates", duplicates, DUPLICATES)
    if duplicates == "drop_near" and near_duplicates is None:
        near_duplicates = NEAR
    if near_duplicates is not None and (
        isinstance(near_duplicates, bool)
        or not isinstance(near_duplicates, int)
        or not 0 <= near_duplicates <= 16
    ):
        raise ValueError(f"near_duplicates={near_duplicates!r} is out of range: pass 0 to 16 bits, or None.")
    report = ReadingReport()
    files, class_names = _scan(labeled_dir, unlabeled_dir, test_dir, report)
    unreadable: dict[str, Exception] = {}
    size = _image_size(image_size, files, unreadable)
    reader = _Reader((*size, channels), resizing, memory_limit, near_duplicates is not None)
    read = reader.read(files, unreadable)
    _check_unreadable(unreadable, len(files), skip_unreadable)
    report.unreadable = tuple(file.path for file in files if file.path in unreadable)
    _check_classes_left(files, class_names, unreadable, labeled_dir)
    read.check_range(report)
    read.resolve_copies(class_names, report, drop=duplicates != "keep")
    if near_duplicates is not None:
        read.resolve_near_copies(near_duplicates, report, drop=duplicates == "drop_near")
    report.take(file.path for file in read.files)
    train, test = read.images([copies.LABELED, copies.UNLABELED]), read.images([copies.TEST])
    assert train is not None, "a class without a readable image has been refused"
    if test is None and test_dir is not None:
        raise ValueError(
            f"Every image in test_dir={shown(test_dir)} is a copy of a labeled one, or looks like one: give others "
            'to test on, or pass duplicates="keep".'
        )
    return Source(
        "folders",
        class_names,
        train,
        test,
        flip=flip,
        resizing=resizing,
        unreadable=report.unreadable,
        reading=report,
    )


def labeled_image_sizes(labeled_dir: str | os.PathLike) -> set[tuple[int, int]]:
    """The heights and widths of the labeled images, upright, as their headers tell; broken files are left out.

    Args:
        labeled_dir: as for `from_folders`.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for a folder laid out in another way.
    """
    files, _ = _scan_classes("labeled_dir", labeled_dir, ReadingReport())
    return _sizes([file.path for file, _ in files], {})


@dataclasses.dataclass(frozen=True)
class _File:
    path: str
    relative_name: str
    label: int
    stream: int


def _scan(labeled_dir, unlabeled_dir, test_dir, report) -> tuple[list[_File], tuple[str, ...]]:
    """The labeled files, the unlabeled ones and those to test on, and the names of the classes."""
    labeled, class_names = _scan_classes("labeled_dir", labeled_dir, report)
    test = [] if test_dir is None else _scan_classes("test_dir", test_dir, report, class_names)[0]
    first = {file.identity: file.path for file, _ in labeled}
    if shared := [file.path for file, _ in test if file.identity in first]:
        raise ValueError(
            f"{len(shared)} images are in labeled_dir and in test_dir, such as {shown(min(shared))}: keep each in "
            "one."
        )
    unlabeled = [] if unlabeled_dir is None else image_files("unlabeled_dir", unlabeled_dir, report)
    known = first.keys() | {file.identity for file, _ in test}
    files = [_File(file.path, file.relative_name, label, copies.LABELED) for file, label in labeled]
    for file in unlabeled:
        # Links to a file are that file.
        if file.identity not in known:
            known.add(file.identity)
            files.append(_File(file.path, file.relative_name, -1, copies.UNLABELED))
    files += [_File(file.path, file.relative_name, label, copies.TEST) for file, label in test]
    return files, class_names


def _scan_classes(
    argument: str,
    folder: str | os.PathLike,
    report: ReadingReport,
    class_names: tuple[str, ...] | None = None,
) -> tuple[list[tuple[ImageFile, int]], tuple[str, ...]]:
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


def _image_size(image_size, files: list[_File], unreadable: dict) -> tuple[int, int]:
    if image_size is not None:
        return decoding.checked_image_size(image_size)

    sizes = _sizes([file.path for file in files if file.stream == copies.LABELED], unreadable)
    if len(sizes) > 1:
        smallest, largest = min(sizes), max(sizes)
        raise ValueError(
            f"Labeled images differ in size, from {smallest[0]}×{smallest[1]} to {largest[0]}×{largest[1]} "
            "(height × width): give the size to resize them to as image_size."
        )
    return next(iter(sizes), (1, 1))


def _sizes(paths: list[str], unreadable: dict) -> set[tuple[int, int]]:
    """The sizes of files; those that have none go into `unreadable`."""

    def measure(path):
        try:
            return upright.upright_size(pathlib.Path(path).read_bytes())
        # Pillow raises OSError, SyntaxError, ValueError, struct.error and others for broken files.
        except Exception as error:
            unreadable[path] = error
            return None

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return {size for size in threads.map(measure, paths) if size is not None}


class _Reader:
    """Decodes every file once: what can be decoded, what it holds and, where all of it fits, its pixels."""

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        resizing: decoding.Resizing,
        memory_limit: int,
        perceptual: bool,
    ) -> None:
        self.image_shape = image_shape
        self.resizing = resizing
        self.memory_limit = memory_limit
        self.perceptual = perceptual

    def read(self, files: list[_File], unreadable: dict) -> "_Images":
        size = int(np.prod(self.image_shape))
        trained = sum(file.stream != copies.TEST for file in files)
        # Training and test images are two collections, each with the limit.
        fits = {copies.TEST: (len(files) - trained) * size <= self.memory_limit}
        fits[copies.LABELED] = fits[copies.UNLABELED] = trained * size <= self.memory_limit
        stored = sum(fits[file.stream] for file in files)
        pixels = np.empty((stored, *self.image_shape), np.uint8)
        rows = np.cumsum([fits[file.stream] for file in files]) - 1
        facts: list[_Facts | None] = [None] * len(files)

        def decode(index):
            file = files[index]
            if file.path in unreadable:
                return
            try:
                decoded = decoding.decode(
                    pathlib.Path(file.path).read_bytes(), self.image_shape, self.resizing
                )
            except Exception as error:
                unreadable[file.path] = error
                return
            if fits[file.stream]:
                pixels[rows[index]] = decoded.pixels
            facts[index] = _Facts(
                copies.content_hash(decoded.pixels),
                copies.perceptual_hash(decoded.pixels) if self.perceptual else np.uint64(0),
                int(decoded.pixels.max()),
                decoded.deep_maximum,
                decoded.transparent,
            )

        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as threads:
            for _ in threads.map(decode, range(len(files))):
                pass
        good = [index for index, fact in enumerate(facts) if fact is not None]
        known = [fact for fact in facts if fact is not None]
        return _Images(
            [files[index] for index in good],
            known,
            [int(rows[index]) if fits[files[index].stream] else -1 for index in good],
            pixels,
            self.resizing,
        )


@dataclasses.dataclass(frozen=True)
class _Facts:
    content_hash: bytes
    perceptual_hash: np.uint64
    maximum: int
    deep_maximum: int
    transparent: bool


@dataclasses.dataclass
class _Images:
    """The readable files, what was found in each, and their rows in `pixels`; -1 for those that stay on disk."""

    files: list[_File]
    facts: list[_Facts]
    rows: list[int]
    pixels: np.ndarray
    resizing: decoding.Resizing

    @property
    def streams(self) -> np.ndarray:
        return np.array([file.stream for file in self.files], int)

    def check_range(self, report: ReadingReport) -> None:
        deep = [fact.deep_maximum for fact in self.facts]
        deepest = int(np.argmax(deep))
        note = value_range.check_range_of_files(
            max(fact.maximum for fact in self.facts), deep[deepest], shown(self.files[deepest].path)
        )
        if note:
            report.notes.append(note)
            warnings.warn(f"{note[0].upper()}{note[1:]}.", stacklevel=3)
        if transparent := [
            file.path for file, fact in zip(self.files, self.facts, strict=True) if fact.transparent
        ]:
            note = (
                f"{len(transparent):,} images are transparent in parts, such as {shown(transparent[0])}: they "
                "are read as if they were opaque, by the colors that lie hidden there. Where that is not what people "
                "see, save them on a background"
            )
            report.notes.append(note)
            warnings.warn(f"{note}.", stacklevel=3)

    def resolve_copies(self, class_names, report: ReadingReport, *, drop: bool) -> None:
        dropped = copies.resolve_copies(
            [fact.content_hash for fact in self.facts],
            self.streams,
            np.array([file.label for file in self.files], int),
            class_names,
            lambda index: shown(self.files[index].path),
            report,
            drop=drop,
        )
        self._drop(dropped)

    def _drop(self, dropped: set[int]) -> None:
        if dropped:
            kept = [index for index in range(len(self.files)) if index not in dropped]
            self.files = [self.files[index] for index in kept]
            self.facts = [self.facts[index] for index in kept]
            self.rows = [self.rows[index] for index in kept]

    def resolve_near_copies(self, distance: int, report: ReadingReport, *, drop: bool) -> None:
        hashes_of_content = [fact.content_hash for fact in self.facts]
        same = {copy.index for copy in copies.find_copies(hashes_of_content, self.streams)}
        hashes = np.array([fact.perceptual_hash for fact in self.facts], np.uint64)
        labels = np.array([file.label for file in self.files], int) if drop else None
        found = copies.find_near(hashes, self.streams, distance, labels=labels)
        found = [copy for copy in found if copy.index not in same]
        for copy in found:
            pair = shown(self.files[copy.index].path), shown(self.files[copy.original].path)
            report.near_copies.setdefault(f"near {copy.kind}", []).append(pair)
        advice = "they are left out" if drop else "look at them, and remove what is the same"
        for kind, pairs in report.near_copies.items():
            warnings.warn(
                f"{kind}: {len(pairs):,}, such as {pairs[0][0]} and {pairs[0][1]}; {advice} (Source.reading lists "
                "all).",
                stacklevel=3,
            )
        if drop:
            self._drop({copy.index for copy in found})

    def images(self, streams: list[int]) -> Images | None:
        """The collection of some streams; None where it is empty."""
        chosen = np.flatnonzero(np.isin(self.streams, streams))
        if not len(chosen):
            return None
        files = [self.files[index] for index in chosen]
        on_disk = FileImages(
            [file.path for file in files],
            np.array([file.label for file in files], np.int32),
            self.pixels.shape[1:],
            resizing=self.resizing,
            # Other systems write the same names in another form.
            relative_names=[unicodedata.normalize("NFC", file.relative_name) for file in files],
        )
        rows = np.array([self.rows[index] for index in chosen])
        if rows.min() < 0:
            return on_disk
        contiguous = np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
        pixels = self.pixels[rows[0] : rows[0] + len(rows)] if contiguous else self.pixels[rows]
        return ArrayImages(pixels, on_disk.labels, names=on_disk.names, fingerprint=on_disk.fingerprint())


def _check_unreadable(unreadable: dict, count: int, skip_unreadable: bool) -> None:
    if not unreadable:
        return
    path = min(unreadable)
    message = (
        f"{len(unreadable)} of {count} images cannot be decoded, such as {shown(path)} ({unreadable[path]})"
    )
    if not skip_unreadable:
        raise ValueError(f"{message}: mend or remove what is broken, or pass skip_unreadable=True.")
    warnings.warn(f"{message}: left out.", stacklevel=3)


def _check_classes_left(files, class_names, unreadable, labeled_dir) -> None:
    left = {file.label for file in files if file.stream == copies.LABELED and file.path not in unreadable}
    for label, name in enumerate(class_names):
        if label not in left:
            raise ValueError(
                f"No image of the class {name!r} in {shown(labeled_dir)} can be decoded: mend some, or remove it."
            )
