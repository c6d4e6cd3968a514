"""Teacher-student learning for Keras 3 on TensorFlow: Meta Pseudo Labels and its relatives."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"mpl_tf trains with TensorFlow, and Keras is set to the backend {keras.backend.backend()!r}: set the "
        "environment variable KERAS_BACKEND=tensorflow before Keras is imported, or change the backend in keras.json."
    )

from mpl_tf import (
    data,
    distribute,
    evaluation,
    export,
    inference,
    losses,
    models,
    report,
    schedules,
    training,
)
from mpl_tf.methods.base import Method
from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.methods.distillation import Distillation
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.fixmatch import FixMatch
from mpl_tf.methods.freematch import FreeMatch
from mpl_tf.methods.learning_to_reweight import LearningToReweight
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.methods.reduced_mpl import ReducedMetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.methods.uda import UDA
from mpl_tf.version import __version__

__all__ = [
    "UDA",
    "DataFreeLearning",
    "Distillation",
    "FeedbackSettings",
    "FixMatch",
    "FreeMatch",
    "LearningToReweight",
    "MetaPseudoLabels",
    "Method",
    "NoisyStudent",
    "PseudoLabels",
    "ReducedMetaPseudoLabels",
    "Supervised",
    "__version__",
    "data",
    "distribute",
    "evaluation",
    "export",
    "inference",
    "losses",
    "models",
    "report",
    "schedules",
    "training",
]
