"""What a label store holds: confidence, classes before and after a selection, kept and dropped pictures."""

import os
import pathlib
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib import ticker

from mpl_tf.data import selection
from mpl_tf.report import figures
from mpl_tf.report.predictions import Strip, short

KEPT, DROPPED, COPIES = figures.CLASS_COLORS[0], "#b9bfc5", "#a9c3e3"
_BARS_UP_TO, _BINS, _SHOWN = 24, 40, 24


def label_store_picture(
    store,
    destination_png: str | os.PathLike,
    *,
    pictures=None,
    class_names: Sequence[str] | None = None,
    threshold: float = 0.3,
    per_class: int | None = None,
    balance: bool = True,
    title: str | None = None,
) -> pathlib.Path:
    """Draws the confidence of all labels, the classes before and after `select`, and some pictures.

    The pictures are spread evenly over the confidences, from the highest on, so that the last kept ones stand at
    the edge of what is dropped. A caption is red where the picture's own label, if it has one, is another.

    Args:
        store: a finished `mpl_tf.data.LabelStore`, or probabilities, float `[n, K]`, of the first n pictures.
        destination_png: where the picture goes.
        pictures: `mpl_tf.data.Pictures` that the store's index counts. Without them, or where they are points, the
            examples are left out.
        class_names: K names; numbers when not given.
        threshold: as for `mpl_tf.data.select`. One that no picture reaches is drawn too: then all are dropped.
        per_class: as for `mpl_tf.data.select`.
        balance: as for `mpl_tf.data.select`.
        title: line above the panels.

    Returns:
        The path of the picture.

    Raises:
        ValueError: for a store that is not finished, or names that do not fit it.
    """
    index, confidence, classes, num_classes = _summary(store)
    names = [str(label) for label in range(num_classes)] if class_names is None else list(class_names)
    if len(names) != num_classes:
        raise ValueError(
            f"There are {len(names)} class names, but the labels are for {num_classes} classes: pass one for each."
        )
    rows = _selected(confidence, classes, num_classes, threshold, per_class, balance)
    chosen = np.isin(np.arange(len(confidence)), rows)
    strips = []
    if pictures is not None and len(pictures.image_shape) == 3:
        parts = {"Kept": np.flatnonzero(chosen), "Dropped": np.flatnonzero(~chosen)}
        strips = [
            _strip(caption, members, pictures, index, confidence, classes, names)
            for caption, members in parts.items()
            if len(members)
        ]
    heights = [2.7, *(strip.height for strip in strips)]
    with figures.figure(destination_png, 10.0, sum(heights) + 0.4 * bool(title)) as figure:
        if title:
            figure.suptitle(title, x=0.012, ha="left", fontsize=12, fontweight="bold")
        top, *others = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
        left, right = top.subplots(1, 2, width_ratios=[1, 1.25])
        _draw_confidence(left, confidence, chosen, threshold)
        _draw_classes(right, names, selection.selection_report(classes, rows, num_classes))
        for part, strip in zip(others, strips, strict=True):
            strip.draw(part.subplots())
    return pathlib.Path(destination_png)


def _summary(store):
    """The picture of each row, its confidence, its class; and the number of classes."""
    if hasattr(store, "confidence"):
        return store.index, store.confidence(), store.classes(), store.num_classes
    probabilities = np.asarray(store)
    if probabilities.ndim != 2 or not probabilities.size:
        raise ValueError(
            f"The probabilities have the shape {probabilities.shape}: pass a label store, or a row for each picture."
        )
    confidence, classes = probabilities.max(axis=1), probabilities.argmax(axis=1)
    return np.arange(len(probabilities)), confidence, classes, probabilities.shape[1]


def _selected(confidence, classes, num_classes, threshold, per_class, balance):
    if not (confidence >= threshold).any():
        return np.array([], np.int64)
    options = {"threshold": threshold, "per_class": per_class, "balance": balance}
    with warnings.catch_warnings():
        # A class without pictures is there to see.
        warnings.simplefilter("ignore")
        return selection.select_rows(confidence, classes, num_classes, **options)


def _draw_confidence(axes, confidence, chosen, threshold):
    bins = np.linspace(0, 1, _BINS + 1)
    axes.hist(
        [confidence[chosen], confidence[~chosen]],
        bins,
        stacked=True,
        color=[KEPT, DROPPED],
        label=["kept", "dropped"],
    )
    axes.axvline(threshold, color=figures.INK, linewidth=1, linestyle=(0, (4, 2)))
    share = (confidence >= threshold).mean()
    axes.set_title(f"{share:.1%} of {len(confidence):,} reach {threshold:g}")
    axes.set(xlim=(0, 1), xlabel="confidence, the largest probability", ylabel="pictures")
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    _finish(axes)


def _draw_classes(axes, names, counts):
    axes.set_title("Pictures per predicted class")
    if len(names) > _BARS_UP_TO:
        order, places = np.argsort(-counts.predicted, kind="stable"), np.arange(len(names))
        predicted, kept, selected = counts.predicted[order], counts.kept[order], counts.selected[order]
        axes.fill_between(places, predicted, step="mid", color=DROPPED, linewidth=0, label="predicted")
        axes.fill_between(places, selected, step="mid", color=COPIES, linewidth=0, label="copies")
        axes.fill_between(places, kept, step="mid", color=KEPT, linewidth=0, label="kept")
        axes.set_xlabel(f"{len(names)} classes, from the most to the least predicted")
        axes.margins(x=0)
    else:
        places = np.arange(len(names))
        axes.bar(places - 0.2, counts.predicted, 0.38, color=DROPPED, label="predicted")
        axes.bar(places + 0.2, counts.kept, 0.38, color=KEPT, label="kept")
        axes.bar(places + 0.2, counts.duplicated, 0.38, counts.kept, color=COPIES, label="copies")
        tilted = max(map(len, names)) * len(names) > 60
        axes.set_xticks(
            places,
            [short(name, 14) for name in names],
            rotation=40 * tilted,
            ha="right" if tilted else "center",
        )
        axes.margins(x=0.02)
    _finish(axes)


def _finish(axes):
    """Counts with commas from 0 on, and the legend beside the title, where no bar can be behind it."""
    axes.set_ylim(0, 1.05 * axes.dataLim.y1)
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_locator(ticker.MaxNLocator(7, integer=True))
    place = {"loc": "lower right", "bbox_to_anchor": (1.01, 0.98), "borderpad": 0.2, "frameon": False}
    axes.legend(**place, ncols=3, fontsize=8, handlelength=1)


def _strip(caption, members, pictures, index, confidence, classes, names):
    """Some of the kept or of the dropped pictures, evenly spread over them in the order of falling confidence."""
    ordered = members[np.argsort(-confidence[members], kind="stable")]
    count = min(len(ordered), _SHOWN)
    shown = ordered[np.linspace(0, len(ordered) - 1, count).round().astype(int)]
    labels = pictures.labels[index[shown]]
    title = f"{caption}: {count} of {len(members):,}" if count < len(members) else f"{caption}: all {count}"
    title += " (red: the picture's own label is another)" if (labels >= 0).any() else ""
    captions = [f"{short(names[classes[row]], 13)}\n{confidence[row]:.0%}" for row in shown]
    wrong = (labels >= 0) & (labels != classes[shown])
    return Strip(title, pictures.fetch(index[shown]).numpy(), captions, wrong)
