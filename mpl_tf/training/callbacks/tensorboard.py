"""A run in TensorBoard: the numbers, the images and the pseudo labels of each epoch, over the steps.

runs/<name>/tensorboard/train/        losses and rates, views, pseudo labels
runs/<name>/tensorboard/validation/   accuracies, confusion
"""

import contextlib
import time

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.data import pipeline
from mpl_tf.data.run_data import RunData
from mpl_tf.models.heads import probabilities
from mpl_tf.report import plots
from mpl_tf.report.html.samples import sample
from mpl_tf.report.plots.style import shortened
from mpl_tf.runs.folder import RunFolder
from mpl_tf.training.callbacks.monitors import ConfirmationBias, PseudoLabeled
from mpl_tf.utils import files

# Of the time of a training, at most, for drawing; an epoch of a tiny network takes less than its images do.
FRACTION_OF_TIME = 0.1
_VIEWED, _MOST_CONFIDENT, _MOST_PREDICTED = 10, 12, 5000


class WriteSummaries(keras.callbacks.Callback):
    """Writes event files for TensorBoard at the end of each epoch; inside an epoch it does nothing.

    Under `train`: each metric, the learning rates, the `views` of the same few labeled and unlabeled images, drawn
    anew each time, and of the pseudo labels that `ConfirmationBias` has measured histograms
    (`pseudo_labels/confidence`, `pseudo_labels/classes`), the most confident ones as images
    (`pseudo_labels/most_confident`, red where wrong) and the most confident wrong ones
    (`pseudo_labels/most_confident_wrong`). Under `validation`: each metric and the inference model's
    `confusion`, on up to 5,000 images. Points come without images.

    Numbers and histograms are of every epoch. Images are of the first and the last one, and in between of as many
    as can be drawn in a tenth of the time.

    Stands after `ConfirmationBias` and before `Record`. What a killed run has written after its last checkpoint is
    forgotten when it goes on, as its rows of history.csv are, and written again.

    Args:
        folder: of the run or of one of its stages.
        data: `RunData` of the run.
        unlabeled: whether the method learns from unlabeled images, and their views are shown too.
        bias: that measures the pseudo labels; None for none.
    """

    def __init__(
        self, folder: RunFolder, data: RunData, *, unlabeled: bool, bias: ConfirmationBias | None = None
    ):
        super().__init__()
        self.data, self.bias = data, bias
        self.writers: dict[str, tf.summary.SummaryWriter] = {}
        self.path = folder.path / "tensorboard"
        self.has_images = len(data.source.image_shape) == 3
        self.labeled = sample(data.split.labeled, _VIEWED)
        self.unlabeled = sample(data.split.unlabeled, _VIEWED if unlabeled else 0)
        self.validation = sample(data.split.validation, _MOST_PREDICTED)
        self.next_drawing, self.undrawn_step = 0.0, -1

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the files, and compiles the student for this `fit`."""
        step = int(np.asarray(self.model.step))
        for name in ("train", "validation") if len(self.validation) else ("train",):
            _forget(self.path / name, after_step=step)
            self.writers[name] = tf.summary.create_file_writer(str(self.path / name))
        inference_model = self.model.inference_model
        self.classify = tf.function(
            lambda images: probabilities(inference_model, images), reduce_retracing=True
        )

    def on_train_end(self, logs: dict | None = None) -> None:
        """Draws the last epoch, and closes the files."""
        # A training that was stopped inside of an epoch is at another step.
        if self.undrawn_step == int(np.asarray(self.model.step)):
            self._draw(self.undrawn_step)
        for writer in self.writers.values():
            writer.close()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the numbers, and draws the images where it is time for them."""
        step, logs = int(np.asarray(self.model.step)), logs or {}
        with self.writers["train"].as_default(step):
            _write_scalars({name: value for name, value in logs.items() if not name.startswith("val_")})
            _write_scalars(self._learning_rates())
            if found := self._pseudo_labels():
                self._write_histograms(found)
        if "validation" in self.writers:
            with self.writers["validation"].as_default(step):
                measured = {name: value for name, value in logs.items() if name.startswith("val_")}
                _write_scalars({name.removeprefix("val_"): value for name, value in measured.items()})
        self.undrawn_step = step
        if time.perf_counter() >= self.next_drawing:
            self._draw(step)
        for writer in self.writers.values():
            writer.flush()

    def _draw(self, step):
        """Writes the images, and finds when the next ones may be drawn."""
        started = time.perf_counter()
        with self.writers["train"].as_default(step):
            if self.has_images and self.model.uses_images:
                _write_figure("views", plots.image_grid(self.views(step)))
            if self.has_images and (found := self._pseudo_labels()):
                self._write_strips(found)
        if "validation" in self.writers:
            with self.writers["validation"].as_default(step):
                self._write_confusion()
        ended = time.perf_counter()
        self.next_drawing, self.undrawn_step = ended + (ended - started) * (1 / FRACTION_OF_TIME - 1), -1

    def views(self, step: int) -> dict[str, np.ndarray]:
        """Caption → images: labeled ones as they are learned from, unlabeled ones and both of their views."""
        positions = tf.range(_VIEWED, dtype=tf.int64) + step * _VIEWED
        learned = self.data.labeled_view or self.data.weak
        drawn_at = {"seed": 0, "position": positions[: len(self.labeled)]}
        rows = {"labeled": learned(self._fetch(self.labeled), **drawn_at)}
        if len(self.unlabeled):
            drawn_at = {"seed": 1, "position": positions[: len(self.unlabeled)]}
            plain = self._fetch(self.unlabeled)
            weak = self.data.weak(plain, **drawn_at)
            rows |= {"unlabeled": plain, "weak view": weak, "strong view": self.data.strong(weak, **drawn_at)}
        return {caption: np.asarray(images) for caption, images in rows.items()}

    def _learning_rates(self):
        optimizers = {role: getattr(self.model, f"{role}_optimizer", None) for role in self.model.roles}
        return {f"{role}_learning_rate": found.learning_rate for role, found in optimizers.items() if found}

    def _pseudo_labels(self) -> PseudoLabeled | None:
        found = None if self.bias is None else self.bias.measured
        return found if found is not None and found.confidence.any() else None

    def _write_histograms(self, found: PseudoLabeled):
        labeled = np.flatnonzero(found.confidence)
        tf.summary.histogram("pseudo_labels/confidence", found.confidence[labeled])
        buckets = len(self.data.source.class_names)
        tf.summary.histogram("pseudo_labels/classes", found.prediction[labeled], buckets=buckets)

    def _write_strips(self, found: PseudoLabeled):
        labeled = np.flatnonzero(found.confidence)
        ordered = labeled[np.argsort(-found.confidence[labeled], kind="stable")]
        wrong = ordered[found.wrong[ordered]]
        known = (found.label[labeled] >= 0).any()
        truth = f"{len(wrong):,} of which are wrong (red)" if known else "of unknown truth"
        title = f"Most confident of {len(labeled):,} pseudo labels, {truth}"
        self._write_strip("most_confident", title, found, ordered)
        if len(wrong):
            title = f"Most confident of {len(wrong):,} wrong pseudo labels"
            self._write_strip("most_confident_wrong", title, found, wrong)

    def _write_strip(self, name, title, found, rows):
        names, rows = self.data.source.class_names, rows[:_MOST_CONFIDENT]
        captions = []
        for row in rows:
            predicted = shortened(names[found.prediction[row]], 13)
            truth = f", is {shortened(names[found.label[row]], 6)}" if found.wrong[row] else ""
            captions.append(f"{predicted}{truth}\n{found.confidence[row]:.1%}")
        images = np.asarray(self._fetch(found.index[rows]))
        strip = plots.image_strip(images, captions, found.wrong[rows], title=title)
        _write_figure(f"pseudo_labels/{name}", strip)

    def _write_confusion(self):
        train, names = self.data.source.train, self.data.source.class_names
        batches = pipeline.image_batches(train, self.validation)
        found = np.concatenate([np.argmax(self.classify(batch["image"]), axis=-1) for batch in batches])
        labels = np.asarray(train.labels)[self.validation]
        pairs = np.bincount(labels * len(names) + found, minlength=len(names) ** 2)
        right = f"{(found == labels).mean():.1%} of {len(labels):,} validation examples right"
        counts = pairs.reshape(len(names), len(names))
        _write_figure("confusion", plots.confusion(counts, names, title=right))

    def _fetch(self, index):
        return self.data.source.train.fetch(tf.constant(index, tf.int64))


def _write_scalars(values):
    for name, value in values.items():
        # Under a strategy a learning rate is a variable of all replicas, which has no float of its own.
        tf.summary.scalar(name, float(tf.convert_to_tensor(value)))


def _write_figure(tag, figure):
    tf.summary.image(tag, plots.to_pixels(figure)[tf.newaxis])


def _forget(folder, after_step):
    """Leaves out of the event files what a killed run wrote of later steps."""
    files.remove_unfinished(folder)
    for path in list(folder.glob("events.out.tfevents.*")):
        with files.replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
            for event in _events(path):
                if tf.compat.v1.Event.FromString(event).step <= after_step:
                    writer.write(event)


def _events(path):
    """The events in a file, up to where a kill has cut it off."""
    with contextlib.suppress(tf.errors.DataLossError):
        yield from tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
