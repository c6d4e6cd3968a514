"""From raw images to the one batch dict that every method reads: sources, splits, views, batches."""

from mpl_tf.data.augmentation.views import (
    CROPS,
    Chain,
    GaussianNoise,
    Identity,
    RandomResizedCrop,
    StrongView,
    WeakView,
    border_color,
    make_views,
)
from mpl_tf.data.images.folders import labeled_image_sizes
from mpl_tf.data.images.images import ArrayImages, FileImages, Images
from mpl_tf.data.images.load import Source, from_arrays, from_folders, load
from mpl_tf.data.label_noise import LabelNoise
from mpl_tf.data.pipeline import (
    BALANCES,
    BatchViews,
    class_weights,
    evaluation_batches,
    image_batches,
    index_batches,
    training_batches,
)
from mpl_tf.data.run_data import RunData
from mpl_tf.data.soft_labels.selection import SelectionReport, select_indices, selection_report
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.data.split_files import load_or_draw_split, write_split
from mpl_tf.data.splits import CHEAP_LABELS, Split, draw_split

__all__ = [
    "BALANCES",
    "CHEAP_LABELS",
    "CROPS",
    "ArrayImages",
    "BatchViews",
    "Chain",
    "FileImages",
    "GaussianNoise",
    "Identity",
    "Images",
    "LabelNoise",
    "LabelStore",
    "RandomResizedCrop",
    "RunData",
    "SelectionReport",
    "Source",
    "Split",
    "StrongView",
    "WeakView",
    "border_color",
    "class_weights",
    "draw_split",
    "evaluation_batches",
    "from_arrays",
    "from_folders",
    "image_batches",
    "index_batches",
    "labeled_image_sizes",
    "load",
    "load_or_draw_split",
    "make_views",
    "select_indices",
    "selection_report",
    "training_batches",
    "write_split",
]
