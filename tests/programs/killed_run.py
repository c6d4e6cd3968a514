"""Small runs that end themselves at a moment or are ended from outside.

Each leaves `<folder>/run`, what it prints in `<folder>/output.txt`, and where it exports, `<folder>/exported`.
"""

import dataclasses
import os
import pathlib
import signal
import sys

import keras

from mpl_tf import evaluation, report
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.supervised import Supervised
from mpl_tf.training import self_training
from mpl_tf.training.callbacks.preemption import PreemptedError
from mpl_tf.training.run import Run
from mpl_tf.utils import files
from tests.support import runs

# What a run does, and the function that does it.
EVENTS = {
    "step": (MetaPseudoLabels, "train_step"),
    "evaluation": (evaluation, "collect_outcomes"),
    "rename": (os, "replace"),
    "page": (report, "page"),
}


def compiled(method, optimizers=1):
    """Runs eagerly, so that there is no long tracing in which there is nothing to be lost."""
    rates = [keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True) for _ in range(optimizers)]
    method.compile(*rates, run_eagerly=True)
    return method


def meta_pseudo_labels(folder):
    """A baseline, the method, its fine-tuning."""

    def build():
        teacher, student = runs.network(1), runs.network(2)
        method = MetaPseudoLabels(teacher=teacher, student=student, feedback="dot_product", uda_ramp_steps=5)
        return compiled(method, optimizers=2)

    def build_baseline():
        return compiled(Supervised(student=runs.network(2)))

    runs.whole_run(
        folder / "run",
        build,
        build_baseline=build_baseline,
        monitoring=dataclasses.replace(runs.QUIET, confirmation_images=20),
        report=True,
        export_dir=folder / "exported",
    )


def noisy_student(folder):
    """A teacher and two rounds of four files of labels each."""
    monitoring = dataclasses.replace(runs.QUIET, confirmation_images=0)
    with Run(folder / "run", runs.run_data(), monitoring=monitoring) as run:
        self_training.train_rounds(
            run,
            lambda: compiled(Supervised(student=runs.network(1))),
            lambda number, teacher: compiled(NoisyStudent(student=runs.network(10 + number))),
            runs.stage(steps=6, epoch_steps=3),
            self_training.Rounds(rounds=2, teacher_steps=6, threshold=0.3, label_shard_size=20),
        )
        run.finish(report=False)


def signal_before(name: str, event: str, skipped: int):
    """Sends this process a signal when the event is about to happen for the `skipped + 1`-th time.

    Args:
        name: of the signal.
        event: one of `EVENTS`; `"rename:<name>"` for the renames to this name.
        skipped: how many before it.
    """
    event, _, destination = event.partition(":")
    owner, function = EVENTS[event]
    original, seen = getattr(owner, function), []

    def interrupted(*arguments, **options):
        if not destination or pathlib.Path(arguments[1]).name == destination:
            seen.append(event)
            if len(seen) == skipped + 1:
                os.kill(os.getpid(), signal.Signals[name])
        return original(*arguments, **options)

    setattr(owner, function, interrupted)


def main(course, folder: pathlib.Path, moment: tuple = ()):
    """Runs in a process of its own.

    Args:
        course: one of the two above.
        folder: where to.
        moment: the arguments of `signal_before`, if any.
    """
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    keras.utils.set_random_seed(0)
    if moment:
        signal_before(*moment)
    print("started", flush=True)
    try:
        course(folder)
    except PreemptedError as error:
        print(error, flush=True)
        sys.exit(error.exit_status)
    except files.DiskFullError as error:
        sys.exit(str(error))
