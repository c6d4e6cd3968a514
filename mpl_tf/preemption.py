"""A machine that is taken away: SIGTERM ends a run between two steps, and the next start goes on from that step."""

import signal
import threading

import keras

from mpl_tf import workers
from mpl_tf.run_folder import RunFolder

# What a shell reports for a process that SIGTERM has ended.
EXIT_STATUS = 128 + signal.SIGTERM


class PreemptedError(RuntimeError):
    """A run was asked to end early, and has saved how far it is."""


class StopOnSigterm(keras.callbacks.Callback):
    """After a SIGTERM, saves a checkpoint at the end of the running step and raises `PreemptedError`.

    A context manager: inside the block the signal waits for the end of the step, or, after an epoch's last step, of
    its validation. Stands after `Record`, so that an epoch which has ended is recorded as always.

    Where several processes train together the signal is left alone, because they could not agree on a step to stop
    at: it ends this process at once, and all go on from the last epoch's checkpoint.

    Args:
        method: that is trained.
        folder: where the checkpoint goes.
    """

    def __init__(self, method: keras.Model, folder: RunFolder):
        super().__init__()
        self.method, self.folder, self.asked, self.previous = method, folder, False, None

    def __enter__(self):
        alone = workers.worker_count(self.method.distribute_strategy) == 1
        # Python hands signals to the main thread only.
        if alone and threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, error_type, error, traceback):
        if self.previous is not None:
            signal.signal(signal.SIGTERM, self.previous)
        if error is None:
            self._stop_if_asked()

    def _ask(self, number, frame):
        self.asked = True

    def on_train_batch_end(self, batch, logs=None):
        """Stops in the middle of an epoch."""
        if self.asked and batch + 1 < self.params["steps"]:
            self.folder.save_checkpoint(self.method)
            self._stop_if_asked()

    def on_epoch_end(self, epoch, logs=None):
        """Stops between two epochs."""
        self._stop_if_asked()

    def _stop_if_asked(self):
        if self.asked:
            step = int(self.method.step.numpy())
            raise PreemptedError(
                f"Stopped by SIGTERM at step {step}, which is saved in {self.folder.path}: start the same command "
                "again to go on from there."
            )


class ContinueEpoch(keras.callbacks.Callback):
    """Gives an epoch that was stopped in its middle its running means back, which `fit` sets to zero.

    Args:
        method: as the checkpoint has left it.
    """

    def __init__(self, method: keras.Model):
        super().__init__()
        self.variables = method.running_means()
        self.values = [variable.numpy() for variable in self.variables]

    def on_epoch_begin(self, epoch, logs=None):
        """Puts them back, once."""
        if self.values:
            for variable, value in zip(self.variables, self.values, strict=True):
                variable.assign(value)
        self.values = None
