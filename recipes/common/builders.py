"""From the shared flags to what methods are made of: networks, optimizers, and their options."""

import keras
from absl import flags

from mpl_tf import models, schedules
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.supervised import Supervised
from recipes.common.parameters import MethodFlags

FLAGS = flags.FLAGS


def network(name: str, data: RunData, *, seed: int, noise: bool = True) -> keras.Model:
    """A freshly initialized network for the run's images, with dropout and stochastic depth if `noise`."""
    return models.build(
        name,
        data.source.num_classes,
        data.source.image_shape,
        dropout=FLAGS.dropout if noise else 0.0,
        stochastic_depth=FLAGS.stochastic_depth if noise else 0.0,
        synchronized=FLAGS.strategy != "default",
        seed=seed,
    )


def optimizer(peak: float, *, steps: int, wait: int = 0) -> keras.optimizers.Optimizer:
    """SGD with Nesterov momentum under the run's schedule."""
    rate = learning_rate(peak, steps=steps, wait=wait)
    return keras.optimizers.SGD(rate, momentum=FLAGS.momentum, nesterov=FLAGS.momentum > 0)


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
    }


def jit_compile() -> bool | str:
    """What `compile` takes for --jit."""
    return {"auto": "auto", "on": True, "off": False}[FLAGS.jit]
