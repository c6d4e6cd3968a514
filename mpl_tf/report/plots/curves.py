"""Curves of a run: every loss, rate and accuracy of its history over the steps."""

import math
import operator
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpl_tf.report.plots import style
from mpl_tf.report.plots.style import new_figure, styled

ACCURACY = "accuracy"
# Quantities whose column name does not say enough.
_TITLES = {
    "loss": "Student's loss (nats)",
    "student_labeled_loss": "Student's loss on the labels (nats)",
    "teacher_labeled_loss": "Teacher's loss on the labels (nats)",
    # Of the teacher in Meta Pseudo Labels, and of the student elsewhere.
    "consistency_loss": "Consistency loss (nats)",
    "mask_rate": "Mask rate: unlabeled images that count",
    "agreement": "Student and teacher agree",
    "confident_fraction": "Unlabeled images labeled with 95 % confidence",
    "confirmation_bias": "Confirmation bias: wrong among these",
    "feedback": "Feedback to the teacher",
    "generator_loss": "Generator's loss",
    "class_balance": "Evenness of the generated classes",
    "pairwise_distance": "Difference of two generated images",
    "student_gradient_norm": "Student's gradient norm",
    "teacher_gradient_norm": "Teacher's gradient norm",
    "generator_gradient_norm": "Generator's gradient norm",
    "seconds": "Seconds per epoch",
    "cpu_seconds": "CPU seconds of training per epoch",
}
_ORDER = ("loss", "mask", "feedback", "agreement", "norm")
_FRACTIONS = (
    "accuracy",
    "mask_rate",
    "agreement",
    "class_balance",
    "confident_fraction",
    "confirmation_bias",
)
_ROLES = ("student", "teacher", "generator")
_PANELS_PER_ROW, _TITLE_WIDTH = 3, 38

# Rows as `csv.DictReader` reads them: column → text or number.
History = Sequence[Mapping[str, object]]


@styled
def curves(history: History, *, title: str | None = None) -> Figure:
    """Draws how every column of a history went: the accuracies large, then one panel per quantity.

    Args:
        history: rows with a column `step` or `epoch` and one per metric, as `RunFolder.read_history` returns them or
            `csv.DictReader` reads what `keras.callbacks.CSVLogger` wrote. A column `val_x` is drawn beside `x`.
            Cells may be missing.
        title: line above the panels.

    Returns:
        The figure.

    Raises:
        ValueError: when there are no rows, no column to draw over, or nothing to draw.
    """
    axis_name, series = _read(history)
    groups = _group(series)
    accuracies = groups.pop(ACCURACY, None)
    columns = min(_PANELS_PER_ROW, len(groups))
    rows = math.ceil(len(groups) / _PANELS_PER_ROW)
    heights = [height for height in (3.2 * bool(accuracies), 1.9 * rows) if height]
    figure = new_figure(10.0, sum(heights) + 0.4 * bool(title), f"Curves over the {axis_name}s of a run")
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
    parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat)
    if accuracies:
        axes = parts[0].subplots()
        _draw_panel(axes, ACCURACY, {name: series[name] for name in accuracies})
        axes.set(title=_title(ACCURACY, accuracies), xlabel=axis_name)
    for index, (quantity, names) in enumerate(groups.items()):
        axes = parts[-1].add_subplot(rows, columns, index + 1)
        _draw_panel(axes, quantity, {name: series[name] for name in names})
        axes.set_title(textwrap.fill(_title(quantity, names), _TITLE_WIDTH))
        if index >= len(groups) - columns:
            axes.set_xlabel(axis_name)
    return figure


@styled
def curve(history: History, quantity: str, *, width: float = style.WIDTH, height: float = 2.2) -> Figure:
    """Draws one panel of `curves`, without its title.

    Args:
        history: as for `curves`.
        quantity: one of `curve_titles`.
        width: in inches.
        height: in inches.

    Returns:
        The figure.

    Raises:
        ValueError: as `curves`.
    """
    axis_name, series = _read(history)
    names = _group(series)[quantity]
    ends = ", ".join(f"{name.replace('_', ' ')} ends at {series[name][1][-1]:.4g}" for name in names)
    figure = new_figure(width, height, f"{_title(quantity, names)} over {axis_name}s: {ends}")
    axes = figure.subplots()
    _draw_panel(axes, quantity, {name: series[name] for name in names})
    axes.set_xlabel(axis_name)
    return figure


def curve_titles(history: History) -> dict[str, str]:
    """Quantity → its title, for everything in a history that `curve` can draw; the accuracies come first.

    Args:
        history: as for `curves`.

    Raises:
        ValueError: as `curves`.
    """
    return {quantity: _title(quantity, names) for quantity, names in _group(_read(history)[1]).items()}


def _read(history):
    """The column to draw over, and name → float `[2, n]`, positions and values in rising order."""
    rows = list(history)
    if not rows:
        raise ValueError("The history has no rows yet: draw it after the first epoch.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    axis_name = next((name for name in ("step", "epoch") if name in names), None)
    if axis_name is None:
        raise ValueError(
            f"The history has the columns {', '.join(names)}, but neither 'step' nor 'epoch' to draw them over: pass "
            "what keras.callbacks.CSVLogger wrote."
        )
    series = {}
    for name in names:
        points = [(_number(row.get(axis_name)), _number(row.get(name))) for row in rows]
        points = [point for point in points if all(map(math.isfinite, point))]
        if points and name not in ("step", "epoch", "selected_epoch"):
            series[name] = np.array(sorted(points, key=operator.itemgetter(0))).T
    if not series:
        raise ValueError(f"The history has no numbers besides {axis_name!r}: there is nothing to draw.")
    return axis_name, series


def _number(cell):
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def _group(series):
    """Quantity → its columns, training before validation, in the order of the panels."""
    groups: dict[str, list[str]] = {}
    for name in sorted(series, key=lambda name: name.startswith("val_")):
        quantity = ACCURACY if name.endswith(ACCURACY) else name.removeprefix("val_")
        groups.setdefault(quantity, []).append(name)
    return dict(sorted(groups.items(), key=lambda group: _rank(group[0])))


def _rank(quantity):
    first = (ACCURACY, "loss")
    if quantity in first:
        return first.index(quantity) - len(first)
    return next((rank for rank, word in enumerate(_ORDER) if word in quantity), len(_ORDER))


def _title(quantity, names):
    if quantity == ACCURACY:
        return "Accuracy on the validation split" if _all_of_validation(names) else "Accuracy"
    words = quantity.replace("_", " ")
    return _TITLES.get(quantity, words[:1].upper() + words[1:])


def _all_of_validation(names):
    return all(name.startswith("val_") for name in names)


def _draw_panel(axes: Axes, quantity: str, series: Mapping[str, np.ndarray]) -> None:
    ends = {name: values[-1] for name, (_, values) in series.items()}
    labels = {name: _line_label(name, end, _all_of_validation(series)) for name, end in ends.items()}
    colors = {name: _role_color(f"{labels[name]} {_title(quantity, series)}") for name in series}
    for name, (steps, values) in series.items():
        faint = len(series) > 1 and not name.startswith("val_")
        line: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.6} if faint else {"linewidth": 1.7}
        marker = "o" if len(steps) < 20 else None
        axes.plot(steps, values, color=colors[name], marker=marker, markersize=3, **line)
    axes.margins(x=0.01)
    round_steps = [1, 2, 2.5, 5, 10]
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=round_steps))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(5, steps=round_steps))
    if all(name.endswith(_FRACTIONS) for name in series):
        style.show_percent(axes.yaxis)
    if len(series) > 1 or quantity == ACCURACY:
        _label_ends(axes, ends, labels, colors)


def _line_label(name, last_value, all_of_validation):
    phase = "validation" if name.startswith("val_") else "training"
    if not name.endswith(ACCURACY):
        return phase
    role = name.removeprefix("val_").removeprefix("train_").removesuffix(ACCURACY).strip("_")
    words = role.replace("_", " ") or "student"
    return f"{words}{'' if all_of_validation else f', {phase}'} {last_value:.1%}"


def _role_color(words):
    """The color of the network that the words are about, a neutral one where it is not exactly one."""
    roles = [role for role in _ROLES if role in words.lower()]
    return style.ROLE_COLORS[roles[0]] if len(roles) == 1 else style.NEUTRAL


def _label_ends(axes, ends, labels, colors):
    """Names each line where it ends, with the labels moved apart where they would overlap."""
    low, high = axes.get_ylim()
    line_height = 11 / 72 * axes.figure.dpi / axes.get_window_extent().height
    names = sorted(ends, key=ends.get)
    positions = style.spread_apart([float((ends[name] - low) / (high - low)) for name in names], line_height)
    for name, position in zip(names, positions, strict=True):
        text: dict[str, Any] = {
            "color": colors[name],
            "va": "center",
            "fontsize": 8.5,
            "transform": axes.transAxes,
        }
        axes.text(1.01, position, labels[name], **text)
