"""What happens between steps and epochs of a run: checks, records, checkpoints."""

import math
import time
import warnings

import keras

from mpl_tf.run_folder import RunFolder


class NonFiniteLossError(ArithmeticError):
    """Training produced a loss that is not a number."""


class StopOnNonFinite(keras.callbacks.Callback):
    """Stops with an error when a loss is no longer finite, before a checkpoint could be written.

    Args:
        folder: whose last checkpoint the error names.
        every: steps between looks; each look waits for the device.
    """

    def __init__(self, folder: RunFolder, every: int = 20):
        super().__init__()
        self.folder, self.every = folder, every

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the running means every few steps."""
        if batch % self.every == self.every - 1:
            self._check(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Looks before the epoch is recorded and saved."""
        self._check(logs)

    def _check(self, logs):
        values = {name: float(value) for name, value in (logs or {}).items() if not name.startswith("val_")}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if not bad:
            return
        checkpoints = self.folder.checkpoints()
        last = (
            f"the last good checkpoint is {checkpoints[-1]}"
            if checkpoints
            else "no checkpoint was written yet"
        )
        raise NonFiniteLossError(
            f"Training stopped at step {int(self.model.step)}, where {', '.join(sorted(bad))} became "
            f"{next(iter(bad.values()))}; {last}. Try a lower learning rate, gradient_clip_norm, or float32."
        )


class Record(keras.callbacks.Callback):
    """Appends each epoch to history.csv and then saves a checkpoint, in this order.

    Killed between the two, the run forgets the row when it resumes, and both are written again.

    Args:
        folder: where to.
    """

    def __init__(self, folder: RunFolder):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Writes the row and the checkpoint."""
        step = int(self.model.step)
        row = {"epoch": epoch, "step": step, "seconds": round(time.perf_counter() - self.began, 3)}
        row.update({name: f"{float(value):.6g}" for name, value in (logs or {}).items()})
        self.folder.write_history([*self.folder.read_history(until_step=step - 1), row])
        self.folder.save_checkpoint(self.model)


class WarnOnSilentMask(keras.callbacks.Callback):
    """Warns, once, when hardly any unlabeled picture has counted for some epochs on end.

    Args:
        share: mask rate below which the consistency loss counts as silent.
        patience: epochs on end.
    """

    def __init__(self, share: float = 0.01, patience: int = 3):
        super().__init__()
        self.share, self.patience, self.silent = share, patience, 0

    def on_epoch_end(self, epoch, logs=None):
        """Counts the epochs."""
        rate = float((logs or {}).get("mask_rate", 1.0))
        self.silent = self.silent + 1 if rate < self.share else 0
        if self.silent == self.patience:
            warnings.warn(
                f"For {self.patience} epochs only {rate:.1%} of the unlabeled pictures were predicted confidently "
                "enough to count, so the consistency loss does nothing: lower the threshold, or train longer on "
                "the labels first.",
                stacklevel=2,
            )
