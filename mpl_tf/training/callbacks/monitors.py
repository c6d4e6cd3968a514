"""What happens between steps and epochs of a run: checks, records, checkpoints."""

import dataclasses
import math
import time
import warnings
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.runs.folder import RunFolder


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

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks at the running means every few steps."""
        if batch % self.every == self.every - 1:
            self._check(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
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
            f"Training stopped at step {int(np.asarray(self.model.step))}, where {', '.join(sorted(bad))} became "
            f"{next(iter(bad.values()))}; {last}. Try a lower learning rate, global_clipnorm, or float32."
        )


class EndEpoch(keras.callbacks.Callback):
    """Lets a method do its work between two epochs, as Pseudo Labels that refresh their labels.

    Stands before `Record`, so that a checkpoint holds what the next epoch starts from.

    Args:
        unlabeled: each unlabeled image once and not augmented, `mpl_tf.data.image_batches`. Where several
            processes train together, this one's part of them is enough.
    """

    # By which a method knows, where its `fit` gets this one, that its `end_epoch` will be called.
    calls_end_epoch = True

    def __init__(self, unlabeled: tf.data.Dataset):
        super().__init__()
        self.unlabeled = unlabeled

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Hands the images over."""
        self.model.end_epoch(self.unlabeled)


@dataclasses.dataclass(frozen=True)
class PseudoLabeled:
    """What a method labels some unlabeled images with.

    Attributes:
        index: int64 `[n]`, their indices among the training images.
        label: int `[n]`, their classes, -1 where unknown; for judging the labels only.
        prediction: int64 `[n]`, the most likely class.
        confidence: float32 `[n]`, its probability; 0 for an image that has no label yet.
    """

    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray

    @property
    def given(self) -> np.ndarray:
        """The predictions for those that have a label."""
        return self.prediction[self.confidence > 0.0]

    @property
    def wrong(self) -> np.ndarray:
        """Bool `[n]`, whether a label is another than the class, as far as both are known."""
        return (self.label >= 0) & (self.confidence > 0.0) & (self.prediction != self.label)


class ConfirmationBias(keras.callbacks.Callback):
    """Adds to each epoch's logs how many of the labels that a method is confident of are wrong.

    `confident_fraction` is the fraction of the images whose label has at least the threshold's confidence;
    `confirmation_bias` the fraction of wrong labels among these (Arazo et al. 2020, arXiv 1908.02983), left out of an
    epoch in which no label is confident. The threshold is the same for every method, so that their curves compare.
    Stands before `Record` and after `EndEpoch`: it measures the labels that the next epoch learns from.

    With a folder, the fractions of the predicted classes go into `pseudo_label_classes.csv`: a row per epoch with the
    `step`, the number of `images` that have a label, and a column 0…K-1 per class.

    After each epoch, `measured` is the `PseudoLabeled` images of that epoch, for callbacks that stand after it.

    Args:
        batches: unlabeled images, at least one, not augmented, `{"image", "label", "index"}`, with the label -1
            where the class is unknown to us too. The classes are used for nothing else.
        threshold: in 0…1.
        folder: where the classes are recorded; None records none.
    """

    def __init__(self, batches: tf.data.Dataset, threshold: float = 0.95, folder: RunFolder | None = None):
        super().__init__()
        self.batches, self.threshold, self.folder = batches, threshold, folder
        self.measured: PseudoLabeled | None = None

    def set_model(self, model: keras.Model) -> None:
        """Compiles the method's labeling, for the epochs of one `fit`."""
        super().set_model(model)
        self.label = tf.function(model.pseudo_label, reduce_retracing=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Labels the images as the method would, and counts."""
        found, num_classes = self._label_all()
        # A row of zeros is an image without a label.
        chosen = (found.confidence >= self.threshold) & (found.confidence > 0.0)
        labeled = chosen & (found.label >= 0)
        if logs is not None:
            logs["confident_fraction"] = float(chosen.mean())
            if labeled.any():
                logs["confirmation_bias"] = float(found.wrong[labeled].mean())
        if self.folder is not None:
            self._record(self.folder, epoch, np.bincount(found.given, minlength=num_classes))
        self.measured = found

    def _label_all(self):
        """What the method says of each image, and the number of classes."""
        parts = []
        for batch in self.batches:
            found = np.asarray(self.label(batch["image"], batch["index"]))
            known = (np.asarray(batch[key]) for key in ("index", "label"))
            parts.append((*known, found.argmax(axis=-1), found.max(axis=-1)))
        return PseudoLabeled(*map(np.concatenate, zip(*parts, strict=True))), found.shape[-1]

    def _record(self, folder, epoch, predicted):
        """Appends to the rows before this step; a killed epoch's row, which is made again, is left out."""
        step, total = int(np.asarray(self.model.step)), int(predicted.sum())
        row = {"epoch": epoch, "step": step, "images": total}
        row |= {str(label): f"{part / max(1, total):.6g}" for label, part in enumerate(predicted)}
        name = "pseudo_label_classes.csv"
        folder.write_rows(name, [*folder.read_rows(name, until_step=step - 1), row])


class WarnOnOneClass(keras.callbacks.Callback):
    """Warns, once, when a method gives nearly all unlabeled images one label: it has collapsed onto a class.

    Stands after `ConfirmationBias`, whose images it looks at; of fewer than 20 all may well be of one class. In the
    first half of a stage networks may know nothing yet.

    Args:
        bias: which measures the labels.
        steps: of the stage.
        class_names: in the order of the labels.
        fraction: of the images, from which an epoch counts.
        patience: epochs on end.
    """

    FEWEST_IMAGES = 20

    def __init__(
        self,
        bias: ConfirmationBias,
        steps: int,
        class_names: Sequence[str],
        fraction: float = 0.98,
        patience: int = 2,
    ):
        super().__init__()
        self.bias, self.steps, self.class_names = bias, steps, class_names
        self.fraction, self.patience, self.epochs, self.warned = fraction, patience, 0, False

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Counts the epochs."""
        labels = self.bias.measured.given if self.bias.measured is not None else ()
        if len(labels) < self.FEWEST_IMAGES or 2 * int(np.asarray(self.model.step)) <= self.steps:
            return
        counts = np.bincount(labels)
        fraction = counts.max() / len(labels)
        self.epochs = self.epochs + 1 if fraction >= self.fraction else 0
        if self.epochs == self.patience and not self.warned:
            self.warned = True
            name = self.class_names[int(counts.argmax())]
            warnings.warn(
                f"For {self.patience} epochs {fraction:.0%} of the unlabeled images were labeled {name!r}: unless "
                "nearly all of them are of this class, the method has collapsed onto it. Train longer on the labels "
                "first, lower the learning rate or the weight of the unlabeled images, or raise the threshold.",
                stacklevel=2,
            )


class SelectBest(keras.callbacks.Callback):
    """Saves the weights of the epoch after which the network of inference is best on the validation images.

    Of equally good epochs the later one. Stands before `Record`, whose row gets the best epoch so far as
    `selected_epoch`.

    Args:
        folder: of the stage.
        step: that the method is at; what was selected after it is undone.
    """

    def __init__(self, folder: RunFolder, step: int):
        super().__init__()
        self.folder = folder
        selected = folder.read_selected(until_step=step)
        self.epoch = -1 if selected is None else selected.epoch
        self.accuracy = -1.0 if selected is None else selected.accuracy

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Saves the weights where they are the best."""
        logs = {} if logs is None else logs
        accuracy = float(logs["val_accuracy"])
        if accuracy >= self.accuracy:
            self.epoch, self.accuracy = epoch, accuracy
            step = int(np.asarray(self.model.step))
            self.folder.save_selected(self.model.inference_model, epoch=epoch, step=step, accuracy=accuracy)
        logs["selected_epoch"] = self.epoch


class Record(keras.callbacks.Callback):
    """Appends each epoch to history.csv and then saves a checkpoint, in this order.

    Killed between the two, the run forgets the row when it resumes, and both are written again. A row has the
    `seconds` of the epoch with its validation, and the `cpu_seconds` of its training steps alone: those of all
    threads of this process, which other processes on the machine do not lengthen. Those of an epoch that was stopped
    in its middle lie in `checkpoints/spent.csv`, a row per stop, and count when it goes on.

    Args:
        folder: where to.
        step: that the method is at.
    """

    SPENT = "checkpoints/spent.csv"

    def __init__(self, folder: RunFolder, step: int = 0):
        super().__init__()
        self.folder = folder
        rows = [row for row in folder.read_rows(self.SPENT) if int(row["step"]) == step]
        self.seconds, self.cpu_seconds = (
            sum(float(row[name]) for row in rows) for name in ("seconds", "cpu_seconds")
        )

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clocks, at what the epoch has taken before it was stopped."""
        self.began = time.perf_counter() - self.seconds
        self.cpu_ended = time.process_time()
        self.cpu_began = self.cpu_ended - self.cpu_seconds
        self.seconds = self.cpu_seconds = 0.0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Notes the end of what may be the last step, after which the validation begins."""
        self.cpu_ended = time.process_time()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the row and the checkpoint."""
        row = {"epoch": epoch, **self._spent()}
        row.update({name: f"{float(value):.6g}" for name, value in (logs or {}).items()})
        self.folder.write_history([*self.folder.read_history(until_step=row["step"] - 1), row])
        self.folder.save_checkpoint(self.model)

    def save_unfinished(self) -> None:
        """Writes a checkpoint in the middle of an epoch, and what this has taken so far."""
        row = self._spent()
        earlier = self.folder.read_rows(self.SPENT, until_step=row["step"] - 1)
        self.folder.write_rows(self.SPENT, [*earlier, row])
        self.folder.save_checkpoint(self.model)

    def _spent(self):
        return {
            "step": int(np.asarray(self.model.step)),
            "seconds": round(time.perf_counter() - self.began, 3),
            "cpu_seconds": round(self.cpu_ended - self.cpu_began, 3),
        }


class WarnOnEmptyMask(keras.callbacks.Callback):
    """Warns, once, when hardly any unlabeled image has counted for some epochs on end.

    A method whose loss on unlabeled images has the weight 0 is not warned of.

    Args:
        fraction: mask rate below which the consistency loss counts as absent.
        patience: epochs on end.
    """

    # The names that methods have for the factor on the loss of unlabeled images; None of them has a second one.
    WEIGHTS = ("uda_weight", "consistency_weight", "unlabeled_weight")

    def __init__(self, fraction: float = 0.01, patience: int = 3):
        super().__init__()
        self.fraction, self.patience, self.empty_epochs = fraction, patience, 0

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Counts the epochs."""
        weights = [getattr(self.model, name, 1.0) for name in self.WEIGHTS]
        rate = float((logs or {}).get("mask_rate", 1.0)) if all(weights) else 1.0
        self.empty_epochs = self.empty_epochs + 1 if rate < self.fraction else 0
        if self.empty_epochs == self.patience:
            warnings.warn(
                f"For {self.patience} epochs only {rate:.1%} of the unlabeled images were predicted confidently "
                "enough to count, so the consistency loss does nothing: lower the threshold, or train longer on "
                "the labels first.",
                stacklevel=2,
            )


class CollapseError(ArithmeticError):
    """The student has fallen far behind its own teacher."""


class WarnOnDisagreement(keras.callbacks.Callback):
    """Warns, once, or stops when student and teacher have drifted apart: the collapse of a too strong feedback.

    A teacher that is rewarded for moving its student, more than for being right, ends with labels that the student
    cannot follow, and the student falls far behind its own teacher. Stands before `Record`: the epoch at which it
    stops is neither recorded nor saved, so that the run can go on where it was, to be stopped again or, with a
    warning only, to its end.

    Args:
        fraction: of the best agreement so far, below which an epoch counts.
        patience: epochs on end.
        stop: whether to stop the training with an error.
        folder: whose history says how the epochs before went, and whose last checkpoint the error names; None for a
            training that begins.
    """

    def __init__(
        self,
        fraction: float = 0.7,
        patience: int = 2,
        *,
        stop: bool = False,
        folder: RunFolder | None = None,
    ):
        super().__init__()
        self.fraction, self.patience, self.stop, self.folder = fraction, patience, stop, folder
        self.best, self.apart = 0.0, 0
        for row in folder.read_history() if folder is not None else ():
            if row.get("agreement"):
                self._count(float(row["agreement"]))

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Compares the epoch's agreement with the best one.

        Raises:
            CollapseError: where it is to stop.
        """
        agreement = (logs or {}).get("agreement")
        if agreement is None:
            return
        self._count(float(agreement))
        said = (
            f"For {self.patience} epochs the student agreed with its teacher on only {agreement:.0%} of the "
            f"unlabeled images, after {self.best:.0%} before: the feedback pushes the teacher to labels that do not "
            "help. Lower feedback_weight, raise feedback_warmup_steps, or compare with feedback='none'."
        )
        if self.stop and self.apart >= self.patience:
            checkpoints = self.folder.checkpoints() if self.folder is not None else []
            last = f"the last checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint"
            step = int(np.asarray(self.model.step))
            raise CollapseError(f"{said} Training stopped at step {step}; {last}.")
        if self.apart == self.patience:
            warnings.warn(said, stacklevel=2)

    def _count(self, agreement: float) -> None:
        self.best = max(self.best, agreement)
        self.apart = self.apart + 1 if agreement < self.fraction * self.best else 0
