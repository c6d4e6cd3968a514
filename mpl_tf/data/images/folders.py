"""People's own images: one folder per class, and a folder of unlabeled ones."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpl_tf.data.images import decoding
from mpl_tf.data.images.images import MEMORY_LIMIT, FileImages, Images, into_memory
from mpl_tf.data.images.source import Source


def from_folders(
    labeled_dir: str | os.PathLike,
    unlabeled_dir: str | os.PathLike | None = None,
    *,
    test_dir: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    skip_unreadable: bool = False,
    channels: int = 3,
    memory_limit: int = MEMORY_LIMIT,
) -> Source:
    """Images from folders.

    Every image is decoded once before training, so that a broken one is found now. Images are turned upright,
    resized so that the shorter side fits (bilinear, antialiased) and cropped to the middle. Files and folders
    whose names begin with a dot, and files that are no images by their extension, are passed over.

    Args:
        labeled_dir: holds one folder per class, named as the class, with images at any depth.
        unlabeled_dir: holds images at any depth. Those that are also labeled or test images are left out.
        test_dir: laid out as `labeled_dir`, with the same class names or some of them.
        image_size: H = W, or (H, W). None takes the size that all labeled images share.
        skip_unreadable: leaves out images that cannot be decoded, and warns, instead of refusing them.
        channels: 3 (RGB) or 1 (gray).
        memory_limit: bytes up to which each collection is kept decoded in memory; beyond, files are decoded
            when they are needed.

    Returns:
        A `Source` named "folders"; names are paths, `unreadable` lists what was left out.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for folders laid out in another way, unreadable images, or sizes that differ.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels={channels} is not possible: pass 3 for RGB or 1 for gray.")
    labeled, class_names = _scan_classes("labeled_dir", labeled_dir)
    test = [] if test_dir is None else _scan_classes("test_dir", test_dir, class_names)[0]
    train = labeled
    if shared := _real_paths(labeled) & _real_paths(test):
        raise ValueError(
            f"{len(shared)} images are in labeled_dir and in test_dir, such as {min(shared)}: keep each in one."
        )
    if unlabeled_dir is not None:
        known = _real_paths(labeled) | _real_paths(test)
        unlabeled = [_File(path, name, -1) for path, name in image_files("unlabeled_dir", unlabeled_dir)]
        train = labeled + [file for file in unlabeled if os.path.realpath(file.path) not in known]
    sizes = _check_readable(train + test, skip_unreadable)
    unreadable = tuple(file.path for file in train + test if file.path not in sizes)
    _check_classes_left(labeled, class_names, sizes, labeled_dir)
    height, width = _image_size(image_size, [sizes[file.path] for file in labeled if file.path in sizes])
    train, test = (
        _images([file for file in files if file.path in sizes], (height, width, channels), memory_limit)
        for files in (train, test)
    )
    return Source("folders", class_names, train, test, unreadable=unreadable)


def image_files(argument: str, folder: str | os.PathLike) -> list[tuple[str, str]]:
    """Finds the images at any depth of a folder, by their extensions.

    Args:
        argument: what the folder was given as, for the message.
        folder: to look in. Files and folders whose names begin with a dot are passed over.

    Returns:
        (path, name relative to the folder) of each, in an order that is fixed.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for one without images.
    """
    folder = _existing_folder(argument, folder)
    found = list(_walk(folder, ""))
    if not found:
        raise ValueError(
            f"{argument}={folder} has no images ({', '.join(decoding.EXTENSIONS)}) at any depth: "
            "give the folder that holds them."
        )
    return found


@dataclasses.dataclass(frozen=True)
class _File:
    path: str
    relative_name: str
    label: int


def _scan_classes(
    argument: str, folder: str | os.PathLike, class_names: tuple[str, ...] | None = None
) -> tuple[list[_File], tuple[str, ...]]:
    folder = _existing_folder(argument, folder)
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    found = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if entry.is_file() and _is_image(entry.name)]
    if loose:
        raise ValueError(
            f"{argument}={folder} has images outside any class, such as {loose[0].name}: move each into the "
            "folder of its class, or give images without labels as unlabeled_dir."
        )
    if not found:
        raise ValueError(
            f"{argument}={folder} has no class folders: make one folder per class in it, with its images."
        )
    class_names = class_names or tuple(entry.name for entry in found)
    files = []
    for entry in found:
        if entry.name not in class_names:
            raise ValueError(
                f"{argument}={folder} has a class {entry.name!r} that labeled_dir lacks: "
                f"name its folders as those are, {', '.join(class_names)}."
            )
        label = class_names.index(entry.name)
        members = [_File(path, name, label) for path, name in _walk(entry, entry.name)]
        if not members:
            raise ValueError(
                f"The class folder {entry} has no images ({', '.join(decoding.EXTENSIONS)}): "
                "add some, or remove it."
            )
        files += members
    return files, class_names


def _existing_folder(argument: str, folder: str | os.PathLike) -> pathlib.Path:
    folder = pathlib.Path(folder).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"{argument}={folder} {what}: give a folder of images.")
    try:
        os.scandir(folder).close()
    except OSError as error:
        _check_unreadable(error)
    return folder


def _check_unreadable(error):
    raise ValueError(
        f"The folder {error.filename} cannot be read ({error.strerror}): give yourself the right to, or move it away."
    ) from error


def _walk(folder: pathlib.Path, prefix: str) -> Iterator[tuple[str, str]]:
    """Yields (path, name relative to `folder` behind the prefix) of each image, in an order that is fixed."""
    for parent, folders, names in os.walk(folder, onerror=_check_unreadable, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if _is_image(name):
                path = os.path.join(parent, name)
                relative = pathlib.PurePath(prefix, os.path.relpath(path, folder))
                yield path, relative.as_posix()


def _real_paths(files: list[_File]) -> set[str]:
    return {os.path.realpath(file.path) for file in files}


def _is_image(name: str) -> bool:
    return name.lower().endswith(decoding.EXTENSIONS) and not name.startswith(".")


def _check_readable(files: list[_File], skip_unreadable: bool) -> dict[str, tuple[int, int]]:
    """Decodes every file once, and returns the height and width of those that can be."""
    sizes, errors = {}, {}

    def inspect(file):
        try:
            sizes[file.path] = decoding.inspect_file(file.path)
        # Pillow raises OSError, SyntaxError, ValueError, struct.error and others for broken files.
        except Exception as error:
            errors[file.path] = error

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in threads.map(inspect, files):
            pass
    if errors:
        path = min(errors)
        message = f"{len(errors)} of {len(files)} images cannot be decoded, such as {path} ({errors[path]})"
        if not skip_unreadable:
            raise ValueError(f"{message}: mend or remove what is broken, or pass skip_unreadable=True.")
        warnings.warn(f"{message}: left out.", stacklevel=3)
    return sizes


def _check_classes_left(labeled, class_names, readable, labeled_dir) -> None:
    left = {file.label for file in labeled if file.path in readable}
    for label, name in enumerate(class_names):
        if label not in left:
            raise ValueError(
                f"No image of the class {name!r} in {labeled_dir} can be decoded: mend some, or remove it."
            )


def _image_size(image_size, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    if image_size is not None:
        return decoding.checked_image_size(image_size)
    if len(set(sizes)) > 1:
        smallest, largest = min(sizes), max(sizes)
        raise ValueError(
            f"Labeled images differ in size, from {smallest[0]}×{smallest[1]} to {largest[0]}×{largest[1]} "
            "(height × width): give the size to resize them to as image_size."
        )
    return sizes[0]


def _images(files: list[_File], image_shape: tuple[int, int, int], memory_limit: int) -> Images | None:
    if not files:
        return None
    labels = np.array([file.label for file in files], np.int32)
    images = FileImages(
        [file.path for file in files],
        labels,
        image_shape,
        relative_names=[file.relative_name for file in files],
    )
    fits = len(files) * int(np.prod(image_shape)) <= memory_limit
    return into_memory(images) if fits else images
