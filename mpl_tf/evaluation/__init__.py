"""How good a finished network is, in numbers: accuracy, calibration, coverage, robustness."""

from mpl_tf.evaluation.accuracy import Outcomes, collect_outcomes, evaluate, outcomes, predict, summarize
from mpl_tf.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability,
    selective,
)
from mpl_tf.evaluation.robustness.attacks import fgsm
from mpl_tf.evaluation.robustness.corruptions import corrupt
from mpl_tf.evaluation.robustness.natural import load_subset
from mpl_tf.evaluation.robustness.perturbations import perturb
from mpl_tf.evaluation.robustness.scores import (
    corruption_errors,
    flip_probabilities,
    mean_corruption_error,
    mean_flip_rate,
)
from mpl_tf.evaluation.selection import AUTO, Choice, choose, paired_difference
from mpl_tf.evaluation.suspects import contradiction, suspects

__all__ = [
    "AUTO",
    "Choice",
    "Outcomes",
    "choose",
    "collect_outcomes",
    "contradiction",
    "corrupt",
    "corruption_errors",
    "evaluate",
    "expected_calibration_error",
    "fgsm",
    "fit_temperature",
    "flip_probabilities",
    "load_subset",
    "mean_corruption_error",
    "mean_flip_rate",
    "outcomes",
    "paired_difference",
    "perturb",
    "predict",
    "reliability",
    "selective",
    "summarize",
    "suspects",
]
