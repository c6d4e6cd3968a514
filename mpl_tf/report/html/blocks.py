"""What a page is made of, as plain data; the templates turn it into HTML and escape all of its text."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from matplotlib.figure import Figure


class Cell(NamedTuple):
    """A cell of a table, with a small remark under its text, or a link."""

    text: str
    note: str = ""
    href: str = ""


class Tile(NamedTuple):
    """One or several images that belong together, uint8 `[H, W, C]`, the text below, and whether it is a mistake."""

    images: Sequence[np.ndarray]
    text: str
    wrong: bool = False


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Running text."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure under what it shows; on a phone another one takes its place, where there is one."""

    kind: ClassVar[str] = "plot"
    figure: Figure
    caption: str
    narrow: Figure | None = None
    span: int = 1


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A finished PNG file under what it shows."""

    kind: ClassVar[str] = "image_file"
    png: bytes
    caption: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A row per dict, whose columns are all their keys; the first one heads the rows."""

    kind: ClassVar[str] = "table"
    rows: Sequence[Mapping[str, object]]
    caption: str
    span: int = 1

    @property
    def columns(self) -> list[str]:
        """In the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def cells(self) -> list[list[Cell]]:
        """Rows of cells, empty ones where a row lacks a column."""
        return [[_cell(row.get(name)) for name in self.columns] for row in self.rows]


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Images in a grid, under a heading."""

    kind: ClassVar[str] = "tiles"
    entries: Sequence[Tile]
    caption: str

    @property
    def images_per_entry(self) -> int:
        """How many images stand side by side over one text."""
        return max(len(entry.images) for entry in self.entries)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Blocks side by side where the page is wide enough."""

    kind: ClassVar[str] = "columns"
    blocks: Sequence["Block"]


@dataclasses.dataclass(frozen=True)
class Fold:
    """Blocks that are shown on request."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence["Block"]
    is_open: bool = False


@dataclasses.dataclass(frozen=True)
class Heading:
    """A title inside of a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclasses.dataclass(frozen=True)
class Messages:
    """A list of messages, each after where it comes from, which may be a link."""

    kind: ClassVar[str] = "messages"
    entries: Sequence[tuple[Cell, str]]


Block = Paragraph | Plot | ImageFile | Table | Tiles | Columns | Fold | Heading | Messages


class Fact(NamedTuple):
    """A number or a name in the head of a page, what it is of, and a remark."""

    name: str
    value: str
    note: str = ""


class Section(NamedTuple):
    """A part of a page; one without blocks is left out."""

    title: str
    blocks: Sequence[Block]


def _cell(value):
    return value if isinstance(value, Cell) else Cell("" if value is None else str(value))
