import os
import signal

import keras
import numpy as np
import pytest

from mpl_tf.runs.folder import RunFolder
from mpl_tf.utils import files
from tests.programs import forked


def test_claiming_twice_with_the_same_flags_is_resuming(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.verify_or_write_config({"steps": 10, "labels": None})
    folder.verify_or_write_config({"labels": None, "steps": 10})
    assert (tmp_path / "run" / "flags.txt").read_text() == "--steps=10\n"


def test_flags_that_name_a_file_by_bytes_that_are_no_text_are_read_as_they_were(tmp_path):
    folder, teacher = RunFolder(tmp_path), os.fsdecode(b"caf\xe9.keras")
    folder.verify_or_write_config({"teacher": teacher})
    assert folder.read_flags() == {"teacher": teacher}


def progress(folder, stage=""):
    """What a stage that has begun leaves."""
    path = folder.path / stage / "checkpoints"
    path.mkdir(parents=True, exist_ok=True)
    (path / "step_000000004.weights.h5").touch()


RESULTS = {
    "checkpoint": lambda folder: progress(folder),
    "checkpoint of a stage": lambda folder: progress(folder, "teacher"),
    "network": lambda folder: [(folder.path / "networks").mkdir(), (folder.path / "networks" / "a.keras").touch()],
    "labels": lambda folder: [
        (folder.path / "labels").mkdir(), (folder.path / "labels" / "shard_00000.npy").touch()
    ],
    "metrics": lambda folder: folder.write_metrics({}),
}  # fmt: skip


@pytest.mark.parametrize("leave", RESULTS.values(), ids=RESULTS)
def test_another_configuration_is_refused_and_named_where_anything_was_trained(tmp_path, leave):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"labels": 10, "seed": 1})
    leave(folder)
    with pytest.raises(ValueError, match=r"another configuration \(--labels=10 there, --labels=20 here\)"):
        folder.verify_or_write_config({"labels": 20, "seed": 1})
    assert (tmp_path / "flags.txt").read_text() == "--labels=10\n--seed=1\n"
    with pytest.raises(ValueError, match="already holds a run and resume is off"):
        folder.verify_or_write_config({"labels": 10, "seed": 1}, resume=False)


def test_a_run_that_is_older_than_a_flag_had_the_flags_default(tmp_path):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"labels": 10})
    progress(folder)
    newer = {"labels": 10, "select": "last", "serve": None}
    defaults = {"labels": 1, "select": "last", "serve": None}
    with pytest.raises(ValueError, match=r"\(--select=last there, --select=best here\)"):
        folder.verify_or_write_config(newer | {"select": "best"}, defaults=defaults)
    with pytest.raises(ValueError, match=r"\(--serve=teacher here\)"):
        folder.verify_or_write_config(newer | {"serve": "teacher"}, defaults=defaults)
    # And a flag that is there is not its default.
    with pytest.raises(ValueError, match=r"\(--labels=10 there, --labels=1 here\)"):
        folder.verify_or_write_config(newer | {"labels": 1}, defaults=defaults)
    folder.verify_or_write_config(newer, defaults=defaults)
    assert folder.read_flags() == {"labels": "10", "select": "last"}


def test_a_folder_in_which_nothing_was_trained_is_claimed_anew(tmp_path):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"labels": 10})
    (tmp_path / "split.json").write_text("{}")
    (tmp_path / "log.txt").touch()
    folder.verify_or_write_config({"labels": 20, "image_size": 8}, resume=False)
    assert folder.read_flags() == {"labels": "20", "image_size": "8"}
    assert not (tmp_path / "split.json").exists()
    (tmp_path / "split.json").write_text("{}")
    # Of images that may have changed since.
    folder.verify_or_write_config({"labels": 20, "image_size": 8})
    assert not (tmp_path / "split.json").exists()
    progress(folder)
    (tmp_path / "split.json").write_text("{}")
    folder.verify_or_write_config({"labels": 20, "image_size": 8})
    assert (tmp_path / "split.json").exists()


def test_a_run_is_given_more_steps_and_keeps_what_it_had_measured(tmp_path):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"steps": 10})
    progress(folder)
    progress(folder, "finetune")
    folder.write_metrics({"steps": 10})
    with pytest.raises(ValueError, match="another configuration"):
        folder.verify_or_write_config({"steps": 5})
    with pytest.raises(ValueError, match="another configuration"):
        folder.verify_or_write_config({"steps": 20}, may_grow=False)
    with pytest.raises(ValueError, match="--labels=7 here"):
        folder.verify_or_write_config({"steps": 20, "labels": 7})
    assert folder.verify_or_write_config({"steps": 20}) == 10
    assert not folder.has_completed()
    assert (tmp_path / "metrics.at_step_10.json").exists()
    assert (tmp_path / "finetune.at_step_10" / "checkpoints").is_dir()
    assert not (tmp_path / "finetune").exists()
    assert folder.verify_or_write_config({"steps": 20}) is None
    assert len(folder.checkpoints()) == 1


def test_the_fine_tuning_may_change_until_it_has_begun(tmp_path):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"steps": 10, "finetune_steps": 5})
    progress(folder)
    folder.verify_or_write_config({"steps": 10, "finetune_steps": 7, "finetune_learning_rate": 0.1})
    assert folder.read_flags()["finetune_steps"] == "7"
    progress(folder, "finetune")
    with pytest.raises(
        ValueError, match=r"--finetune_learning_rate=0\.1 there, --finetune_learning_rate=0\.2 here"
    ):
        folder.verify_or_write_config({"steps": 10, "finetune_steps": 7, "finetune_learning_rate": 0.2})


def test_a_run_is_the_same_when_it_goes_on_and_no_other(tmp_path):
    names = [RunFolder(tmp_path / folder).identity() for folder in ("one", "one", "two")]
    assert names[0] == names[1] != names[2]


def test_history_forgets_the_epochs_that_a_kill_undid(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 0, "step": 5, "loss": 2.0}, {"epoch": 1, "step": 10, "val_loss": 1.0}])
    assert [row["step"] for row in folder.read_history(until_step=5)] == ["5"]
    rows = folder.read_history()
    assert rows[0] == {"epoch": "0", "step": "5", "loss": "2.0", "val_loss": ""}
    assert rows[1] == {"epoch": "1", "step": "10", "loss": "", "val_loss": "1.0"}


def test_metrics_come_back_and_are_none_before(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() is None
    folder.write_metrics({"test": {"student": {"accuracy": 0.5}}})
    assert folder.read_metrics() == {"test": {"student": {"accuracy": 0.5}}}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json"]


def test_names_in_a_list_come_back_as_they_were(tmp_path):
    names = ["two  spaces", " before", "brackets [1]", "a, b"]
    for known in (names, names[:2]):
        RunFolder(tmp_path).write_metrics({"classes": known, "numbers": [0.5, 1e-9, None, 3]})
        assert RunFolder(tmp_path).read_metrics() == {"classes": known, "numbers": [0.5, 1e-9, None, 3]}
    assert '"numbers": [0.5, 1e-09, null, 3]' in (tmp_path / "metrics.json").read_text()


def test_a_second_process_is_kept_out_until_the_first_has_ended(tmp_path):
    program = (
        "import sys, time; from mpl_tf.runs.folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked(): print('in', flush=True); time.sleep(600)"
    )
    first = forked.start(program, tmp_path)
    try:
        first.wait_for("in\n")
        message = "Another process is training in the run folder"
        with pytest.raises(files.LockedError, match=message), RunFolder(tmp_path).locked():
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.finish()
    # Killed, it leaves nothing that would have to be cleaned up.
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").exists()


def test_confusion_matrices_have_a_file_of_their_own_to_which_later_ones_are_added(tmp_path):
    folder, matrix = RunFolder(tmp_path), [[3, 1], [0, 2]]
    assert folder.read_confusions() == {}
    numbers = {"accuracy": 0.5, "per_class_accuracy": [0.75, 1.0], "confusion": matrix}
    folder.write_metrics({"test": {"student": numbers, "teacher": numbers | {"confusion": [[0, 4], [2, 0]]}}})
    metrics = folder.read_metrics()
    assert metrics["test"]["student"] == {"accuracy": 0.5, "per_class_accuracy": [0.75, 1.0]}
    assert '"per_class_accuracy": [0.75, 1.0]' in (tmp_path / "metrics.json").read_text()
    # What is written again later does not hold the matrices, which stay.
    metrics["evaluation"] = {"test": {"student": {"clean": numbers}}}
    metrics["note"] = "a [ list ] in\na text, 1, 2"
    folder.write_metrics(metrics)
    assert folder.read_metrics()["note"] == metrics["note"]
    found = {name: matrix.tolist() for name, matrix in folder.read_confusions().items()}
    assert found == {
        "test/student": matrix,
        "test/teacher": [[0, 4], [2, 0]],
        "evaluation/test/student/clean": matrix,
    }


def test_flags_and_split_are_read_as_they_were_written(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_flags() == folder.read_split() == {}
    folder.verify_or_write_config({"steps": 10, "labeled_dir": "a=b", "seed": None})
    assert folder.read_flags() == {"steps": "10", "labeled_dir": "a=b"}
    (tmp_path / "split.json").write_text('{"name": "digits.0@20"}')
    assert folder.read_split() == {"name": "digits.0@20"}


def cut_off(path, keep):
    """What a copy that was broken off leaves of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])


CUT = pytest.mark.parametrize("keep", [0, 0.6], ids=["empty", "cut off"])


@CUT
def test_flags_that_are_lost_let_no_run_go_on_under_others(tmp_path, keep):
    folder, flags = RunFolder(tmp_path), {"labels": 10, "learning_rate": 0.1, "steps": 10}
    folder.verify_or_write_config(flags)
    cut_off(tmp_path / "flags.txt", keep)
    # Nothing is lost where nothing has been trained.
    folder.verify_or_write_config(flags)
    progress(folder)
    cut_off(tmp_path / "flags.txt", keep)
    left = (tmp_path / "flags.txt").read_bytes()
    for wanted in (flags, flags | {"learning_rate": 0.7}):
        with pytest.raises(ValueError, match=r"flags\.txt is empty or was cut off: put back .* remove it"):
            folder.verify_or_write_config(wanted, defaults={"learning_rate": 0.7, "steps": 10})
    assert (tmp_path / "flags.txt").read_bytes() == left
    # What the sentence says is so.
    (tmp_path / "flags.txt").unlink()
    folder.verify_or_write_config(flags)
    assert folder.read_flags() == {name: str(value) for name, value in flags.items()}


@CUT
@pytest.mark.parametrize(
    "name", ["metrics.json", "split.json", "history.csv", "outcomes.npz", "confusion.npz"]
)
def test_a_damaged_file_is_named_with_what_to_do_and_done_without_where_that_is_to_remove_it(
    tmp_path, name, keep
):
    folder = RunFolder(tmp_path)
    folder.write_metrics({"test": {"student": {"accuracy": 0.5, "confusion": [[1, 2], [3, 4]]}}})
    folder.write_outcomes({"student": np.arange(100) % 3 == 0})
    folder.write_history([{"epoch": epoch, "step": 5 * epoch, "loss": 0.25} for epoch in range(9)])
    (tmp_path / "split.json").write_text('{"name": "digits.0@20"}')
    read = {
        "metrics.json": folder.read_metrics,
        "split.json": folder.read_split,
        "history.csv": folder.read_history,
        "outcomes.npz": folder.read_outcomes,
        "confusion.npz": folder.read_confusions,
    }[name]
    assert read()
    cut_off(tmp_path / name, keep)
    with pytest.raises(ValueError, match=rf"{name} is damaged \(.*\): .*remove it"):
        read()
    (tmp_path / name).unlink()
    assert not read()


def test_rows_of_which_a_part_is_lost_are_refused_wherever_the_file_was_cut(tmp_path):
    folder = RunFolder(tmp_path)
    for rows in ([], [{"step": 5, "note": 'two\nlines, "quoted"'}, {"step": 10, "note": "é"}]):
        folder.write_history(rows)
        assert [row["note"] for row in folder.read_history(until_step=10)] == [row["note"] for row in rows]
    whole = (tmp_path / "history.csv").read_bytes()
    for length in range(len(whole)):
        if not whole[:length].endswith(b"\n"):
            (tmp_path / "history.csv").write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"history\.csv is damaged .* do without the rows"):
                folder.read_history()


@CUT
def test_of_the_best_epochs_only_the_one_that_counts_is_read(tmp_path, keep):
    folder = RunFolder(tmp_path)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    for step in (4, 6):
        folder.save_selected(network, epoch=step // 2, step=step, accuracy=0.5)
    older, newer = (tmp_path / "selected" / f"step_00000000{step}.npz" for step in (4, 6))
    cut_off(older, keep)
    assert folder.read_selected(until_step=7).step == 6
    with pytest.raises(ValueError, match=r"step_000000004\.npz is damaged .*: put back a copy"):
        RunFolder(tmp_path, writes=False).read_selected(until_step=5)
    folder.save_selected(network, epoch=2, step=4, accuracy=0.5)
    cut_off(newer, keep)
    # Undone, it is removed unread.
    assert folder.read_selected(until_step=5).step == 4
    assert not newer.exists()


@CUT
def test_a_damaged_initialization_is_named(tmp_path, keep):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_initialization({"file": "a.keras", "weights_sha256": "1"})
    cut_off(tmp_path / "initialization.json", keep)
    progress(folder)
    with pytest.raises(
        ValueError, match=r"initialization\.json is damaged .* remove it if the run started from file=a"
    ):
        folder.verify_or_write_initialization({"file": "a.keras", "weights_sha256": "1"})
    (tmp_path / "initialization.json").unlink()
    folder.verify_or_write_initialization({"file": "a.keras", "weights_sha256": "1"})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_best_epochs_weights_come_back_in_every_precision(tmp_path, dtype):
    trained, other = (
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer=kernel, dtype=dtype)])
        for kernel in ("glorot_uniform", "zeros")
    )
    folder = RunFolder(tmp_path)
    folder.save_selected(trained, epoch=4, step=7, accuracy=0.5)
    found = folder.read_selected(until_step=7)
    other.set_weights(found.weights)
    for weight, expected in zip(other.weights, trained.weights, strict=True):
        assert keras.backend.standardize_dtype(weight.dtype) == dtype
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
