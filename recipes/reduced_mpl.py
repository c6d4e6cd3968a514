"""Reduced Meta Pseudo Labels: a large teacher's stored labels, adjusted by a small network that gets the feedback.

python -m recipes.reduced_mpl --preset=digits --teacher=runs/digits/networks/teacher.keras
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_finetune_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_collapse_flag()
shared_flags.define_run_flags()
HYPERPARAMETERS = MethodFlags("mpl_tf", "ReducedMetaPseudoLabels")
shared_flags.define_baseline_flags(optional=True)
shared_flags.define_serve_flag("finetuned", "student", "supervised")

define_path("teacher", None, "The teacher's .keras file; it labels once and leaves the memory again.")
define_path("label_store", None, "Its stored labels, as recipes.label makes them, instead.")
flags.DEFINE_integer("calibrator_width", 64, "Units of each hidden layer of the calibrator.", lower_bound=1)
flags.DEFINE_integer("calibrator_depth", 1, "Its hidden layers.", lower_bound=0)
flags.DEFINE_float("calibrator_learning_rate", 1e-3, "Of the Adam that trains it.", 0.0)

if __name__ == "__main__":
    start.parse_flags()

import dataclasses
import gc
import pathlib
from collections.abc import Callable

import keras
import numpy as np

from mpl_tf import data as data_module
from mpl_tf import models
from mpl_tf.data.run_data import RunData
from mpl_tf.inference import labeling
from mpl_tf.methods.reduced_mpl import ReducedMetaPseudoLabels
from mpl_tf.training.rehearsal import Rehearsal, UniformTargets
from mpl_tf.training.run import Run
from recipes.common import builders, program


def check_labels() -> None:
    """Raises when asked to train with no stored labels, or with two kinds of them."""
    if (FLAGS.teacher is None) == (FLAGS.label_store is None):
        raise ValueError(
            f"--teacher={FLAGS.teacher} and --label_store={FLAGS.label_store}: give one of them, the network that "
            "labels or the labels that it has made."
        )


def with_stored_labels(data: RunData, folder: pathlib.Path) -> RunData:
    """The run's data with the teacher's labels, which are made in `folder` unless they are given."""
    if FLAGS.label_store is not None:
        store = data_module.LabelStore.open(FLAGS.label_store)
    else:
        store = label(data, folder)
        gc.collect()
    targets = store.targets(len(data.source.train))
    return dataclasses.replace(data, targets=targets, labeled_targets=FLAGS.labeled_weight > 0)


def label(data: RunData, folder: pathlib.Path) -> data_module.LabelStore:
    """The teacher's labels of all labeled and unlabeled images, in a store."""
    teacher = builders.load_network(FLAGS.teacher, data.source)
    return labeling.label_into_store(
        teacher,
        data.source,
        folder,
        index=np.union1d(data.split.labeled, data.split.unlabeled),
        teacher={"file": FLAGS.teacher},
        jit_compile=builders.jit_compile(),
        verbose=program.verbose(),
    )


def build(run: Run) -> ReducedMetaPseudoLabels:
    """The compiled method."""
    calibrator = models.build_calibrator(
        run.data.source.num_classes,
        width=FLAGS.calibrator_width,
        depth=FLAGS.calibrator_depth,
        seed=FLAGS.seed,
    )
    method = ReducedMetaPseudoLabels(
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed),
        calibrator=calibrator,
        **HYPERPARAMETERS.values(),
    )
    method.compile(
        calibrator_optimizer=keras.optimizers.Adam(FLAGS.calibrator_learning_rate),
        student_optimizer=builders.optimizer(FLAGS.learning_rate, steps=FLAGS.steps),
        **builders.compile_options(),
    )
    return method


def train(run: Run, label_data: Callable[[], RunData]) -> None:
    """The baseline, where it is asked for, the labels, the method and its fine-tuning."""
    program.train_baseline(run)
    if not run.completed:
        run.data = label_data()
    run.train("method", lambda: build(run), program.stage())
    run.finetune(**program.finetuning())


def rehearse(run: Rehearsal) -> None:
    """The same with labels that say nothing, to be timed; the labeling is counted, as if the student did it."""
    data = run.data
    if FLAGS.teacher is not None:
        run.labels["method"] = len(np.union1d(data.split.labeled, data.split.unlabeled))
    targets = UniformTargets(data.source.num_classes)
    labeled = dataclasses.replace(data, targets=targets, labeled_targets=FLAGS.labeled_weight > 0)
    train(run, lambda: labeled)


def main(_):
    """Labels, trains, fine-tunes, evaluates, exports."""
    check_labels()
    with program.open_run(rehearse) as run:
        train(run, lambda: with_stored_labels(run.data, run.folder.path / "labels"))
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
