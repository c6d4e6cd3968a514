"""Figures of runs: each function returns one Matplotlib figure, for PNG files, TensorBoard and the page alike."""

from mpl_tf.report.plots.accuracy import (
    accuracy_intervals,
    class_accuracies,
    class_fractions,
    confusion,
    feature_map,
    reliability,
)
from mpl_tf.report.plots.curves import curve, curve_titles, curves
from mpl_tf.report.plots.images import decision_boundaries, image_grid, image_strip
from mpl_tf.report.plots.labels import label_store
from mpl_tf.report.plots.robustness import attack_accuracies, corruption_errors
from mpl_tf.report.plots.style import save_png, to_pixels
from mpl_tf.report.plots.trials import comparison

__all__ = [
    "accuracy_intervals",
    "attack_accuracies",
    "class_accuracies",
    "class_fractions",
    "comparison",
    "confusion",
    "corruption_errors",
    "curve",
    "curve_titles",
    "curves",
    "decision_boundaries",
    "feature_map",
    "image_grid",
    "image_strip",
    "label_store",
    "reliability",
    "save_png",
    "to_pixels",
]
