"""How networks bear changed images: errors under corruptions, accuracy under attacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mpl_tf.report.plots import style
from mpl_tf.report.plots.style import new_figure, styled


@styled
def corruption_errors(
    errors: Mapping[str, Mapping[str, Sequence[float]]], *, names: Mapping[str, str] | None = None
) -> Figure:
    """Draws the error under each corruption, a bar per network of the mean over the severities.

    Args:
        errors: role → corruption → error in `[0, 1]` at each severity.
        names: role → what it is called; the role itself where it is missing.

    Returns:
        The figure.
    """
    corruptions = list(next(iter(errors.values())))
    means = {role: [float(np.mean(found[name])) for name in corruptions] for role, found in errors.items()}
    spoken = "; ".join(f"{role} {np.mean(values):.0%} on average" for role, values in means.items())
    height = 0.9 + len(corruptions) * (0.1 + 0.1 * len(means))
    figure = new_figure(style.WIDTH, height, f"Error under {len(corruptions)} corruptions: {spoken}")
    axes = figure.subplots()
    thickness = 0.8 / len(means)
    for number, (role, values) in enumerate(means.items()):
        positions = np.arange(len(corruptions)) + (number - (len(means) - 1) / 2) * thickness
        bar: dict[str, Any] = {"color": style.role_color(role), "label": (names or {}).get(role, role)}
        axes.barh(positions, values, thickness * 0.9, **bar)
    style.horizontal(axes, [name.replace("_", " ") for name in corruptions])
    style.show_percent(axes.xaxis)
    axes.set_xlabel("error, mean over five severities")
    _add_legend(figure)
    return figure


@styled
def attack_accuracies(
    attacks: Mapping[str, Mapping[str, Sequence[float]]], *, names: Mapping[str, str] | None = None
) -> Figure:
    """Draws accuracy over the strength of an attack, a line per network.

    Args:
        attacks: role → what `evaluation.fgsm` returns.
        names: as for `corruption_errors`.

    Returns:
        The figure.
    """
    spoken = "; ".join(
        f"{role} {', '.join(f'{accuracy:.0%}' for accuracy in found['accuracy'])}"
        for role, found in attacks.items()
    )
    figure = new_figure(style.WIDTH, 2.7, f"Accuracy under attacks of growing strength: {spoken}")
    axes = figure.subplots()
    for role, found in attacks.items():
        line: dict[str, Any] = {
            "color": style.role_color(role),
            "marker": "o",
            "markersize": 3.5,
            "linewidth": 1.7,
        }
        axes.plot(found["epsilon"], found["accuracy"], label=(names or {}).get(role, role), **line)
    axes.set(ylim=(0, 1), xlabel="ε, largest change of a pixel, in levels of 0…255")
    style.show_percent(axes.yaxis)
    _add_legend(figure)
    return figure


def _add_legend(figure):
    place: dict[str, Any] = {"loc": "outside upper left", "ncols": 3, "frameon": False}
    figure.legend(**place, fontsize=8, handlelength=0.9, columnspacing=1.1, handletextpad=0.5)
