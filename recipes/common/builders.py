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
from recipes.common.parameters import MethodFlags

FLAGS = flags.FLAGS


def network(name: str, data: RunData, *, seed: int, noise: bool = True) -> keras.Model:
    """A new network for the run's images, with dropout and stochastic depth if `noise`.

    Under weights that were learned elsewhere its head starts from a linear probe of the labeled images' features.
    """
    # Of two networks one may be of another kind, which has no such weights.
    named = {FLAGS.model, FLAGS["teacher_model"].value if "teacher_model" in FLAGS else None}
    others = named.intersection(models.pretrained_names()) - {name}
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
    if FLAGS.head == "probe" or (FLAGS.head == "auto" and models.is_pretrained(name, weights)):
        models.start_head(
            built, data.source.train, data.split.labeled, cache_dir=FLAGS.feature_cache, seed=FLAGS.seed
        )
    return built


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


def supervised(data: RunData, *, steps: int, model: str | None = None) -> Supervised:
    """The supervised method with the student's optimizer, averaging, regularization and, if not told, network."""
    method = Supervised(
        student=network(model or FLAGS.model, data, seed=FLAGS.seed),
        **MethodFlags("mpl_tf", "Supervised").values(),
    )
    method.compile(optimizer(FLAGS.learning_rate, steps=steps), **compile_options())
    return method


def class_prior(data: RunData) -> tuple[float, ...] | None:
    """The class frequencies that --distribution_alignment aligns pseudo labels to."""
    if FLAGS.distribution_alignment == "none":
        return None
    if FLAGS.distribution_alignment == "uniform":
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
