"""The flags that several recipes share, in groups. A method's own come from its table, see `parameters`."""

from absl import flags

from recipes.common import parameters, start
from recipes.common.start import PathParser, define_path

FLAGS = flags.FLAGS

# What `mpl_tf.models.names`, but for keras.applications, and `optimizers.optimizer_names` list; to ask them would
# import TensorFlow.
NETWORKS = (
    "alexnet", "alexnet-half", "convnet", "efficientnet-l2", "hinton_mlp", "lenet-5", "lenet-5-half", "mlp",
    "moons_mlp", "resnet-18", "resnet-34", "wrn-10-1", "wrn-28-2",
)  # fmt: skip
OPTIMIZERS = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lamb", "lion", "muon", "nadam", "rmsprop",
    "schedulefreeadamw", "sgd",
)  # fmt: skip
# The schedules that can begin later and rise first.
COSINES = ("cosine", "partial_cosine")


def require_cosine(steps: str) -> None:
    """Has a number of steps refused under the schedules that it is no part of.

    Args:
        steps: name of the flag.
    """
    flags.register_multi_flags_validator(
        [steps, "schedule"],
        lambda values: not values[steps] or values["schedule"] in COSINES,
        message=f"--{steps} is laid into the cosine schedules: pass --schedule=cosine or partial_cosine.",
    )


class ImageSizeParser(flags.ArgumentParser):
    """Takes 96, and 72x96 for height x width; the value is the text."""

    syntactic_help = "a number of pixels, or height x width"

    def parse(self, argument):
        """The size in its shortest form.

        Raises:
            ValueError: for anything else, and for fewer than four pixels.
        """
        sides = [side.strip() for side in str(argument).lower().replace("×", "x").split("x")]
        if len(sides) > 2 or not all(side.isdecimal() for side in sides):
            raise ValueError(
                f"{argument!r} is no size: give a number of pixels, or height x width as in 72x96."
            )
        if min(map(int, sides)) < 4:
            raise ValueError(f"{argument!r} is too small: give at least 4 pixels for each side.")
        return "x".join(dict.fromkeys(sides) if len(set(sides)) == 1 else sides)

    def flag_type(self):
        """For the flag's help."""
        return "size"


class LabelNoiseParser(flags.ArgumentParser):
    """Takes symmetric:0.3 and pairs:0.4, and none; the value is the text."""

    syntactic_help = "symmetric or pairs, a colon and a fraction"

    def parse(self, argument):
        """The text, or None.

        Raises:
            ValueError: for anything else.
        """
        if argument is None or str(argument).lower() == "none":
            return None
        kind, _, fraction = str(argument).partition(":")
        kinds = parameters.constant("mpl_tf.data.label_noise", "KINDS")
        if kind not in kinds or not fraction.replace(".", "", 1).isdecimal() or float(fraction) >= 1.0:
            raise ValueError(
                f"{argument!r} is no noise: give {' or '.join(kinds)}, a colon and the fraction of wrong labels, "
                "below 1, as in symmetric:0.3."
            )
        return argument

    def flag_type(self):
        """For the flag's help."""
        return "noise"


class StepsPerExecutionParser(flags.ArgumentParser):
    """Takes auto, and a number of at least 1."""

    syntactic_help = "auto, or a number of at least 1"

    def parse(self, argument):
        """The word or the number.

        Raises:
            ValueError: for anything else.
        """
        if argument == "auto" or (isinstance(argument, int) and argument >= 1):
            return argument
        if not str(argument).isdecimal() or not int(argument):
            raise ValueError(f"{argument!r} is no number of steps: give {self.syntactic_help}.")
        return int(argument)

    def flag_type(self):
        """For the flag's help."""
        return "steps"


def image_size(text: str | None) -> int | tuple[int, int] | None:
    """What `--image_size` says, as `data.load` takes it."""
    if text is None:
        return None
    sides = tuple(map(int, text.split("x")))
    return sides[0] if len(sides) == 1 else sides


def define_data_flags():
    """Which images, which of them are labeled, and how they are augmented."""
    flags.DEFINE_string(
        "dataset", "digits", "digits, two_moons, folders, or the name of a TensorFlow Datasets image set."
    )
    define_path("data_dir", None, "Folder of TensorFlow Datasets; its own default when not given.")
    define_path("labeled_dir", None, "For --dataset=folders: a folder of images per class.")
    define_path("unlabeled_dir", None, "For --dataset=folders: images, flat or nested.")
    define_path("test_dir", None, "For --dataset=folders: test images, a folder per class.")
    define_path(
        "trusted_dir", None,
        "For --dataset=folders: images whose labels somebody has checked, a folder per class; those of --labeled_dir "
        "are cheap ones then.",
    )  # fmt: skip
    flags.DEFINE(
        ImageSizeParser(), "image_size", None, "Height and width that images are resized to: 96, or 72x96.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "resize", None, parameters.constant("mpl_tf.data.images.upright", "RESIZES"),
        "For folders and TFDS, what becomes of other aspect ratios: the middle is kept, the default; both sides "
        "are fitted; or gray is added. An exported model does the same.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "interpolation", None, parameters.constant("mpl_tf.data.images.upright", "INTERPOLATIONS"),
        "For folders and TFDS, how images are resized; bilinear when not given.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "flip", "auto", ["auto", "true", "false"],
        "Whether a mirrored image keeps its label, so that views mirror half of them. Say false for texts, signs, "
        "arrows, and whatever has a left and a right; auto is true, but for digits, characters and signs of TFDS.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "channels", None, ["1", "3"], "For --dataset=folders: 1 is gray, 3 is RGB, the default."
    )
    flags.DEFINE_enum(
        "duplicates", None, parameters.constant("mpl_tf.data.images.folders", "DUPLICATES"),
        "For --dataset=folders: copies of images are left out, the default; those that look alike too, see "
        "--near_duplicates; or copies are counted and used.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "near_duplicates", None,
        "For --dataset=folders: also names images that look alike, whose perceptual hashes differ in so many of 64 "
        "bits; 4 finds the same photograph compressed anew.",
        lower_bound=0, upper_bound=16,
    )  # fmt: skip
    flags.DEFINE_bool("skip_unreadable", False, "Skip and count images that cannot be read, not stop.")
    flags.DEFINE_integer("labels", None, "Labeled images; all when not given.", lower_bound=1)
    flags.DEFINE_integer(
        "trusted", None,
        "Of the labeled images, how many count as trusted, drawn evenly from the classes; the others are cheap.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_enum(
        "cheap_labels", "use", parameters.constant("mpl_tf.data", "CHEAP_LABELS"),
        "Labels that are not trusted: learn from them too, or ignore them, so that their images are unlabeled.",
    )  # fmt: skip
    flags.DEFINE(
        LabelNoiseParser(), "label_noise", None,
        "For experiments, makes this fraction of the cheap labels wrong: symmetric:0.3 takes any other class, "
        "pairs:0.4 the next one. Trusted, validation and test labels stay right.",
        serializer=flags.ArgumentSerializer(),
    )  # fmt: skip
    flags.register_multi_flags_validator(
        ["trusted", "trusted_dir"],
        lambda values: values["trusted"] is None or values["trusted_dir"] is None,
        message="--trusted draws which labels are trusted, and --trusted_dir holds those that are: pass one of them.",
    )
    flags.register_multi_flags_validator(
        ["cheap_labels", "trusted", "trusted_dir"],
        lambda values: (
            values["cheap_labels"] == "use" or (values["trusted"] or values["trusted_dir"]) is not None
        ),
        message="--cheap_labels=ignore leaves the trusted labels alone: say which are by --trusted_dir or --trusted.",
    )
    flags.DEFINE_float("validation", 0.1, "Fraction of the training images held out.", 0.0, 0.9)
    flags.DEFINE_bool("labeled_in_unlabeled", True, "Whether labeled images are unlabeled ones too.")
    flags.DEFINE_enum(
        "balance", "none", parameters.constant("mpl_tf.data", "BALANCES"),
        "Labeled images are drawn all equally often; or, by sample, so that every class is; or, by weight, all "
        "equally often, and their losses weigh as much as their class is rare.",
    )  # fmt: skip
    flags.DEFINE_integer("seed", 0, "Of the split, the weights, the order and the augmentation.", 0, 2**29)
    flags.DEFINE_enum(
        "randaugment", "paper", ["paper", "keras_cv", "keras"],
        "Whose RandAugment makes the strong view. Those of the libraries keep a random state of their own: "
        "such runs resume, but not bit for bit.",
    )  # fmt: skip
    flags.DEFINE_enum(
        "augment_on", "host", ["host", "device"],
        "Whether the input pipeline makes the views, on the CPU, or the training step, on its device.",
    )  # fmt: skip
    flags.DEFINE_bool("randaugment_labeled", False, "Show labeled images by their strong view too.")
    flags.DEFINE_enum(
        "crop", "auto", parameters.constant("mpl_tf.data", "CROPS"),
        "A part of the image, resized; one of the padded image; or all of it. auto resizes from 64 pixels on.",
    )  # fmt: skip
    flags.DEFINE_float(
        "crop_area", parameters.default("mpl_tf.data", "RandomResizedCrop", "area"),
        "Smallest part that a resized crop leaves, of the image.", 1e-3, 1.0,
    )  # fmt: skip
    flags.DEFINE_string(
        "fill", "128",
        "Of pixels from outside and of Cutout: a level in 0…255, three of them (255,255,255), or auto for the color "
        "that the images have at their borders.",
    )  # fmt: skip
    flags.DEFINE_integer("randaugment_operations", 2, "N, operations per image.", lower_bound=0)
    flags.DEFINE_float("randaugment_magnitude", 16.0, "M, their magnitude.", 0.0, 30.0)
    flags.DEFINE_float("noise", 0.2, "Standard deviation of the strong view of points.", 0.0)


def define_training_flags():
    """The student, its optimizer, and how long it trains."""
    define_network_flags()
    define_finetuning_flags()
    flags.DEFINE_float("dropout", 0.0, "Dropout before the last layer of every network.", 0.0, 0.95)
    flags.DEFINE_float(
        "stochastic_depth", 0.0, "Of the last residual branch, in residual networks.", 0.0, 0.95
    )
    flags.DEFINE_integer("steps", 10_000, "Updates of the method.", lower_bound=1)
    define_minutes_flags()
    flags.DEFINE_integer("epoch_steps", None, "Updates per epoch; a twentieth of them when not given.", 1)
    flags.DEFINE_integer("batch_size", 64, "B, labeled images per update over all replicas.", 1)
    flags.DEFINE_enum(
        "select", "last", ["last", "best"],
        "The epoch whose weights each stage ends with: the last, or the best on the validation images.",
    )  # fmt: skip
    flags.DEFINE_float(
        "learning_rate", None,
        "Peak of the student's learning rate; when not given 0.05, and 3e-4 under weights from elsewhere.",
        0.0,
    )  # fmt: skip
    flags.DEFINE_enum(
        "schedule", "cosine", [*COSINES, "constant", "drops"],
        "Warm-up and cosine to zero; to a fifth, as cos(7π/16 t); none; or a tenth from 40 % and a hundredth from "
        "80 % of the steps on.",
    )  # fmt: skip
    flags.DEFINE_integer("warmup_steps", 0, "Linear warm-up of the learning rates.", lower_bound=0)
    require_cosine("warmup_steps")
    flags.DEFINE_string(
        "optimizer", None,
        f"Of Keras, by name: {', '.join(OPTIMIZERS)}; when not given sgd, and adamw under weights from elsewhere.",
    )  # fmt: skip
    flags.DEFINE_list("optimizer_options", [], "Its further arguments, as in beta_2=0.99,epsilon=1e-6.")
    flags.DEFINE_float(
        "decoupled_weight_decay", None, "Of the optimizer, on kernels; its own default when not given.", 0.0
    )
    flags.DEFINE_float("momentum", 0.9, "Nesterov momentum of SGD.", 0.0, 1.0)
    flags.register_multi_flags_validator(
        ["momentum", "optimizer"],
        lambda values: values["momentum"] == 0.9 or (values["optimizer"] or "sgd").lower() == "sgd",
        message="--momentum is that of SGD: give another optimizer's in --optimizer_options, as in momentum=0.8.",
    )
    flags.DEFINE_enum(
        "precision", "float32", ["float32", "mixed_bfloat16", "mixed_float16", "auto"],
        "Of the networks' arithmetic; float16 comes with a loss scale for every optimizer; auto is mixed_bfloat16 "
        "where the machine has instructions for it, else float32, and stays so when a run goes on elsewhere.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "student_micro_batches", 1,
        "Parts in which the student passes a batch, with the activations of one in memory at a time.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_bool(
        "rematerialize", False, "Compute activations again in the backward pass, not keep them."
    )
    flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "XLA; auto is on for GPUs and off for CPUs.")
    flags.DEFINE_enum(
        "strategy", "default", parameters.constant("mpl_tf.distribute", "STRATEGIES"),
        "One device; all of this machine; all of several machines, which TF_CONFIG names; or a TPU.",
    )  # fmt: skip
    flags.DEFINE(
        StepsPerExecutionParser(), "steps_per_execution", "auto",
        "Updates per call from Python, which have to divide --steps and --epoch_steps; auto makes several where "
        "networks are tiny and steps are many.",
    )  # fmt: skip


def define_minutes_flags(steps: str = "steps"):
    """How long the run may take, in place of how many steps it makes.

    Args:
        steps: the flag that says how many.
    """
    flags.DEFINE_float(
        "minutes", None,
        f"How long the run may take, in place of --{steps}: as many steps as fit, from the measured time of a step. "
        "The page and the export come on top.",
        1e-6,
    )  # fmt: skip
    flags.DEFINE_enum(
        "clock", "wall", ["wall", "cpu"],
        "What --minutes are of: the clock, or processor time of all cores together, which other processes on the "
        "machine do not lengthen.",
    )  # fmt: skip
    flags.register_multi_flags_validator(
        ["minutes", steps],
        lambda values: values["minutes"] is None or steps not in start.given(),
        message=f"--minutes says how long and --{steps} how many: pass one of them.",
    )
    flags.register_multi_flags_validator(
        ["clock", "minutes"],
        lambda values: values["clock"] == "wall" or values["minutes"] is not None,
        message="--clock says what --minutes are of, and none are given: pass --minutes, or leave it out.",
    )


def define_network_flags():
    """The student's network, and weights that it learned elsewhere."""
    flags.DEFINE_string(
        "model", "wrn-28-2",
        f"The student: {', '.join(NETWORKS)}; any wrn-DEPTH-WIDTH or mlp-WIDTHxDEPTH; a network of "
        "keras.applications, as resnet-50 or efficientnetv2-b0; FILE.keras, which gets a new head; or hub:PRESET.",
    )  # fmt: skip
    flags.DEFINE_string(
        "weights", "none", "Of networks of keras.applications: imagenet, none, or a file of their weights."
    )
    flags.DEFINE_string("features", None, "For --model=FILE.keras: the layer that the new head classifies.")
    define_path("feature_cache", None, "Folder for features, so that other runs need not compute them again.")
    flags.register_multi_flags_validator(
        ["features", "model"],
        lambda values: values["features"] is None or _names_a_file(values["model"]),
        message="--features names a layer of a network in a file: pass --model=FILE.keras, or leave it out.",
    )


def _names_a_file(model: str | None) -> bool:
    """Whether one of the run's networks is a .keras file."""
    others = [FLAGS[name].value for name in ("teacher_model", "models") if name in FLAGS]
    return any(".keras" in str(value) for value in (model, *others))


def define_finetuning_flags():
    """What fine-tuning leaves of weights that were learned elsewhere, and where it starts."""
    flags.DEFINE_string(
        "trainable", "all", "Which layers learn: all, head, or the name of the first that does."
    )
    flags.DEFINE_bool(
        "freeze_batch_norm",
        None,
        "Keep BatchNorm as it is; so it is under weights from elsewhere if not given.",
    )
    flags.DEFINE_enum(
        "head", "auto", ["auto", "probe", "random"],
        "How a new head starts: as a linear probe of the labeled images' features, which is auto under weights "
        "from elsewhere, or at random.",
    )  # fmt: skip
    flags.DEFINE_float(
        "backbone_learning_rate_factor", 1.0, "Of the learning rate of all layers but the head.", 0.0, 1.0
    )


class InitializeParser(PathParser):
    """Takes some words, of which "none" is no value, and the paths of .keras files.

    Args:
        words: that the flag takes.
    """

    def __init__(self, words: tuple[str, ...]):
        self._words = words
        self.syntactic_help = ", ".join(["none", *words, "or the path of a .keras file"])

    def parse(self, argument):
        """The word or the path, or None.

        Raises:
            ValueError: for anything else.
        """
        if argument is None or argument == "none":
            return None
        if argument not in self._words and not str(argument).endswith(".keras"):
            raise ValueError(f"{argument!r} is not among these: give {self.syntactic_help}.")
        return argument


def define_initialization_flags(*words: str):
    """Which weights the run's networks start from.

    Args:
        *words: that stand for networks of the run itself.
    """
    own = {
        "supervised": "supervised for the baseline, which the run then trains first",
        "teacher": "teacher for the one that has labeled for them",
    }
    file = "a .keras file, as runs leave it in networks/"
    described = "; ".join([*(own[word] for word in words), f"or {file}"]) if words else file
    define_path(
        "initialize", None, f"Whose weights the networks start from: {described}.", InitializeParser(words)
    )


def define_baseline_flags(*, optional: bool = False):
    """The supervised baseline that a run trains before its method, and what starts from it.

    Args:
        optional: whether it may be trained for the table alone.
    """
    define_initialization_flags("supervised")
    flags.DEFINE_integer(
        "supervised_steps",
        None,
        "Updates of the supervised baseline; those of the student when not given.",
        1,
    )
    if optional:
        flags.DEFINE_bool("baseline", False, "Also train the supervised baseline, for the table.")
    define_supervised_flags()
    asked = ["initialize", "baseline"] if optional else ["initialize"]
    flags.register_multi_flags_validator(
        ["supervised_steps", *asked],
        lambda values: (
            values["supervised_steps"] is None
            or values["initialize"] == "supervised"
            or bool(values.get("baseline"))
        ),
        message="--supervised_steps is how long the supervised baseline trains: pass --initialize=supervised"
        + (" or --baseline" if optional else "")
        + " too, or leave it out.",
    )


def define_serve_flag(*roles: str):
    """Which network is exported.

    Args:
        *roles: that the recipe's networks may have; each is asked for in the words of its flags.
    """
    flags.DEFINE_enum(
        "serve", "auto", ["auto", *roles],
        "The network that is exported: the best on the validation images, or the last in the method's order where "
        "these are too few to tell; or the one that is named.",
    )  # fmt: skip
    needed = [name for name in ("finetune_steps", "initialize", "baseline") if name in FLAGS]
    flags.register_multi_flags_validator(["serve", *needed], _is_trained, message=(
        "--serve names a network that this run does not train: pass --finetune_steps for finetuned, and "
        "--initialize=supervised (or --baseline, where there is one) for supervised, or leave --serve out."
    ))  # fmt: skip


def _is_trained(values: dict) -> bool:
    if values["serve"] == "finetuned":
        return values["finetune_steps"] > 0
    if values["serve"] == "supervised":
        return values["initialize"] == "supervised" or bool(values.get("baseline"))
    return True


def define_unlabeled_flags():
    """How many unlabeled images, and on how many of them their labels are measured."""
    flags.DEFINE_integer("unlabeled_ratio", 7, "μ, unlabeled images per labeled one.", lower_bound=1)
    flags.DEFINE_integer(
        "confirmation_images", 1000,
        "Unlabeled images on which each epoch's confirmation bias and classes are measured; 0 measures none.",
        lower_bound=0,
    )  # fmt: skip


def define_collapse_flag():
    """What is done about a student that the feedback to its teacher has led astray."""
    flags.DEFINE_enum(
        "on_collapse", "warn", parameters.constant("mpl_tf.runs.settings", "ON_COLLAPSE"),
        "When the student agrees with its teacher far less than before, as under a too strong feedback.",
    )  # fmt: skip


def define_supervised_flags():
    """Of the supervised baseline or teacher, where a method trains one beside its own."""
    parameters.MethodFlags("mpl_tf", "Supervised")


def define_alignment_flag():
    """How frequent the classes are among pseudo labels."""
    flags.DEFINE_enum(
        "distribution_alignment", "none", ["none", "labels", "uniform"],
        "Make pseudo labels as frequent as the classes are among the labeled images, or all alike.",
    )  # fmt: skip


def define_finetune_flags():
    """The fine-tuning of the finished student on the labeled images."""
    flags.DEFINE_integer("finetune_steps", 0, "Updates after the method; 0 leaves them out.", lower_bound=0)
    flags.DEFINE_integer("finetune_batch_size", 64, "Labeled images per such update.", lower_bound=1)
    flags.DEFINE_float("finetune_learning_rate", 1e-3, "Of the plain SGD that makes them.", 0.0)


def define_run_flags():
    """Where the run goes."""
    define_path("run_dir", None, "Folder that the run leaves; runs/<split>-<recipe> when not given.")
    define_path("export_dir", None, "Exports the network that is served as <export_dir>/<version>/.")
    flags.DEFINE_bool("resume", True, "Continue a run folder that holds this configuration.")
    define_progress_flag("training")
    flags.DEFINE_bool("tensorboard", True, "Write event files into <run_dir>/tensorboard.")
    flags.DEFINE_bool("report", True, "Draw <run_dir>/report.html at the end.")


def define_progress_flag(work: str):
    """What is printed during some work."""
    flags.DEFINE_enum("progress", "auto", ["auto", "bar", "line", "none"], f"What is printed while {work}.")
