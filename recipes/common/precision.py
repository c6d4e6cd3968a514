"""--precision=auto: what suits the machine on which a run begins, and stays the run's on every other."""

from absl import flags

from mpl_tf import models
from mpl_tf.distribute.precision import native_precision
from mpl_tf.runs.folder import RunFolder
from recipes.common import builders

FLAGS = flags.FLAGS


def settle(folder: RunFolder) -> None:
    """Sets --precision where it is auto, and says to what: as the run had it, or what this machine computes best.

    Args:
        folder: of the run.

    Raises:
        ValueError: on several machines, which might differ.
    """
    if "precision" not in FLAGS or FLAGS.precision != "auto":
        return
    if FLAGS.strategy == "multi_worker":
        raise ValueError(
            "precision=auto with strategy=multi_worker: machines may differ, so pass float32 or mixed_bfloat16."
        )
    found, reason = native_precision(depthwise=any(map(models.convolves_depthwise, builders.network_names())))
    if folder.has_results() and (known := folder.read_flags().get("precision")):
        found, reason = known, "as the run began"
    FLAGS.precision = found
    print(f"precision: {found} ({reason})")
