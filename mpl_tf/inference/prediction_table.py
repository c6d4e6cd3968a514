"""Predictions on disk: a CSV file with a row for each image, and a note of whose predictions they are.

    <name>.csv        path,class,confidence,…,error
    <name>.csv.json   the model and the folder of the images

Rows are added as they are made, so that a process that was killed goes on behind the last whole one, and what it made
can be read meanwhile.
"""

import contextlib
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

from mpl_tf.data.images.reading import ReadingReport
from mpl_tf.utils import files
from mpl_tf.utils.validation import check_integer

FORMAT = 1


class PredictionTable:
    """The rows of a CSV file of predictions.

    A row has the image's path, relative to its folder; a class and its confidence for each of the `top_k` likeliest
    classes (`class`, `confidence`, `class_2`, `confidence_2`, …); and `error`, the reason where the image could not
    be read, in which case classes and confidences are empty.

    Args:
        path: of the CSV file.
        model: where the model lies, for people; it may be moved.
        sha256: of the model.
        folder: where the images lie, as an absolute path.
        top_k: how many classes a row names.

    Attributes:
        path: of the CSV file.
        columns: their names.
        rows: path of the image → its row, in the order of the file.
        reading: which files of the folder were read and passed over, once `predict_folder` has looked.

    Raises:
        ValueError: for a file that holds other predictions, or that something else wrote.
    """

    def __init__(
        self, path: str | os.PathLike, *, model: str, sha256: str, folder: str, top_k: int = 1
    ) -> None:
        check_integer("top_k", top_k, low=1)
        self.path = files.user_path(path)
        if self.path.is_dir():
            inside = str(self.path / "predictions.csv")
            raise ValueError(
                f"{str(self.path)!r} is a folder: give the path of a CSV file, such as {inside!r}."
            )
        ranks = ["", *(f"_{rank}" for rank in range(2, top_k + 1))]
        self.columns = [
            "path",
            *(f"{what}{rank}" for rank in ranks for what in ("class", "confidence")),
            "error",
        ]
        self.rows: dict[str, list[str]] = {}
        self.reading: ReadingReport | None = None
        self._note = self.path.with_name(f"{self.path.name}.json")
        columns = ",".join(self.columns)
        self._verify_or_write_note(
            {"format": FORMAT, "columns": columns, "model": model, "sha256": sha256, "folder": folder}
        )

    @contextlib.contextmanager
    def filling(self, times: Mapping[str, int] | None = None) -> Iterator[None]:
        """The block in which rows are added. What was not written to its end, or is an error, is to be made again.

        Args:
            times: path of an image → when it last changed, in nanoseconds. Rows of images that have changed since the
                file was written are to be made again too. None takes all images for unchanged.

        Raises:
            ValueError: when another process adds rows.
            files.DiskFullError: when there is no room; the rows before it are kept.
        """
        message = (
            f"Another process is writing predictions into {str(self.path)!r}: wait until it has ended, or choose "
            "another file."
        )
        with files.locked(self._note, message):
            self._read(times or {})
            with (
                files.room_for(self.path),
                _opened(self.path, "a") as self._stream,
            ):
                yield

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        """Writes rows, so that they survive the end of this process.

        Args:
            rows: as many texts each as there are columns. An image that has a row is passed over.
        """
        new = [list(row) for row in rows if row[0] not in self.rows]
        _write(self._stream, new)
        self._stream.flush()
        self.rows.update({row[0]: row for row in new})

    def arrange(self, order: Iterable[str]) -> None:
        """Brings the rows into an order, so that the file does not tell how often its making was interrupted.

        Args:
            order: paths of images. Rows of others come behind them.
        """
        wanted = dict.fromkeys([path for path in order if path in self.rows] + sorted(self.rows))
        if list(wanted) != list(self.rows):
            self._rewrite({path: self.rows[path] for path in wanted})

    def _verify_or_write_note(self, note: dict) -> None:
        known = self._read_note()
        if self.path.exists():
            if difference := _difference(known, note):
                raise ValueError(
                    f"The file {str(self.path)!r} {difference}: choose another file, or remove this one."
                )
            return
        if known is None and self._note.exists():
            raise ValueError(
                f"The file {str(self._note)!r}, in which to note whose predictions lie beside it, holds something "
                "else: choose another name, or remove it."
            )
        with files.replacing(self._note) as temporary:
            temporary.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
        self._rewrite({})

    def _read_note(self) -> dict | None:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return note if isinstance(note, dict) and "sha256" in note else None

    def _read(self, times: Mapping[str, int]) -> None:
        """Reads the whole rows of images that could be read and have not changed, and leaves the file with those."""
        written = self.path.stat().st_mtime_ns
        with _opened(self.path, "r") as stream:
            text = stream.read()
        header, *rows = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
        if header != self.columns:
            raise ValueError(
                f"The file {str(self.path)!r} does not begin with the line {','.join(self.columns)!r} any more: "
                "choose another file, or remove this one."
            )
        whole = rows if text.endswith("\n") else rows[:-1]
        kept = {row[0]: row for row in whole if len(row) == len(self.columns) and not row[-1]}
        kept = {path: row for path, row in kept.items() if times.get(path, 0) <= written}
        if len(kept) < len(rows):
            self._rewrite(kept)
        self.rows = kept

    def _rewrite(self, rows: dict[str, list[str]]) -> None:
        with (
            files.replacing(self.path) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
        ):
            _write(stream, [self.columns, *rows.values()])
        self.rows = rows


def _opened(path: pathlib.Path, mode: str) -> IO[str]:
    # As the paths of files are: bytes that are no text survive.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def _write(stream: IO[str], rows: Iterable[Sequence[str]]) -> None:
    for row in rows:
        # Not every version of Python quotes a carriage return, which would end the row.
        returns = any("\r" in text for text in row)
        csv.writer(
            stream, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL
        ).writerow(row)


def _difference(known: dict | None, note: dict) -> str:
    """What keeps the file that is there from being continued, if anything."""
    if known is None:
        return "holds no predictions that were begun here"
    ignored = {"model"} if known["sha256"] == note["sha256"] else set()
    different = [key for key in note if key not in ignored and known.get(key) != note[key]]
    if not different:
        return ""
    there, here = (", ".join(f"{key}={source.get(key)}" for key in different) for source in (known, note))
    return f"holds other predictions ({there} there, {here} here)"
