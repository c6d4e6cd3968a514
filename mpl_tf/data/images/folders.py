"""People's own images: one folder per class, and a folder of unlabeled ones."""

import os
import pathlib
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpl_tf.data.images import copies, decoding, upright
from mpl_tf.data.images.class_folders import ListedFile, list_class_files, list_files
from mpl_tf.data.images.decoded_files import Reader
from mpl_tf.data.images.image_files import shown
from mpl_tf.data.images.images import MEMORY_LIMIT
from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.data.images.source import Source
from mpl_tf.utils.validation import check_choice

DUPLICATES = ("drop", "drop_near", "keep")
_LABELED = (copies.TRUSTED, copies.LABELED)
# In how many of 64 bits two images differ that are one photograph, compressed anew.
NEAR = 4


def from_folders(
    labeled_dir: str | os.PathLike,
    unlabeled_dir: str | os.PathLike | None = None,
    *,
    test_dir: str | os.PathLike | None = None,
    trusted_dir: str | os.PathLike | None = None,
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

    Images with the same pixels, at the size that is trained on, are one image. Of copies the first trusted
    one is used, else the first labeled one, else the first test image, else the first: so none is in two of
    labeled, validation, test and unlabeled data. One image with two labels is refused, but where one of these
    is trusted: then that is its label.

    Args:
        labeled_dir: holds one folder per class, named as the class, with images at any depth. Names that
            differ in nothing but their Unicode form are one.
        unlabeled_dir: holds images at any depth. Those that are also labeled or test images are left out.
        test_dir: laid out as `labeled_dir`, with the same class names or some of them.
        trusted_dir: likewise, with images whose labels somebody has checked; the labels in `labeled_dir` are
            then cheap ones, from crowds, rules or an old model. Both are labeled images. Copies of cheap ones,
            or links to them, may lie here.
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
    files, class_names = list_files(labeled_dir, unlabeled_dir, test_dir, report, trusted_dir)
    unreadable: dict[str, Exception] = {}
    size = _image_size(image_size, files, unreadable)
    reader = Reader((*size, channels), resizing, memory_limit, near_duplicates is not None)
    read = reader.read(files, unreadable)
    _check_unreadable(unreadable, len(files), skip_unreadable)
    report.unreadable = tuple(file.path for file in files if file.path in unreadable)
    _check_classes_left(files, class_names, unreadable, labeled_dir)
    read.check_range(report)
    read.resolve_copies(class_names, report, drop=duplicates != "keep")
    if near_duplicates is not None:
        read.resolve_near_copies(near_duplicates, report, drop=duplicates == "drop_near")
    report.take(file.path for file in read.files)
    streams = [copies.TRUSTED, copies.LABELED, copies.UNLABELED]
    train, test = read.images(streams), read.images([copies.TEST])
    trusted = read.streams[np.isin(read.streams, streams)] == copies.TRUSTED
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
        trusted=None if trusted_dir is None else trusted,
    )


def labeled_image_sizes(
    labeled_dir: str | os.PathLike, *, argument: str = "labeled_dir"
) -> set[tuple[int, int]]:
    """The heights and widths of the labeled images, upright, as their headers tell; broken files are left out.

    Args:
        labeled_dir: as for `from_folders`.
        argument: what the folder was given as, for the messages.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for a folder laid out in another way.
    """
    files, _ = list_class_files(argument, labeled_dir, ReadingReport())
    return _sizes([file.path for file, _ in files], {})


def _image_size(image_size, files: list[ListedFile], unreadable: dict) -> tuple[int, int]:
    if image_size is not None:
        return decoding.checked_image_size(image_size)

    sizes = _sizes([file.path for file in files if file.stream in _LABELED], unreadable)
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
    left = {file.label for file in files if file.stream in _LABELED and file.path not in unreadable}
    for label, name in enumerate(class_names):
        if label not in left:
            raise ValueError(
                f"No image of the class {name!r} in {shown(labeled_dir)} can be decoded: mend some, or remove it."
            )
