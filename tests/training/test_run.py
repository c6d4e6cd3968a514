"""The story of a run in its folder, as recipes tell it."""

import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring
from mpl_tf.training import run as run_module
from mpl_tf.training.run import Run
from tests.support import oracles
from tests.support.runs import (
    QUIET,
    SHORT,
    build_as_graph,
    build_baseline,
    build_pseudo_labels,
    network,
    run_data,
    stage,
    weights,
    whole_run,
)


def test_a_run_leaves_everything_a_user_looks_for(tmp_path):
    metrics = whole_run(
        tmp_path / "run",
        build_as_graph,
        build_baseline=build_baseline,
        monitoring=Monitoring(verbose=0),
        export_dir=str(tmp_path / "exported"),
        as_graph=True,
    )

    assert (
        set(metrics["test"])
        == set(metrics["validation"])
        == {"supervised", "teacher", "student", "finetuned"}
    )
    assert metrics["steps"] == 14
    assert metrics["images"] == 14 * 6 * 3
    assert metrics["split"] == "shades.0@9"
    for name in (
        "metrics.json",
        "history.csv",
        "curves.png",
        "networks/student.keras",
        "networks/teacher.keras",
    ):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert [int(row["step"]) for row in RunFolder(tmp_path / "run").read_history()] == [4, 8, 12, 14]
    assert len(RunFolder(tmp_path / "run").checkpoints()) == 2
    assert any((tmp_path / "run" / "tensorboard").rglob("events*"))
    served = tf.saved_model.load(str(tmp_path / "exported" / "1"))
    assert "serving_default" in served.signatures


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_is_not_repeated(tmp_path):
    first = whole_run(tmp_path, **SHORT)

    def must_not_be_called():
        raise AssertionError("a finished run was built again")

    assert whole_run(tmp_path, must_not_be_called, build_baseline=must_not_be_called, **SHORT) == first
    for changes, asked in (({"steps": 8}, "8 on 144"), ({"batch_size": 9}, "7 on 189")):
        message = f"is complete, with 7 steps on 126 images, and is asked for {asked}: choose another folder"
        with pytest.raises(ValueError, match=message):
            whole_run(tmp_path, must_not_be_called, **SHORT | changes)


@pytest.mark.usefixtures("undrawn")
def test_a_fixed_teacher_is_trained_first_and_gives_the_labels(tmp_path):
    with Run(tmp_path, run_data(), monitoring=QUIET) as run:
        run.train("teacher", build_baseline, stage(steps=6, unlabeled_ratio=0))
        method = build_pseudo_labels("fixed")
        method.relabel(run.networks["teacher"], run_data().unlabeled())
        run.train("method", lambda: method, stage(**SHORT))
        metrics = run.finish(report=False)
    assert set(metrics["test"]) == {"teacher", "student"}
    assert set(metrics["seconds"]) == {"teacher", "method"}
    assert [int(row["step"]) for row in RunFolder(tmp_path / "teacher").read_history()] == [4, 6]

    teacher = keras.saving.load_model(tmp_path / "networks" / "teacher.keras", compile=False)
    source, split = run_data().source, run_data().split
    images = source.train.fetch(tf.constant(split.unlabeled)).numpy().astype(np.float32)
    kept = method.stored_labels.numpy()
    assert np.allclose(
        kept[split.unlabeled], oracles.softmax(np.array(teacher(images), np.float64)), atol=1e-5
    )
    assert not kept[split.validation].any()


@pytest.mark.usefixtures("undrawn")
def test_a_network_without_training_is_evaluated_and_saved_as_it_is(tmp_path):
    with Run(tmp_path, run_data(), monitoring=QUIET) as run:
        run.add_network("teacher", lambda: network(5))
        run.train("method", build_baseline, stage(steps=4))
        metrics = run.finish(report=False)
    assert set(metrics["test"]) == {"teacher", "student"}
    for one, other in zip(
        weights(tmp_path / "networks" / "teacher.keras"), network(5).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_an_averaged_teacher_is_the_one_that_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "fit", lambda *_, **__: 0.0)
    method = MetaPseudoLabels(teacher=network(1), student=network(2), teacher_ema_decay=0.9)
    method.compile("sgd", "adam")
    with Run(tmp_path, run_data(), monitoring=QUIET) as run:
        run.train("method", lambda: method, stage())
    assert run.networks["teacher"] is method.teacher_average
    assert run.given == set()


def test_a_batch_that_does_not_divide_over_the_replicas_is_refused(tmp_path):
    strategy = types.SimpleNamespace(num_replicas_in_sync=4)
    with pytest.raises(
        ValueError, match="batch_size=6 does not divide over 4 replicas: choose a multiple of 4"
    ):
        whole_run(tmp_path, strategy=strategy)
