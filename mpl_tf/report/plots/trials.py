"""Several trials over several seeds: every run as a dot, means and standard deviations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mpl_tf.report.plots import style
from mpl_tf.report.plots.style import new_figure, shortened, styled


@styled
def comparison(
    accuracies: Mapping[str, Sequence[float]],
    *,
    reference: str,
    split: str = "test",
    title: str | None = None,
    width: float = 8.0,
) -> Figure:
    """Draws every run of every trial as a point, and each trial's mean ± standard deviation.

    Args:
        accuracies: trial → the accuracy of each of its runs, in per cent.
        reference: its mean is drawn as a line through all trials.
        split: whose accuracies they are, `"test"` or `"validation"`.
        title: line above.
        width: in inches.

    Returns:
        The figure.
    """
    spoken = "; ".join(f"{trial} {np.mean(values):.1f} %" for trial, values in accuracies.items())
    height = 0.9 + 0.42 * len(accuracies)
    figure = new_figure(width, height, f"{split} accuracy of each trial's runs: {spoken}")
    axes = figure.subplots()
    style.horizontal(axes, [shortened(trial, 28 if width > 5 else 18) for trial in accuracies])
    for position, (trial, runs) in enumerate(accuracies.items()):
        values = np.asarray(runs, np.float64)
        color = style.NEUTRAL if trial == reference else style.CLASS_COLORS[0]
        offsets = np.linspace(-0.13, 0.13, len(values)) if len(values) > 1 else np.zeros(1)
        axes.scatter(values, position + offsets, s=14, color=color, alpha=0.45, linewidths=0)
        deviation = values.std(ddof=1) if len(values) > 1 else 0.0
        bar: dict[str, Any] = {"color": color, "markersize": 6, "capsize": 3, "linewidth": 1.4}
        axes.errorbar(values.mean(), position, xerr=deviation, fmt="o", **bar)
        if trial == reference:
            axes.axvline(values.mean(), color=style.FAINT, linewidth=0.8, linestyle="--", zorder=0)
    explained = ": runs, mean ± standard deviation" if width > 5 else ""
    axes.set_xlabel(f"{split} accuracy, %{explained}")
    if title:
        axes.set_title(title)
    return figure
