"""The training loop: a compiled method from its newest checkpoint to its last step, recorded at every epoch."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from mpl_tf.data import pipeline
from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import workers
from mpl_tf.methods.base import Method
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training.callbacks import generator_monitors, monitors, preemption, tensorboard


def fit(
    method: Method,
    data: RunData,
    settings: StageSettings,
    folder: RunFolder,
    monitoring: Monitoring | None = None,
    *,
    title: str | None = None,
) -> float:
    """Continues a compiled method from its newest checkpoint to `settings.steps`.

    SIGTERM, as a preempted machine gets, or Ctrl-C ends it after the running step, with a checkpoint of that step.

    Args:
        method: compiled.
        data: images, split and views.
        settings: how long, and on which batches.
        folder: of the stage.
        monitoring: what is shown and measured; None for the defaults.
        title: of what is trained, shown before the first epoch; None for none.

    Returns:
        Seconds of training in all starts of the run together, of what was not lost in between.

    Raises:
        ValueError: when the steps that the method makes per call from Python do not divide the stage's, or the best
            epoch is to be selected without validation images.
        preemption.PreemptedError: after one of them.
    """
    check_steps(method, settings)
    check_selection(settings.select, data)
    monitoring = Monitoring() if monitoring is None else monitoring
    method.augmentation = data.augmentation(settings.seed) if method.uses_images else None
    folder.restore_checkpoint(method)
    folder.write_history(folder.read_history(until_step=int(method.step.numpy())))
    record = monitors.Record(folder, int(method.step.numpy()))
    hooks = [*_hooks(method, data, settings, folder, monitoring), record]
    validation = workers.whole_dataset(method.distribute_strategy, data.validation())
    verbose = monitoring.verbose if folder.writes else 0
    if verbose and title is not None and int(method.step.numpy()) < settings.steps:
        # Stages follow one another, and each of them begins with Epoch 1.
        print(f"\n{title[:1].upper()}{title[1:]}, {settings.steps:,} steps:")
    with preemption.StopOnSignal(method, record) as stop:
        while (step := int(method.step.numpy())) < settings.steps:
            _fit_epochs(method, data, settings, step, validation, [*hooks, stop], verbose)
    if settings.select == "best":
        _load_best(method, folder)
    return folder.recorded_sum("seconds")


def check_steps(method: Method, settings: StageSettings) -> None:
    """Checks that the steps that a method makes per call from Python divide those of a stage.

    Args:
        method: compiled.
        settings: of the stage.

    Raises:
        ValueError: where they do not.
    """
    for name in ("steps", "epoch_steps"):
        if getattr(settings, name) % method.steps_per_execution:
            raise ValueError(
                f"{name}={getattr(settings, name)} is not a multiple of "
                f"steps_per_execution={method.steps_per_execution}: choose one that is."
            )


def check_selection(select: str, data: RunData) -> None:
    """Checks that there is something to select epochs by.

    Args:
        select: `"last"` or `"best"`.
        data: images and split.

    Raises:
        ValueError: for the best epoch without validation images.
    """
    if select == "best" and not len(data.split.validation):
        raise ValueError(
            f"select={select} compares epochs on validation images, of which {data.split.name} has none: hold some "
            "out with validation above 0, or select the last."
        )


def _load_best(method: Method, folder: RunFolder) -> None:
    """Gives the network of inference the weights of the best epoch; checkpoints keep those of the last."""
    # One process writes, and the others may be earlier here.
    workers.wait_for_all(method.distribute_strategy)
    selected = folder.read_selected(until_step=int(method.step.numpy()))
    if selected is None:
        raise ValueError(
            f"The weights of the best epoch are not in {str(folder.path / 'selected')!r}: put them back, or train "
            "again in another run_dir."
        )
    method.inference_model.set_weights(selected.weights)


def _fit_epochs(
    method: Method,
    data: RunData,
    settings: StageSettings,
    step: int,
    validation: tf.data.Dataset | None,
    hooks: list,
    verbose: int | str,
) -> None:
    """One call of Keras' fit: all whole epochs, or else a part of one, at the end of a stage or after a signal."""
    epoch, whole = step // settings.epoch_steps, settings.steps // settings.epoch_steps
    begun = step % settings.epoch_steps
    if begun:
        hooks = [preemption.ContinueEpoch(method), *hooks]
    steps = min(settings.epoch_steps - begun, settings.steps - step)
    with _one_step_per_call(method) if steps % method.steps_per_execution else contextlib.nullcontext():
        method.fit(
            training_batches(method, data, settings, start=step),
            initial_epoch=epoch,
            epochs=whole if steps == settings.epoch_steps else epoch + 1,
            steps_per_epoch=steps,
            validation_data=validation,
            callbacks=hooks,
            verbose=verbose,
            shuffle=False,
        )


@contextlib.contextmanager
def _one_step_per_call(method: Method) -> Iterator[None]:
    """For what is left of an epoch that was stopped when other calls were asked for, and Keras would go beyond."""
    names = ("steps_per_execution", "train_function", "test_function")
    before = [getattr(method, name) for name in names]
    for name, value in zip(names, (1, None, None), strict=True):
        setattr(method, name, value)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(method, name, value)


def training_batches(method: Method, data: RunData, settings: StageSettings, *, start: int = 0) -> Any:
    """What `fit` draws from: the batches of a stage from a step on, dealt out to the processes.

    Args:
        method: that learns from them.
        data: images, split and views.
        settings: how large they are, and the seed.
        start: the first step.
    """
    if method.uses_images:
        make_batches = functools.partial(
            data.batches,
            batch_size=settings.batch_size,
            unlabeled_ratio=settings.unlabeled_ratio,
            seed=settings.seed,
            start=start,
        )
    else:
        make_batches = functools.partial(pipeline.index_batches, settings.batch_size, start=start)
    return workers.distribute_batches(method.distribute_strategy, make_batches)


def _hooks(
    method: Method, data: RunData, settings: StageSettings, folder: RunFolder, monitoring: Monitoring
) -> Iterator[keras.callbacks.Callback]:
    """What happens at the end of each epoch, in this order, before it is recorded."""
    yield monitors.StopOnNonFinite(folder)
    yield monitors.WarnOnEmptyMask()
    if getattr(method, "feedback", None) is not None and method.feedback.estimator != "none":
        yield monitors.WarnOnDisagreement(stop=monitoring.on_collapse == "stop", folder=folder)
    if "generator" in method.roles:
        yield generator_monitors.WarnOnCollapse()
        yield generator_monitors.DrawGenerated(folder, data.source.class_names)
    bias = None
    if settings.unlabeled_ratio:
        strategy = method.distribute_strategy
        shard = workers.worker_index(strategy), workers.worker_count(strategy)
        yield monitors.EndEpoch(data.unlabeled(shard=shard))
        measured = data.unlabeled_sample(monitoring.confirmation_images)
        if len(measured):
            batches = pipeline.evaluation_batches(data.source.train, measured)
            yield (bias := monitors.ConfirmationBias(batches, folder=folder))
            yield monitors.WarnOnOneClass(bias, settings.steps, data.source.class_names)
    if settings.select == "best":
        yield monitors.SelectBest(folder, int(method.step.numpy()))
    if monitoring.tensorboard and folder.writes:
        yield tensorboard.WriteSummaries(folder, data, unlabeled=settings.unlabeled_ratio > 0, bias=bias)
