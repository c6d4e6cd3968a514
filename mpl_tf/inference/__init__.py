"""What a finished network says about many images: soft labels and predictions on disk."""

from mpl_tf.inference.labeling import label, label_into_store
from mpl_tf.inference.prediction import predict_folder

__all__ = [
    "label",
    "label_into_store",
    "predict_folder",
]
