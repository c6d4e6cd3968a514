"""A run that a signal stops in the middle of an epoch, and what the next start makes of it."""

import signal
import types

import keras
import numpy as np
import pytest

from mpl_tf.data import pipeline
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder
from mpl_tf.training import loop
from mpl_tf.training.callbacks import monitors
from mpl_tf.training.callbacks.preemption import PreemptedError
from tests.support.runs import QUIET, network, run_data, stage

SETTINGS = stage(steps=8, epoch_steps=4, unlabeled_ratio=0)


def build(*, run_eagerly=True, **options):
    method = Supervised(student=network(2))
    method.compile(keras.optimizers.SGD(0.05), run_eagerly=run_eagerly, **options)
    return method


def build_preempted(step):
    """A method to which SIGTERM comes in a step."""
    method = build()
    train_step = method.train_step

    def interrupted(batch):
        if int(method.step) + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return train_step(batch)

    method.train_step = interrupted
    return method


def fit(path, method):
    return loop.fit(method, run_data(), SETTINGS, RunFolder(path), QUIET)


def test_the_seconds_of_an_epoch_count_before_and_after_each_stop(tmp_path, monkeypatch):
    clock = types.SimpleNamespace(session=0.0, method=None)

    def seconds():
        """Ten for each step, and much between the sessions."""
        return clock.session + 10.0 * int(clock.method.step)

    clocks = {"perf_counter": seconds, "process_time": lambda: 2 * seconds()}
    monkeypatch.setattr(monitors, "time", types.SimpleNamespace(**clocks))
    for step in (2, 3):
        clock.method, clock.session = build_preempted(step), clock.session + 10_000.0
        with pytest.raises(PreemptedError):
            fit(tmp_path, clock.method)
        assert int(clock.method.step) == step
    clock.method = build()
    assert fit(tmp_path, clock.method) == 80.0
    rows = RunFolder(tmp_path).read_history()
    assert [(row["step"], float(row["seconds"]), float(row["cpu_seconds"])) for row in rows] == [
        ("4", 40.0, 80.0),
        ("8", 40.0, 80.0),
    ]


def test_other_calls_from_python_go_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    # Two calls of one, or one of two.
    monkeypatch.setitem(pipeline.evaluation_batches.__kwdefaults__, "batch_size", 10)
    whole = build()
    fit(tmp_path / "whole", whole)
    with pytest.raises(PreemptedError):
        fit(tmp_path / "preempted", build_preempted(3))
    # As a graph, which has the number of steps in it.
    resumed = build(run_eagerly=False, steps_per_execution=2)
    fit(tmp_path / "preempted", resumed)
    assert int(resumed.step) == 8
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for row, expected in zip(
        *(RunFolder(tmp_path / name).read_history() for name in ("preempted", "whole")), strict=True
    ):
        for name in ("step", "loss", "val_loss", "val_accuracy"):
            assert float(row[name]) == pytest.approx(float(expected[name]), rel=1e-5), name
