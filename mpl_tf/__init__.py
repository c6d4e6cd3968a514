"""Teacher-student learning for Keras 3 on TensorFlow: Meta Pseudo Labels and its relatives."""

from mpl_tf import (
    callbacks,
    data,
    distribute,
    evaluation,
    export,
    feedback,
    generator_callbacks,
    labeling,
    losses,
    models,
    prediction,
    report,
    schedules,
    self_training,
    training,
    workers,
)
from mpl_tf.feedback_settings import FeedbackSettings
from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.methods.distillation import Distillation
from mpl_tf.methods.fixmatch import FixMatch
from mpl_tf.methods.freematch import FreeMatch
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
    "MetaPseudoLabels",
    "NoisyStudent",
    "PseudoLabels",
    "ReducedMetaPseudoLabels",
    "Supervised",
    "__version__",
    "callbacks",
    "data",
    "distribute",
    "evaluation",
    "export",
    "feedback",
    "generator_callbacks",
    "labeling",
    "losses",
    "models",
    "prediction",
    "report",
    "schedules",
    "self_training",
    "training",
    "workers",
]
