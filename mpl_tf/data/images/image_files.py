"""Which files in a folder are images: by their content, with a reason for every file that is passed over."""

import os
import pathlib
import stat
from collections.abc import Iterator
from typing import NamedTuple

from mpl_tf.data.images import content
from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.utils import files

# What is read whatever it holds, so that a broken file is found; the rest is read where its first bytes are
# an image's.
EXTENSIONS = frozenset(
    {
        ".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jif", ".jpe", ".jpeg", ".jpg",
        ".pjp", ".pjpeg", ".png", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
_PASSED_OVER = {
    "camera raw": ".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .raw .rw2 .sr2 "
    ".srf .srw .x3f",
    "unfinished download": ".!ut .crdownload .download .filepart .opdownload .part .partial .tmp",
    "backup copy": ".bak .old .orig .swp",
}
_REASONS = {extension: reason for reason, names in _PASSED_OVER.items() for extension in names.split()}
# Left by disks, clouds, archives and programs, some with previews of the images beside them. Those whose
# names begin with a dot (.DS_Store, .ipynb_checkpoints, .Trash-1000, …) are hidden and passed over as such.
SYSTEM_FOLDERS = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "__macosx", "__pycache__", "@eadir", "@recycle", "@sharebin",
        "@tmp", "found.000", "lost+found", "network trash folder", "recycler", "system volume information",
        "temporary items",
    }
)  # fmt: skip
SYSTEM_FILES = frozenset({"desktop.ini", "ehthumbs.db", "ehthumbs_vista.db", "icon\r", "thumbs.db"})


class ImageFile(NamedTuple):
    """A file that is to be read.

    Attributes:
        path: to open it by.
        relative_name: below the folder that was searched.
        identity: of the file on its disk: links to one file share it.
    """

    path: str
    relative_name: str
    identity: tuple[int, int]


def image_files(
    argument: str, folder: str | os.PathLike, report: ReadingReport | None = None
) -> list[ImageFile]:
    """Finds the images at any depth of a folder, by their content.

    Args:
        argument: what the folder was given as, for the message.
        folder: to look in. Hidden files and folders and those of systems are passed over; folders that links
            reach several times are searched once.
        report: takes up what was passed over.

    Returns:
        The files, in an order that is fixed.

    Raises:
        FileNotFoundError: for a folder that is missing.
        ValueError: for one without images, or that cannot be read.
    """
    report = ReadingReport() if report is None else report
    folder = existing_folder(argument, folder)
    found = list(walk(folder, "", report))
    if not found:
        raise ValueError(
            f"{argument}={shown(folder)} has no images at any depth{report.why_nothing()}: give the folder that "
            "holds them."
        )
    return found


def walk(folder: pathlib.Path, prefix: str, report: ReadingReport) -> Iterator[ImageFile]:
    """The images at any depth of a folder that exists.

    Args:
        folder: to look in.
        prefix: that the relative names begin with.
        report: takes up what was passed over.
    """
    seen = {_identity(os.stat(folder))}
    for parent, folders, names in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        below = pathlib.PurePath(prefix, os.path.relpath(parent, folder))
        folders[:] = [name for name in sorted(folders) if _is_entered(parent, name, seen, report)]
        for name in sorted(names):
            path = os.path.join(parent, name)
            if reason := reason_against(path, name):
                report.pass_over(path, reason)
                continue
            relative = (below / name).as_posix()
            try:
                yield ImageFile(path, relative, _identity(os.stat(path)))
            except OSError:  # Opening it will say why it cannot be read.
                yield ImageFile(path, relative, (-1, hash(path)))


def reason_against(path: str, name: str) -> str | None:
    """Why a file is not read.

    Args:
        path: to look into it by.
        name: of the file.

    Returns:
        None for one that is read.
    """
    if name.startswith("."):
        return "still in iCloud" if name.endswith(".icloud") else "hidden"
    if name.casefold() in SYSTEM_FILES:
        return "of the system"
    extension = os.path.splitext(name)[1].lower()
    if name.endswith("~"):
        return "backup copy"
    if reason := _REASONS.get(extension):
        return reason
    try:
        # Opening a pipe would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "no regular file"
        if extension in EXTENSIONS - {".heic", ".heif", ".hif"}:
            return None
        with open(path, "rb") as file:
            found = content.format_of(file.read(content.HEAD_BYTES))
    except OSError:
        return None if extension in EXTENSIONS else "cannot be opened"
    if found == content.HEIF or (found is None and extension in (".heic", ".heif", ".hif")):
        return None if content.can_read_heif() else content.HEIF_REASON
    return None if found else "no image"


def is_hidden_or_system(name: str) -> bool:
    """Whether a folder of this name belongs to a system and not to a person."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def existing_folder(argument: str, folder: str | os.PathLike) -> pathlib.Path:
    """A folder that is there and may be read.

    Args:
        argument: what the folder was given as, for the message.
        folder: may begin with ~.

    Raises:
        FileNotFoundError: where it is missing or a file.
        ValueError: where it may not be read.
    """
    folder = files.user_path(folder)
    try:
        status = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{argument}={shown(folder)} does not exist: give a folder of images."
        ) from None
    except OSError as error:
        _raise_unreadable(error)
    if not stat.S_ISDIR(status.st_mode):
        raise FileNotFoundError(f"{argument}={shown(folder)} is a file: give a folder of images.")
    try:
        os.scandir(folder).close()
    except OSError as error:
        _raise_unreadable(error)
    return folder


def shown(path: str | os.PathLike) -> str:
    """A path as a message can print it: bytes that are no text are escaped."""
    return os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _is_entered(parent: str, name: str, seen: set, report: ReadingReport) -> bool:
    path = os.path.join(parent, name)
    if is_hidden_or_system(name):
        report.pass_over(path, "hidden folder" if name.startswith(".") else "folder of the system")
        return False
    try:
        identity = _identity(os.stat(path))
    except OSError as error:
        _raise_unreadable(error)
    if identity in seen:
        report.pass_over(path, "link to a folder that is read already")
        return False
    seen.add(identity)
    return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _raise_unreadable(error: OSError):
    raise ValueError(
        f"The folder {shown(error.filename)} cannot be read ({error.strerror}): give yourself the right to, or move "
        "it away."
    ) from error
