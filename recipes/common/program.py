"""From the flags to a run: its data, its folder, its stages, and the table at its end."""

import contextlib
import gc
import json
import math
import os
import pathlib
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from absl import flags

from mpl_tf import data as data_module
from mpl_tf import report
from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import replicas, workers
from mpl_tf.export.validation import check_names
from mpl_tf.models.fingerprints import weights_fingerprint
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.inputs import verify_or_write_inputs
from mpl_tf.runs.roles import role_name
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training.loop import check_selection
from mpl_tf.training.rehearsal import Draft
from mpl_tf.training.run import Run, check_batch_size
from mpl_tf.utils import files
from recipes.common import builders, minutes, origin, precision, shared_flags

FLAGS = flags.FLAGS

# Where a run lies and how it is shown; its result depends on none of these.
NOT_PART_OF_THE_RUN = {
    "run_dir", "export_dir", "resume", "serve", "data_dir", "labeled_dir", "unlabeled_dir", "test_dir", "trusted_dir",
    "progress", "tensorboard", "confirmation_images", "on_collapse", "report", "near_duplicates", "feature_cache",
    "jit", "steps_per_execution", "rematerialize", "skip_unreadable", "label_batch_size", "preset",
    # The steps that they make are.
    "minutes", "clock", "plan_only",
}  # fmt: skip


# Flags that name, or may name, files of which a run is made, besides its images.
INPUTS = ("teacher", "network", "label_store", "model", "models", "teacher_model", "weights")


def inputs() -> dict[str, str]:
    """Flag → file or folder that it names and that is there."""
    values = _optional(*INPUTS)
    named = {}
    for flag, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            path = files.user_path(text) if text else None
            # A network may be called like a folder that happens to be there.
            if path and (path.is_file() or (path.is_dir() and flag == "label_store")):
                named[flag if isinstance(value, str) else f"{flag}={text}"] = str(path)
    return named


def load_source() -> data_module.Source:
    """Loads the images that the flags name, and says in a line what became of the files."""
    source = data_module.load(
        FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        labeled_dir=FLAGS.labeled_dir,
        unlabeled_dir=FLAGS.unlabeled_dir,
        test_dir=FLAGS.test_dir,
        trusted_dir=FLAGS.trusted_dir,
        image_size=shared_flags.image_size(FLAGS.image_size),
        skip_unreadable=FLAGS.skip_unreadable,
        channels=None if FLAGS.channels is None else int(FLAGS.channels),
        flip={"auto": None, "true": True, "false": False}[FLAGS.flip],
        resize=FLAGS.resize,
        interpolation=FLAGS.interpolation,
        duplicates=FLAGS.duplicates,
        near_duplicates=FLAGS.near_duplicates,
        seed=FLAGS.seed,
    )
    if source.reading is not None:
        print(f"{source.name}: {source.reading}")
    return source


def split_options() -> dict:
    """What the flags say about the split."""
    return {
        "num_labeled": FLAGS.labels,
        "seed": FLAGS.seed,
        "validation": FLAGS.validation,
        "labeled_in_unlabeled": FLAGS.labeled_in_unlabeled,
        "trusted": FLAGS.trusted,
        "cheap_labels": FLAGS.cheap_labels,
        "label_noise": FLAGS.label_noise,
    }


def views(source: data_module.Source) -> tuple:
    """The weak and the strong view of the images."""
    return data_module.make_views(
        source.image_shape,
        flip=source.flip,
        crop=FLAGS.crop,
        crop_area=FLAGS.crop_area,
        fill=fill(source),
        num_operations=FLAGS.randaugment_operations,
        magnitude=FLAGS.randaugment_magnitude,
        policy=FLAGS.randaugment,
        noise=FLAGS.noise,
        static_shapes=FLAGS.augment_on == "device",
    )


def fill(source: data_module.Source) -> int | tuple[int, ...]:
    """The color of pixels from outside: --fill, or what the images have at their borders.

    Raises:
        ValueError: for a flag that is no color.
    """
    if FLAGS.fill == "auto":
        return data_module.border_color(source.train)
    levels = FLAGS.fill.split(",")
    if not all(level.strip().isdecimal() for level in levels):
        raise ValueError(
            f"--fill={FLAGS.fill} is no color: pass a level in 0…255, three of them such as 255,255,255, or auto."
        )
    return tuple(map(int, levels)) if len(levels) > 1 else int(levels[0])


def load_data(run_dir: str, *, write_split: bool = True) -> RunData:
    """Loads the images and draws, or reads back, the split of the run folder.

    Args:
        run_dir: the folder, in whose `split.json` the split is or will be. That of a start which has trained nothing
            is drawn anew.
        write_split: whether a split that is drawn now is written there.
    """
    source = load_source()
    split_file = pathlib.Path(run_dir) / "split.json"
    if write_split or (split_file.exists() and not RunFolder(run_dir).has_only_been_claimed()):
        split = data_module.load_or_draw_split(split_file, source, **split_options())
    else:
        split = data_module.draw_split(source, **split_options())
    weak, strong = views(source)
    in_step = FLAGS.augment_on == "device"
    labeled_view = data_module.Chain(weak, strong) if FLAGS.randaugment_labeled else None
    return RunData(
        source=source,
        split=split,
        weak=weak,
        strong=strong,
        labeled_view=labeled_view,
        balance=FLAGS.balance,
        augment_in_step=in_step,
    )


@contextlib.contextmanager
def open_run(
    train: Callable[[Run], None],
    *,
    may_grow: bool = True,
    plan: Callable[..., dict] = minutes.plan,
    draft: bool = True,
) -> Iterator[Run]:
    """The run that the flags describe, in its folder, which it claims once the flags and the data are in order.

    Args:
        train: goes through the stages of the run that it is given; called here to be timed, for --minutes, or else to
            see whether all of them can be built.
        may_grow: whether more --steps go on from where fewer ended: not where stages follow from one another.
        plan: sets the flags that say how many steps are made, where --minutes says how long, as `minutes.plan`.
        draft: whether stages are drafted before the first of them trains.
    """
    # Several processes have to find each other before TensorFlow computes anything.
    strategy = replicas.make_strategy(_optional("strategy").get("strategy", "default"))
    folder = RunFolder(run_dir(), writes=workers.is_chief(strategy))
    precision.settle(folder)
    prepare()
    builders.settle_optimizer()
    _adopt_steps(folder)
    _adopt_spellings(folder)
    defaults = {name: _as_text(FLAGS[name].default) for name in configuration()}
    options = {"defaults": defaults, "resume": FLAGS.resume, "may_grow": may_grow}
    to_plan = minutes.is_asked() and not minutes.adopt(folder, configuration)
    if not to_plan:
        folder.check_configuration(configuration(), **options)
    elif folder.has_results() and not may_grow:
        # Before minutes of measuring that would end with other steps.
        raise ValueError(
            f"The run folder {str(folder.path)!r} holds a run that was not planned for these minutes, and its stages "
            "cannot be given more steps: ask for what it was started with, or choose another run_dir."
        )
    _check_folders_and_sizes(folder, strategy)
    data = load_data(folder.path, write_split=False)
    _check_data(folder, data)
    initial = None if folder.has_completed() else builders.load_initial(data)
    shown = _optional("tensorboard", "confirmation_images", "on_collapse")
    monitoring = Monitoring(verbose=verbose(), **shown)
    planned = None
    if to_plan:
        environment = {"strategy": strategy, "monitoring": monitoring}
        planned = plan(train, data, initial=initial, keep_epochs=folder.has_results(), **environment)
    elif draft and not folder.has_completed():
        _draft(train, data, strategy=strategy, initial=initial)
    with Run(folder.path, data, strategy=strategy, monitoring=monitoring) as run:
        has_results = folder.has_results()
        steps_before = folder.verify_or_write_config(configuration(), **options)
        verify_or_write_inputs(folder.path, inputs(), has_results=has_results, writes=folder.writes)
        if planned is not None:
            minutes.record(planned, folder)
        run.completed = folder.has_completed()
        if steps_before is not None and folder.writes:
            _say_that_it_grows(steps_before)
        data_module.write_split(folder.path / "split.json", data.split)
        if folder.writes and data.source.reading is not None:
            with files.replacing(folder.path / "reading.json") as temporary:
                temporary.write_text(
                    json.dumps(data.source.reading.as_dict(), indent=1) + "\n", encoding="utf-8"
                )
        if not run.completed:
            # Of a run that is given more steps it has not been looked at.
            run.initial = builders.load_initial(data) if initial is None else initial
            _note_initialization(run)
        yield run


def _check_folders_and_sizes(folder: RunFolder, strategy: tf.distribute.Strategy) -> None:
    """Checks what can be checked before the images are loaded, which may take minutes."""
    verify_or_write_inputs(folder.path, inputs(), has_results=folder.has_results(), writes=False)
    for name, value in _optional("batch_size", "finetune_batch_size").items():
        check_batch_size(value, strategy, name=name)
    for name, path in (("run_dir", folder.path), ("export_dir", FLAGS.export_dir)):
        if path and folder.writes:
            files.check_writable(path, name)
    if not folder.has_results():
        _check_outside_images(folder.path)


def _check_data(folder: RunFolder, data: RunData) -> None:
    """Checks that what the run needs, up to its end, can be had of these images."""
    if not folder.has_completed():
        initialize = _optional("initialize").get("initialize")
        origin.warn_of_learned_validation(
            data.split, inputs() | ({"initialize": initialize} if initialize else {})
        )
    check_names(data.source.class_names)
    if FLAGS.report and folder.writes and not folder.has_completed():
        report.check_can_draw(data.source.class_names)
    check_selection(_optional("select").get("select", "last"), data)
    _check_feedback(data)


def _draft(
    train: Callable[[Run], None],
    data: RunData,
    *,
    strategy: tf.distribute.Strategy,
    initial: keras.Model | None,
) -> None:
    """Goes through the stages of a run to see whether all of them can be built."""
    with tempfile.TemporaryDirectory() as scratch:
        drafted = Draft(scratch, data, strategy=strategy)
        drafted.initial = initial
        train(drafted)
    if len(drafted.settings) > 1:
        # A method that keeps labels has a row for every image, and cycles keep it.
        del drafted
        gc.collect()


def _check_outside_images(run_dir: pathlib.Path) -> None:
    """Raises for a run folder among the images, since those that the run draws would be among them next time."""
    for name, path in _optional("unlabeled_dir", "labeled_dir", "test_dir", "trusted_dir").items():
        if path and run_dir.resolve().is_relative_to(pathlib.Path(path).resolve()):
            raise ValueError(
                f"run_dir={str(run_dir)!r} lies in {name}={path}, where the images that a run draws would be read as "
                "some of yours: choose a folder outside."
            )


def _check_feedback(data: RunData) -> None:
    """Raises where the feedback is to be measured on trusted images, and there are none."""
    values = _optional("feedback", "feedback_on")
    if values.get("feedback", "none") == "none" or values.get("feedback_on") != "trusted":
        return
    if not len(data.split.trusted):
        raise ValueError(
            f"--feedback_on=trusted measures the student on trusted images, and {data.split.name} has none: say "
            "which are by --trusted_dir or --trusted, or leave --feedback_on out."
        )


def _note_initialization(run: Run) -> None:
    """Writes down what the run's networks start from, in metrics.json too."""
    initialize = _optional("initialize").get("initialize")
    if run.initial is not None:
        facts = {"file": initialize, "weights_sha256": weights_fingerprint(run.initial)}
        run.folder.verify_or_write_initialization(facts)
        run.facts["initialization"] = facts
    elif initialize is not None:
        run.facts["initialization"] = {"role": initialize}


def _adopt_steps(folder: RunFolder) -> None:
    """Keeps what a run that goes on has of its --steps, where the flags do not say so: its epochs, its warm start."""
    known = folder.read_flags() if folder.has_results() else {}
    names = ["epoch_steps", "supervised_steps"] if _warm_starts() else ["epoch_steps"]
    for name in names:
        if name in known and name in FLAGS and FLAGS[name].value is None:
            FLAGS[name].value = int(known[name])


def _adopt_spellings(folder: RunFolder) -> None:
    """Names files as a run that goes on has named them, where the flags have another path to the very same file."""
    known = folder.read_flags() if folder.has_results() else {}
    for name, value in _optional(*INPUTS, "initialize").items():
        if not value or name not in known:
            continue
        given, before = (
            (value, known[name].split(",")) if isinstance(value, list) else ([value], [known[name]])
        )
        if len(given) == len(before) and all(map(_is_one_file, given, before)):
            FLAGS[name].value = before if isinstance(value, list) else before[0]


def _is_one_file(one: str, other: str) -> bool:
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def _warm_starts() -> bool:
    return "supervised_steps" in FLAGS and FLAGS.initialize == "supervised"


def _say_that_it_grows(before: int) -> None:
    steps = FLAGS.steps
    print(
        f"The run of {before} steps goes on to {steps}. What it had measured is in metrics.at_step_{before}.json, "
        f"its fine-tuning, if any, in finetune.at_step_{before}."
    )
    if _optional("schedule").get("schedule", "constant") != "constant":
        print(
            f"The schedule {FLAGS.schedule!r} is laid over {steps} steps from here on, and the first {before} "
            f"followed the one over {before}: the learning rate rises again, and the end is another than that of "
            f"{steps} steps in one."
        )


def stage(**changes: int) -> StageSettings:
    """How long a stage trains and on which batches, as the flags say.

    Args:
        **changes: of a stage that is not the method's: `steps`, `unlabeled_ratio`.
    """
    values = {
        "steps": FLAGS.steps,
        "epoch_steps": FLAGS.epoch_steps or math.ceil(FLAGS.steps / 20),
        "batch_size": FLAGS.batch_size,
        "seed": FLAGS.seed,
        **_optional("unlabeled_ratio", "select"),
    }
    return StageSettings(**(values | changes))


def supervised_steps() -> int:
    """Updates of the supervised baseline: the flag, or as many as the student makes of itself."""
    return FLAGS.supervised_steps or FLAGS.steps - _optional("student_wait_steps").get(
        "student_wait_steps", 0
    )


def train_baseline(run: Run) -> None:
    """Trains the supervised baseline where --initialize=supervised or --baseline asks for it.

    With --initialize=supervised all networks that are built from then on start from it.

    Args:
        run: open.
    """
    starts, steps = FLAGS.initialize == "supervised", supervised_steps()
    if not starts and not (_optional("baseline").get("baseline") and steps):
        return
    run.train(
        "supervised",
        lambda: builders.supervised(run, steps=steps),
        stage(steps=steps, unlabeled_ratio=0),
    )
    if starts and not run.completed:
        run.initial = run.networks["supervised"]
        run.facts["initialization"] |= {"steps": steps, "weights_sha256": weights_fingerprint(run.initial)}


def finetuning() -> dict:
    """The arguments of `Run.finetune` that the flags describe."""
    return {
        "steps": FLAGS.finetune_steps,
        "batch_size": FLAGS.finetune_batch_size,
        "learning_rate": FLAGS.finetune_learning_rate,
        "seed": FLAGS.seed,
        "jit_compile": builders.jit_compile(),
        **_optional("select"),
    }


def finish(run: Run) -> dict:
    """The end of every recipe: evaluates, exports, draws the report, shows the table; returns metrics.json."""
    command = " ".join(["python", "-m", f"recipes.{_recipe()}", *map(shlex.quote, sys.argv[1:])])
    serve = _optional("serve").get("serve", "auto")
    metrics = run.finish(export_dir=FLAGS.export_dir, report=FLAGS.report, command=command, serve=serve)
    if run.folder.writes:
        if run.completed:
            print(f"\nThis run was complete: {', '.join(run.done) or 'there was nothing left to do'}.")
        show(metrics, str(run.folder.path))
    return metrics


def run_dir() -> str:
    """The run folder: the flag, or a name from the data, the labels, the seed and the recipe."""
    labels = "all" if FLAGS.labels is None else FLAGS.labels
    return FLAGS.run_dir or f"runs/{FLAGS.dataset}.{FLAGS.seed}@{labels}-{_recipe()}"


def configuration() -> dict[str, str | None]:
    """Flag → text of everything that the run's result depends on, as a flagfile takes it."""
    module_flags = FLAGS.flags_by_module_dict()
    own = [
        flag
        for module in module_flags
        if module.startswith(("recipes", "__main__"))
        for flag in module_flags[module]
    ]
    own += module_flags.get(sys.argv[0], [])
    left_out = set(NOT_PART_OF_THE_RUN)
    if FLAGS.duplicates == "drop_near":
        # It says which images are left out then, and not only which are named.
        left_out.remove("near_duplicates")
    values = {flag.name: _text(flag) for flag in own if flag.name not in left_out}
    if "epoch_steps" in values:
        # What it is when not given depends on the steps, and stays when these are raised.
        values["epoch_steps"] = str(stage().epoch_steps)
    if _warm_starts():
        values["supervised_steps"] = str(supervised_steps())
    return values


def _text(flag: flags.Flag) -> str | None:
    if flag.value is None:
        return None if flag.default is None else "none"
    return _as_text(flag.value)


def _as_text(value: object) -> str | None:
    if value is None:
        return None
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def verbose() -> int:
    """What Keras takes for --progress."""
    # Keras' own "auto" draws bars, with all that moves a terminal's cursor, into files too.
    auto = 1 if sys.stdout.isatty() else 2
    return {"auto": auto, "bar": 1, "line": 2, "none": 0}[FLAGS.progress]


def prepare() -> None:
    """Sets Keras' dtype policy for the networks that are built from here on, and quietens TensorFlow."""
    if FLAGS.verbosity < -1:
        # It takes the first trace of each of a run's networks for a retracing of one function, and warns.
        tf.get_logger().setLevel("ERROR")
    if (policy := _optional("precision").get("precision")) is not None:
        keras.config.set_dtype_policy(policy)


def show(metrics: dict, folder: str) -> None:
    """Prints the table of the finished run and where its files are."""
    roles = metrics.get("validation", metrics.get("test", ()))
    rows = []
    for role in roles:
        row = {"network": role_name(role)}
        for split in ("validation", "test"):
            if split in metrics:
                row[f"{split} accuracy %"] = report.accuracy_with_error(metrics[split][role])
        rows.append(row)
    cpu_seconds = metrics.get("cpu_seconds", {})
    seconds = ", ".join(
        f"{stage} {value:.0f} s" + (f" (CPU {cpu_seconds[stage]:.0f} s)" if stage in cpu_seconds else "")
        for stage, value in metrics["seconds"].items()
    )
    if rows:
        print(f"\n{metrics['split']}: accuracy ± standard error over the images\n")
        print(report.table(rows))
    for stage, best in metrics.get("selected", {}).items():
        percent = f"{100 * best['accuracy']:.2f} % on validation"
        print(
            f"\nbest epoch, {stage.replace('_', ' ')}: {best['epoch'] + 1} at step {best['step']:,}, {percent}"
        )
    if chosen := metrics.get("served"):
        print(f"\nserved: {role_name(chosen['role'])}\n{chosen['reason']}")
    print(f"\ntraining: {seconds}\nrun folder: {folder}")
    if (page := pathlib.Path(folder) / report.PAGE).is_file():
        print(f"report: {page}")
    if "export" in metrics:
        print(f"exported {role_name(chosen['role']) if chosen else 'student'}: {metrics['export']}")


def _recipe() -> str:
    return pathlib.Path(sys.argv[0]).stem


def _optional(*names: str) -> dict:
    """The flags of these names that the recipe has."""
    return {name: FLAGS[name].value for name in names if name in FLAGS}
