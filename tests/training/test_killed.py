"""Processes that are really killed, and started again until they are done."""

import random
import signal
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.runs.folder import RunFolder
from tests.programs import forked, killed_run
from tests.support.runs import run_data

KILLS = 20
# What two runs of the same configuration do not have in common.
VARYING = ("seconds", "cpu_seconds", "export")


def start(course, folder, moment=()):
    folder.mkdir(exist_ok=True)
    (folder / "output.txt").unlink(missing_ok=True)
    process = forked.FORKS.Process(target=killed_run.main, args=(course, folder, moment))
    process.start()
    return process


def finish(course, folder, *moment):
    """The exit status, negative for a signal, and what was printed."""
    process = start(course, folder, moment)
    process.join(timeout=600)
    return process.exitcode, (folder / "output.txt").read_text()


def kill(course, folder, event, skipped=0):
    """Runs until just before the event, in which the process dies."""
    status, output = finish(course, folder, "SIGKILL", event, skipped)
    assert status == -signal.SIGKILL, output


def contents(folder):
    """Everything that a run has made, but for how long it took and where it lies."""
    run = folder / "run"

    def all_of(pattern, read):
        return {str(path.relative_to(run)): read(path) for path in sorted(run.rglob(pattern))}

    metrics = RunFolder(run).read_metrics()
    return {
        "histories": all_of(
            "history.csv",
            lambda path: [
                {**row, "seconds": None, "cpu_seconds": None} for row in RunFolder(path.parent).read_history()
            ],
        ),
        "networks": all_of("*.keras", lambda path: keras.saving.load_model(path).get_weights()),
        "labels": all_of("*.npy", np.load),
        "files": all_of("*", lambda path: path.suffix),
        "metrics": {key: value for key, value in metrics.items() if key not in VARYING},
    }


def without_old_checkpoints(files):
    """A run that was preempted has checkpoints of other steps."""
    return {name for name in files if "checkpoints/" not in name}


def assert_same_end(folder, whole):
    ends = [contents(each) for each in (folder, whole)]
    files = [without_old_checkpoints(end.pop("files")) for end in ends]
    assert files[0] == files[1]
    assert len(ends[0]["networks"]) >= 3
    np.testing.assert_equal(*ends)
    assert not list(folder.rglob(".writing-*"))


def answers(folder):
    """Of the exported model, on some images."""
    data = run_data()
    images = data.source.train.fetch(tf.constant(data.split.validation))
    exported = tf.saved_model.load(RunFolder(folder / "run").read_metrics()["export"])
    return exported.serve(tf.cast(images, tf.float32))["logits"].numpy()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of Meta Pseudo Labels that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    status, output = finish(killed_run.meta_pseudo_labels, folder)
    assert status == 0, output
    return folder


def test_killed_or_preempted_at_every_stage(tmp_path, whole):
    course, folder, exported = (
        killed_run.meta_pseudo_labels,
        RunFolder(tmp_path / "run"),
        tmp_path / "exported",
    )
    kill(course, tmp_path, "step", 6)
    assert [path.name for path in folder.checkpoints()] == ["step_000000004.weights.h5"]

    # The row of the epoch has its place in history.csv, and its checkpoint is written but has no place yet.
    kill(course, tmp_path, "rename:step_000000012.weights.h5")
    assert [int(row["step"]) for row in folder.read_history()] == [4, 8, 12]
    assert folder.checkpoints()[-1].name == "step_000000008.weights.h5"
    assert any((folder.path / "checkpoints").glob(".writing-*"))

    # In the middle of an epoch.
    status, output = finish(course, tmp_path, "SIGTERM", "step", 1)
    assert status == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM at step 10, which is saved in" in output
    assert folder.checkpoints()[-1].name == "step_000000010.weights.h5"

    # In the last step of an epoch, which is then recorded as always.
    status, output = finish(course, tmp_path, "SIGTERM", "step", 1)
    assert status == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM at step 12, which is saved in" in output

    # At the end of the fine-tuning.
    kill(course, tmp_path, "rename:step_000000003.weights.h5")
    checkpoints = folder.stage("finetune").checkpoints()
    assert [path.name for path in checkpoints] == ["step_000000002.weights.h5"]

    kill(course, tmp_path, "evaluation", 5)
    assert not (folder.path / "networks").exists()

    # The model is whole, and has no place yet beside that of somebody else.
    (exported / "1").mkdir(parents=True)
    (exported / "1" / "theirs").touch()
    kill(course, tmp_path, "rename:2")
    left_over, theirs = sorted(path.name for path in exported.iterdir())
    assert left_over.startswith(".writing-")
    assert theirs == "1"

    # It is there, and the run has not written so.
    kill(course, tmp_path, "rename:metrics.json")
    assert sorted(path.name for path in exported.iterdir()) == ["1", "2"]
    written = (exported / "2" / "saved_model.pb").stat().st_mtime_ns

    kill(course, tmp_path, "page")
    assert folder.read_metrics()["export"] == str(exported / "2")

    assert finish(course, tmp_path)[0] == 0
    assert sorted(path.name for path in exported.iterdir()) == ["1", "2"]
    assert (exported / "2" / "saved_model.pb").stat().st_mtime_ns == written
    assert [path.name for path in (exported / "1").iterdir()] == ["theirs"]
    assert_same_end(tmp_path, whole)
    np.testing.assert_array_equal(answers(tmp_path), answers(whole))


# test_self_training.py has the same inside of one process.
@pytest.mark.slow
def test_noisy_student_killed_between_rounds_and_while_it_labels(tmp_path):
    course = killed_run.noisy_student
    (tmp_path / "whole").mkdir()
    status, output = finish(course, tmp_path / "whole")
    assert status == 0, output

    killed = tmp_path / "killed"
    # The first round's student is trained and not yet saved.
    kill(course, killed, "rename:student.keras", 1)
    assert not (killed / "run" / "round_2").exists()

    kill(course, killed, "rename:shard_00002.npy")
    shards = [path.name for path in sorted((killed / "run" / "round_2" / "labels").glob("shard_*"))]
    assert shards == ["shard_00000.npy", "shard_00001.npy"]

    assert finish(course, killed)[0] == 0
    assert_same_end(killed, tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, whole):
    draw = random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        folder = tmp_path / str(runs)
        while True:
            process = start(killed_run.meta_pseudo_labels, folder)
            output = folder / "output.txt"
            while process.is_alive() and not (output.exists() and "started" in output.read_text()):
                time.sleep(0.01)
            began = time.monotonic()
            if kills < KILLS:
                # Long enough for the next checkpoint now and then, from the first moments on.
                process.join(timeout=draw.uniform(0.0, 15.0))
                process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                assert process.exitcode == 0, output.read_text()
                break
            kills += 1
            steps = [path.name for path in RunFolder(folder / "run").checkpoints()]
            print(f"kill {kills}, {time.monotonic() - began:.1f} s after its start; checkpoints {steps}")
        assert_same_end(folder, whole)
        runs += 1
    print(f"{kills} kills in {runs} runs")
