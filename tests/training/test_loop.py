import dataclasses
import resource
import types
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import data
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring, StageSettings
from mpl_tf.training import loop
from mpl_tf.training import run as run_module
from mpl_tf.training.callbacks import monitors
from mpl_tf.training.run import Run, finetuning
from mpl_tf.utils import files
from tests.support import oracles, seeds, tiny


def run_data():
    """A hundred 4×4 images of three classes that differ in brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 3
    images = np.clip(rng.normal(60 + 60 * labels[:, None, None, None], 30, (100, 4, 4, 1)), 0, 255)
    source = data.from_arrays(images.astype(np.uint8), labels, name="shades", flip=False)
    source = dataclasses.replace(source, test=source.train)
    split = data.draw_split(source, num_labeled=9, seed=0, validation=0.2)
    weak, strong = data.make_views(
        source.image_shape, flip=False, num_operations=0, magnitude=5.0, policy="paper", noise=0.0
    )
    return data.RunData(source=source, split=split, weak=weak, strong=strong)


def network(seed):
    seeds.set_random_seed(seed)
    images = keras.Input((4, 4, 1))
    hidden = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, -1)(images))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8, "relu")(hidden))
    hidden = keras.layers.Dropout(0.3, seed=seed)(hidden)
    return keras.Model(images, keras.layers.Dense(3)(hidden))


def build(feedback="per_example", *, run_eagerly=True):
    """Meta Pseudo Labels, in eager steps: where a test is not about graphs, a few cost less than a trace."""
    method = MetaPseudoLabels(teacher=network(1), student=network(2), feedback=feedback, uda_ramp_steps=5)
    optimizers = [keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True) for _ in range(2)]
    method.compile(*optimizers, run_eagerly=run_eagerly)
    return method


def build_as_graph():
    return build(run_eagerly=False)


def build_pseudo_labels(labels="stored"):
    method = PseudoLabels(
        student=network(2),
        labels=labels,
        num_images=100,
        hard=False,
        threshold=0.0,
        ramp_start=1,
        ramp_end=5,
    )
    method.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), run_eagerly=True)
    return method


def build_baseline():
    method = Supervised(student=network(2))
    method.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    return method


QUIET = Monitoring(verbose=0, tensorboard=False)


def stage(**changes):
    values = {"steps": 14, "epoch_steps": 4, "batch_size": 6, "unlabeled_ratio": 2}
    return StageSettings(**(values | changes))


def eager_finetuning(*arguments, **options):
    """What `Run.finetune` builds, in eager steps: a few cost less than a trace."""
    method = finetuning(*arguments, **options)
    method.run_eagerly = True
    return method


def whole_run(
    path,
    build=build,
    *,
    build_baseline=None,
    finetune_steps=3,
    data=None,
    monitoring=QUIET,
    strategy=None,
    report=False,
    export_dir=None,
    as_graph=False,
    **changes,
):
    """The story of a run as recipes tell it; `changes` are of the method's stage.

    Its fine-tuning makes eager steps but where the run is to show that it works `as_graph`, as `build` does.
    """
    with (
        mock.patch.object(run_module, "finetuning", finetuning if as_graph else eager_finetuning),
        Run(path, data or run_data(), strategy=strategy, monitoring=monitoring) as run,
    ):
        if build_baseline is not None:
            run.train("supervised", build_baseline, stage(steps=6, unlabeled_ratio=0))
        run.train("method", build, stage(**changes))
        run.finetune(steps=finetune_steps, batch_size=4)
        return run.finish(export_dir=export_dir, report=report, command="python -m recipes.test")


# A run of four epochs, of which the last is shorter than the others.
SHORT = {"steps": 7, "epoch_steps": 2}


def weights(path):
    return keras.saving.load_model(path, compile=False).get_weights()


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


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_is_not_repeated(tmp_path):
    first = whole_run(tmp_path, **SHORT)

    def must_not_be_called():
        raise AssertionError("a finished run was built again")

    assert whole_run(tmp_path, must_not_be_called, build_baseline=must_not_be_called, **SHORT) == first


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("build", "after_epoch"),
    [
        (build_as_graph, 0),
        (lambda: build("dot_product"), 2),
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


def test_steps_that_do_not_divide_into_calls_are_refused(tmp_path):
    method = Supervised(student=network(1))
    method.compile(keras.optimizers.SGD(0.1), steps_per_execution=3)
    for change in ({"steps": 14, "epoch_steps": 3}, {"steps": 12, "epoch_steps": 4}):
        name, value = next((name, value) for name, value in change.items() if value % 3)
        with pytest.raises(ValueError, match=f"{name}={value} is not a multiple of steps_per_execution=3"):
            loop.fit(method, run_data(), stage(**change), RunFolder(tmp_path), QUIET)


def test_a_batch_that_does_not_divide_over_the_replicas_is_refused(tmp_path):
    strategy = types.SimpleNamespace(num_replicas_in_sync=4)
    with pytest.raises(
        ValueError, match="batch_size=6 does not divide over 4 replicas: choose a multiple of 4"
    ):
        whole_run(tmp_path, strategy=strategy)


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (stage, {"steps": 0}),
        (stage, {"batch_size": 0}),
        (stage, {"unlabeled_ratio": -1}),
        (stage, {"epoch_steps": 0}),
        (Monitoring, {"confirmation_images": -1}),
    ],
)
def test_settings_out_of_range_are_refused(make, change):
    (name, value) = next(iter(change.items()))
    with pytest.raises(ValueError, match=f"{name}={value} is out of range"):
        make(**change)


def test_finetuning_leaves_the_student_as_it_was(tmp_path):
    student = build().inference_model
    before = student.get_weights()
    tuned = finetuning(student, 0.1)
    loop.fit(tuned, run_data(), stage(unlabeled_ratio=0, steps=4), RunFolder(tmp_path), QUIET)
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    moved = [np.abs(a - b).max() for a, b in zip(before, tuned.student.get_weights(), strict=True)]
    assert min(moved) > 0


def test_an_averaged_teacher_is_the_one_that_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "fit", lambda *_: 0.0)
    method = MetaPseudoLabels(teacher=network(1), student=network(2), teacher_ema_decay=0.9)
    method.compile("sgd", "adam")
    with Run(tmp_path, run_data(), monitoring=QUIET) as run:
        run.train("method", lambda: method, stage())
    assert run.networks["teacher"] is method.teacher_average
    assert run.given == set()


# --- labels of the unlabeled images --------------------------------------------------------------------


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


@pytest.mark.parametrize("build", [build, build_pseudo_labels], ids=["mpl", "stored pseudo labels"])
def test_measuring_the_confirmation_bias_does_not_change_the_run(tmp_path, build):
    methods, rows = [], []
    for count in (0, 30):
        method, folder = build(), RunFolder(tmp_path / str(count))
        monitoring = dataclasses.replace(QUIET, confirmation_images=count)
        loop.fit(method, run_data(), stage(steps=4, epoch_steps=2), folder, monitoring)
        methods.append(method)
        rows.append(folder.read_history()[-1])
    for one, other in zip(methods[0].variables, methods[1].variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert {*rows[1]} - {*rows[0]} >= {"confident_fraction"}


def test_the_stored_labels_that_are_measured_are_the_refreshed_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(monitors.ConfirmationBias.__init__, "__defaults__", (0.0, None))
    method, data_of_run = build_pseudo_labels(), run_data()
    folder = RunFolder(tmp_path)
    monitoring = dataclasses.replace(QUIET, confirmation_images=20)
    loop.fit(method, data_of_run, stage(steps=4), folder, monitoring)
    (row,) = folder.read_history()
    measured = data_of_run.unlabeled_sample(20)
    labels = data_of_run.source.train.labels[measured]
    wrong = method.stored_labels.numpy()[measured].argmax(axis=-1) != labels
    assert float(row["confident_fraction"]) == 1.0
    assert float(row["confirmation_bias"]) == pytest.approx(wrong.mean())


def test_confirmation_bias_is_measured_where_the_class_is_known_and_not_among_the_labels():
    known = run_data()
    known.source.train.labels[known.split.unlabeled[::2]] = -1
    expected = [place for place in known.split.unlabeled[1::2] if place not in known.split.labeled]
    assert list(known.unlabeled_sample(1000)) == expected
    assert len(set(known.unlabeled_sample(7)) & set(expected)) == 7
    known.source.train.labels[known.split.unlabeled] = -1
    # Where no class is known, the predicted ones are still counted.
    assert set(known.unlabeled_sample(1000)) == {*known.split.unlabeled} - {*known.split.labeled}


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
