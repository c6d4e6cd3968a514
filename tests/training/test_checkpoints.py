"""Runs that go on from their checkpoints, and checkpoints that cannot be read or written."""

import resource

import numpy as np
import pytest

from mpl_tf.runs.folder import RunFolder
from mpl_tf.training import loop
from mpl_tf.training.callbacks import monitors
from mpl_tf.utils import files
from tests.support.runs import (
    QUIET,
    SHORT,
    KilledError,
    build,
    build_as_graph,
    build_pseudo_labels,
    run_data,
    stage,
    weights,
    whole_run,
)


@pytest.mark.parametrize(
    ("build", "after_epoch"),
    [
        (build_as_graph, 0),
        pytest.param(lambda: build("dot_product"), 2, marks=pytest.mark.slow),
        # Labels that are refreshed at the end of every epoch are in the checkpoint of that epoch.
        (build_pseudo_labels, 1),
    ],
    ids=["mpl per_example", "mpl dot_product", "stored pseudo labels"],
)
@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, monkeypatch, build, after_epoch
):
    options = {**SHORT, "as_graph": build is build_as_graph}
    whole_run(tmp_path / "whole", build, **options)

    record = monitors.Record.on_epoch_end

    def killed_after_recording(self, epoch, logs=None):
        record(self, epoch, logs)
        if epoch == after_epoch:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(monitors.Record, "on_epoch_end", killed_after_recording)
        with pytest.raises(KilledError):
            whole_run(tmp_path / "killed", build, **options)
    whole_run(tmp_path / "killed", build, **options)

    assert all(float(row["cpu_seconds"]) > 0 for row in RunFolder(tmp_path / "killed").read_history())
    networks = sorted((tmp_path / "whole" / "networks").iterdir())
    assert len(networks) >= 2
    for file in networks:
        whole, resumed = weights(file), weights(tmp_path / "killed" / "networks" / file.name)
        for one, other in zip(whole, resumed, strict=True):
            np.testing.assert_array_equal(one, other)
    histories = [RunFolder(tmp_path / name).read_history() for name in ("whole", "killed")]
    for row in histories[0] + histories[1]:
        row.pop("seconds"), row.pop("cpu_seconds")
    assert histories[0] == histories[1]
    classes = [
        RunFolder(tmp_path / name).read_rows("pseudo_label_classes.csv") for name in ("whole", "killed")
    ]
    assert [row["step"] for row in classes[0]] == [row["step"] for row in histories[0]]
    assert classes[0] == classes[1]


def test_a_corrupt_checkpoint_is_set_aside_and_the_one_before_is_used(tmp_path, capsys):
    folder = RunFolder(tmp_path)
    method = build()
    loop.fit(method, run_data(), stage(steps=4, epoch_steps=2), folder, QUIET)
    newest = folder.checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    restored = build()
    folder.restore_checkpoint(restored)
    assert int(restored.step) == 2
    assert "cannot be read" in capsys.readouterr().out
    assert newest.with_name(f"{newest.name}.unreadable").exists()


def test_checkpoints_that_are_all_unreadable_are_not_trained_over(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 0, "step": 4, "seconds": 1.5}])
    history = (tmp_path / "history.csv").read_bytes()
    (tmp_path / "checkpoints").mkdir()
    checkpoint = tmp_path / "checkpoints" / "step_000000004.weights.h5"
    checkpoint.write_bytes(b"nothing")
    # A supervisor starts it again and again.
    for _ in range(2):
        with pytest.raises(ValueError, match="None of the checkpoints"):
            loop.fit(build(), run_data(), stage(steps=6), folder, QUIET)
        assert checkpoint.read_bytes() == b"nothing"
        assert (tmp_path / "history.csv").read_bytes() == history


def test_a_full_disk_stops_with_a_sentence_and_keeps_the_last_checkpoint(tmp_path):
    folder, method = RunFolder(tmp_path), build()
    loop.fit(method, run_data(), stage(steps=2, epoch_steps=2), folder, QUIET)
    (checkpoint,) = folder.checkpoints()
    before = checkpoint.read_bytes()
    # The system's own limit on the size of files, which is met as a full disk is.
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, unlimited[1]))
    try:
        with pytest.raises(
            files.DiskFullError, match=r"There is no room to write .*step_000000004.weights.h5"
        ):
            loop.fit(method, run_data(), stage(steps=4, epoch_steps=2), folder, QUIET)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert checkpoint.read_bytes() == before
    loop.fit(build(), run_data(), stage(steps=4, epoch_steps=2), folder, QUIET)
    assert [int(row["step"]) for row in folder.read_history()] == [2, 4]
