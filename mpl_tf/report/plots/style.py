"""The look that all figures share, and how a figure becomes a PNG file or pixels.

Figures are made without pyplot, so that neither the backend nor the settings of the calling program change.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mpl_tf.utils import files

# Every color that a figure uses is one of these: the page replaces them with its own, for its light and dark themes.
INK, NEUTRAL, FAINT, RULE, PANEL, PAPER = "#333333", "#55606b", "#8a8a8a", "#e6e6e6", "#f2f4f6", "#ffffff"
WRONG = "#b3261e"
CLASS_COLORS = (
    "#2f6db3", "#d9772b", "#3d9457", "#b5476a", "#7a62ad", "#8a6c4f", "#c9a227", "#3aa0a8", "#6b7a8f", "#a0522d",
)  # fmt: skip
ROLE_COLORS = {
    "student": CLASS_COLORS[0],
    "teacher": CLASS_COLORS[1],
    "generator": CLASS_COLORS[2],
    "finetuned": CLASS_COLORS[3],
    "supervised": FAINT,
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "figure.dpi": 120,
    "savefig.dpi": "figure",
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.09,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.labelcolor": NEUTRAL,
    "axes.labelsize": 8.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}
# In inches. The page shows figures of this width in three columns, and one below the other on a phone.
WIDTH = 3.9

_Parameters = ParamSpec("_Parameters")


def styled(draw: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    """Makes a function that returns a figure draw it in `STYLE`, whatever the caller's settings are."""

    @functools.wraps(draw)
    def draw_in_style(*arguments: _Parameters.args, **options: _Parameters.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*arguments, **options)

    return draw_in_style


class _Figure(Figure):
    """A figure that is drawn once where it is saved.

    Matplotlib draws one with a layout twice then, first without output, only so that its parts are in their places.
    """

    def draw(self, renderer: RendererBase) -> None:
        engine = self.get_layout_engine()
        if isinstance(engine, ConstrainedLayoutEngine) and self.canvas.is_saving():
            engine.execute(self)
        else:
            super().draw(renderer)


def new_figure(width: float, height: float, description: str) -> Figure:
    """A figure without axes.

    Args:
        width: in inches, of 120 pixels each in a PNG file.
        height: in inches.
        description: what it shows, for those who do not see it: the figure's label.
    """
    figure = _Figure(figsize=(width, height), layout="constrained")
    figure.set_label(description)
    return figure


def save_png(figure: Figure, path: str | os.PathLike) -> pathlib.Path:
    """Writes a figure as a PNG file, which appears, or takes an older one's place, in one step.

    Args:
        figure: that one of the functions of `plots` has returned.
        path: where to. Its parent folders are made.

    Returns:
        The path.
    """
    with matplotlib.rc_context(STYLE), files.replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Description": figure.get_label()})
    return pathlib.Path(path)


def to_pixels(figure: Figure) -> np.ndarray:
    """A figure's pixels, uint8 `[H, W, 3]`, the same as in its PNG file."""
    with matplotlib.rc_context(STYLE):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def show_percent(axis: Axis) -> None:
    """Labels an axis of fractions in per cent, at round numbers and with as few digits as tell them apart."""
    axis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(ticker.FuncFormatter(lambda fraction, _: f"{100 * fraction:.6g}%"))


def role_color(role: str) -> str:
    """The color of a network; roles that only some runs have, as `round_1`, always get the same one as well."""
    others = CLASS_COLORS[4:]
    return ROLE_COLORS.get(role, others[sum(map(ord, role)) % len(others)])


def without_frame(axes: Axes) -> None:
    """Leaves of the axes only what is drawn on them."""
    axes.set(xticks=(), yticks=())
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def horizontal(axes: Axes, names: Sequence[str]) -> None:
    """Prepares axes for a line per name, from above to below."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")


def spread_apart(positions: Sequence[float], distance: float) -> list[float]:
    """Rising positions moved so that they lie at least so far apart, within `[0, 1]` if they fit."""
    moved = list(positions)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + distance)
    moved[-1] = min(moved[-1], 1.0)
    for index in reversed(range(len(moved) - 1)):
        moved[index] = min(moved[index], moved[index + 1] - distance)
    return moved


def shortened(name: str, length: int) -> str:
    """A name, cut off where it is longer."""
    return name if len(name) <= length else f"{name[: length - 1]}…"
