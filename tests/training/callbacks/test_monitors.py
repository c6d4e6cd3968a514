import types
import warnings

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.runs.folder import RunFolder
from mpl_tf.training.callbacks import monitors


def test_a_mask_that_stays_silent_warns_once_with_the_remedy():
    callback = monitors.WarnOnEmptyMask(patience=2)
    callback.set_model(types.SimpleNamespace(uda_weight=8.0))
    callback.on_epoch_end(0, {"mask_rate": 0.001})
    with pytest.warns(UserWarning, match=r"only 0\.4% of the unlabeled images .* lower the threshold"):
        callback.on_epoch_end(1, {"mask_rate": 0.004})
    with warnings.catch_warnings(record=True, action="always") as caught:
        callback.on_epoch_end(2, {"mask_rate": 0.0})
    assert not caught


@pytest.mark.parametrize("weight", monitors.WarnOnEmptyMask.WEIGHTS)
def test_a_mask_over_a_loss_that_is_switched_off_does_not_warn(weight):
    callback = monitors.WarnOnEmptyMask(patience=1)
    callback.set_model(types.SimpleNamespace(**{weight: 0.0}))
    with warnings.catch_warnings(record=True, action="always") as caught:
        callback.on_epoch_end(0, {"mask_rate": 0.0})
    assert not caught


# It rises, falls for a moment, and stays a little lower than at its best.
HARMLESS = (0.1, 0.9, 0.5, 0.8, 0.65, 0.7, 0.4)


def test_a_student_that_falls_behind_its_teacher_warns_once():
    callback = monitors.WarnOnDisagreement(patience=2)
    with warnings.catch_warnings(record=True, action="always") as caught:
        for agreement in HARMLESS:
            callback.on_epoch_end(0, {"agreement": agreement, "loss": 1.0})
        callback.on_epoch_end(0, {"loss": 1.0})
    assert not caught
    with pytest.warns(UserWarning, match=r"on only 50% of the unlabeled images, after 90% before"):
        callback.on_epoch_end(0, {"agreement": 0.5})
    with warnings.catch_warnings(record=True, action="always") as caught:
        callback.on_epoch_end(0, {"agreement": 0.3})
    assert not caught


@pytest.mark.parametrize("saved", [True, False])
def test_a_student_that_falls_behind_its_teacher_may_stop_the_run_again_and_again(tmp_path, saved):
    folder = RunFolder(tmp_path)
    rows = [{"epoch": e, "step": e + 1, "agreement": value} for e, value in enumerate(HARMLESS)]
    folder.write_history([*rows, {"epoch": 7, "step": 8, "agreement": ""}])
    if saved:
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "step_000000008.weights.h5").touch()
    last = "the last checkpoint is .*step_000000008" if saved else "there is no checkpoint"
    # One that begins knows nothing of the epochs before.
    monitors.WarnOnDisagreement(stop=True).on_epoch_end(8, {"agreement": 0.5})
    for _ in range(2):
        callback = monitors.WarnOnDisagreement(stop=True, folder=folder)
        callback.set_model(types.SimpleNamespace(step=9))
        with pytest.raises(
            monitors.CollapseError, match=rf"on only 50%.* Training stopped at step 9; {last}"
        ):
            callback.on_epoch_end(8, {"agreement": 0.5})


def test_a_mask_that_speaks_now_and_then_does_not_warn():
    callback = monitors.WarnOnEmptyMask(patience=2)
    with warnings.catch_warnings(record=True, action="always") as caught:
        for rate in (0.0, 0.5, 0.0, 0.02, 0.0):
            callback.on_epoch_end(0, {"mask_rate": rate})
        callback.on_epoch_end(0, {"loss": 1.0})
    assert not caught
    assert callback.empty_epochs == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_stop_at_the_next_look(tmp_path, value):
    callback = monitors.StopOnNonFinite(RunFolder(tmp_path), every=5)
    callback.set_model(types.SimpleNamespace(step=12))
    callback.on_train_batch_end(3, {"loss": value})
    callback.on_train_batch_end(4, {"loss": 1.0, "val_loss": value})
    with pytest.raises(monitors.NonFiniteLossError, match=r"at step 12, where loss became .*no checkpoint"):
        callback.on_train_batch_end(9, {"loss": value})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_000000007.weights.h5").touch()
    with pytest.raises(monitors.NonFiniteLossError, match=r"last good checkpoint is .*step_000000007"):
        callback.on_epoch_end(0, {"loss": value})


def measured(rows, labels, **options):
    """What `ConfirmationBias` adds to the logs of a method that labels image i with row i."""
    rows = np.array(rows, np.float32)
    seen = []

    def label(images, index):
        tf.py_function(lambda shown: seen.extend(shown.numpy()[:, 0]), [images], [])
        return tf.gather(rows, index)

    examples = {"image": 10.0 * np.arange(len(rows))[:, None], "label": labels, "index": np.arange(len(rows))}
    batches = tf.data.Dataset.from_tensor_slices(examples).batch(2)
    callback = monitors.ConfirmationBias(batches, **options)
    callback.set_model(types.SimpleNamespace(pseudo_label=label))
    logs = {"loss": 1.0}
    callback.on_epoch_end(0, logs)
    assert seen == [10.0 * number for number in range(len(rows))]
    assert logs.pop("loss") == 1.0
    return logs


def test_confirmation_bias_is_the_share_of_wrong_labels_among_the_confident_ones():
    rows = [[0.96, 0.04, 0.0], [0.02, 0.98, 0.0], [0.95, 0.0, 0.05], [0.6, 0.4, 0.0], [0.0, 0.0, 1.0]]
    # Confident are all but the fourth; the first and the last of them are right. The fourth is wrong.
    logs = measured(rows, labels=[0, 2, 1, 1, 2])
    assert logs == {"confident_fraction": 4 / 5, "confirmation_bias": 2 / 4}
    assert measured(rows, labels=[0, 2, 1, 1, 2], threshold=0.5)["confirmation_bias"] == 3 / 5
    assert measured(rows, labels=[0, 1, 0, 1, 2])["confirmation_bias"] == 0.0


def test_confirmation_bias_is_left_out_where_no_label_is_confident():
    assert measured([[0.5, 0.5], [0.6, 0.4]], labels=[0, 0]) == {"confident_fraction": 0.0}
    # A row of zeros is no label, even where every confidence will do.
    assert measured([[0.0, 0.0], [0.3, 0.7]], labels=[1, 1], threshold=0.0) == {
        "confident_fraction": 0.5,
        "confirmation_bias": 0.0,
    }


def test_the_predicted_classes_are_recorded_once_for_each_step(tmp_path):
    rows = np.array(
        [[0.9, 0.1, 0.0], [0.0, 0.0, 1.0], [0.4, 0.6, 0.0], [0.0, 0.0, 0.0], [0.8, 0.1, 0.1]], np.float32
    )
    examples = {"image": np.zeros((5, 1), np.float32), "label": np.full(5, -1), "index": np.arange(5)}
    batches = tf.data.Dataset.from_tensor_slices(examples).batch(2)
    callback, logs = monitors.ConfirmationBias(batches, folder=RunFolder(tmp_path)), {}
    method = types.SimpleNamespace(pseudo_label=lambda images, index: tf.gather(rows, index), step=10)
    callback.set_model(method)
    callback.on_epoch_end(0, logs)
    # Nothing is known about what is right. The fourth image has no label, so it is of no class.
    assert logs == {"confident_fraction": 1 / 5}
    method.step = 20
    callback.on_epoch_end(1, {})
    # Killed and resumed from step 10, the run comes to step 20 once more, and before that to 15.
    for step in (15, 20):
        method.step = step
        callback.on_epoch_end(1, {})
    recorded = RunFolder(tmp_path).read_rows("pseudo_label_classes.csv")
    assert [row["step"] for row in recorded] == ["10", "15", "20"]
    assert recorded[0] == {"epoch": "0", "step": "10", "images": "4", "0": "0.5", "1": "0.25", "2": "0.25"}


def said_of_epochs(predictions, *, steps=6, count=40):
    """What is warned of when the labels of epoch i + 1, which ends at step i + 1, are the classes of entry i."""
    bias = types.SimpleNamespace(measured=None)
    callback = monitors.WarnOnOneClass(bias, steps, ["cat", "dog", "emu"])
    with warnings.catch_warnings(record=True, action="always") as caught:
        for epoch, classes in enumerate(predictions):
            found = np.resize(classes, count)
            unknown = np.full(count, -1)
            bias.measured = monitors.PseudoLabeled(np.arange(count), unknown, found, np.ones(count))
            callback.set_model(types.SimpleNamespace(step=epoch + 1))
            callback.on_epoch_end(epoch)
    return [str(warning.message) for warning in caught]


def test_labels_that_are_all_of_one_class_warn_once_in_the_second_half_of_a_stage():
    (said,) = said_of_epochs([[0, 1, 2]] * 3 + [[1]] * 3)
    assert "100% of the unlabeled images were labeled 'dog'" in said
    assert len(said_of_epochs([[1], [1], [0, 1], [2], [2], [2]], steps=0)) == 1
    # At the beginning networks know nothing, and one epoch may be chance.
    assert not said_of_epochs([[1]] * 3 + [[0, 1]] * 3)
    assert not said_of_epochs([[0, 1, 2]] * 3 + [[1], [0, 1], [1]])
    # Of a handful of images all may well be of one class.
    assert not said_of_epochs([[1]] * 6, count=5)


def test_the_end_of_an_epoch_reaches_the_method():
    handed = []
    callback = monitors.EndEpoch("images")
    callback.set_model(types.SimpleNamespace(end_epoch=handed.append))
    callback.on_epoch_end(3, {})
    assert handed == ["images"]


def test_cpu_seconds_are_those_of_the_training_steps_alone(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(now=100.0)
    monkeypatch.setattr(monitors.time, "process_time", lambda: clock.now)
    monkeypatch.setattr(RunFolder, "save_checkpoint", lambda self, method: None)
    folder = RunFolder(tmp_path)
    # Of a session before this one, from before the column was recorded.
    folder.write_history([{"epoch": 0, "step": 2, "seconds": 1.5}])
    record = monitors.Record(folder)
    record.set_model(types.SimpleNamespace(step=4))
    record.on_epoch_begin(1)
    for batch, seconds in enumerate((7.0, 0.25)):
        clock.now += seconds
        record.on_train_batch_end(batch)
    clock.now += 50.0  # The validation.
    record.on_epoch_end(1)
    assert [row["cpu_seconds"] for row in folder.read_history()] == ["", "7.25"]
    assert folder.recorded_sum("cpu_seconds") == 7.25
