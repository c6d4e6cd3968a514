from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.inference import labeling
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder
from mpl_tf.training import run as run_module
from mpl_tf.training import self_training
from mpl_tf.training.callbacks import monitors
from mpl_tf.training.run import Run
from tests.support.runs import QUIET, KilledError, eager_finetuning, network, run_data, stage, weights

# Some labels are below it and some are not.
THRESHOLD = 0.6


def build_teacher():
    method = Supervised(student=network(1))
    method.compile(keras.optimizers.SGD(0.3, momentum=0.9), run_eagerly=True)
    return method


def build_student(number, teacher):
    method = NoisyStudent(student=network(10 + number), ema_decay=0.9)
    method.compile(keras.optimizers.SGD(0.05, momentum=0.9), run_eagerly=True)
    return method


def rounds(**changes):
    return self_training.Rounds(
        **({"rounds": 2, "teacher_steps": 20, "threshold": THRESHOLD, "label_batch_size": 32} | changes)
    )


def run(folder, *, rounds_=None):
    with Run(folder, run_data(), monitoring=QUIET) as opened:
        options = stage(steps=6, epoch_steps=3)
        self_training.train_rounds(opened, build_teacher, build_student, options, rounds_ or rounds())
        with mock.patch.object(run_module, "finetuning", eager_finetuning):
            opened.finetune(steps=3, batch_size=4)
        return opened.finish(report=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noisy") / "run"
    return folder, run(folder)


def saved(folder, stage):
    return keras.saving.load_model(folder / stage / "networks" / "student.keras", compile=False)


def stored(folder, number):
    return LabelStore.open(folder / f"round_{number}" / "labels")


def test_a_run_leaves_every_teacher_and_every_store(finished):
    folder, metrics = finished
    assert list(metrics["test"]) == ["teacher", "round_1", "student", "finetuned"]
    assert [facts["labeled_by"] for facts in metrics["rounds"]] == ["teacher", "round_1"]
    assert metrics["steps"] == 12
    # Two students' steps of 6 labeled and 12 unlabeled images, and 20 of the teacher's.
    assert metrics["images"] == 12 * 18 + 20 * 6
    for number in (1, 2):
        assert (folder / f"round_{number}" / "labels.png").stat().st_size > 0
        assert (folder / f"round_{number}" / "curves.png").stat().st_size > 0


@pytest.mark.parametrize(("number", "teacher"), [(1, "teacher"), (2, "round_1")])
def test_each_round_is_labeled_by_the_network_before_it_without_noise(finished, number, teacher):
    folder, _ = finished
    data, store = run_data(), stored(folder, number)
    images = tf.cast(data.source.train.fetch(tf.constant(store.index)), tf.float32)
    predicted = tf.nn.softmax(saved(folder, teacher)(images, training=False))
    assert np.array_equal(store.index, data.split.unlabeled)
    assert np.allclose(store.probabilities(), predicted, atol=1e-6)
    assert store.teacher["network"] == teacher
    assert store.teacher["weights_sha256"] == self_training.weights_fingerprint(saved(folder, teacher))


def test_what_is_written_about_a_round_is_true(finished):
    folder, metrics = finished
    data, store, facts = run_data(), stored(folder, 1), metrics["rounds"][0]
    probabilities = np.asarray(store.probabilities())
    confident = probabilities.max(axis=1) >= THRESHOLD
    assert facts["images"] == len(data.split.unlabeled)
    assert facts["confident"] == confident.sum()
    assert 0 < confident.sum() < len(confident)
    classes = probabilities.argmax(axis=1)
    counts = np.bincount(classes[confident], minlength=3)
    per_class = round(counts[counts > 0].mean())
    assert facts["drawn_from"] == per_class * (counts > 0).sum()
    chosen = []
    for label in range(3):
        mine = np.flatnonzero(confident & (classes == label))
        mine = mine[np.argsort(-probabilities[mine, label], kind="stable")]
        chosen += [mine[i % len(mine)] for i in range(per_class)] if len(mine) else []
    truth = data.source.train.labels[store.index]
    wrong = np.mean([classes[row] != truth[row] for row in chosen])
    assert facts["wrong_fraction"] == pytest.approx(wrong)
    assert facts["different_images"] == len(set(chosen))


def test_the_student_draws_confident_images_with_their_stored_labels(finished, tmp_path):
    folder, _ = finished
    data, store = run_data(), stored(folder, 1)
    own, _ = self_training._select(store, data, rounds(), RunFolder(tmp_path))
    batches = own.batches(batch_size=6, unlabeled_ratio=2, seed=0, start=0)
    row_of = {image: row for row, image in enumerate(store.index)}
    for batch in batches.take(5):
        rows = [row_of[int(image)] for image in batch["unlabeled"]["index"]]
        assert (store.confidence()[rows] >= THRESHOLD).all()
        assert np.array_equal(batch["unlabeled"]["probabilities"], store.probabilities()[rows])


@pytest.mark.usefixtures("undrawn")
def test_a_teacher_that_the_run_is_given_labels_and_is_not_trained(finished, tmp_path):
    whole, _ = finished
    with Run(tmp_path / "run", run_data(), monitoring=QUIET) as opened:
        opened.add_network("teacher", lambda: saved(whole, "teacher"))
        options = stage(steps=2, epoch_steps=2)
        never = mock.Mock(side_effect=AssertionError)
        self_training.train_rounds(opened, never, build_student, options, rounds(rounds=1))
        metrics = opened.finish(report=False)
    assert np.array_equal(
        stored(tmp_path / "run", 1).probabilities(), np.asarray(stored(whole, 1).probabilities())
    )
    assert list(metrics["seconds"]) == ["round_1"]
    assert list(metrics["test"]) == ["teacher", "student"]
    # Two steps of 6 labeled and 12 unlabeled images.
    assert metrics["images"] == 2 * 18
    assert metrics["served"]["role"] == "student"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("moment", ["labeling", "training"])
def test_killed_in_round_2_a_run_ends_with_the_same_weights(finished, tmp_path, monkeypatch, moment):
    whole, expected = finished
    with monkeypatch.context() as patch:
        if moment == "labeling":
            label = labeling.label

            def killed_in_the_second(*arguments, **options):
                if (tmp_path / "run" / "round_2").exists():
                    raise KilledError
                return label(*arguments, **options)

            patch.setattr(labeling, "label", killed_in_the_second)
        else:
            record = monitors.Record.on_epoch_end

            def killed_after_the_first_epoch(self, epoch, logs=None):
                record(self, epoch, logs)
                if self.folder.path.name == "round_2":
                    raise KilledError

            patch.setattr(monitors.Record, "on_epoch_end", killed_after_the_first_epoch)
        with pytest.raises(KilledError):
            run(tmp_path / "run")
    made = list((tmp_path / "run").rglob("shard_*.npy"))
    times = [path.stat().st_mtime_ns for path in made]
    metrics = run(tmp_path / "run")
    assert [path.stat().st_mtime_ns for path in made] == times
    assert metrics["rounds"] == expected["rounds"]
    for role in ("teacher", "round_1", "student", "finetuned"):
        pairs = zip(
            *(weights(f / "networks" / f"{role}.keras") for f in (whole, tmp_path / "run")), strict=True
        )
        assert all(np.array_equal(*pair) for pair in pairs), role


def test_a_threshold_that_nothing_reaches_is_refused(tmp_path):
    with pytest.raises(ValueError, match="threshold=1 keeps none of"):
        run(tmp_path, rounds_=rounds(threshold=1.0, rounds=1, teacher_steps=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rounds": 0}, "rounds=0 is out"),
        ({"threshold": 2.0}, "threshold=2.0 is out"),
        ({"per_class": 0}, "per_class=0"),
    ],
)
def test_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        rounds(**change)
