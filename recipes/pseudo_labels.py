"""Pseudo Labels: of the current model, of a fixed teacher, or stored and refreshed at every epoch.

python -m recipes.pseudo_labels --preset=digits --pseudo_labels=online
python -m recipes.pseudo_labels --preset=digits --pseudo_labels=fixed
python -m recipes.pseudo_labels --preset=arazo_cifar10_4k
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()
HYPERPARAMETERS = MethodFlags(
    "mpl_tf", "PseudoLabels", names={"labels": "pseudo_labels"}, leave_out=("num_images",)
)
shared_flags.define_baseline_flags()
shared_flags.define_serve_flag("finetuned", "student", "teacher", "supervised")

flags.DEFINE_float(
    "min_labeled_fraction", 0.0, "Smallest labeled fraction of a batch; Arazo's is 0.16.", 0.0, 1.0
)
define_path("teacher", None, "The fixed teacher's .keras file; trained on the labels when not given.")
flags.DEFINE_integer("teacher_steps", None, "Updates of that training; as --steps when not given.", 1)

if __name__ == "__main__":
    start.parse_flags()

import keras
import tensorflow as tf

from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.training.rehearsal import Rehearsal
from mpl_tf.training.run import Run
from mpl_tf.utils.validation import check_labeled_fraction
from recipes.common import builders, program


def build(
    run: Run, teacher: keras.Model | None = None, images: tf.data.Dataset | None = None
) -> PseudoLabels:
    """The compiled method, with the teacher's labels, where there is one, of all unlabeled images or of these."""
    method = PseudoLabels(
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed),
        num_images=0 if FLAGS.pseudo_labels == "online" else len(run.data.source.train),
        **HYPERPARAMETERS.values(),
    )
    method.compile(builders.optimizer(FLAGS.learning_rate, steps=FLAGS.steps), **builders.compile_options())
    if teacher is not None:
        method.relabel(teacher, run.data.unlabeled() if images is None else images)
    return method


def train_teacher(run: Run) -> None:
    """The fixed teacher from its file, or trained on the labels from the student's first weights.

    The supervised baseline of a warm start is such a teacher already.
    """
    if FLAGS.initialize == "supervised" and not FLAGS.teacher:
        return
    if FLAGS.teacher:
        run.add_network("teacher", lambda: builders.load_network(FLAGS.teacher, run.data.source))
        return
    steps = FLAGS.teacher_steps or FLAGS.steps
    run.train(
        "teacher",
        lambda: builders.supervised(run, steps=steps),
        program.stage(steps=steps, unlabeled_ratio=0),
    )


def fixed_teacher(run: Run) -> keras.Model | None:
    """Who labels before the first step, where anyone does."""
    if FLAGS.pseudo_labels != "fixed":
        return None
    return run.networks.get("teacher", run.initial)


def check_teacher() -> None:
    """Raises for flags of a teacher that would not be asked."""
    if FLAGS.pseudo_labels != "fixed" and (FLAGS.teacher or FLAGS.teacher_steps):
        raise ValueError(
            f"--pseudo_labels={FLAGS.pseudo_labels} has no teacher: leave --teacher and --teacher_steps out, or "
            "pass --pseudo_labels=fixed."
        )
    has_teacher = FLAGS.pseudo_labels == "fixed" and (FLAGS.teacher or FLAGS.initialize != "supervised")
    if FLAGS.serve == "teacher" and not has_teacher:
        raise ValueError(
            "--serve=teacher names a network that this run does not have: leave it out, or pass "
            "--pseudo_labels=fixed, and --serve=supervised where the teacher is the baseline of a warm start."
        )
    if FLAGS.initialize == "supervised" and FLAGS.teacher_steps:
        raise ValueError(
            f"--teacher_steps={FLAGS.teacher_steps} trains a teacher, which under --initialize=supervised is the "
            "baseline: pass --supervised_steps, or leave one of them out."
        )
    if FLAGS.teacher and FLAGS.teacher_steps:
        raise ValueError(
            f"--teacher={FLAGS.teacher} is a finished network, which --teacher_steps={FLAGS.teacher_steps} would "
            "not train: leave one of them out."
        )


def train(run: Run) -> None:
    """The baseline and the teacher, where there are any, the method and its fine-tuning."""
    program.train_baseline(run)
    if FLAGS.pseudo_labels == "fixed":
        train_teacher(run)
    run.train("method", lambda: build(run, fixed_teacher(run)), program.stage())
    run.finetune(**program.finetuning())


def rehearse(run: Rehearsal) -> None:
    """The same with few labels, to be timed; the labeling is counted."""
    program.train_baseline(run)
    count = len(run.data.split.unlabeled)
    if FLAGS.pseudo_labels == "fixed":
        train_teacher(run)
        run.labels["method"] = count
    elif FLAGS.pseudo_labels == "stored":
        run.labels_each_epoch["method"] = count
    few = run.data.unlabeled().take(1)
    run.train("method", lambda: build(run, fixed_teacher(run), few), program.stage())
    run.finetune(**program.finetuning())


def main(_):
    """Trains, fine-tunes, evaluates, exports."""
    check_teacher()
    check_labeled_fraction(FLAGS.unlabeled_ratio, smallest=FLAGS.min_labeled_fraction)
    # The labels of a fixed teacher are made before the first step.
    with program.open_run(rehearse, may_grow=FLAGS.pseudo_labels != "fixed") as run:
        train(run)
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
