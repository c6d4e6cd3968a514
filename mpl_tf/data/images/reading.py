"""What became of the files in the folders: read, passed over, broken, copies of others."""

import collections
import dataclasses
import os
from collections.abc import Iterable

_SHOWN = 20


@dataclasses.dataclass
class ReadingReport:
    """What was read and what was not, and why.

    Attributes:
        read: number of images that are used, by extension.
        passed_over: reason → extension (or name of a folder) → number of files.
        examples: reason → a path.
        unreadable: paths of broken files that were left out.
        copies: kind → number of images with the pixels of another one.
        copy_examples: kind → pairs of paths, the copy first; 20 at most.
        near_copies: the same for images that look alike, where these were searched for.
        notes: sentences on the values of the pixels.
    """

    read: dict[str, int] = dataclasses.field(default_factory=dict)
    passed_over: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    copies: dict[str, int] = dataclasses.field(default_factory=dict)
    copy_examples: dict[str, list[tuple[str, str]]] = dataclasses.field(default_factory=dict)
    near_copies: dict[str, list[tuple[str, str]]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def pass_over(self, path: str, reason: str) -> None:
        """Takes up a file or folder that is not read."""
        name = os.path.basename(path)
        kind = name if "folder" in reason or reason == "of the system" else _extension(name)
        counts = self.passed_over.setdefault(reason, {})
        counts[kind] = counts.get(kind, 0) + 1
        self.examples.setdefault(reason, path)

    def merge(self, other: "ReadingReport") -> None:
        """Takes up what another report passed over."""
        for reason, counts in other.passed_over.items():
            own = self.passed_over.setdefault(reason, {})
            for kind, count in counts.items():
                own[kind] = own.get(kind, 0) + count
            self.examples.setdefault(reason, other.examples[reason])

    def take(self, paths: Iterable[str]) -> None:
        """Takes up the files that are used."""
        self.read = dict(
            collections.Counter(_extension(os.path.basename(path)) for path in paths).most_common()
        )

    def add_copy(self, kind: str, copy: str, original: str) -> None:
        """Takes up an image that has the pixels of another."""
        self.copies[kind] = self.copies.get(kind, 0) + 1
        pairs = self.copy_examples.setdefault(kind, [])
        if len(pairs) < _SHOWN:
            pairs.append((copy, original))

    def why_nothing(self) -> str:
        """What was passed over, for the message that no image is left; nothing where nothing was."""
        return f" ({self._passed_over()} passed over)" if self.passed_over else ""

    def as_dict(self) -> dict:
        """For a JSON file."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        parts = [f"{sum(self.read.values()):,} images ({_counted(self.read)})"] if self.read else []
        if self.passed_over:
            parts.append(f"passed over: {self._passed_over()}")
        if self.unreadable:
            parts.append(f"unreadable: {len(self.unreadable):,}")
        parts += [f"{kind}: {count:,}" for kind, count in self.copies.items()]
        parts += [f"{kind}: {len(pairs):,}" for kind, pairs in self.near_copies.items()]
        return "; ".join(parts) or "nothing was read from files"

    def _passed_over(self) -> str:
        return ", ".join(f"{_counted(counts)} ({reason})" for reason, counts in self.passed_over.items())


def _extension(name: str) -> str:
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return os.path.splitext(name)[1].lower() or ("hidden" if name.startswith(".") else "no extension")


def _counted(counts: dict[str, int]) -> str:
    most = sorted(counts.items(), key=lambda item: -item[1])
    text = ", ".join(f"{count:,} {name}" for name, count in most[:5])
    return text + (f" and {len(most) - 5} more kinds" if len(most) > 5 else "")
