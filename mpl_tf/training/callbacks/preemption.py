"""A run that is asked to end: SIGTERM or Ctrl-C stop it between two steps, and the next start goes on from there."""

import os
import signal
import threading
from types import FrameType
from typing import Self

import keras
import numpy as np

from mpl_tf.distribute import workers
from mpl_tf.training.callbacks.monitors import Record

_SIGNALS = {signal.SIGTERM: "SIGTERM", signal.SIGINT: "Ctrl-C"}


class PreemptedError(RuntimeError):
    """A run was asked to end early, and has saved how far it is.

    Args:
        message: what was saved, and how to go on.
        number: of the signal.
    """

    def __init__(self, message: str, number: int = signal.SIGTERM):
        super().__init__(message)
        # What a shell reports for a process that the signal has ended.
        self.exit_status = 128 + number


class StopOnSignal(keras.callbacks.Callback):
    """After a SIGTERM or Ctrl-C, saves a checkpoint at the end of the running step and raises `PreemptedError`.

    A context manager: inside the block the signal waits for the end of the step, or, after an epoch's last step, of
    its validation. A second Ctrl-C does not wait. Stands after `Record`, so that an epoch which has ended is recorded
    as always.

    Where several processes train together the signals are left alone, because they could not agree on a step to stop
    at: they end this process at once, and all go on from the last epoch's checkpoint.

    Args:
        method: that is trained.
        record: of its epochs, which saves the checkpoint.
    """

    def __init__(self, method: keras.Model, record: Record):
        super().__init__()
        self.method, self.record = method, record
        self.asked: signal.Signals | None = None
        self.previous: dict = {}

    def __enter__(self) -> Self:
        alone = workers.worker_count(self.method.distribute_strategy) == 1
        # Python hands signals to the main thread only.
        if alone and threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, error_type: object, error: object, traceback: object) -> None:
        self._leave_signals_alone()
        if error is None:
            self._stop_if_asked()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, self.previous[number])
            # Not print, which must not be entered again from a signal that came in the middle of one.
            os.write(2, b"\nStopping at the end of this step; press Ctrl-C again to stop at once.\n")

    def _leave_signals_alone(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Stops in the middle of an epoch."""
        if self.asked and batch + 1 < self.params["steps"]:
            self.record.save_unfinished()
            self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops between two epochs."""
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.asked:
            step, path = int(self.method.step.numpy()), self.record.folder.path
            raise PreemptedError(
                f"Stopped by {_SIGNALS[self.asked]} at step {step}, which is saved in {path}: start the same command "
                "again to go on from there.",
                self.asked,
            )


class ContinueEpoch(keras.callbacks.Callback):
    """Gives an epoch that was stopped in its middle its running means back, which `fit` sets to zero.

    Args:
        method: as the checkpoint has left it.
    """

    def __init__(self, method: keras.Model):
        super().__init__()
        self.variables = method.running_means()
        self.values: list[np.ndarray] | None = [variable.numpy() for variable in self.variables]

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Puts them back, once."""
        if self.values:
            for variable, value in zip(self.variables, self.values, strict=True):
                variable.assign(value)
        self.values = None
