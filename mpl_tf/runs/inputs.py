"""What the files and folders were that a run was made of: trained networks, weights, stored labels."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping

from mpl_tf.utils import files

# Larger files are told apart by their size, their beginning and their end, where archives list their checksums.
_WHOLE, _END = 2**28, 2**20


def verify_or_write_inputs(
    folder: pathlib.Path, inputs: Mapping[str, str | os.PathLike], *, has_results: bool, writes: bool = True
) -> None:
    """Notes in `inputs.json` what a run is made of, or checks that it goes on with the same.

    Args:
        folder: of the run.
        inputs: flag → file or folder; what does not exist is left to those who read it.
        has_results: whether anything has been made of them: before that they may change.
        writes: whether this process writes there.

    Raises:
        ValueError: for a file or a folder that has changed, with the flag that names it.
    """
    path = folder / "inputs.json"
    remedy = (
        "put back a copy of it, or remove it if the files and folders that the flags name are as they were"
    )
    known = (files.read_json(path, remedy) if has_results else None) or {}
    found = {flag: describe(name, known.get(flag)) for flag, name in inputs.items() if os.path.exists(name)}
    for flag, record in found.items():
        if flag in known and known[flag]["sha256"] != record["sha256"]:
            raise ValueError(
                f"The run in {str(folder)!r} was made with another --{flag}={inputs[flag]}: of "
                f"{known[flag]['bytes']:,} bytes and the fingerprint {known[flag]['sha256'][:12]}…, and now there "
                f"are {record['bytes']:,} and {record['sha256'][:12]}…. Put back what was there, or choose another "
                "run_dir."
            )
    if writes and (found or path.exists()):
        with files.replacing(path) as temporary:
            temporary.write_text(json.dumps(known | found, indent=1) + "\n", "utf-8")


def describe(path: str | os.PathLike, known: Mapping | None = None) -> dict:
    """Size, time and fingerprint of a file, or of all files in a folder.

    Args:
        path: that exists.
        known: what this returned before; its fingerprint is taken over where names, sizes and times are the same.

    Returns:
        `{"files", "bytes", "stamp", "sha256"}`: how many files, their bytes together, a fingerprint of their names,
        sizes and times, and one of their names and contents. Hidden files do not count.
    """
    path = files.user_path(path)
    members = [path] if path.is_file() else sorted(path.rglob("*"))
    members = [file for file in members if file.is_file() and not file.name.startswith(".")]
    stats = [file.stat() for file in members]
    names = ["" if file == path else file.relative_to(path).as_posix() for file in members]
    stamp = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in zip(names, stats, strict=True)]
    record: dict = {
        "files": len(members),
        "bytes": sum(stat.st_size for stat in stats),
        "stamp": hashlib.sha256("\n".join(stamp).encode("utf-8", "surrogateescape")).hexdigest(),
    }
    if known is not None and all(known.get(key) == value for key, value in record.items()):
        return {**record, "sha256": known["sha256"]}
    sha = hashlib.sha256()
    for file, name, stat in zip(members, names, stats, strict=True):
        sha.update(f"{name} {stat.st_size}\n".encode("utf-8", "surrogateescape"))
        with file.open("rb") as stream:
            if stat.st_size <= _WHOLE:
                sha.update(hashlib.file_digest(stream, "sha256").digest())
            else:
                sha.update(stream.read(_END))
                stream.seek(-_END, os.SEEK_END)
                sha.update(stream.read(_END))
    return {**record, "sha256": sha.hexdigest()}
