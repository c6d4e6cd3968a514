"""From the shared flags to the data and the settings of a run, and the course of a recipe."""

import dataclasses
import functools
import json
import math
import pathlib
import shlex
import sys

import keras
import tensorflow as tf
from absl import flags

from mpl_tf import data as data_module
from mpl_tf import distribute, files, report, training, workers
from recipes import builders, shared_flags

FLAGS = flags.FLAGS

# Where a run lies and how it is shown; its result depends on none of these.
NOT_PART_OF_THE_RUN = {
    "run_dir", "export_dir", "resume", "data_dir", "labeled_dir", "unlabeled_dir", "test_dir", "progress",
    "tensorboard", "confirmation_pictures", "report", "near_duplicates",
}  # fmt: skip


def load_source() -> data_module.Source:
    """Loads the images that the flags name, and says in a line what became of the files."""
    source = data_module.load(
        FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        labeled_dir=FLAGS.labeled_dir,
        unlabeled_dir=FLAGS.unlabeled_dir,
        test_dir=FLAGS.test_dir,
        image_size=shared_flags.image_size(FLAGS.image_size),
        skip_unreadable=FLAGS.skip_unreadable,
        channels=None if FLAGS.channels is None else int(FLAGS.channels),
        flip={"auto": None, "true": True, "false": False}[FLAGS.flip],
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
    }


def views(source: data_module.Source) -> tuple:
    """The weak and the strong view of the pictures."""
    return data_module.make_views(
        source.image_shape,
        flip=source.flip,
        num_operations=FLAGS.randaugment_operations,
        magnitude=FLAGS.randaugment_magnitude,
        policy=FLAGS.randaugment,
        noise=FLAGS.noise,
        static_shapes=FLAGS.augment_on == "device",
    )


def load_data(run_dir: str) -> training.RunData:
    """Loads the pictures and draws, or reads back, the split of the run folder."""
    source = load_source()
    split_file = pathlib.Path(run_dir) / "split.json"
    split = data_module.load_or_draw_split(split_file, source, **split_options())
    if source.reading is not None and not (reading := pathlib.Path(run_dir) / "reading.json").exists():
        with files.replacing(reading) as temporary:
            temporary.write_text(json.dumps(source.reading.as_dict(), indent=1) + "\n", encoding="utf-8")
    weak, strong = views(source)
    in_step = FLAGS.augment_on == "device"
    return training.RunData(source=source, split=split, weak=weak, strong=strong, augment_in_step=in_step)


def train(
    build, *, prepare_data=None, baseline_steps: int = 0, build_teacher=None, teacher_steps: int = 0
) -> None:
    """The course of a recipe that trains one method.

    Args:
        build: takes the run's data, and the teacher's network where there is one, and returns the compiled method.
        prepare_data: takes the data and the run folder and returns the data to train on; None takes it as it is.
        baseline_steps: updates of the supervised baseline; 0 trains none.
        build_teacher: takes the run's data and returns the `Supervised` that is trained before; None for none.
        teacher_steps: its updates; 0 takes it as it is.
    """

    def run(data, settings):
        if prepare_data is not None:
            data = prepare_data(data, settings.run_dir)
        return training.run(
            functools.partial(build, data),
            data,
            dataclasses.replace(settings, baseline_steps=baseline_steps, teacher_steps=teacher_steps),
            build_baseline=lambda: builders.supervised(data, steps=baseline_steps),
            build_teacher=build_teacher and functools.partial(build_teacher, data),
        )

    course(run)


def course(run, *, show_more=None) -> None:
    """The course of every recipe: claim the run folder, load the data, run, show the table.

    Args:
        run: takes the run's data and settings and returns what metrics.json holds.
        show_more: takes that and prints what the recipe has to say besides the table.
    """
    # Several processes have to find each other before TensorFlow computes anything.
    chief = workers.is_chief(distribute.make_strategy(FLAGS.strategy))
    folder = run_dir()
    claim(folder, writes=chief)
    prepare()
    metrics = run(load_data(folder), run_settings(folder))
    if chief:
        show(metrics, folder)
        if show_more is not None:
            show_more(metrics)


def run_dir() -> str:
    """The run folder: the flag, or a name from the data, the labels, the seed and the recipe."""
    labels = "all" if FLAGS.labels is None else FLAGS.labels
    return FLAGS.run_dir or f"runs/{FLAGS.dataset}.{FLAGS.seed}@{labels}-{_recipe()}"


def run_settings(folder: str) -> training.RunSettings:
    """The settings that the flags describe."""
    return training.RunSettings(
        run_dir=folder,
        export_dir=FLAGS.export_dir,
        steps=FLAGS.steps,
        epoch_steps=FLAGS.epoch_steps or math.ceil(FLAGS.steps / 20),
        batch_size=FLAGS.batch_size,
        seed=FLAGS.seed,
        **_optional("unlabeled_ratio", "confirmation_pictures"),
        **_optional("finetune_steps", "finetune_batch_size", "finetune_learning_rate"),
        strategy=FLAGS.strategy,
        jit_compile=builders.jit_compile(),
        verbose=verbose(),
        tensorboard=FLAGS.tensorboard,
        report=FLAGS.report,
        command=" ".join(["python", "-m", f"recipes.{_recipe()}", *map(shlex.quote, sys.argv[1:])]),
    )


def claim(folder: str, *, writes: bool = True) -> None:
    """Makes the run folder this run's, or refuses when it holds another configuration."""
    module_flags = FLAGS.flags_by_module_dict()
    own = [
        flag
        for module in module_flags
        if module.startswith(("recipes", "__main__"))
        for flag in module_flags[module]
    ]
    own += module_flags.get(sys.argv[0], [])
    values = {flag.name: flag.value for flag in own if flag.name not in NOT_PART_OF_THE_RUN}
    training.RunFolder(folder, writes=writes).claim(values, resume=FLAGS.resume)


def verbose() -> int | str:
    """What Keras takes for --progress."""
    return {"auto": "auto", "bar": 1, "line": 2, "none": 0}[FLAGS.progress]


def prepare() -> None:
    """Sets Keras' dtype policy for the networks that are built from here on, and quietens TensorFlow."""
    if FLAGS.verbosity < -1:
        # It takes the first trace of each of a run's networks for a retracing of one function, and warns.
        tf.get_logger().setLevel("ERROR")
    if (precision := _optional("precision").get("precision")) is not None:
        keras.config.set_dtype_policy(precision)


def show(metrics: dict, folder: str) -> None:
    """Prints the table of the finished run and where its files are."""
    roles = metrics.get("validation", metrics.get("test", ()))
    names = {"supervised": "supervised on the same labels", "finetuned": "student, fine-tuned"}
    rows = []
    for role in roles:
        row = {"network": names.get(role, role)}
        for domain in ("validation", "test"):
            if domain in metrics:
                result = metrics[domain][role]
                percent, error = 100 * result["accuracy"], 100 * result["standard_error"]
                row[f"{domain} accuracy %"] = f"{percent:.2f} ± {error:.2f}"
        rows.append(row)
    seconds = ", ".join(f"{stage} {value:.0f} s" for stage, value in metrics["seconds"].items())
    if rows:
        print(f"\n{metrics['split']}: accuracy ± standard error over the pictures\n")
        print(report.table(rows))
    print(f"\ntraining: {seconds}\nrun folder: {folder}")
    if (page := pathlib.Path(folder) / "report.html").is_file():
        print(f"report: {page}")
    if "export" in metrics:
        print(f"exported student: {metrics['export']}")


def _recipe() -> str:
    return pathlib.Path(sys.argv[0]).stem


def _optional(*names: str) -> dict:
    """The flags of these names that the recipe has."""
    return {name: FLAGS[name].value for name in names if name in FLAGS}
