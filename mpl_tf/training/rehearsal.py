"""Runs that train nothing: one times some steps of each stage, another one tries whether its stages can be built."""

import collections
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import models
from mpl_tf.data import pipeline
from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import workers
from mpl_tf.methods.base import Method
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training import loop
from mpl_tf.training.planning import StageTimes
from mpl_tf.training.run import Run, check_batch_size, role_of

# What minutes may be of: the clock on the wall, or the processor time of all threads of this process together, which
# other processes on the machine do not lengthen.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}

# Calls before the first that counts: the first traces, and a batch that was made meanwhile waits for the next one.
_WARM_UP_CALLS, _FEWEST_CALLS, _MOST_CALLS = 2, 3, 50
_EVALUATED_IMAGES = 128


class Rehearsal(Run):
    """Takes the place of a `Run` while a recipe goes through its stages, and times them.

    Every method is built, makes some steps that nothing keeps, and evaluates some images. A stage that has been timed
    is not built again: another rehearsal of the same stages only notes their settings.

    Args:
        data: images, split and views.
        folder: for what stages write; a temporary one of the caller's.
        strategy: as for `Run`.
        monitoring: as for `Run`.
        clock: returns seconds, see `CLOCKS`.
        limit: seconds of steps of a stage after which no more are timed.

    Attributes:
        times: stage → what was measured.
        settings: stage → how long it would train.
        labels_each_epoch: stage → images that its method labels after each epoch, beside those that are monitored.
        labels: stage → images that its network labels at its end.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        data: RunData,
        *,
        strategy: tf.distribute.Strategy | None = None,
        monitoring: Monitoring | None = None,
        clock: Callable[[], float] = time.perf_counter,
        limit: float = 5.0,
    ):
        super().__init__(folder, data, strategy=strategy, monitoring=monitoring)
        self.clock, self.limit = clock, limit
        # What a recipe adds to may have been there before.
        self.facts = collections.defaultdict(dict)
        self.times: dict[str, StageTimes] = {}
        self.settings: dict[str, StageSettings] = {}
        self.labels_each_epoch: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self._monitored: dict[str, int] = {}

    def train(
        self,
        stage: str,
        build: Callable[[], Method],
        settings: StageSettings,
        *,
        role: str | None = None,
        data: RunData | None = None,
    ) -> None:
        """Notes the settings of a stage, and times it where that has not been done; arguments as for `Run.train`.

        Args:
            stage: as for `Run.train`.
            build: as for `Run.train`.
            settings: as for `Run.train`.
            role: as for `Run.train`.
            data: as for `Run.train`.
        """
        self.settings[stage] = settings
        if stage in self.times:
            return
        check_batch_size(settings.batch_size, self.strategy)
        began = self.clock()
        with self.strategy.scope():
            method = build()
        built = self.clock() - began
        data = self.data if data is None else data
        times = measure(method, data, settings, clock=self.clock, limit=self.limit)
        self.times[stage] = dataclasses.replace(times, preparation=times.preparation + built)
        if settings.unlabeled_ratio:
            self._monitored[stage] = len(data.unlabeled_sample(self.monitoring.confirmation_images))
        self._take_networks(stage, method, role)

    def seconds_of(self, stage: str) -> float:
        """How long a stage would take, with what its network labels at its end."""
        seconds = self.times[stage].training(
            self.settings[stage],
            validation_images=len(self.data.split.validation),
            labeled_images=self._monitored.get(stage, 0) + self.labels_each_epoch.get(stage, 0),
        )
        return seconds + self.labels.get(stage, 0) * self.times[stage].inference

    def seconds_of_evaluation(self, *stages: str) -> float:
        """How long the evaluation of the networks at the end would take, of all stages or of some."""
        images = len(self.data.split.validation) + len(self.data.source.test or ())
        return images * sum(self.times[stage].evaluation for stage in stages or self.settings)


class Draft(Rehearsal):
    """Takes the place of a `Run` while a recipe goes through its stages, and builds those that follow the first.

    What is wrong with a later stage's method would otherwise be found when the stages before it have trained. The
    first one needs no draft, since it is built at once. Networks are tiny `stand_in`s, and nothing trains.

    Args:
        folder: that stages would write to; nothing is written.
        data: images, split and views.
        strategy: as for `Run`.
    """

    def train(
        self,
        stage: str,
        build: Callable[[], Method],
        settings: StageSettings,
        *,
        role: str | None = None,
        data: RunData | None = None,
    ) -> None:
        """Builds the method of a stage that is not the first; arguments as for `Run.train`.

        Args:
            stage: as for `Run.train`.
            build: as for `Run.train`.
            settings: as for `Run.train`.
            role: as for `Run.train`.
            data: as for `Run.train`.

        Raises:
            ValueError: for a method that cannot be built, or steps that it cannot make.
        """
        check_batch_size(settings.batch_size, self.strategy)
        is_first = not self.settings
        self.settings[stage] = settings
        if is_first:
            self.networks[role_of(stage, role)] = self.stand_in()
            return
        with self.strategy.scope():
            method = build()
        loop.check_steps(method, settings)
        self._take_networks(stage, method, role)

    def add_network(self, role: str, load: Callable[[], keras.Model]) -> None:
        """Takes a stand-in for a network that needs no training; arguments as for `Run.add_network`.

        Args:
            role: as for `Run.add_network`.
            load: as for `Run.add_network`; not called.
        """
        super().add_network(role, self.stand_in)

    def stand_in(self) -> keras.Model:
        """A network for the run's images and classes that costs nothing."""
        source = self.data.source
        with self.strategy.scope():
            images = keras.Input(source.image_shape, dtype="float32")
            corner = images if len(source.image_shape) == 1 else images[:, 0, 0]
            network = keras.Model(images, keras.layers.Dense(source.num_classes, dtype="float32")(corner))
        return models.set_class_names(network, source.class_names)


@dataclasses.dataclass(frozen=True)
class UniformTargets:
    """Soft labels that say nothing, in place of those that a run makes before a stage.

    Args:
        num_classes: K.
    """

    num_classes: int

    def fetch(self, index: tf.Tensor) -> tf.Tensor:
        """float32 `[n, K]` for int64 `[n]`."""
        return tf.fill([tf.shape(index)[0], self.num_classes], 1.0 / self.num_classes)


def measure(
    method: Method,
    data: RunData,
    settings: StageSettings,
    *,
    clock: Callable[[], float] = time.perf_counter,
    limit: float = 5.0,
) -> StageTimes:
    """Times steps, evaluation and a checkpoint of a compiled method, whose weights move meanwhile.

    Args:
        method: compiled, and of no further use.
        data: images, split and views.
        settings: the batches.
        clock: returns seconds.
        limit: seconds of steps after which no more are timed, once there are a few.

    Returns:
        The times; `preparation` is that of the first calls.
    """
    began = clock()
    ticks = _Ticks(clock, limit)
    fill_stored_labels(method)
    method.augmentation = data.augmentation(settings.seed) if method.uses_images else None

    method.fit(
        loop.training_batches(method, data, settings),
        steps_per_epoch=_MOST_CALLS * method.steps_per_execution,
        verbose=0,
        shuffle=False,
        callbacks=[ticks],
    )
    counted = ticks.times[_WARM_UP_CALLS - 1 :]
    call = (counted[-1] - counted[0]) / (len(counted) - 1)
    step = call / method.steps_per_execution
    preparation = max(0.0, counted[0] - began - _WARM_UP_CALLS * call)
    traced, evaluation = _time_evaluation(method, data, clock)
    before = clock()
    with tempfile.TemporaryDirectory() as folder:
        RunFolder(folder).save_checkpoint(method)
    return StageTimes(
        preparation=preparation + traced,
        step=step,
        evaluation=evaluation,
        inference=evaluation / len(method.evaluation_models()),
        checkpoint=clock() - before,
    )


def fill_stored_labels(method: Method) -> None:
    """Gives a method that stores labels some that say nothing, in place of those that a run makes before its steps.

    Args:
        method: any; of others nothing is changed.
    """
    if getattr(method, "stores_labels", False):
        shape = method.stored_labels.shape
        method.stored_labels.assign(np.full(shape, 1.0 / shape[-1], np.float32))


class _Ticks(keras.callbacks.Callback):
    """Notes the time after each call, and stops when enough have been made."""

    def __init__(self, clock, limit):
        super().__init__()
        self.clock, self.limit, self.times = clock, limit, []

    def on_train_batch_end(self, batch, logs=None):
        # Reading the counter waits for the device.
        np.asarray(self.model.step)
        self.times.append(self.clock())
        counted = self.times[_WARM_UP_CALLS - 1 :]
        if len(counted) > _FEWEST_CALLS and counted[-1] - counted[0] > self.limit:
            self.model.stop_training = True


def _time_evaluation(method, data, clock):
    """Seconds of the trace of an evaluation, and of an image in one."""
    known = data.split.validation if len(data.split.validation) else data.split.labeled
    batches = pipeline.evaluation_batches(data.source.train, known[:_EVALUATED_IMAGES])
    batches = workers.whole_dataset(method.distribute_strategy, batches)
    ends = [clock()]
    for _ in range(2):
        method.evaluate(batches, verbose=0)
        ends.append(clock())
    first, second = np.diff(ends)
    return max(0.0, float(first - second)), float(second) / min(_EVALUATED_IMAGES, len(known))
