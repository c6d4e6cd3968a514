"""How right networks are: accuracies with intervals, confusions, reliability, and maps of their features."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import ticker
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mpl_tf.report.plots import style
from mpl_tf.report.plots.style import new_figure, shortened, styled

# Text of this group id stands out from what is behind it.
HALO = "halo"
FEW_IMAGES = 10
_COUNTS_UP_TO, _NAMES_UP_TO = 20, 40
_MOST_BANDS = 10


@styled
def accuracy_intervals(networks: Mapping[str, tuple[str, float, float, float]], *, split: str) -> Figure:
    """Draws each network's accuracy as a dot in its interval.

    Args:
        networks: role → its name, its accuracy in `[0, 1]`, and both ends of the interval.
        split: that they were measured on, `"test"` or `"validation"`.

    Returns:
        The figure.
    """
    spoken = "; ".join(
        f"{name} {accuracy:.1%}, {low:.1%} to {high:.1%}" for name, accuracy, low, high in networks.values()
    )
    height = 0.7 + 0.5 * len(networks)
    figure = new_figure(style.WIDTH, height, f"Accuracy on {split} with 95 % intervals: {spoken}")
    axes = figure.subplots()
    style.horizontal(axes, [name for name, *_ in networks.values()])
    for index, (role, (_, accuracy, low, high)) in enumerate(networks.items()):
        color = style.role_color(role)
        axes.plot([low, high], [index, index], color=color, linewidth=6, alpha=0.35, solid_capstyle="butt")
        axes.plot([accuracy], [index], "o", color=color, markersize=7)
        axes.annotate(
            f"{accuracy:.1%}",
            (accuracy, index),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    style.show_percent(axes.xaxis)
    axes.margins(x=0.08)
    axes.set_xlabel(f"{split} accuracy, 95 % interval")
    axes.spines["left"].set_visible(False)
    return figure


@styled
def confusion(counts: np.ndarray, class_names: Sequence[str], *, title: str | None = None) -> Figure:
    """Draws a confusion matrix: true classes in rows, predicted ones in columns, colored by fractions of the row.

    Args:
        counts: int `[K, K]`, `counts[label][prediction]`; written into the cells of up to twenty classes.
        class_names: K names, shown for up to forty classes.
        title: line above it.

    Returns:
        The figure.
    """
    counts = np.asarray(counts)
    right = np.diag(counts).sum() / max(1, counts.sum())
    side = style.WIDTH if len(counts) <= 12 else 1.4 + min(6.0, 0.3 * len(counts))
    figure = new_figure(side, side, f"Confusion matrix of {len(counts)} classes, {right:.1%} right")
    axes = figure.subplots()
    fractions = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    if len(counts) <= _NAMES_UP_TO:
        _draw_cells(axes, counts, fractions)
        names = [shortened(name, 12) for name in class_names]
        axes.set_xticks(range(len(names)), names, rotation=90 * (max(map(len, names)) > 2))
        axes.set_yticks(range(len(names)), names)
    else:
        axes.imshow(_cell_colors(fractions))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.set(
        xlabel="predicted class",
        ylabel="true class",
        aspect="equal",
        xlim=(-0.5, len(counts) - 0.5),
        ylim=(len(counts) - 0.5, -0.5),
    )
    if title:
        axes.set_title(title)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def _cell_colors(fractions):
    """RGBA of each cell, `[K, K, 4]`: a color for what is right, one for what is not, as opaque as frequent."""
    right, mistaken = (np.array(to_rgba(color)) for color in style.CLASS_COLORS[:2])
    colors = np.where(np.eye(len(fractions), dtype=bool)[..., np.newaxis], right, mistaken)
    colors[..., 3] = fractions
    return colors


def _draw_cells(axes, counts, fractions):
    """A tile for every cell, and over those that have images one in their color."""
    opaque = _cell_colors(fractions)
    cells = [*np.ndindex(*counts.shape), *map(tuple, np.argwhere(counts))]
    colors = [style.PANEL] * counts.size + [opaque[cell] for cell in cells[counts.size :]]
    tiles = [Rectangle((column - 0.47, row - 0.47), 0.94, 0.94) for row, column in cells]
    axes.add_collection(PatchCollection(tiles, facecolors=to_rgba_array(colors), linewidths=0))
    if len(counts) > _COUNTS_UP_TO:
        return
    for row, column in np.argwhere(counts):
        ink = style.PAPER if fractions[row, column] > 0.55 else style.INK
        text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": ink}
        axes.text(column, row, f"{counts[row, column]}", **text)


@styled
def class_accuracies(accuracies: Sequence[float | None]) -> Figure:
    """Draws how the accuracies of many classes are distributed.

    Args:
        accuracies: in `[0, 1]`, of each class; None for a class without images, which is left out.

    Returns:
        The figure.
    """
    known = np.array([value for value in accuracies if value is not None])
    spoken = f"median {np.median(known):.0%}, lowest {known.min():.0%}"
    figure = new_figure(style.WIDTH, 2.4, f"Accuracies of {len(known)} classes: {spoken}")
    axes = figure.subplots()
    axes.hist(known, bins=20, range=(0, 1), color=style.CLASS_COLORS[0])
    axes.set(xlim=(0, 1), xlabel="accuracy on the images of a class", ylabel="classes")
    style.show_percent(axes.xaxis)
    axes.yaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
    return figure


@styled
def reliability(bins: Sequence[Mapping[str, float]]) -> Figure:
    """Draws accuracy over confidence, a bar per bin that holds images, pale where these are fewer than ten.

    Args:
        bins: as `evaluation.reliability` sorts them.

    Returns:
        The figure.
    """
    filled = [entry for entry in bins if entry["count"]]
    spoken = ", ".join(f"{entry['confidence']:.0%} sure {entry['accuracy']:.0%} right" for entry in filled)
    figure = new_figure(style.WIDTH, style.WIDTH, f"Reliability diagram: {spoken}")
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 3.2])
    positions = [(entry["low"] + entry["high"]) / 2 for entry in filled]
    width = 0.92 / len(bins)
    above.bar(positions, [entry["count"] for entry in filled], width, color=style.FAINT)
    above.set_title("Images", fontsize=8.5, color=style.NEUTRAL)
    above.yaxis.set_major_locator(ticker.MaxNLocator(3, integer=True))
    for position, entry in zip(positions, filled, strict=True):
        alpha = 0.35 if entry["count"] < FEW_IMAGES else 1.0
        axes.bar(position, entry["accuracy"], width, color=style.CLASS_COLORS[0], alpha=alpha)
    axes.plot([0, 1], [0, 1], color=style.INK, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_title("Accuracy", fontsize=8.5, color=style.NEUTRAL)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence")
    axes.grid(visible=False)
    for axis in (axes.xaxis, axes.yaxis):
        style.show_percent(axis)
    return figure


@styled
def feature_map(
    positions: np.ndarray, labels: np.ndarray, wrong: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draws images as points in a plane, colored by class, with a ring around those misclassified.

    Args:
        positions: float `[N, 2]`.
        labels: int `[N]`, classes.
        wrong: bool `[N]`.
        class_names: K names; written at the middle of their points, where there are few.

    Returns:
        The figure.
    """
    spoken = f"{len(positions)} images of {len(np.unique(labels))} classes, {int(wrong.sum())} misclassified"
    figure = new_figure(style.WIDTH, style.WIDTH, f"Map of the features: {spoken}")
    axes = figure.subplots()
    colors = [style.CLASS_COLORS[label % len(style.CLASS_COLORS)] for label in labels]
    axes.scatter(
        positions[:, 0],
        positions[:, 1],
        s=9 if len(positions) > 300 else 16,
        c=colors,
        linewidths=0,
        alpha=0.75,
    )
    ring: dict[str, Any] = {"s": 36, "facecolors": "none", "edgecolors": style.INK, "linewidths": 0.9}
    axes.scatter(positions[wrong, 0], positions[wrong, 1], **ring)
    if len(class_names) <= _MOST_BANDS:
        for label in np.unique(labels):
            middle = np.median(positions[labels == label], axis=0)
            text: dict[str, Any] = {
                "ha": "center",
                "va": "center",
                "fontsize": 10,
                "fontweight": "bold",
                "gid": HALO,
            }
            axes.text(middle[0], middle[1], shortened(class_names[label], 18), **text)
    axes.margins(0.05)
    style.without_frame(axes)
    return figure


@styled
def class_fractions(rows: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None) -> Figure:
    """Draws how the predicted classes of the unlabeled images divide, over the steps.

    Args:
        rows: of pseudo_label_classes.csv, with a column `step` and a column 0…K-1 per class.
        class_names: K names; numbers when not given. Of more than ten classes the rarest are drawn as one band.

    Returns:
        The figure.
    """
    numbers = [name for name in rows[0] if name.isdigit()]
    steps = np.array([int(row["step"]) for row in rows])
    fractions = np.array([[float(row[name] or 0) for name in numbers] for row in rows]).T
    names = [class_names[int(name)] if class_names else name for name in numbers]
    if len(names) > _MOST_BANDS:
        order = np.argsort(-fractions.mean(axis=1), kind="stable")
        most, others = np.sort(order[: _MOST_BANDS - 1]), order[_MOST_BANDS - 1 :]
        fractions = np.concatenate([fractions[most], fractions[others].sum(axis=0, keepdims=True)])
        names = [*(names[index] for index in most), f"{len(others)} others"]
    ends = fractions[:, -1]
    spoken = ", ".join(f"{name} {end:.0%}" for name, end in zip(names, ends, strict=True))
    figure = new_figure(style.WIDTH, 2.9, f"Predicted classes of the unlabeled images, at the end: {spoken}")
    axes = figure.subplots()
    colors = [style.CLASS_COLORS[index % len(style.CLASS_COLORS)] for index in range(len(names))]
    axes.stackplot(steps, fractions, colors=colors, linewidth=0, alpha=0.85)
    axes.margins(x=0)
    axes.set(ylim=(0, 1), xlabel="step")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    style.show_percent(axes.yaxis)
    positions = style.spread_apart((np.cumsum(ends) - ends / 2).tolist(), 0.068)
    for name, position, color in zip(names, positions, colors, strict=True):
        text: dict[str, Any] = {"color": color, "va": "center", "fontsize": 8.5, "transform": axes.transAxes}
        axes.text(1.015, position, shortened(name, 14), **text)
    return figure
