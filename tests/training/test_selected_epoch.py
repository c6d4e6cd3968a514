"""The best epoch by the validation images: kept through a kill, and what the run ends with."""

import dataclasses

import keras
import numpy as np
import pytest

from mpl_tf import evaluation
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training.run import Run
from tests.support import seeds
from tests.support.runs import run_data

pytestmark = pytest.mark.usefixtures("undrawn")

EPOCHS, QUIET = 8, Monitoring(verbose=0, tensorboard=False)


@pytest.fixture(scope="module")
def small_data():
    return run_data()


def build(ema_decay=None):
    """A linear classifier under a learning rate that throws it about."""
    seeds.set_random_seed(0)
    inputs = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    method = Supervised(student=keras.Model(inputs, keras.layers.Dense(3)(flat)), ema_decay=ema_decay)
    # Sixteen small steps cost less than a trace.
    method.compile(keras.optimizers.SGD(6.0), run_eagerly=True)
    return method


def train(folder, small_data, *, select="best", epochs=EPOCHS, ema_decay=None, finetune=0, finish=False):
    settings = StageSettings(steps=2 * epochs, epoch_steps=2, batch_size=3, select=select)
    with Run(folder, small_data, monitoring=QUIET) as run:
        run.train("method", lambda: build(ema_decay), settings)
        run.finetune(steps=finetune, batch_size=3, learning_rate=0.0)
        if finish:
            run.finish(report=False)
    return run


def weights(run, role="student"):
    return np.concatenate([weight.ravel() for weight in run.networks[role].get_weights()])


def best_epoch(run):
    accuracies = [float(row["val_accuracy"]) for row in run.folder.read_history()]
    # The later of equal ones.
    return max(range(len(accuracies)), key=lambda epoch: (accuracies[epoch], epoch)), accuracies


def test_the_run_ends_with_the_weights_of_its_best_epoch(small_data, tmp_path):
    last = train(tmp_path / "last", small_data, select="last")
    epoch, accuracies = best_epoch(last)
    assert epoch < EPOCHS - 1
    assert len(set(accuracies)) > 2
    best = train(tmp_path / "best", small_data, finetune=2, finish=True)
    short = train(tmp_path / "short", small_data, select="last", epochs=epoch + 1)
    np.testing.assert_array_equal(weights(best), weights(short))
    assert not np.array_equal(weights(best), weights(last))
    # Fine-tuning without a learning rate ends where it begins.
    np.testing.assert_array_equal(weights(best, "finetuned"), weights(best))
    metrics = best.folder.read_metrics()
    assert metrics["validation"]["student"]["accuracy"] == pytest.approx(accuracies[epoch], abs=1e-5)
    assert metrics["selected"]["method"] == {
        "epoch": epoch,
        "step": 2 * epoch + 2,
        "accuracy": pytest.approx(accuracies[epoch], abs=1e-5),
    }
    # The history says after each epoch which one was the best so far.
    rows = [int(row["selected_epoch"]) for row in best.folder.read_history()]
    assert rows == [
        max(range(n + 1), key=lambda epoch: (accuracies[epoch], epoch)) for n in range(len(accuracies))
    ]
    assert not last.selected
    assert len(list((best.folder.path / "selected").iterdir())) <= 2


def test_killed_between_the_selection_and_the_checkpoint_nothing_is_lost(small_data, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole", small_data, ema_decay=0.6)
    epoch, accuracies = best_epoch(whole)
    assert epoch < EPOCHS - 1
    # The averaged network's weights are those that count.
    found = evaluation.evaluate(whole.networks["student"], small_data.validation())["accuracy"]
    assert found == pytest.approx(accuracies[epoch], abs=1e-5)
    save = RunFolder.save_checkpoint

    def killed(folder, method):
        if int(method.step.numpy()) == 2 * epoch + 2:
            raise InterruptedError
        return save(folder, method)

    monkeypatch.setattr(RunFolder, "save_checkpoint", killed)
    with pytest.raises(InterruptedError):
        train(tmp_path / "killed", small_data, ema_decay=0.6)
    monkeypatch.undo()
    # What the epoch that is undone has left is not taken for what will be: here it claims to be perfect.
    folder = RunFolder(tmp_path / "killed")
    (undone,) = (folder.path / "selected").glob(f"step_{2 * epoch + 2:09d}.npz")
    with np.load(undone) as stored:
        values = {name: stored[name] for name in stored.files}
    np.savez(undone, **values | {"accuracy": 1.0, "0": values["0"] + 1.0})
    ended = train(tmp_path / "killed", small_data, ema_decay=0.6)
    np.testing.assert_array_equal(weights(ended), weights(whole))
    assert ended.selected == whole.selected


def test_a_stage_that_has_ended_is_read_back_with_its_best_weights(small_data, tmp_path):
    settings = StageSettings(steps=2 * EPOCHS, epoch_steps=2, batch_size=3, select="best")
    ends = []
    for _ in range(2):
        with Run(tmp_path, small_data, monitoring=QUIET) as run:
            run.train("supervised", build, settings)
            ends.append(run.networks["supervised"].get_weights())
    for first, second in zip(*ends, strict=True):
        np.testing.assert_array_equal(first, second)
    for file in (tmp_path / "supervised" / "selected").iterdir():
        file.unlink()
    with Run(tmp_path, small_data, monitoring=QUIET) as run, pytest.raises(ValueError, match="put them back"):
        run.train("supervised", build, settings)


def test_without_validation_images_the_best_is_refused_before_training(small_data, tmp_path):
    none = dataclasses.replace(small_data.split, validation=np.zeros(0, np.int64))
    data = dataclasses.replace(small_data, split=none)
    with pytest.raises(
        ValueError, match=r"select=best compares epochs on validation images, of which shades.* has none"
    ):
        train(tmp_path, data)
    assert not RunFolder(tmp_path).has_results()
    with pytest.raises(ValueError, match="select='first'"):
        StageSettings(steps=1, epoch_steps=1, batch_size=1, select="first")
