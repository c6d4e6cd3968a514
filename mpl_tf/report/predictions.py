"""What a network says of pictures: strips of them with a caption each, and what it takes for what."""

import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.colors import to_rgb

from mpl_tf.report import figures

WRONG = "#b3261e"
_COLUMNS = 12
_COUNTS_UP_TO, _NAMES_UP_TO = 20, 40


class Strip:
    """Pictures in rows of twelve, two lines of text below each.

    Args:
        title: line above them.
        images: `[n, H, W, C]`, uint8, gray or color.
        captions: n texts.
        wrong: bool `[n]`, whether a text tells of a mistake; it is red then.
    """

    def __init__(self, title: str, images: np.ndarray, captions: Sequence[str], wrong: np.ndarray):
        self.title, self.images, self.captions, self.wrong = title, images, captions, wrong
        # In units of a column: a picture fits into a square of .9, and two lines of text stand below it.
        height, width = images.shape[1:3]
        self.width, self.tall = (0.9 * side / max(height, width) for side in (width, height))
        self.cell = self.tall + 0.52

    @property
    def height(self) -> float:
        """In inches, for a width of ten."""
        return 0.4 + 0.82 * self.cell * math.ceil(len(self.images) / _COLUMNS)

    def draw(self, axes) -> None:
        """Draws them on axes that are as wide as the figure."""
        axes.set_title(self.title)
        for place, (image, caption, wrong) in enumerate(
            zip(self.images, self.captions, self.wrong, strict=True)
        ):
            row, column = divmod(place, _COLUMNS)
            middle, top = column + 0.5, self.cell * row
            extent = (middle - self.width / 2, middle + self.width / 2, top + self.tall, top)
            axes.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), extent=extent)
            color = WRONG if wrong else figures.INK
            text = {"ha": "center", "va": "top", "fontsize": 8, "linespacing": 1.1, "color": color}
            axes.text(middle, top + self.tall + 0.04, caption, **text)
        bottom = self.cell * math.ceil(len(self.images) / _COLUMNS)
        axes.set(xlim=(0, _COLUMNS), ylim=(bottom, 0), xticks=(), yticks=(), aspect="equal", anchor="NW")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)


def strip(destination_png: str | os.PathLike, *, title, images, captions, wrong) -> pathlib.Path:
    """Draws a `Strip`, whose arguments these are, as a picture of its own.

    Returns:
        The path of the picture.
    """
    drawn = Strip(title, images, captions, wrong)
    with figures.figure(destination_png, 10.0, drawn.height) as figure:
        drawn.draw(figure.subplots())
    return pathlib.Path(destination_png)


def confusion(
    destination_png: str | os.PathLike, counts: np.ndarray, class_names: Sequence[str], *, title: str
) -> pathlib.Path:
    """Draws a confusion matrix: true classes in rows, predicted ones in columns, colored by their share of the row.

    Args:
        destination_png: where the picture goes.
        counts: int `[K, K]`, `counts[label][prediction]`; written into the cells of up to twenty classes.
        class_names: K names.
        title: line above it.

    Returns:
        The path of the picture.
    """
    counts = np.asarray(counts)
    right, mistaken = (np.array(to_rgb(color)) for color in figures.CLASS_COLORS[:2])
    colors = np.where(np.eye(len(counts), dtype=bool)[..., np.newaxis], right, mistaken)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 1.4 + min(6.0, 0.36 * len(counts))
    with figures.figure(destination_png, side, side) as figure:
        axes = figure.subplots()
        axes.imshow(1.0 - shares[..., np.newaxis] * (1.0 - colors))
        axes.set(title=title, xlabel="predicted class", ylabel="true class")
        axes.grid(visible=False)
        if len(counts) <= _COUNTS_UP_TO:
            for row, column in np.argwhere(counts):
                ink = "white" if shares[row, column] > 0.6 else figures.INK
                style = {"ha": "center", "va": "center", "fontsize": 7.5, "color": ink}
                axes.text(column, row, counts[row, column], **style)
        if len(counts) <= _NAMES_UP_TO:
            names = [short(name, 12) for name in class_names]
            axes.set_xticks(range(len(names)), names, rotation=90 * (max(map(len, names)) > 2))
            axes.set_yticks(range(len(names)), names)
        else:
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(ticker.MaxNLocator(integer=True))
    return pathlib.Path(destination_png)


def short(name: str, length: int) -> str:
    """A name, cut off where it is longer."""
    return name if len(name) <= length else name[: length - 1] + "…"
