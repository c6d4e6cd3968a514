"""Files decoded once: their pixels, and what is to be known of all of them before training."""

import dataclasses
import os
import pathlib
import unicodedata
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpl_tf.data.images import copies, decoding, value_range
from mpl_tf.data.images.class_folders import ListedFile
from mpl_tf.data.images.image_files import shown
from mpl_tf.data.images.images import FileImages, Images, decoded
from mpl_tf.data.images.reading import ReadingReport


class Reader:
    """Decodes every file once: what can be decoded, what it holds and, where all of it fits, its pixels.

    Args:
        image_shape: (H, W, C) of the decoded images.
        resizing: how other sizes become this one.
        memory_limit: bytes up to which each collection is kept decoded in memory.
        perceptual: whether images get a perceptual hash too.
    """

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

    def read(self, files: list[ListedFile], unreadable: dict[str, Exception]) -> "DecodedFiles":
        """Decodes files.

        Args:
            files: the listed ones.
            unreadable: path → what was wrong with it. Those that are in it are left out, and more are put into it.
        """
        size = int(np.prod(self.image_shape))
        trained = sum(file.stream != copies.TEST for file in files)
        # Training and test images are two collections, each with the limit.
        fits = {copies.TEST: (len(files) - trained) * size <= self.memory_limit}
        for stream in (copies.TRUSTED, copies.LABELED, copies.UNLABELED):
            fits[stream] = trained * size <= self.memory_limit
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
        return DecodedFiles(
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
class DecodedFiles:
    """The readable files, what was found in each, and their rows in `pixels`; -1 for those that stay on disk."""

    files: list[ListedFile]
    facts: list[_Facts]
    rows: list[int]
    pixels: np.ndarray
    resizing: decoding.Resizing

    @property
    def streams(self) -> np.ndarray:
        """Int `[N]`, the stream of each file."""
        return np.array([file.stream for file in self.files], int)

    def check_range(self, report: ReadingReport) -> None:
        """Raises for images that would be nearly black, and notes what may be read in another way than it is seen."""
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

    def resolve_copies(self, class_names: Sequence[str], report: ReadingReport, *, drop: bool) -> None:
        """Reports images with the same pixels, and leaves them out where `drop` says so; see `copies`."""
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
        """Reports images whose perceptual hashes differ in at most `distance` bits, and leaves them out likewise."""
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
        return decoded(on_disk, pixels)
