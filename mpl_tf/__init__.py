"""Teacher-student learning for Keras 3 on TensorFlow: Meta Pseudo Labels and its relatives."""

from mpl_tf import data, evaluation, export, losses, models, report, schedules
from mpl_tf.distribute import replicas, workers
from mpl_tf.inference import labeling, prediction
from mpl_tf.methods.feedback import estimators
from mpl_tf.training import loop, self_training
from mpl_tf.training.callbacks import generator_monitors, monitors
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.methods.distillation import Distillation
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
