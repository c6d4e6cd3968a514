"""What a label store holds: confidence, classes before and after a selection, selected and dropped images."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from mpl_tf.data.images.images import Images
from mpl_tf.data.soft_labels import selection
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.report.plots import style
from mpl_tf.report.plots.images import draw_strip, strip_height
from mpl_tf.report.plots.style import new_figure, shortened, styled

SELECTED, DROPPED, COPIES = style.CLASS_COLORS[0], "#b9bfc5", "#a9c3e3"
_BARS_UP_TO, _BINS, _SHOWN = 24, 40, 24


@styled
def label_store(
    store: LabelStore | np.ndarray,
    *,
    images: Images | None = None,
    class_names: Sequence[str] | None = None,
    threshold: float = 0.3,
    per_class: int | None = None,
    balance: bool = True,
    title: str | None = None,
) -> Figure:
    """Draws the confidence of all labels, the classes before and after `select_indices`, and some images.

    The images are spread evenly over the confidences, from the highest on, so that the last selected ones stand at
    the edge of what is dropped. A caption is red where the image's own label, if it has one, is another.

    Args:
        store: a finished `mpl_tf.data.LabelStore`, or probabilities, float `[N, K]`, of the first N images.
        images: `mpl_tf.data.Images` that the store's index counts. Without them, or where they are points, the
            examples are left out.
        class_names: K names; numbers when not given.
        threshold: as for `mpl_tf.data.select_indices`. One that no image reaches is drawn too: then all are dropped.
        per_class: as for `mpl_tf.data.select_indices`.
        balance: as for `mpl_tf.data.select_indices`.
        title: line above the panels.

    Returns:
        The figure.

    Raises:
        ValueError: for a store that is not finished, or names that do not fit it.
    """
    index, confidence, classes, num_classes = _contents(store)
    names = [str(label) for label in range(num_classes)] if class_names is None else list(class_names)
    if len(names) != num_classes:
        raise ValueError(
            f"There are {len(names)} class names, but the labels are for {num_classes} classes: pass one for each."
        )
    rows = _selected(confidence, classes, num_classes, threshold, per_class, balance)
    chosen = np.isin(np.arange(len(confidence)), rows)
    strips = []
    if images is not None and len(images.image_shape) == 3:
        parts = {"Selected": np.flatnonzero(chosen), "Dropped": np.flatnonzero(~chosen)}
        strips = [
            _strip(caption, members, images, index, confidence, classes, names)
            for caption, members in parts.items()
            if len(members)
        ]
    heights = [2.7, *(strip_height(strip.images) for strip in strips)]
    fraction = f"{(confidence >= threshold).mean():.1%} of {len(confidence):,} reach {threshold:g}"
    figure = new_figure(10.0, sum(heights) + 0.4 * bool(title), f"A label store: {fraction}")
    if title:
        figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
    top, *others = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
    left, right = top.subplots(1, 2, width_ratios=[1, 1.25])
    left.set_title(fraction)
    _draw_confidence(left, confidence, chosen, threshold)
    _draw_classes(right, names, selection.selection_report(classes, rows, num_classes))
    for part, strip in zip(others, strips, strict=True):
        draw_strip(part.subplots(), strip.images, strip.captions, strip.wrong, title=strip.title)
    return figure


class _Strip(NamedTuple):
    title: str
    images: np.ndarray
    captions: list[str]
    wrong: np.ndarray


def _contents(store):
    """The image of each row, its confidence, its class; and the number of classes."""
    if hasattr(store, "confidence"):
        return store.index, store.confidence(), store.classes(), store.num_classes
    probabilities = np.asarray(store)
    if probabilities.ndim != 2 or not probabilities.size:
        raise ValueError(
            f"The probabilities have the shape {probabilities.shape}: pass a label store, or a row for each image."
        )
    confidence, classes = probabilities.max(axis=1), probabilities.argmax(axis=1)
    return np.arange(len(probabilities)), confidence, classes, probabilities.shape[1]


def _selected(confidence, classes, num_classes, threshold, per_class, balance):
    if not (confidence >= threshold).any():
        return np.array([], np.int64)
    options: dict[str, Any] = {"threshold": threshold, "per_class": per_class, "balance": balance}
    with warnings.catch_warnings():
        # A class without images is there to see.
        warnings.simplefilter("ignore")
        return selection.select_indices(confidence, classes, num_classes, **options)


def _draw_confidence(axes, confidence, chosen, threshold):
    bins = np.linspace(0, 1, _BINS + 1)
    parts = {"color": [SELECTED, DROPPED], "label": ["selected", "dropped"]}
    axes.hist([confidence[chosen], confidence[~chosen]], bins, stacked=True, **parts)
    axes.axvline(threshold, color=style.INK, linewidth=1, linestyle=(0, (4, 2)))
    axes.set(xlim=(0, 1), xlabel="confidence, the largest probability", ylabel="images")
    style.show_percent(axes.xaxis)
    _count_from_zero(axes)


def _draw_classes(axes, names, counts):
    axes.set_title("Images per predicted class")
    if len(names) > _BARS_UP_TO:
        order, positions = np.argsort(-counts.predicted, kind="stable"), np.arange(len(names))
        predicted, distinct, selected = (
            counts.predicted[order],
            counts.distinct[order],
            counts.selected[order],
        )
        fill: dict[str, Any] = {"step": "mid", "linewidth": 0}
        axes.fill_between(positions, predicted, color=DROPPED, label="predicted", **fill)
        axes.fill_between(positions, selected, color=COPIES, label="copies", **fill)
        axes.fill_between(positions, distinct, color=SELECTED, label="selected", **fill)
        axes.set_xlabel(f"{len(names)} classes, from the most to the least predicted")
        axes.margins(x=0)
    else:
        positions = np.arange(len(names))
        axes.bar(positions - 0.2, counts.predicted, 0.38, color=DROPPED, label="predicted")
        axes.bar(positions + 0.2, counts.distinct, 0.38, color=SELECTED, label="selected")
        axes.bar(positions + 0.2, counts.duplicated, 0.38, counts.distinct, color=COPIES, label="copies")
        tilted = max(map(len, names)) * len(names) > 60
        texts = [shortened(name, 14) for name in names]
        axes.set_xticks(positions, texts, rotation=40 * tilted, ha="right" if tilted else "center")
        axes.margins(x=0.02)
    _count_from_zero(axes)


def _count_from_zero(axes):
    """Counts with commas from 0 on, and the legend beside the title, where no bar can be behind it."""
    axes.set_ylim(0, 1.05 * axes.dataLim.y1)
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(7, integer=True))
    place: dict[str, Any] = {
        "loc": "lower right",
        "bbox_to_anchor": (1.01, 0.98),
        "borderpad": 0.2,
        "frameon": False,
    }
    axes.legend(**place, ncols=3, fontsize=8, handlelength=1)


def _strip(caption, members, images, index, confidence, classes, names):
    """Some of the selected or of the dropped images, evenly spread over them in the order of falling confidence."""
    ordered = members[np.argsort(-confidence[members], kind="stable")]
    count = min(len(ordered), _SHOWN)
    shown = ordered[np.linspace(0, len(ordered) - 1, count).round().astype(int)]
    labels = images.labels[index[shown]]
    title = f"{caption}: {count} of {len(members):,}" if count < len(members) else f"{caption}: all {count}"
    title += " (red: the image's own label is another)" if (labels >= 0).any() else ""
    captions = [f"{shortened(names[classes[row]], 13)}\n{confidence[row]:.0%}" for row in shown]
    wrong = (labels >= 0) & (labels != classes[shown])
    return _Strip(title, images.fetch(index[shown]).numpy(), captions, wrong)
