"""The flags that every recipe understands, and the objects that they stand for."""

import math
import pathlib
import shlex
import sys

import keras
from absl import flags, logging

from mpl_tf import data as data_module
from mpl_tf import models, report, schedules, training
from mpl_tf.methods.supervised import Supervised

FLAGS = flags.FLAGS

# Where a run lies and how it is shown; its result depends on none of these.
NOT_PART_OF_THE_RUN = {
    "run_dir", "export_dir", "resume", "data_dir", "labeled_dir", "unlabeled_dir", "test_dir", "progress",
    "tensorboard",
}  # fmt: skip


def define_data_flags():
    """Which pictures, which of them are labeled, and how they are augmented."""
    flags.DEFINE_string(
        "dataset", "digits", "digits, two_moons, folders, or the name of a TensorFlow Datasets image set."
    )
    flags.DEFINE_string("data_dir", None, "Folder of TensorFlow Datasets; its own default when not given.")
    flags.DEFINE_string("labeled_dir", None, "For --dataset=folders: a folder of pictures per class.")
    flags.DEFINE_string("unlabeled_dir", None, "For --dataset=folders: pictures, flat or nested.")
    flags.DEFINE_string("test_dir", None, "For --dataset=folders: test pictures, a folder per class.")
    flags.DEFINE_integer("image_size", None, "Height and width that pictures are resized to.", lower_bound=4)
    flags.DEFINE_bool("skip_unreadable", False, "Skip and count pictures that cannot be read, not stop.")
    flags.DEFINE_integer("labels", None, "Labeled pictures; all when not given.", lower_bound=1)
    flags.DEFINE_float("validation", 0.1, "Share of the training pictures held out.", 0.0, 0.9)
    flags.DEFINE_bool("labeled_in_unlabeled", True, "Whether labeled pictures are unlabeled ones too.")
    flags.DEFINE_integer("seed", 0, "Of the split, the weights, the order and the augmentation.", 0, 2**29)
    flags.DEFINE_enum(
        "randaugment", "paper", ["paper", "keras_cv", "keras"],
        "Whose RandAugment makes the strong view. Those of the libraries keep a random state of their own: "
        "such runs resume, but not bit for bit.",
    )  # fmt: skip
    flags.DEFINE_integer("randaugment_operations", 2, "N, operations per picture.", lower_bound=0)
    flags.DEFINE_float("randaugment_magnitude", 16.0, "M, their magnitude.", 0.0, 30.0)
    flags.DEFINE_float("noise", 0.2, "Standard deviation of the strong view of points.", 0.0)


def define_training_flags():
    """The student, its optimizer, and how long it trains."""
    flags.DEFINE_string("model", "wrn-28-2", "The student: " + ", ".join(models.names()) + ".")
    flags.DEFINE_float("dropout", 0.0, "Dropout before the last layer of every network.", 0.0, 0.95)
    flags.DEFINE_integer("steps", 10_000, "Updates of the method.", lower_bound=1)
    flags.DEFINE_integer("epoch_steps", None, "Updates per epoch; a twentieth of them when not given.", 1)
    flags.DEFINE_integer("batch_size", 64, "B, labeled pictures per update over all replicas.", 1)
    flags.DEFINE_float("learning_rate", 0.05, "Peak of the student's learning rate.", 0.0)
    flags.DEFINE_enum("schedule", "cosine", ["cosine", "constant"], "What follows the warm-up.")
    flags.DEFINE_integer("warmup_steps", 0, "Linear warm-up of the learning rates.", lower_bound=0)
    flags.DEFINE_float("momentum", 0.9, "Nesterov momentum of SGD.", 0.0, 1.0)
    flags.DEFINE_float("weight_decay", 0.0, "L2 penalty on kernels.", 0.0)
    flags.DEFINE_float("gradient_clip_norm", None, "Largest global norm of a gradient.", 0.0)
    flags.DEFINE_float("label_smoothing", 0.0, "Of the losses on labeled pictures.", 0.0, 1.0)
    flags.DEFINE_float("ema_decay", 0.995, "Of the averaged student that is served; 0 keeps none.", 0.0, 1.0)
    flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16"], "Of the networks' arithmetic.")
    flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "XLA; auto is on for one accelerator.")
    flags.DEFINE_enum("strategy", "default", ["default", "mirrored"], "One device, or all of this machine.")
    flags.DEFINE_integer(
        "steps_per_execution", 1, "Updates per call from Python; more suits tiny networks.", 1
    )


def define_unlabeled_flags():
    """How many unlabeled pictures, and what is asked of their two views."""
    flags.DEFINE_integer("unlabeled_ratio", 7, "μ, unlabeled pictures per labeled one.", lower_bound=1)
    flags.DEFINE_float("uda_weight", 8.0, "Factor on the consistency loss.", 0.0)
    flags.DEFINE_float("uda_temperature", 0.7, "Sharpening of the consistency target.", 1e-3)
    flags.DEFINE_float("uda_threshold", 0.6, "Confidence below which a picture is masked.", 0.0, 1.0)


def define_finetune_flags():
    """The fine-tuning of the finished student on the labeled pictures."""
    flags.DEFINE_integer("finetune_steps", 0, "Updates after the method; 0 leaves them out.", lower_bound=0)
    flags.DEFINE_integer("finetune_batch_size", 64, "Labeled pictures per such update.", lower_bound=1)
    flags.DEFINE_float("finetune_learning_rate", 1e-3, "Of the plain SGD that makes them.", 0.0)


def define_run_flags():
    """Where the run goes."""
    flags.DEFINE_string("run_dir", None, "Folder that the run leaves; runs/<split>-<recipe> when not given.")
    flags.DEFINE_string("export_dir", None, "Exports the student as <export_dir>/<version>/.")
    flags.DEFINE_bool("resume", True, "Continue a run folder that holds this configuration.")
    flags.DEFINE_enum("progress", "auto", ["auto", "bar", "line", "none"], "What is printed while training.")
    flags.DEFINE_bool("tensorboard", True, "Write event files into <run_dir>/tensorboard.")


def load_data(run_dir: str) -> training.RunData:
    """Loads the pictures and draws, or reads back, the split of the run folder."""
    source = data_module.load(
        FLAGS.dataset,
        data_dir=FLAGS.data_dir,
        labeled_dir=FLAGS.labeled_dir,
        unlabeled_dir=FLAGS.unlabeled_dir,
        test_dir=FLAGS.test_dir,
        image_size=FLAGS.image_size,
        skip_unreadable=FLAGS.skip_unreadable,
        seed=FLAGS.seed,
    )
    split = data_module.load_or_draw_split(
        pathlib.Path(run_dir) / "split.json",
        source,
        num_labeled=FLAGS.labels,
        seed=FLAGS.seed,
        validation=FLAGS.validation,
        labeled_in_unlabeled=FLAGS.labeled_in_unlabeled,
    )
    weak, strong = data_module.make_views(
        source.image_shape,
        flip=source.flip,
        num_operations=FLAGS.randaugment_operations,
        magnitude=FLAGS.randaugment_magnitude,
        policy=FLAGS.randaugment,
        noise=FLAGS.noise,
    )
    return training.RunData(source=source, split=split, weak=weak, strong=strong)


def run_dir() -> str:
    """The run folder: the flag, or a name from the data, the labels, the seed and the recipe."""
    labels = "all" if FLAGS.labels is None else FLAGS.labels
    return FLAGS.run_dir or f"runs/{FLAGS.dataset}.{FLAGS.seed}@{labels}-{_recipe()}"


def run_settings(folder: str, *, unlabeled_ratio: int = 0, baseline_steps: int = 0):
    """The settings that the flags describe."""
    return training.RunSettings(
        run_dir=folder,
        export_dir=FLAGS.export_dir,
        steps=FLAGS.steps,
        epoch_steps=FLAGS.epoch_steps or math.ceil(FLAGS.steps / 20),
        batch_size=FLAGS.batch_size,
        unlabeled_ratio=unlabeled_ratio,
        baseline_steps=baseline_steps,
        seed=FLAGS.seed,
        **_finetuning(),
        strategy=FLAGS.strategy,
        jit_compile=jit_compile(),
        verbose={"auto": "auto", "bar": 1, "line": 2, "none": 0}[FLAGS.progress],
        tensorboard=FLAGS.tensorboard,
        command=" ".join(["python", "-m", f"recipes.{_recipe()}", *map(shlex.quote, sys.argv[1:])]),
    )


def claim(folder: str) -> None:
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
    training.RunFolder(folder).claim(values, resume=FLAGS.resume)


def network(name: str, data: training.RunData, *, seed: int) -> keras.Model:
    """A freshly initialized network for the run's pictures."""
    return models.build(
        name, data.source.num_classes, data.source.image_shape, dropout=FLAGS.dropout, seed=seed,
        synchronized=FLAGS.strategy != "default",
    )  # fmt: skip


def optimizer(peak: float, *, steps: int, wait: int = 0) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum under the run's schedule."""
    rate = peak
    if FLAGS.schedule == "cosine":
        rate = schedules.WaitWarmupCosine(peak, steps=steps, warmup=FLAGS.warmup_steps, wait=wait)
    return keras.optimizers.SGD(rate, momentum=FLAGS.momentum, nesterov=FLAGS.momentum > 0)


def build_supervised(data: training.RunData, *, steps: int) -> Supervised:
    """The supervised method with the student's network, optimizer, averaging and regularization."""
    method = Supervised(
        student=network(FLAGS.model, data, seed=FLAGS.seed),
        label_smoothing=FLAGS.label_smoothing,
        weight_decay=FLAGS.weight_decay,
        gradient_clip_norm=FLAGS.gradient_clip_norm,
        ema_decay=FLAGS.ema_decay or None,
    )
    method.compile(optimizer(FLAGS.learning_rate, steps=steps), **compile_options())
    return method


def compile_options() -> dict:
    """What `compile` takes besides the optimizers."""
    return {"jit_compile": jit_compile(), "steps_per_execution": FLAGS.steps_per_execution}


def jit_compile() -> bool | str:
    """What `compile` takes for --jit."""
    return {"auto": "auto", "on": True, "off": False}[FLAGS.jit]


def prepare() -> None:
    """Sets Keras' dtype policy for the networks that are built from here on, and quietens TensorFlow."""
    if FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)
    if "precision" in FLAGS:
        keras.config.set_dtype_policy(FLAGS.precision)


def show(metrics: dict, folder: str) -> None:
    """Prints the table of the finished run and where its files are."""
    roles = next(iter(metrics[domain] for domain in ("validation", "test") if domain in metrics))
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
    print(f"\n{metrics['split']}: accuracy ± standard error over the pictures\n")
    print(report.table(rows))
    print(f"\ntraining: {seconds}\nrun folder: {folder}")
    if "export" in metrics:
        print(f"exported student: {metrics['export']}")


def _recipe() -> str:
    return pathlib.Path(sys.argv[0]).stem


def _finetuning() -> dict:
    names = ("finetune_steps", "finetune_batch_size", "finetune_learning_rate")
    return {name: FLAGS[name].value for name in names if name in FLAGS}
