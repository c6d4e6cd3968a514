"""What networks see and say: grids of images, strips of captioned images, regions of a plane."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure

from mpl_tf.report.plots import style
from mpl_tf.report.plots.style import new_figure, styled

_PANELS_PER_ROW, _IMAGES_PER_ROW = 4, 12


@styled
def image_grid(rows: Mapping[str, np.ndarray]) -> Figure:
    """Draws rows of images with a caption each, for example their weak and strong views.

    Args:
        rows: caption → images `[N, H, W, C]` in `[0, 255]`, uint8 or float; in color or gray, as `in_color` has
            them. Small images are enlarged by a whole number, so that their pixels stay sharp.

    Returns:
        The figure.

    Raises:
        ValueError: when there are no rows, or one does not hold images.
    """
    if not rows:
        raise ValueError("There are no images to draw: pass rows={caption: images}.")
    strips = [_side_by_side(caption, np.asarray(images)) for caption, images in rows.items()]
    dpi, gap, caption_height = style.STYLE["figure.dpi"], 12, 26
    width = max(strip.shape[1] for strip in strips) + 2 * gap
    height = sum(strip.shape[0] + caption_height for strip in strips) + gap
    figure = new_figure(width / dpi, height / dpi, f"Rows of images: {'; '.join(rows)}")
    # Matplotlib warns of a layout without axes to place.
    figure.set_layout_engine("none")
    top = height
    for caption, strip in zip(rows, strips, strict=True):
        position = (gap / width, (top - caption_height * 0.55) / height)
        figure.text(*position, caption, va="center", fontsize=9.5)
        top -= caption_height + strip.shape[0]
        figure.figimage(strip, gap, top, origin="upper")
    return figure


def in_color(images: np.ndarray) -> np.ndarray:
    """Images as they can be drawn: the first three channels of three or more, else the first as gray.

    Args:
        images: `[…, C]`.

    Returns:
        `[…, 3]`, which may be a view that cannot be written to.
    """
    drawn = images[..., :3] if images.shape[-1] >= 3 else images[..., :1]
    return np.broadcast_to(drawn, (*images.shape[:-1], 3))


def _side_by_side(caption, images, wanted_size=96, gap=6):
    """Images side by side, uint8 `[H, W, 3]`, on white."""
    if images.ndim != 4 or not images.size:
        raise ValueError(f"The row {caption!r} has the shape {images.shape}: pass images [N, H, W, C].")
    images = np.clip(np.rint(in_color(images)), 0, 255).astype(np.uint8)
    factor = max(1, wanted_size // max(images.shape[1:3]))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    # A thin frame, so that a white image does not run into the page.
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=200)
    spaced = np.pad(framed, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(spaced), axis=1)[:, :-gap]


@styled
def image_strip(
    images: np.ndarray, captions: Sequence[str], wrong: np.ndarray, *, title: str | None = None
) -> Figure:
    """Draws images in rows of twelve, two lines of text below each.

    Args:
        images: uint8 `[N, H, W, C]`, drawn as `in_color` has them.
        captions: N texts.
        wrong: bool `[N]`, whether a text tells of a mistake; it is red then.
        title: line above them.

    Returns:
        The figure.
    """
    figure = new_figure(10.0, strip_height(images), title or "Images with captions")
    draw_strip(figure.subplots(), images, captions, wrong, title=title)
    return figure


def strip_height(images: np.ndarray) -> float:
    """The height in inches of a strip that is ten inches wide."""
    return 0.4 + 0.82 * _strip_cell(images)[2] * math.ceil(len(images) / _IMAGES_PER_ROW)


def draw_strip(
    axes: Axes, images: np.ndarray, captions: Sequence[str], wrong: np.ndarray, *, title: str | None = None
) -> None:
    """Draws what `image_strip` shows on axes that are as wide as their figure."""
    width, height, cell = _strip_cell(images)
    for number, (image, caption, mistaken) in enumerate(zip(images, captions, wrong, strict=True)):
        row, column = divmod(number, _IMAGES_PER_ROW)
        middle, top = column + 0.5, cell * row
        extent = (middle - width / 2, middle + width / 2, top + height, top)
        axes.imshow(in_color(image), extent=extent)
        color = style.WRONG if mistaken else style.INK
        text: dict[str, Any] = {
            "ha": "center",
            "va": "top",
            "fontsize": 8,
            "linespacing": 1.1,
            "color": color,
        }
        axes.text(middle, top + height + 0.04, caption, **text)
    bottom = cell * math.ceil(len(images) / _IMAGES_PER_ROW)
    style.without_frame(axes)
    axes.set(xlim=(0, _IMAGES_PER_ROW), ylim=(bottom, 0), aspect="equal", anchor="NW")
    if title:
        axes.set_title(title)


def _strip_cell(images):
    """Width and height of an image and height of a cell, in columns: two lines of text stand below each image."""
    height, width = images.shape[1:3]
    width, height = (0.9 * side / max(height, width) for side in (width, height))
    return width, height, height + 0.52


@styled
def decision_boundaries(points: np.ndarray, labels: np.ndarray, panels: Mapping[str, Callable]) -> Figure:
    """Draws which class each network sees where, side by side, as in Meta Pseudo Labels' figure of two moons.

    Args:
        points: float `[N, 2]`.
        labels: int `[N]`, the class of each labeled point, drawn as a star, and -1 for an unlabeled one.
        panels: caption → network, or any function, from float32 `[M, 2]` to logits `[M, K]`.

    Returns:
        The figure.

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
    description = f"Regions in which each network sees each class: {', '.join(panels)}"
    figure = new_figure(columns * width, rows * height, description)
    for index, (caption, network) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        _draw_regions(axes, network, low, high)
        _draw_points(axes, points, labels)
        style.without_frame(axes)
        axes.set_title(caption)
    return figure


def _draw_regions(axes, network, low, high, size=360):
    tints = ListedColormap([0.72 + 0.28 * np.array(to_rgb(color)) for color in style.CLASS_COLORS])
    x, y = np.meshgrid(*np.linspace(low, high, size, dtype=np.float32).T)
    logits = np.asarray(network(np.stack([x.ravel(), y.ravel()], axis=-1)))
    classes = logits.argmax(axis=-1).reshape(size, size) % tints.N
    extent = (low[0], high[0], low[1], high[1])
    axes.imshow(classes, tints, vmin=0, vmax=tints.N, origin="lower", extent=extent, aspect="equal")


def _draw_points(axes, points, labels):
    axes.scatter(*points[labels < 0].T, s=3, color=style.INK, alpha=0.45, linewidths=0)
    stars = labels >= 0
    colors = [style.CLASS_COLORS[label % len(style.CLASS_COLORS)] for label in labels[stars]]
    axes.scatter(*points[stars].T, s=150, marker="*", color=colors, edgecolors="white", linewidths=1)


def _surroundings(points):
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.1 * (high - low).max() or 1.0
    return low - margin, high + margin
