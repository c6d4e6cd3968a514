"""From the shared flags to what methods are made of: networks, optimizers, and their options."""

import ast
from typing import Any

import keras
from absl import flags

from mpl_tf import models, schedules
from mpl_tf.data.images.source import Source
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.engine.optimizers import make_optimizer
from mpl_tf.methods.supervised import Supervised
from mpl_tf.training.rehearsal import Draft
from mpl_tf.training.run import Run
from recipes.common.parameters import MethodFlags

FLAGS = flags.FLAGS


def network(
    name: str, run: Run, *, seed: int, noise: bool = True, initial: keras.Model | None = None
) -> keras.Model:
    """A network for the run's images: warm-started as --initialize says, or new.

    Under weights that were learned elsewhere a new network's head starts from a linear probe of the labeled images'
    features.

    Args:
        name: as for `models.build`.
        run: open; `run.initial` is what its networks start from, if anything.
        seed: of the weights.
        noise: whether there are dropout and stochastic depth.
        initial: what this one starts from, in place of `run.initial`.
    """
    data, start = run.data, initial or run.initial
    is_draft = isinstance(run, Draft)
    if is_draft and network_names() == [name]:
        # The first stage builds it in a moment.
        return run.stand_in()
    # Of two networks one may be of another kind, which has no such weights.
    others = set(network_names()).intersection(models.pretrained_names()) - {name}
    weights = FLAGS.weights if name in models.pretrained_names() or not others else "none"
    built = bare_network(
        name,
        data,
        seed=seed,
        weights=weights,
        trainable=FLAGS.trainable,
        freeze_batch_norm=FLAGS.freeze_batch_norm,
        dropout=FLAGS.dropout if noise else 0.0,
        stochastic_depth=FLAGS.stochastic_depth if noise else 0.0,
        synchronized=FLAGS.strategy != "default",
    )
    if is_draft:
        return run.stand_in()
    if start is not None and (is_word(FLAGS.initialize) or not models.weights_difference(start, built)):
        return models.copy_weights(start, built)
    if FLAGS.head == "probe" or (FLAGS.head == "auto" and models.is_pretrained(name, weights)):
        models.start_head(
            built, data.source.train, data.split.labeled, cache_dir=FLAGS.feature_cache, seed=FLAGS.seed
        )
    return built


def is_word(initialize: str | None) -> bool:
    """Whether --initialize stands for a network of the run itself, and not for a file."""
    return initialize is not None and not initialize.endswith(".keras")


def load_initial(data: RunData) -> keras.Model | None:
    """The network of --initialize=FILE.keras, whose weights fit at least one of the run's; None for no file.

    Where they do not fit the others, a line says which these are.

    Raises:
        FileNotFoundError: for a file that is missing.
        ValueError: for a network of other classes or other weights than all of the run's.
    """
    file = FLAGS["initialize"].value if "initialize" in FLAGS else None
    if file is None or is_word(file):
        return None
    initial = load_network(file, data.source)
    differences = {
        name: models.weights_difference(initial, bare_network(name, data, seed=FLAGS.seed))
        for name in network_names()
    }
    for name, difference in differences.items():
        if difference and all(differences.values()):
            raise ValueError(
                f"--initialize={file} does not fit --model={name}, since {difference}: give the --model that the "
                "file was trained as, or a file of this one."
            )
        if difference:
            print(f"{name} does not start from --initialize={file}, which is another network: {difference}.")
    return initial


def network_names() -> list[str]:
    """The networks that the flags name, the student's first."""
    values = [FLAGS[flag].value for flag in ("model", "models", "teacher_model") if flag in FLAGS]
    names = [name for value in values if value for name in ([value] if isinstance(value, str) else value)]
    return list(dict.fromkeys(names))


def bare_network(name: str, data: RunData, **options: Any) -> keras.Model:
    """A new network for the run's images and classes, with a random head.

    Args:
        name: as for `models.build`.
        data: images and class names.
        **options: of `models.build`.
    """
    source = data.source
    return models.build(
        name,
        source.num_classes,
        source.image_shape,
        features=FLAGS.features if name.endswith(".keras") else None,
        class_names=source.class_names,
        **options,
    )


def load_network(path: str, source: Source) -> keras.Model:
    """A saved network for these images: of their classes, and used to how they are brought to one size."""
    return models.load(path, class_names=source.class_names, resizing=source.resizing)


def settle_optimizer() -> None:
    """Fills in --optimizer and --learning_rate where they are not given.

    What suits random weights destroys those that were learned elsewhere: docs/few_labels.md has what it costs.
    """
    if "optimizer" not in FLAGS:
        return
    name, rate = ("adamw", 3e-4) if models.is_pretrained(FLAGS.model, FLAGS.weights) else ("sgd", 0.05)
    if FLAGS.optimizer is None:
        FLAGS.optimizer = name
    FLAGS.optimizer = FLAGS.optimizer.lower()  # Keras' names are known in any case
    if FLAGS.learning_rate is None:
        FLAGS.learning_rate = rate


def optimizer(peak: float, *, steps: int, wait: int = 0) -> keras.optimizers.Optimizer:
    """The optimizer that the flags name, under the run's schedule; SGD has Nesterov momentum."""
    rate = learning_rate(peak, steps=steps, wait=wait)
    options = {"momentum": FLAGS.momentum, "nesterov": FLAGS.momentum > 0} if FLAGS.optimizer == "sgd" else {}
    decay = FLAGS.decoupled_weight_decay
    return make_optimizer(FLAGS.optimizer, rate, weight_decay=decay, **options | optimizer_options())


def optimizer_options() -> dict:
    """What --optimizer_options says, as Python values."""
    options = {}
    for text in FLAGS.optimizer_options:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--optimizer_options={text} is no name=value, as in beta_2=0.99,epsilon=1e-6.")
        try:
            options[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            options[name.strip()] = value.strip()
    return options


def learning_rate(peak: float, *, steps: int, wait: int = 0):
    """The run's schedule: a number, or a function of the step."""
    if FLAGS.schedule == "cosine":
        return schedules.WaitWarmupCosine(peak, steps=steps, warmup=FLAGS.warmup_steps, wait=wait)
    if FLAGS.schedule == "partial_cosine":
        return schedules.WaitWarmupPartialCosine(peak, steps=steps, warmup=FLAGS.warmup_steps, wait=wait)
    if FLAGS.schedule == "drops":
        boundaries = [round(0.4 * steps), round(0.8 * steps)]
        return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [peak, peak / 10, peak / 100])
    return peak


def supervised(run: Run, *, steps: int, model: str | None = None) -> Supervised:
    """The supervised method with the student's optimizer, averaging, regularization and, if not told, network."""
    method = Supervised(
        student=network(model or FLAGS.model, run, seed=FLAGS.seed),
        **MethodFlags("mpl_tf", "Supervised").values(),
    )
    method.compile(optimizer(FLAGS.learning_rate, steps=steps), **compile_options())
    return method


def class_prior(data: RunData, alignment: str | None = None) -> tuple[float, ...] | None:
    """The class frequencies that pseudo labels are aligned to.

    Args:
        data: with the labeled images.
        alignment: "none", "labels" or "uniform"; None for --distribution_alignment.
    """
    alignment = alignment or FLAGS.distribution_alignment
    if alignment == "none":
        return None
    if alignment == "uniform":
        return (1.0 / data.source.num_classes,) * data.source.num_classes
    counts = data.split.labels_per_class
    return tuple(counts[name] / sum(counts.values()) for name in data.source.class_names)


def compile_options(**micro_batches: int) -> dict:
    """What `compile` takes besides the optimizers.

    Args:
        **micro_batches: role → in how many micro-batches it is passed, for learners besides the student.
    """
    return {
        "jit_compile": jit_compile(),
        "steps_per_execution": FLAGS.steps_per_execution,
        "micro_batches": {"student": FLAGS.student_micro_batches, **micro_batches},
        "rematerialize": FLAGS.rematerialize,
        "backbone_learning_rate_factor": FLAGS.backbone_learning_rate_factor,
    }


def jit_compile() -> bool | str:
    """What `compile` takes for --jit."""
    return {"auto": "auto", "on": True, "off": False}[FLAGS.jit]
