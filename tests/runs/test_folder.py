import signal

import pytest

from mpl_tf.runs.folder import RunFolder
from tests.programs import forked


def test_claiming_twice_with_the_same_flags_is_resuming(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.verify_or_write_config({"steps": 10, "labels": None})
    folder.verify_or_write_config({"labels": None, "steps": 10})
    assert (tmp_path / "run" / "flags.txt").read_text() == "--steps=10\n"


def test_another_configuration_is_refused_and_named(tmp_path):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"steps": 10, "seed": 1})
    with pytest.raises(ValueError, match=r"another configuration \(--steps=10 there, --steps=20 here\)"):
        folder.verify_or_write_config({"steps": 20, "seed": 1})
    assert (tmp_path / "flags.txt").read_text() == "--seed=1\n--steps=10\n"


def test_a_taken_folder_is_refused_without_resume(tmp_path):
    folder = RunFolder(tmp_path)
    folder.verify_or_write_config({"steps": 10})
    with pytest.raises(ValueError, match="already holds a run and resume is off"):
        folder.verify_or_write_config({"steps": 10}, resume=False)


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


def test_a_second_process_is_kept_out_until_the_first_has_ended(tmp_path):
    program = (
        "import sys, time; from mpl_tf.runs.folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).locked(): print('in', flush=True); time.sleep(600)"
    )
    first = forked.start(program, tmp_path)
    try:
        first.wait_for("in\n")
        message = "Another process is training in the run folder"
        with pytest.raises(ValueError, match=message), RunFolder(tmp_path).locked():
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
