r"""For people who do not want to choose: what fits into some minutes is trained, compared, and the best exported.

    python -m recipes.auto --labeled_dir=labeled --unlabeled_dir=unlabeled --test_dir=test --minutes=60 \
        --run_dir=runs/pets --export_dir=saved_models/pets

A linear probe where the network has learned elsewhere, a supervised network, and from this one, in equal time each,
the supervised network trained longer and two or three methods that use the unlabeled images. They are compared on
validation images, and the page says in a sentence what the unlabeled images have brought. Stopped anywhere, the same
command goes on where it was. --plan_only prints the plan. What is tried, and with which settings, is in
recipes/common/candidates.py.
"""

from absl import flags

from recipes.common import candidates, shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_network_flags()
shared_flags.define_run_flags()
FLAGS.set_default("validation", 0.2)
FLAGS.set_default("model", None)
FLAGS.set_default("weights", None)
FLAGS.set_default("dataset", None)

flags.DEFINE_list(
    "stage_steps", None,
    "In place of --minutes: how long each stage trains, as supervised:400,supervised_longer:900,uda:300.",
)  # fmt: skip
shared_flags.define_minutes_flags(steps="stage_steps")
flags.DEFINE_integer(
    "confirmation_images", 100,
    "Unlabeled images on which each epoch's confirmation bias and classes are measured; 0 measures none.",
    lower_bound=0,
)  # fmt: skip
flags.DEFINE_bool("plan_only", False, "Print the plan, and leave it in the run folder, and train nothing.")


@flags.multi_flags_validator(
    ["minutes", "stage_steps"],
    message="Say how long you are willing to wait, as in --minutes=60.",
)
def _has_a_length(values: dict) -> bool:
    return values["minutes"] is not None or values["stage_steps"] is not None


@flags.multi_flags_validator(
    ["dataset", "labeled_dir"],
    message="Give the folder of the labeled images, as in --labeled_dir=labeled, or the name of a --dataset.",
)
def _has_images(values: dict) -> bool:
    return values["dataset"] is not None or values["labeled_dir"] is not None


if __name__ == "__main__":
    start.parse_flags()

import functools
import itertools
import math

import keras

import mpl_tf
from mpl_tf import data as data_module
from mpl_tf import evaluation, models, report, schedules
from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.images.image_files import existing_folder
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.base import Method
from mpl_tf.methods.engine.optimizers import make_optimizer
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.roles import role_name
from mpl_tf.runs.settings import StageSettings
from mpl_tf.training import finalize, probing
from mpl_tf.training.planning import plan_stages
from mpl_tf.training.run import Run
from recipes.common import builders, minutes, program
from recipes.common.candidates import Candidate, Settings

PROBE, SUPERVISED, LONGER = "probe", "supervised", "supervised_longer"
# Of the minutes, after which no more methods are timed.
_MEASURED_FRACTION = 0.15
# Of images that are trained on as they are, in pixels.
_SMALLEST_SIDE = 32


# --- what the flags leave open ---------------------------------------------------------------------------


def choose() -> None:
    """Fills in what the command line leaves open: the dataset, the network, the images' size, and their views."""
    if FLAGS.dataset is None:
        FLAGS.dataset = "folders"
    # Before a network is downloaded in vain.
    for name in ("labeled_dir", "unlabeled_dir", "test_dir", "trusted_dir"):
        if FLAGS.dataset == "folders" and FLAGS[name].value:
            existing_folder(name, FLAGS[name].value)
    # Named by the dataset where --run_dir is not given.
    folder = RunFolder(program.run_dir())
    known = folder.read_flags() if folder.has_results() else {}
    for name in ("model", "weights", "image_size"):
        if FLAGS[name].value is None and name in known:
            FLAGS[name].value = FLAGS[name].parser.parse(known[name])
    if FLAGS.model is None:
        FLAGS.model, FLAGS.weights = _network()
    elif FLAGS.weights is None:
        FLAGS.weights = "imagenet" if FLAGS.model in models.pretrained_names() else "none"
    if FLAGS.image_size is None and FLAGS.dataset == "folders":
        FLAGS.image_size = _image_size()
    for name, value in settings().views.items():
        if not FLAGS[name].present:
            FLAGS[name].value = value


def settings() -> Settings:
    """The table for the network that was chosen."""
    known = models.is_pretrained(FLAGS.model, FLAGS.weights)
    return candidates.PRETRAINED if known else candidates.FROM_SCRATCH


def _network() -> tuple[str, str]:
    """A network with weights from elsewhere for photographs, if these can be had, or one with random weights."""
    elsewhere, scratch = candidates.PRETRAINED, candidates.FROM_SCRATCH
    if FLAGS.weights == "none" or FLAGS.dataset != "folders" or FLAGS.channels == "1":
        return scratch.model, "none"
    weights = FLAGS.weights or elsewhere.weights
    try:
        models.build(elsewhere.model, 2, (elsewhere.image_size, elsewhere.image_size, 3), weights=weights)
    except (OSError, ValueError) as error:
        print(
            f"{elsewhere.model} cannot have its weights, so that {scratch.model} starts from random ones, which "
            f"costs much of what few labels can give: {error}"
        )
        return scratch.model, "none"
    return elsewhere.model, weights


def _image_size() -> str | None:
    """The size that images are resized to; None where all have one that is small enough."""
    folders = {name: FLAGS[name].value for name in ("labeled_dir", "trusted_dir")}
    found = (data_module.labeled_image_sizes(path, argument=name) for name, path in folders.items() if path)
    sizes = set().union(*found)
    sides = [side for size in sizes for side in size]
    if len(sizes) == 1 and min(sides) >= _SMALLEST_SIDE and max(sides) <= settings().largest_side:
        return None
    size = settings().image_size
    known = "{1}×{0} pixels".format(*next(iter(sizes))) if len(sizes) == 1 else f"{len(sizes)} sizes"
    print(f"The labeled images have {known}, and all are resized to {size}×{size} (--image_size).")
    return str(size)


# --- the stages ------------------------------------------------------------------------------------------


def stage_steps() -> dict[str, int]:
    """Stage → steps, as --stage_steps says.

    Raises:
        ValueError: for a stage that there is not, or is there twice, or no number.
    """
    known, found = [SUPERVISED, LONGER, *settings().methods], {}
    for text in FLAGS.stage_steps:
        stage, _, steps = text.partition(":")
        if stage not in known or not steps.isdecimal() or not int(steps):
            raise ValueError(
                f"--stage_steps has {text!r}, which is not stage:steps with one of {', '.join(known)} and a number."
            )
        if stage in found:
            raise ValueError(f"--stage_steps has {stage!r} twice: say once how many steps it makes.")
        found[stage] = int(steps)
    if list(found)[:1] != [SUPERVISED]:
        raise ValueError(f"--stage_steps begins with {SUPERVISED!r}, from which all other stages start.")
    return found


def train(run: Run) -> None:
    """The probe, where there is one, the supervised network, and what starts from it."""
    if run.completed:
        return
    probe(run)
    for stage, steps in stage_steps().items():
        run.train(stage, functools.partial(build, run, stage, steps), stage_settings(stage, steps))
        if stage == SUPERVISED:
            run.initial = run.networks[SUPERVISED]


def probe(run: Run) -> None:
    """Fits the linear probe, which the supervised network starts from, under weights from elsewhere."""
    if not models.is_pretrained(FLAGS.model, FLAGS.weights):
        return
    network = builders.bare_network(FLAGS.model, run.data, seed=FLAGS.seed, weights=FLAGS.weights)
    # In the run's own folder, also of a rehearsal: the features are not computed twice.
    cache = FLAGS.feature_cache or RunFolder(program.run_dir()).path / "features"
    probed = probing.probe(network, run.data, cache_dir=cache, seed=FLAGS.seed, verbose=program.verbose())
    run.networks[PROBE] = run.initial = network
    run.seconds[PROBE], run.cpu_seconds[PROBE] = (
        sum(spent.values()) for spent in (probed.seconds, probed.cpu_seconds)
    )


def stage_settings(stage: str, steps: int) -> StageSettings:
    """How long a stage trains and on which batches."""
    chosen = settings()
    return StageSettings(
        steps=steps,
        epoch_steps=math.ceil(steps / 20),
        batch_size=chosen.batch_size,
        unlabeled_ratio=chosen.unlabeled_ratio if stage in chosen.methods else 0,
        # The longer training is to see other augmentations than the one before.
        seed=fold_in(FLAGS.seed, stage),
    )


def build(run: Run, stage: str, steps: int) -> Method:
    """The compiled method of a stage."""
    chosen = settings()
    candidate = chosen.methods.get(stage, chosen.supervised)
    kind = getattr(mpl_tf, candidate.method)
    networks = {role: network(run, fold_in(FLAGS.seed, role)) for role in kind.learners}
    prior = {}
    if candidate.alignment != "none":
        prior["class_prior"] = builders.class_prior(run.data, candidate.alignment)
    method = kind(**networks, **candidate.options, **prior)
    method.compile_roles({role: optimizer(candidate, steps) for role in kind.learners}, jit_compile="auto")
    return method


def network(run: Run, seed: int) -> keras.Model:
    """A network that starts from what the run has trained last, or new."""
    built = builders.bare_network(FLAGS.model, run.data, seed=seed, weights=FLAGS.weights)
    return built if run.initial is None else models.copy_weights(run.initial, built)


def optimizer(candidate: Candidate, steps: int) -> keras.optimizers.Optimizer:
    """The table's optimizer, under a warm-up and a cosine over the stage's steps."""
    chosen = settings()
    peak = candidate.learning_rate or chosen.learning_rate
    rate = schedules.WaitWarmupCosine(peak, steps=steps, warmup=int(chosen.warmup_fraction * steps))
    return make_optimizer(chosen.optimizer, rate, **chosen.optimizer_options)


# --- the comparison --------------------------------------------------------------------------------------


def compare(run: Run) -> None:
    """Evaluates every network, and notes in the run's facts what the unlabeled images have brought."""
    if run.completed:
        return
    run.baseline = LONGER if LONGER in run.networks else None
    # Where validation images are too few to tell networks apart, the last one is served: the preferred method.
    preferred = [stage for stage in reversed(settings().methods) if stage in run.networks]
    run.networks |= {stage: run.networks.pop(stage) for stage in preferred}
    outcomes = finalize.collect_outcomes(run.data, run.networks, verbose=program.verbose())
    run.results = finalize.summarize(outcomes, run.data, run.folder)
    correct = {
        split: {role: found.correct for role, found in roles.items()} for split, roles in outcomes.items()
    }
    methods = [role for role in run.networks if role not in (PROBE, SUPERVISED, LONGER)]
    measured = [split for split in ("validation", "test") if split in correct]
    if methods and LONGER in run.networks and measured:
        # The one that is served, or else the best; of equally good ones the preferred, which comes last.
        order = list(run.networks)
        best = evaluation.choose(correct.get("validation", {}), order=order, baseline=LONGER).role
        if best not in methods:
            best = max(reversed(methods), key=lambda role: run.results[measured[0]][role]["accuracy"])
        differences = {
            split: evaluation.paired_difference(correct[split][best], correct[split][LONGER]).as_dict()
            for split in measured
        }
        run.facts["gain"] = {"method": best, "reference": LONGER, "methods": len(preferred), **differences}
    if LONGER in run.networks and measured:
        found = correct[measured[0]]
        run.facts["longer"] = evaluation.paired_difference(found[LONGER], found[SUPERVISED]).as_dict()
    count = len(run.data.split.validation)
    steps = stage_steps()
    histories = {stage: run.folder.stage(stage).read_history() for stage in steps}
    run.facts |= {
        "method": "auto",
        "steps": sum(steps.values()),
        "images": sum(stage_settings(stage, number).images for stage, number in steps.items()),
        "plan": {
            "steps": steps,
            "seconds": minutes.read(run.folder).get("seconds", {}),
            "clock": minutes.read(run.folder).get("clock"),
        },
        "trends": {
            stage: report.trend(
                [float(row["val_accuracy"]) for row in rows if row.get("val_accuracy")], count
            )
            for stage, rows in histories.items()
        },
    }


# --- the plan --------------------------------------------------------------------------------------------


def plan(
    train_stages, data: RunData, *, initial=None, strategy, monitoring, keep_epochs: bool = False
) -> dict:
    """Measures the time of a step of each candidate and divides the minutes; arguments as of `minutes.plan`.

    Raises:
        ValueError: for minutes that are too few for any training.
    """
    with minutes.rehearsal(data, strategy=strategy, monitoring=monitoring) as run:
        probe(run)
        chosen = settings()
        stages = [SUPERVISED]
        if len(data.split.hidden):
            stages += list(chosen.methods)[: chosen.most_methods]
        for stage in stages:
            # One method in any case.
            if len(run.times) > 1 and minutes.spent() > _MEASURED_FRACTION * 60 * FLAGS.minutes:
                break
            run.train(stage, functools.partial(build, run, stage, 1000), stage_settings(stage, 1000))
            run.initial = run.networks[SUPERVISED]
        run.times[LONGER] = run.times[SUPERVISED]

        def cost(stage, steps):
            run.settings[stage] = stage_settings(stage, steps)
            return run.seconds_of(stage) + run.seconds_of_evaluation(stage)

        spent = minutes.spent()
        stages = [SUPERVISED, LONGER, *(stage for stage in run.times if stage in chosen.methods)]
        divide = functools.partial(
            plan_stages,
            {stage: functools.partial(cost, stage) for stage in stages},
            start=SUPERVISED,
            fraction=chosen.warm_start_fraction,
            reference=LONGER,
            fewest_steps=chosen.fewest_steps,
        )
        steps = divide(60.0 * FLAGS.minutes - spent)
        if not steps:
            enough = next(count for count in itertools.count(1) if divide(60.0 * count - spent))
            raise ValueError(
                f"--minutes={FLAGS.minutes:g} are too few: starting and measuring alone took {spent:.0f} s. Pass at "
                f"least {enough}."
            )
        seconds = {stage: cost(stage, count) for stage, count in steps.items()}
        FLAGS.stage_steps = [f"{stage}:{count}" for stage, count in steps.items()]
        return {
            "minutes": FLAGS.minutes,
            "clock": FLAGS.clock,
            "flags": {"stage_steps": FLAGS.stage_steps},
            "seconds": {"before": round(spent, 3)}
            | {stage: round(value, 3) for stage, value in seconds.items()},
            "seconds_per_step": {stage: run.times[stage].step for stage in steps},
        }


def show_plan(run: Run) -> None:
    """Prints what is trained for how long."""
    known = minutes.read(run.folder)
    rows = []
    if known:
        rows.append(
            {"stage": "reading, starting and measuring", "seconds": f"{known['seconds']['before']:.0f}"}
        )
    for stage, steps in stage_steps().items():
        row = {"stage": role_name(stage), "steps": f"{steps:,}"}
        if known:
            row["seconds per step"] = f"{known['seconds_per_step'][stage]:.3g}"
            row["seconds"] = f"{known['seconds'][stage]:.0f}"
        rows.append(row)
    of = "" if FLAGS.minutes is None else f" of {FLAGS.minutes:g} minutes"
    print(f"\nThe plan{of}, with validation and evaluation:\n\n{report.table(rows)}\n")
    chosen = settings()
    for stage, steps in stage_steps().items():
        if stage in chosen.methods and steps < chosen.fewest_steps:
            print(f"The {role_name(stage)} makes too few steps to show what it can: give more minutes.")


def show_data(data: RunData) -> None:
    """Prints what there is to learn from, and how little a small validation split can tell."""
    source, split = data.source, data.split
    counts = sorted(split.labels_per_class.values())
    each = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    shape = "×".join(map(str, source.image_shape))
    print(
        f"{source.num_classes} classes; {len(split.labeled):,} labeled images to learn from, {each} of each class; "
        f"{len(split.hidden):,} without labels; {len(split.validation):,} for validation and "
        f"{len(source.test or ()):,} for the test; in the shape {shape}; {FLAGS.model} with "
        f"{'weights from elsewhere' if models.is_pretrained(FLAGS.model, FLAGS.weights) else 'random weights'}."
    )


def main(_):
    """Plans, trains, compares, exports, and draws the page."""
    choose()
    with program.open_run(train, may_grow=False, plan=plan, draft=False) as run:
        show_data(run.data)
        show_plan(run)
        if FLAGS.plan_only:
            return
        train(run)
        compare(run)
        metrics = program.finish(run)
    if run.folder.writes:
        print(f"\n{report.gain_summary(metrics)} {report.gain_details(metrics)}")


if __name__ == "__main__":
    start.run(main)
