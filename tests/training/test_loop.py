"""The training loop: which steps it makes, and what stops it."""

import dataclasses

import keras
import numpy as np
import pytest

from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training import loop
from mpl_tf.training.callbacks import monitors
from mpl_tf.training.run import finetuning
from tests.support import tiny
from tests.support.runs import QUIET, build, build_as_graph, network, run_data, stage, whole_run


def test_views_made_inside_of_the_step_are_those_of_the_pipeline(tmp_path):
    data = run_data()
    data = dataclasses.replace(data, strong=dataclasses.replace(data.strong, num_operations=1))
    strong = dataclasses.replace(data.strong, static_shapes=True)
    inside = dataclasses.replace(data, strong=strong, augment_in_step=True)
    ends = []
    for name, views in (("pipeline", data), ("step", inside)):
        method = build_as_graph()
        loop.fit(method, views, stage(steps=3, epoch_steps=3), RunFolder(tmp_path / name), QUIET)
        assert (method.augmentation is None) == (name == "pipeline")
        ends.append(method.get_weights())
    for weight, other in zip(*ends, strict=True):
        np.testing.assert_allclose(weight, other, rtol=0, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    def explosive():
        method = Supervised(student=network(1))
        method.compile(keras.optimizers.SGD(1e30))
        return method

    with pytest.raises(
        monitors.NonFiniteLossError, match=r"Training stopped at step \d+, where .*became nan"
    ):
        whole_run(tmp_path, explosive, unlabeled_ratio=0)
    assert RunFolder(tmp_path).checkpoints() == []


def test_steps_that_do_not_divide_into_calls_are_refused(tmp_path):
    method = Supervised(student=network(1))
    method.compile(keras.optimizers.SGD(0.1), steps_per_execution=3)
    for change in ({"steps": 14, "epoch_steps": 3}, {"steps": 12, "epoch_steps": 4}):
        name, value = next((name, value) for name, value in change.items() if value % 3)
        with pytest.raises(ValueError, match=f"{name}={value} is not a multiple of steps_per_execution=3"):
            loop.fit(method, run_data(), stage(**change), RunFolder(tmp_path), QUIET)


def test_finetuning_leaves_the_student_as_it_was(tmp_path):
    student = build().inference_model
    before = student.get_weights()
    tuned = finetuning(student, 0.1)
    loop.fit(tuned, run_data(), stage(unlabeled_ratio=0, steps=4), RunFolder(tmp_path), QUIET)
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = [np.abs(a - b).max() for a, b in zip(before, tuned.student.get_weights(), strict=True)]
    assert min(moved) > 0


def test_a_student_that_its_teacher_leaves_behind_ends_the_run_where_that_is_asked_for(tmp_path):
    def left_behind():
        networks = {role: tiny.plain_network(role) for role in ("teacher", "student")}
        method = MetaPseudoLabels(**networks, uda_weight=0.0, ema_decay=None)
        # They start as one, and only the teacher learns.
        method.compile(keras.optimizers.SGD(0.5), keras.optimizers.SGD(1e-6), run_eagerly=True)
        return method

    quiet = dataclasses.replace(QUIET, confirmation_images=0)
    settings = StageSettings(steps=8, epoch_steps=1, batch_size=9, unlabeled_ratio=1)
    folder = RunFolder(tmp_path)
    stopping = dataclasses.replace(quiet, on_collapse="stop")
    with pytest.raises(
        monitors.CollapseError, match=r"the student agreed with its teacher on only .*; the last ch"
    ):
        loop.fit(left_behind(), run_data(), settings, folder, stopping)
    before = folder.read_history()
    assert 0 < len(before) < 7
    # Nothing of it is lost, and with a warning it goes on to its end.
    with pytest.warns(UserWarning, match="the student agreed with its teacher on only"):
        loop.fit(left_behind(), run_data(), settings, folder, quiet)
    assert folder.read_history()[: len(before)] == before
    assert len(folder.read_history()) == 8
    with pytest.raises(ValueError, match="on_collapse='ignore'"):
        Monitoring(on_collapse="ignore")
