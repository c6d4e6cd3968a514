"""From raw pictures to the one batch dict that every method reads: sources, splits, views, batches."""

from mpl_tf.data.augment import (
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
from mpl_tf.data.batch_views import BatchViews
from mpl_tf.data.label_store import LabelStore
from mpl_tf.data.pictures import ArrayPictures, FilePictures, Pictures
from mpl_tf.data.pipeline import (
    BALANCES,
    evaluation_batches,
    numbered_batches,
    picture_batches,
    training_batches,
)
from mpl_tf.data.run_data import RunData
from mpl_tf.data.selection import SelectionReport, select, select_rows, selection_report
from mpl_tf.data.sources import Source, from_arrays, from_folders, load
from mpl_tf.data.split_file import load_or_draw_split
from mpl_tf.data.splits import Split, draw_split

__all__ = [
    "BALANCES",
    "CROPS",
    "ArrayPictures",
    "BatchViews",
    "Chain",
    "FilePictures",
    "GaussianNoise",
    "Identity",
    "LabelStore",
    "Pictures",
    "RandomResizedCrop",
    "RunData",
    "SelectionReport",
    "Source",
    "Split",
    "StrongView",
    "WeakView",
    "border_color",
    "draw_split",
    "evaluation_batches",
    "from_arrays",
    "from_folders",
    "load",
    "load_or_draw_split",
    "make_views",
    "numbered_batches",
    "picture_batches",
    "select",
    "select_rows",
    "selection_report",
    "training_batches",
]
