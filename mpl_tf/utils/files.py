"""Writing so that a reader, a run that is killed, or a machine that loses its power never meets half a file.

What was damaged all the same, by a disk, a copy or an editor, is read with a sentence that says so.
"""

import contextlib
import csv
import errno
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

fcntl: Any = None
with contextlib.suppress(ImportError):  # Windows has no advisory file locks of this kind.
    import fcntl

# No space, no quota, and a file larger than the file system or the user's limit allows.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

# What readers of JSON, CSV and NumPy's files raise of one that was emptied, cut off or changed. Not OSError: a file
# that may not be read, or is not there, is not to be removed for it.
DAMAGED = (ValueError, KeyError, TypeError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error)


class LockedError(RuntimeError):
    """Another process is at work where only one may be."""


class DiskFullError(OSError):
    """There was no room for a file; what it was to replace is still there."""


def user_path(path: str | os.PathLike) -> pathlib.Path:
    """The path that a user means: `~` and variables are filled in, where no file is called so literally.

    Every path that an argument or a flag gives goes through here.

    Args:
        path: as it was given, absolute or relative to the working directory.

    Returns:
        The path, without a slash at its end.

    Raises:
        ValueError: for a variable that is not set, or a user who is not there.
    """
    given = pathlib.Path(path)
    if not isinstance(path, str) or os.path.lexists(given):
        return given
    expanded = os.path.expandvars(path)
    if unset := re.search(r"\$(\w+|\{\w+\})", expanded):
        raise ValueError(
            f"The path {path!r} names the variable {unset[0]}, which is not set: set it, or write it out."
        )
    try:
        return pathlib.Path(expanded).expanduser()
    except RuntimeError:
        raise ValueError(f"The path {path!r} names a home that is not known here: write it out.") from None


def folder_name(name: str) -> str:
    """A folder's name that stands for a name of the user's and for no other, on every file system.

    Names of lower-case Latin letters and digits with single spaces stay readable as they are; in any other, what a
    file system may not take or tell apart is replaced, and the first digits of the name's hash tell them apart.

    Args:
        name: any text. Two Unicode forms of one text are one name.
    """
    name = unicodedata.normalize("NFC", name)
    if re.fullmatch(r"[a-z0-9]+( [a-z0-9]+)*", name) and len(name) <= 60:
        return name.replace(" ", "-")
    cleaned = re.sub(r"[\W_]+", "-", name).strip("-")[:40]
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{cleaned}_{mark}" if cleaned else f"_{mark}"


def check_writable(folder: str | os.PathLike, argument: str) -> None:
    """Checks that a folder can be written to, or made, before hours of work end in it.

    Args:
        folder: need not exist.
        argument: what it was given as, for the message.

    Raises:
        ValueError: when it cannot.
    """
    folder = pathlib.Path(folder).absolute()
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        raise ValueError(
            f"{argument}={str(folder)!r} cannot be made, because {existing} is a file: choose another."
        )
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        raise ValueError(
            f"{argument}={str(folder)!r} cannot be written to ({error.strerror}): choose a folder that can."
        ) from error


def check_room(folder: str | os.PathLike, size: int) -> None:
    """Checks that a disk has room, before work that ends there.

    Args:
        folder: on the disk; need not exist.
        size: in bytes.

    Raises:
        DiskFullError: when there is less.
    """
    folder = pathlib.Path(folder).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise DiskFullError(
            f"There is no room in {str(folder)!r}: about {size / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB "
            "are free. Make room, or choose a folder on another disk."
        )


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, mark: str | None = None) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` that takes its place when the block ends well.

    Args:
        path: the file or folder to write. Its parent folders are made. A folder must not exist yet; a file is
            replaced in one step.
        mark: by which `remove_unfinished` finds what this writer leaves when it is killed. No other may have the
            same one.

    Yields:
        A path with the same suffixes to write to. It is removed when the block raises.

    Raises:
        DiskFullError: when the block meets a full disk.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the process's number, which another machine that shares the folder may have too.
    temporary = path.with_name(f".writing-{mark or uuid.uuid4().hex[:12]}-{path.name}")
    try:
        with room_for(path):
            yield temporary
            _write_through(temporary)
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def _write_through(path):
    """Waits until the disk has what a file, or each file of a folder, holds.

    A name is on the disk within seconds of its change, the contents of a new file up to half a minute later: without
    power in between, an empty file has the name, and what it replaced is gone.
    """
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            # Windows does this only for what may be written to.
            with open(file, "rb+") as stream:
                os.fsync(stream.fileno())


@contextlib.contextmanager
def room_for(path: str | os.PathLike) -> Iterator[None]:
    """Turns the error of a full disk into one that says what to do.

    Args:
        path: what the block writes, for the message.

    Raises:
        DiskFullError: when the block meets a full disk.
    """
    try:
        yield
    except Exception as error:
        # TensorFlow's errors carry the system's words, not its number.
        if getattr(error, "errno", None) in NO_ROOM or os.strerror(errno.ENOSPC) in str(error):
            raise DiskFullError(
                f"There is no room to write {str(path)!r} ({error}). What was there is untouched: make room and "
                "start the same command again; a run goes on from its last good checkpoint."
            ) from error
        raise


@contextlib.contextmanager
def reading(path: str | os.PathLike, remedy: str) -> Iterator[None]:
    """Turns the errors of a damaged file into one that names it and says what to do.

    Args:
        path: what the block reads, for the message.
        remedy: what to do, for the message.

    Raises:
        ValueError: when the block meets a damaged file.
    """
    try:
        yield
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): {remedy}.") from error


def read_json(path: str | os.PathLike, remedy: str) -> Any:
    """What a JSON file in UTF-8 holds; None where there is no file.

    Args:
        path: of the file.
        remedy: as for `reading`.

    Raises:
        ValueError: when it is damaged.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return None
    with reading(path, remedy):
        return json.loads(path.read_text("utf-8"))


@contextlib.contextmanager
def locked(path: str | os.PathLike, message: str) -> Iterator[None]:
    """Keeps a second process out while the block runs; the lock dies with the process.

    Args:
        path: of the file that stands for what is locked. It is made where it is missing, and not changed.
        message: what to say when another process holds the lock.

    Raises:
        LockedError: when another process does.
    """
    with open(path, "ab") as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(message) from None
        yield


def reserve(path: str | os.PathLike, size: int) -> None:
    """Makes a file of `size` bytes, or raises as a full disk does, for writers that do not survive one.

    Args:
        path: the file, which its writer then starts anew.
        size: in bytes.

    Raises:
        OSError: when there is no room.
    """
    # Other systems than Linux have no such call; there the writer itself meets the full disk.
    if hasattr(os, "posix_fallocate"):
        with open(path, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, size)


def remove_unfinished(folder: str | os.PathLike, *, mark: str | None = None) -> None:
    """Removes what writers that were killed left in a folder.

    Args:
        folder: need not exist.
        mark: of the writer. None removes what all of them left; then no other process may be writing there.
    """
    for left_over in pathlib.Path(folder).glob(f".writing-{mark}-*" if mark else ".writing-*"):
        if left_over.is_dir():
            shutil.rmtree(left_over)
        else:
            left_over.unlink()
