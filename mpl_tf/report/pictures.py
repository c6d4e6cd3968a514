"""What networks see: regions of a plane, and views of pictures."""

import math
import os
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb

from mpl_tf.report import figures

_PANELS_PER_ROW = 4


def decision_boundaries(
    destination_png: str | os.PathLike,
    points: np.ndarray,
    labels: np.ndarray,
    panels: Mapping[str, Callable],
) -> pathlib.Path:
    """Draws which class each network sees where, side by side, as in Meta Pseudo Labels' figure of two moons.

    Args:
        destination_png: where the picture goes.
        points: float `[N, 2]`.
        labels: int `[N]`, the class of each labeled point, drawn as a star, and -1 for an unlabeled one.
        panels: caption → network, or any function, from float32 `[M, 2]` to logits `[M, K]`.

    Returns:
        The path of the picture.

    Raises:
        ValueError: when the points are not in a plane, not one label belongs to each, or there is no network.
    """
    points, labels = np.asarray(points, np.float32), np.asarray(labels, np.int64)
    if points.ndim != 2 or points.shape[1] != 2 or not points.size or labels.shape != points.shape[:1]:
        raise ValueError(
            f"Points of shape {points.shape} and labels of shape {labels.shape} cannot be drawn: pass [N, 2] and "
            "[N], with the label -1 where there is none."
        )
    if not panels:
        raise ValueError("There is no network to draw: pass panels={caption: network}.")
    low, high = _surroundings(points)
    columns, rows = min(_PANELS_PER_ROW, len(panels)), math.ceil(len(panels) / _PANELS_PER_ROW)
    width = 10.0 / max(2, columns)
    height = 0.45 + (width - 0.2) * (high[1] - low[1]) / (high[0] - low[0])
    with figures.figure(destination_png, columns * width, rows * height) as figure:
        for index, (caption, network) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, columns, index + 1)
            _draw_regions(axes, network, low, high)
            _draw_points(axes, points, labels)
            axes.set(title=caption, xticks=(), yticks=())
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
    return pathlib.Path(destination_png)


def _draw_regions(axes, network, low, high, size=360):
    tints = ListedColormap([0.72 + 0.28 * np.array(to_rgb(color)) for color in figures.CLASS_COLORS])
    x, y = np.meshgrid(*np.linspace(low, high, size, dtype=np.float32).T)
    logits = np.asarray(network(np.stack([x.ravel(), y.ravel()], axis=-1)))
    classes = logits.argmax(axis=-1).reshape(size, size) % tints.N
    extent = (low[0], high[0], low[1], high[1])
    axes.imshow(classes, tints, vmin=0, vmax=tints.N, origin="lower", extent=extent, aspect="equal")


def _draw_points(axes, points, labels):
    axes.scatter(*points[labels < 0].T, s=3, color=figures.INK, alpha=0.45, linewidths=0)
    stars = labels >= 0
    colors = [figures.CLASS_COLORS[label % len(figures.CLASS_COLORS)] for label in labels[stars]]
    axes.scatter(*points[stars].T, s=150, marker="*", color=colors, edgecolors="white", linewidths=1)


def _surroundings(points):
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.1 * (high - low).max() or 1.0
    return low - margin, high + margin


def grid(destination_png: str | os.PathLike, rows: Mapping[str, np.ndarray]) -> pathlib.Path:
    """Draws rows of pictures with a caption each, for example their weak and strong views.

    Args:
        destination_png: where the picture goes.
        rows: caption → pictures `[N, H, W, C]` in 0…255, gray (C = 1) or color (C = 3), uint8 or float. Small
            pictures are enlarged by a whole number, so that their pixels stay sharp.

    Returns:
        The path of the picture.

    Raises:
        ValueError: when there are no rows, or one does not hold pictures.
    """
    if not rows:
        raise ValueError("There are no pictures to draw: pass rows={caption: pictures}.")
    strips = [_strip(caption, np.asarray(pictures)) for caption, pictures in rows.items()]
    dpi, gap, caption_height = figures.STYLE["figure.dpi"], 12, 26
    width = max(strip.shape[1] for strip in strips) + 2 * gap
    height = sum(strip.shape[0] + caption_height for strip in strips) + gap
    with figures.figure(destination_png, width / dpi, height / dpi) as figure:
        top = height
        for caption, strip in zip(rows, strips, strict=True):
            figure.text(
                gap / width, (top - caption_height * 0.55) / height, caption, va="center", fontsize=9.5
            )
            top -= caption_height + strip.shape[0]
            figure.figimage(strip, gap, top, origin="upper")
    return pathlib.Path(destination_png)


def _strip(caption, pictures, wanted_size=96, gap=6):
    """Pictures side by side, uint8 `[H, W, 3]`, on white."""
    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or not pictures.size:
        raise ValueError(
            f"The row {caption!r} has the shape {pictures.shape}: pass pictures [N, H, W, C] with C of 1 or 3."
        )
    pictures = np.clip(np.rint(pictures), 0, 255).astype(np.uint8)
    factor = max(1, wanted_size // max(pictures.shape[1:3]))
    pictures = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    pictures = np.broadcast_to(pictures, (*pictures.shape[:3], 3))
    # A thin frame, so that a white picture does not run into the page.
    framed = np.pad(pictures, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=200)
    spaced = np.pad(framed, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(spaced), axis=1)[:, :-gap]
