"""A run's settings and its folder on disk."""

from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring, StageSettings

__all__ = ["Monitoring", "RunFolder", "StageSettings"]
