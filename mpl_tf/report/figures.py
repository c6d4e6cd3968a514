"""One look for every picture.

Figures are drawn without pyplot, so that neither the backend nor the settings of the calling program change.
"""

import contextlib
import os
from collections.abc import Iterator

import matplotlib
from matplotlib.figure import Figure

from mpl_tf import files

INK, NEUTRAL, FAINT = "#333333", "#55606b", "#8a8a8a"
CLASS_COLORS = (
    "#2f6db3", "#d9772b", "#3d9457", "#b5476a", "#7a62ad", "#8a6c4f", "#c9a227", "#3aa0a8", "#6b7a8f", "#a0522d",
)  # fmt: skip
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "figure.dpi": 120,
    "savefig.dpi": 120,
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
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


@contextlib.contextmanager
def figure(destination_png: str | os.PathLike, width: float, height: float) -> Iterator[Figure]:
    """Yields a figure to draw on, and writes it when the block ends well.

    Args:
        destination_png: where to. The picture appears, or takes an older one's place, in one step.
        width: in inches, of 120 pixels each.
        height: in inches.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with files.replacing(destination_png) as temporary:
            figure.savefig(temporary, format="png")
