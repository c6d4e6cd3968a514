"""Writing so that a reader, or a run that is killed, never meets half a file."""

import contextlib
import errno
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows has no advisory file locks of this kind.
    fcntl = None

# No space, no quota, and a file larger than the file system or the user's limit allows.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class DiskFullError(OSError):
    """There was no room for a file; what it was to replace is still there."""


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
            os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


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
def locked(path: str | os.PathLike, message: str) -> Iterator[None]:
    """Keeps a second process out while the block runs; the lock dies with the process.

    Args:
        path: of the file that stands for what is locked. It is made where it is missing, and not changed.
        message: what to say when another process holds the lock.

    Raises:
        ValueError: when another process does.
    """
    with open(path, "ab") as lock:
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(message) from None
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
