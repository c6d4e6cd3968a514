"""Finished networks for other programs: SavedModels for TensorFlow Serving, LiteRT models for devices."""

from mpl_tf.export import litert
from mpl_tf.export.card import Provenance, write_card
from mpl_tf.export.exported_classifier import ExportedClassifier
from mpl_tf.export.signatures import classifier
from mpl_tf.export.writer import new_version, saved_model, write_saved_model

__all__ = [
    "ExportedClassifier",
    "Provenance",
    "classifier",
    "litert",
    "new_version",
    "saved_model",
    "write_card",
    "write_saved_model",
]
