"""One run from pictures to metrics: train, fine-tune, evaluate once, export, leave everything in a folder."""

import dataclasses
import functools
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from mpl_tf import callbacks, distribute, generator_callbacks, models, preemption, tensorboard, workers
from mpl_tf.data import pipeline
from mpl_tf.finishing import finish, finished
from mpl_tf.methods.base import Method
from mpl_tf.methods.supervised import Supervised
from mpl_tf.run_folder import RunFolder
from mpl_tf.run_settings import RunData, RunSettings, make_strategy

__all__ = [
    "RunData",
    "RunFolder",
    "RunSettings",
    "finetune",
    "finetuning",
    "finish",
    "finished",
    "fit",
    "make_strategy",
    "run",
]


def run(
    build: Callable[..., Method],
    data: RunData,
    settings: RunSettings,
    *,
    build_baseline: Callable[[], Supervised] | None = None,
    build_teacher: Callable[[], Supervised] | None = None,
) -> dict:
    """Trains a method, or continues it, to the end, and leaves the run folder and the exported student.

    Args:
        build: makes the compiled method, from the teacher's network where `build_teacher` is given; called inside
            the strategy's scope.
        data: pictures, split and views.
        settings: how long, how large, where to.
        build_baseline: makes a compiled `Supervised` that is trained for `settings.baseline_steps` on the same
            labeled pictures under the same weak view, for the table.
        build_teacher: makes a `Supervised` that is trained in the same way for `settings.teacher_steps`, if any,
            before the method is built.

    Returns:
        What metrics.json holds.

    Raises:
        ValueError: for settings that do not fit the data or the strategy.
        workers.WorkerLostError: when another process that trains along has ended.
    """
    strategy = make_strategy(settings)
    folder = RunFolder(settings.run_dir, writes=workers.is_chief(strategy))
    with folder.locked(), workers.lost_workers_named(strategy):
        builders = build, build_baseline, build_teacher
        return finished(folder, data, settings) or _run(folder, strategy, data, settings, *builders)


def _run(folder, strategy, data, settings, build, build_baseline, build_teacher):
    networks, seconds = {}, {}

    def train_supervised(name, build_supervised, steps):
        with strategy.scope():
            supervised = build_supervised()
        if steps:
            plain = dataclasses.replace(settings, unlabeled_ratio=0, steps=steps)
            seconds[name] = fit(supervised, data, plain, folder.stage(name))
        networks[name] = supervised.served

    if settings.baseline_steps and build_baseline is not None:
        train_supervised("supervised", build_baseline, settings.baseline_steps)
    if build_teacher is not None:
        train_supervised("teacher", build_teacher, settings.teacher_steps)
        build = functools.partial(build, networks["teacher"])

    with strategy.scope():
        method = build()
    seconds["method"] = fit(method, data, settings, folder)
    networks.update({role: getattr(method, role) for role in method.classifiers if role != "student"})
    networks["student"] = method.served
    for role in set(method.roles) - set(method.classifiers):
        folder.save_network(role, getattr(method, role))

    if settings.finetune_steps:
        networks["finetuned"], seconds["finetune"] = finetune(method.served, data, settings, folder, strategy)

    pictures = settings.steps * settings.batch_size * (1 + settings.unlabeled_ratio)
    facts = {
        "method": type(method).__name__,
        "steps": int(method.step.numpy()),
        "seconds": seconds,
        "pictures": pictures,
    }
    networks = {role: distribute.local_copy(network, strategy) for role, network in networks.items()}
    if folder.writes:
        finish(folder, data, settings, networks, **facts)
    workers.wait_for_all(strategy)
    return folder.read_metrics()


def fit(method: Method, data: RunData, settings: RunSettings, folder: RunFolder) -> float:
    """Continues a compiled method from its newest checkpoint to `settings.steps`.

    A SIGTERM meanwhile, as a preempted machine gets, ends it after the running step, with a checkpoint of that step.

    Args:
        method: compiled.
        data: pictures, split and views.
        settings: of which the number of steps and the batch are read.
        folder: of the stage.

    Returns:
        Seconds of training in all sittings together, of what was not lost in between.

    Raises:
        ValueError: when the steps that the method makes per call from Python do not divide the run's.
        preemption.PreemptedError: after a SIGTERM.
    """
    for name in ("steps", "epoch_steps"):
        if getattr(settings, name) % method.steps_per_execution:
            raise ValueError(
                f"{name}={getattr(settings, name)} is not a multiple of "
                f"steps_per_execution={method.steps_per_execution}: choose one that is."
            )
    method.augmentation = data.augmentation(settings.seed) if method.takes_pictures else None
    folder.restore_checkpoint(method)
    folder.write_history(folder.read_history(until_step=int(method.step.numpy())))
    hooks = list(_hooks(method, data, settings, folder))
    validation = workers.whole_dataset(method.distribute_strategy, data.validation())
    with preemption.StopOnSigterm(method, folder) as stop:
        while (step := int(method.step.numpy())) < settings.steps:
            _fit_epochs(method, data, settings, folder, validation, [*hooks, stop], step)
    return sum(float(row["seconds"]) for row in folder.read_history())


def _fit_epochs(method, data, settings, folder, validation, hooks, step):
    """One call of Keras' fit: all whole epochs, or else a part of one, at the end of a run or after a SIGTERM."""
    epoch, whole = step // settings.epoch_steps, settings.steps // settings.epoch_steps
    begun = step % settings.epoch_steps
    if begun:
        hooks = [preemption.ContinueEpoch(method), *hooks]
    steps = min(settings.epoch_steps - begun, settings.steps - step)
    if method.takes_pictures:
        make_batches = functools.partial(
            data.batches,
            batch_size=settings.batch_size,
            unlabeled_ratio=settings.unlabeled_ratio,
            seed=settings.seed,
            start=step,
        )
    else:
        make_batches = functools.partial(pipeline.numbered_batches, settings.batch_size, start=step)
    method.fit(
        workers.dealt_batches(method.distribute_strategy, make_batches),
        initial_epoch=epoch,
        epochs=whole if steps == settings.epoch_steps else epoch + 1,
        steps_per_epoch=steps,
        validation_data=validation,
        callbacks=hooks,
        verbose=settings.verbose if folder.writes else 0,
        shuffle=False,
    )


def _hooks(method, data, settings, folder):
    """What happens at the end of each epoch, in this order."""
    yield callbacks.StopOnNonFinite(folder)
    yield callbacks.WarnOnSilentMask()
    if getattr(method, "feedback", None) is not None and method.feedback.estimator != "none":
        yield callbacks.WarnOnDisagreement()
    if "generator" in method.roles:
        yield generator_callbacks.WarnOnCollapse()
        yield generator_callbacks.DrawGenerated(folder, data.source.class_names)
    bias = None
    if settings.unlabeled_ratio:
        strategy = method.distribute_strategy
        share = workers.worker_index(strategy), workers.worker_count(strategy)
        yield callbacks.EndEpoch(data.unlabeled(share=share))
        measured = data.unlabeled_sample(settings.confirmation_pictures)
        if len(measured):
            batches = pipeline.evaluation_batches(data.source.train, measured)
            yield (bias := callbacks.ConfirmationBias(batches, folder=folder))
    if settings.tensorboard and folder.writes:
        yield tensorboard.WriteSummaries(folder, data, unlabeled=settings.unlabeled_ratio > 0, bias=bias)
    yield callbacks.Record(folder)


def finetuning(
    student: keras.Model, learning_rate: float, jit_compile: bool | str = "auto", **options
) -> Supervised:
    """A copy of a finished student, compiled to learn from the labeled pictures.

    Meta Pseudo Labels' student never saw a label; the paper gives it some SGD steps with a small learning rate
    at the end (section 3.2). The copy leaves the original as it was.

    Args:
        student: the network to start from.
        learning_rate: of plain SGD.
        jit_compile: True, False or `"auto"`.
        **options: of `models.to_finetune`: another resolution, frozen layers.

    Returns:
        A compiled `Supervised`.
    """
    method = Supervised(student=models.to_finetune(student, **options))
    method.compile(keras.optimizers.SGD(learning_rate), jit_compile=jit_compile)
    return method


def finetune(
    student: keras.Model,
    data: RunData,
    settings: RunSettings,
    folder: RunFolder,
    strategy: tf.distribute.Strategy,
) -> tuple[keras.Model, float]:
    """The stage in which a finished student learns from the labeled pictures.

    Args:
        student: the network to start from; it stays as it is.
        data: pictures, split and views.
        settings: of which those of the fine-tuning are read.
        folder: of the run; the stage goes into `finetune/`.
        strategy: that the student was made under.

    Returns:
        The fine-tuned network, and seconds of training.
    """
    with strategy.scope():
        method = finetuning(student, settings.finetune_learning_rate, settings.jit_compile)
    # Another seed: the fine-tuning's stream of augmented pictures is not the method's over again.
    own = dataclasses.replace(
        settings,
        steps=settings.finetune_steps,
        epoch_steps=math.ceil(settings.finetune_steps / 2),
        batch_size=settings.finetune_batch_size,
        unlabeled_ratio=0,
        seed=settings.seed + 1_000_003,
    )
    seconds = fit(method, data, own, folder.stage("finetune"))
    return method.served, seconds
