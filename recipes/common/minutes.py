"""--minutes: as many steps as fit, from the measured time of a step.

The recipe's stages are rehearsed: each method is built, makes some steps that nothing keeps, and evaluates some
images. What evaluation, checkpoints, the baseline, fine-tuning and the rehearsal itself take is subtracted. Flags
that count steps keep their fraction of --steps, if the command line does not say otherwise: a warm-up over a tenth of
a preset's steps stays one. The numbers found are the run's flags, and plan.json says where they come from, so that
the same command goes on with them and measures nothing again.
"""

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from absl import flags

from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import workers
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring
from mpl_tf.training.planning import largest_steps
from mpl_tf.training.rehearsal import CLOCKS, Rehearsal
from mpl_tf.training.run import Run
from mpl_tf.utils import files
from recipes.common import start

FLAGS = flags.FLAGS

PLAN = "plan.json"
# Flags that count steps of the method.
_LENGTHS = (
    "epoch_steps", "warmup_steps", "student_wait_steps", "supervised_steps", "teacher_schedule_steps",
    "teacher_steps", "feedback_warmup_steps", "uda_ramp_steps", "tsa_steps", "ramp_start", "ramp_end",
)  # fmt: skip
# The longest that the steps of a stage are timed, as a fraction of the minutes.
_MEASURED_FRACTION = 0.02


def is_asked() -> bool:
    """Whether the steps follow from --minutes."""
    return "minutes" in FLAGS and FLAGS.minutes is not None


def spent() -> float:
    """Seconds since the program started, of the clock that the minutes are of."""
    return CLOCKS[FLAGS.clock]() - start.started(FLAGS.clock)


def read(folder: RunFolder) -> dict:
    """What plan.json holds; nothing where there is none."""
    remedy = "put back a copy of it, remove it where nothing has been trained yet, or choose another run_dir"
    return files.read_json(folder.path / PLAN, remedy) or {}


def adopt(folder: RunFolder, configuration: Callable[[], dict]) -> bool:
    """Sets the steps that the run was given for these minutes, when it was started first.

    Args:
        folder: of the run.
        configuration: returns flag → text of all that the run depends on.

    Returns:
        Whether there were any.
    """
    plan = read(folder)
    if (plan.get("minutes"), plan.get("clock")) != (FLAGS.minutes, FLAGS.clock):
        return False
    before = {name: FLAGS[name].value for name in plan["flags"]}
    _set(plan["flags"])
    # What nothing has been trained of may have been planned for other flags.
    known = folder.read_flags()
    wanted = {name: value for name, value in configuration().items() if value is not None}
    if folder.has_results() or known == wanted:
        return True
    _set(before)
    return False


def plan(
    rehearse: Callable[[Run], None],
    data: RunData,
    *,
    initial: keras.Model | None = None,
    strategy: tf.distribute.Strategy,
    monitoring: Monitoring,
    keep_epochs: bool = False,
) -> dict:
    """Measures, sets --steps and what goes with it, and says so in a sentence.

    Args:
        rehearse: goes through the stages of the run that it is given, with `Run.train`.
        data: images, split and views.
        initial: as of `Run`.
        strategy: of the run.
        monitoring: of the run.
        keep_epochs: whether the run has begun, with epochs of some length.

    Returns:
        What plan.json is to hold.

    Raises:
        ValueError: for minutes in which not even one step can be made, and for several machines.
    """
    reference = {name: FLAGS[name].value for name in ("steps", *_LENGTHS) if name in FLAGS}
    if keep_epochs:
        del reference["epoch_steps"]
    multiple = FLAGS["steps_per_execution"].value if "steps_per_execution" in FLAGS else 1
    if multiple == "auto":
        # Whatever divides the epochs that are found.
        multiple = 1
    with rehearsal(data, strategy=strategy, monitoring=monitoring) as run:
        run.initial = initial
        rehearse(run)

        def cost(steps):
            _set(lengths(reference, steps, multiple=multiple))
            run.settings.clear()
            rehearse(run)
            return sum(map(run.seconds_of, run.settings)) + run.seconds_of_evaluation()

        before = spent()
        steps = largest_steps(cost, 60.0 * FLAGS.minutes - before, multiple=multiple)
        if not steps:
            needed = before + cost(multiple)
            raise ValueError(
                f"--minutes={FLAGS.minutes:g} leaves no time for a step: starting and measuring took {before:.0f} s, "
                f"and preparing, a step and the evaluation take {needed - before:.0f} s. Pass at least "
                f"{math.ceil(needed / 6) / 10:g}, or --steps."
            )
        cost(steps)
    _validate()
    print(_sentence(run, before))
    return {
        "minutes": FLAGS.minutes,
        "clock": FLAGS.clock,
        "flags": {name: FLAGS[name].value for name in reference if FLAGS[name].value != reference[name]}
        | {"steps": steps},
        "seconds": {stage: round(run.seconds_of(stage), 3) for stage in run.settings}
        | {"evaluation": round(run.seconds_of_evaluation(), 3), "before": round(before, 3)},
        "seconds_per_step": {stage: run.times[stage].step for stage in run.settings},
    }


@contextlib.contextmanager
def rehearsal(
    data: RunData, *, strategy: tf.distribute.Strategy, monitoring: Monitoring
) -> Iterator[Rehearsal]:
    """What a plan is measured with, in a temporary folder.

    Args:
        data: images, split and views.
        strategy: of the run.
        monitoring: of the run.

    Raises:
        ValueError: for several machines.
    """
    if workers.worker_count(strategy) > 1:
        raise ValueError(
            f"--minutes={FLAGS.minutes:g} is measured on one machine, and here are several: pass --steps."
        )
    limit = max(1.0, _MEASURED_FRACTION * 60.0 * FLAGS.minutes)
    with tempfile.TemporaryDirectory() as folder:
        yield Rehearsal(
            folder,
            data,
            strategy=strategy,
            monitoring=monitoring,
            clock=CLOCKS[FLAGS.clock],
            limit=limit,
        )


def record(plan: dict, folder: RunFolder) -> None:
    """Writes plan.json."""
    if folder.writes:
        with files.replacing(folder.path / PLAN) as temporary:
            temporary.write_text(json.dumps(plan, indent=1) + "\n", "utf-8")


def lengths(reference: dict, steps: int, *, multiple: int = 1) -> dict:
    """What the flags that count steps are for another number of steps.

    Args:
        reference: flag → value, with "steps", that the others are fractions of; None for what follows from them.
        steps: the number.
        multiple: which epochs have to be a multiple of.

    Returns:
        Flag → value. One that the command line gives stays as it is.
    """
    scaled = {"steps": steps}
    for name, value in reference.items():
        if name == "steps" or name in start.given():
            continue
        if value is not None:
            # Rounded down, so that lengths which follow one another still fit.
            scaled[name] = max(FLAGS[name].parser.lower_bound or 0, value * steps // reference["steps"])
        if name == "epoch_steps" and multiple > 1:
            # A twentieth, as without the flag, but one that calls of several steps divide.
            wanted = scaled.get(name, steps / 20)
            scaled[name] = max(1, round(wanted / multiple)) * multiple
    return scaled


def _set(values):
    # Not by FLAGS.name: all of them are looked at together, when they are the final ones.
    for name, value in values.items():
        FLAGS[name].value = value


def _validate():
    try:
        FLAGS.validate_all_flags()
    except flags.IllegalFlagValueError as error:
        raise ValueError(f"Of the {FLAGS.steps} steps of --minutes={FLAGS.minutes:g}: {error}") from None


def _sentence(run, spent):
    of = "" if FLAGS.clock == "wall" else " of CPU time"
    parts = [
        f"{stage} {run.seconds_of(stage):.0f} s ({settings.steps:,} steps of {run.times[stage].step:.2g} s)"
        for stage, settings in run.settings.items()
    ]
    return (
        f"{FLAGS.minutes:g} minutes{of} make --steps={FLAGS.steps}: {', '.join(parts)}, the evaluation "
        f"{run.seconds_of_evaluation():.0f} s, and {spent:.0f} s for starting and measuring."
    )
