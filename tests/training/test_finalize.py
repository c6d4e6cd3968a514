"""The end of a run: which network is served, and that everything that shows or ships it agrees."""

import dataclasses
import os
import warnings

import keras
import numpy as np
import pytest

from mpl_tf import data, evaluation, report
from mpl_tf.export import writer
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.roles import chosen_role
from mpl_tf.training import finalize
from mpl_tf.training.run import Run

COUNT = 120
# How many of the images each network gets wrong.
WRONG = {"supervised": 10, "teacher": 5, "student": 60, "finetuned": 58}


def spoiled(role):
    """Bool `[N]`: the images that a network gets wrong."""
    order = np.random.default_rng(list(WRONG).index(role)).permutation(COUNT)
    return order < WRONG[role]


@pytest.fixture(scope="module")
def run_data():
    """Images with a pixel for each network, which says the class that it predicts."""
    labels = np.arange(COUNT) % 3
    images = np.zeros((COUNT, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(COUNT)
    for index, role in enumerate(WRONG):
        images[:, 1, index, 0] = 60 * np.where(spoiled(role), (labels + 1) % 3, labels)
    source = data.from_arrays(images, labels, name="spoiled", flip=False)
    source = dataclasses.replace(source, test=source.train)
    split = data.draw_split(source, num_labeled=9, seed=0, validation=0.5)
    views = data.make_views(
        source.image_shape, flip=False, num_operations=0, magnitude=5.0, policy="paper", noise=0.0
    )
    return data.RunData(source=source, split=split, weak=views[0], strong=views[1])


def network(role):
    """The class whose center is nearest to the network's pixel."""
    inputs = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten(name="features")(inputs)
    made = keras.Model(inputs, keras.layers.Dense(3, name="logits")(flat), name=role)
    centers = 60.0 * np.arange(3)
    kernel = np.zeros((16, 3))
    kernel[4 + list(WRONG).index(role)] = 2 * centers
    made.set_weights([kernel, -(centers**2)])
    return made


def networks(*roles):
    return {role: network(role) for role in roles}


def test_the_network_that_is_served_is_the_same_everywhere(run_data, tmp_path, monkeypatch):
    folder, roles = RunFolder(tmp_path / "run"), ("supervised", "student", "finetuned")
    options = {
        "export_dir": tmp_path / "saved",
        "candidates": list(roles),
        "steps": 1,
        "images": 1,
        "seconds": {},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        metrics = finalize.finish(folder, run_data, networks(*roles), **options)
    # What was right is stored image by image.
    outcomes = folder.read_outcomes()
    assert set(outcomes) == set(roles)
    for role in roles:
        np.testing.assert_array_equal(outcomes[role], ~spoiled(role)[run_data.split.validation])
    chosen = metrics["served"]
    assert chosen["role"] == chosen_role(metrics) == "supervised"
    assert chosen["baseline"] == "supervised"
    assert "The supervised baseline is the best on 60 validation images" in chosen["reason"]
    assert f"- chosen: {chosen['reason']}" in (tmp_path / "saved" / "1" / "card.md").read_text("utf-8")
    assert "- exported network: `supervised`" in (tmp_path / "saved" / "1" / "card.md").read_text("utf-8")
    page = (folder.path / "report.html").read_text("utf-8")
    assert "The supervised baseline is the best on 60 validation images" in page
    assert "Confusion of the supervised baseline on 60 validation images" in page
    summary = report.run_summary(metrics)
    assert summary.startswith("The supervised baseline is right on 91.7 % of 120 test images, 40.0 ± ")
    assert "above the fine-tuned student" in summary
    runs = {0: metrics, 1: metrics | {"served": metrics["served"] | {"role": "student"}}}
    table = report.comparison.final_accuracies(runs)
    assert table == {0: pytest.approx(100 * 110 / 120), 1: pytest.approx(50.0)}

    # Asked for another one, the complete run serves that and says that it is worse.
    again = {"export_dir": tmp_path / "saved", "draw_report": False}
    with pytest.warns(
        UserWarning, match="The fine-tuned student, which was asked for, is .* below the supervised"
    ):
        done = finalize.complete(folder, run_data, serve="finetuned", **again)
    assert done == ["the fine-tuned student chosen to be served", "exported"]
    metrics = folder.read_metrics()
    assert metrics["served"]["role"] == "finetuned"
    assert "was asked for. The fine-tuned student, which was asked for, is" in metrics["served"]["reason"]
    assert "`finetuned`" in (tmp_path / "saved" / "2" / "card.md").read_text("utf-8")
    assert finalize.complete(folder, run_data, serve="finetuned", **again) == []
    with pytest.raises(ValueError, match=r"serve='teacher'"):
        finalize.complete(folder, run_data, serve="teacher", **again)

    # What was damaged is measured again where it was removed, as the sentence says.
    (folder.path / "outcomes.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"outcomes\.npz is damaged .*: remove it"):
        finalize.complete(folder, run_data, serve="student", **again)
    (folder.path / "outcomes.npz").unlink()
    (folder.path / "history.csv").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"report could not be drawn \(.*history\.csv is damaged"):
        finalize.draw_page(folder, run_data, networks(*roles))
    (folder.path / "history.csv").unlink()

    # Chosen again, the first one is exported again, since servers take the highest version; and once, if killed then.
    before = (folder.path / "metrics.json").read_bytes()
    monkeypatch.setattr(writer, "write_saved_model", lambda network, folder, **options: folder.mkdir())
    for _ in range(2):
        (folder.path / "metrics.json").write_bytes(before)
        finalize.complete(folder, run_data, serve="auto", **again)
        assert folder.read_metrics()["export"] == str(tmp_path / "saved" / "3")
        assert "- exported network: `supervised`" in (tmp_path / "saved" / "3" / "card.md").read_text("utf-8")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["1", "2", "3"]


def test_test_images_that_come_later_are_measured_for_all_that_speaks_of_them(run_data, tmp_path):
    folder, roles = RunFolder(tmp_path), ("supervised", "teacher", "student", "finetuned")
    untested = dataclasses.replace(run_data, source=dataclasses.replace(run_data.source, test=None))
    # As recipes.auto notes it.
    gain = {"method": "student", "reference": "supervised", "methods": 1}
    finalize.finish(folder, untested, networks(*roles), draw_report=False, seconds={}, gain=gain)
    assert "test" not in folder.read_metrics()
    done = finalize.complete(folder, run_data, draw_report=False)
    assert done == ["evaluated on the test images, which it had not seen yet"]
    metrics = folder.read_metrics()
    # In the order of the training, by which the page finds the network that has labeled.
    assert list(metrics["test"]) == list(metrics["validation"]) == list(roles)
    wins, losses = (
        (spoiled(worse) & ~spoiled(better)).sum()
        for worse, better in (("supervised", "student"), ("student", "supervised"))
    )
    error = np.sqrt(wins + losses + 1 - (wins - losses) ** 2 / (COUNT + 2)) / (COUNT + 2)
    assert metrics["gain"]["test"] == {
        "difference": pytest.approx((WRONG["supervised"] - WRONG["student"]) / COUNT),
        "standard_error": pytest.approx(error),
        "count": COUNT,
    }


def test_a_run_of_before_chooses_by_its_validation_images_and_one_without_any_by_the_methods_order(
    run_data, tmp_path
):
    folder = RunFolder(tmp_path)
    made = networks("supervised", "student")
    finalize.finish(folder, run_data, made, draw_report=False, seconds={})
    metrics = folder.read_metrics()
    del metrics["served"]
    folder.write_metrics(metrics)
    (folder.path / "outcomes.npz").unlink()
    assert finalize.complete(folder, run_data, draw_report=False) == [
        "the supervised baseline chosen to be served"
    ]
    assert folder.read_metrics()["served"]["role"] == "supervised"
    # Numbers alone do not say which images they are of.
    (folder.path / "outcomes.npz").unlink()
    results = {split: metrics[split] for split in ("validation", "test")}
    finalize.finish(folder, run_data, made, results=results, draw_report=False, seconds={})
    assert folder.read_metrics()["served"]["role"] == "supervised"

    none = dataclasses.replace(
        run_data, split=data.draw_split(run_data.source, num_labeled=9, seed=0, validation=0.0)
    )
    metrics = finalize.finish(RunFolder(tmp_path / "none"), none, made, draw_report=False, seconds={})
    assert metrics["served"]["role"] == "student"
    assert "There are no validation images" in metrics["served"]["reason"]


def test_a_complete_run_without_images_to_evaluate_on_exports_and_serves_what_it_has(
    run_data, tmp_path, monkeypatch
):
    source = dataclasses.replace(run_data.source, test=None)
    split = data.draw_split(source, num_labeled=9, seed=0, validation=0)
    nothing = dataclasses.replace(run_data, source=source, split=split)
    folder = RunFolder(tmp_path / "run")
    finalize.finish(folder, nothing, networks("teacher", "student"), draw_report=False, seconds={})
    exported = []
    monkeypatch.setattr(
        finalize.export,
        "saved_model",
        lambda network, *_, **__: exported.append(network.name) or tmp_path / "1",
    )
    again = {"export_dir": tmp_path / "exported", "draw_report": False}
    assert finalize.complete(folder, nothing, **again) == ["exported"]
    done = finalize.complete(folder, nothing, serve="teacher", **again)
    assert done == ["the teacher chosen to be served", "exported"]
    assert exported == ["student", "teacher"]


def test_a_teacher_is_chosen_only_where_the_run_has_trained_it_and_it_costs_no_more(run_data, tmp_path):
    def served(name, *, given=(), larger=False, baseline=None):
        with Run(tmp_path / name, run_data) as run:
            run.networks = networks("teacher", "student")
            if larger:
                inputs = keras.Input((4, 4, 1))
                outputs = keras.layers.Dense(3)(run.networks["teacher"](inputs))
                run.networks["teacher"] = keras.Model(inputs, outputs)
                run.networks["teacher"].layers[-1].set_weights([np.eye(3), np.zeros(3)])
            run.given |= set(given)
            run.baseline = baseline
            metrics = run.finish(report=False)
        assert metrics["test"]["teacher"]["accuracy"] == pytest.approx(1 - 5 / 120)
        assert metrics["served"]["baseline"] == baseline
        return metrics["served"]["role"]

    assert served("trained") == "teacher"
    assert served("given", given=["teacher"]) == "student"
    assert served("larger", larger=True) == "student"
    assert served("baseline", given=["teacher"], baseline="teacher") == "student"


def test_what_is_asked_for_and_not_there_is_refused_before_anything_is_written(run_data, tmp_path):
    with pytest.raises(ValueError, match="serve='finetuned'"):
        finalize.finish(RunFolder(tmp_path), run_data, networks("student"), serve="finetuned")
    assert not list(tmp_path.iterdir())


def suspected(folder):
    return {int(row["index"]): row for row in folder.read_rows("suspect_labels.csv")}


@pytest.mark.parametrize("cheap_labels", ["use", "ignore"])
def test_the_cheap_labels_that_the_network_contradicts_are_written_down(run_data, tmp_path, cheap_labels):
    trust = {"trusted": 12, "label_noise": "symmetric:0.25", "cheap_labels": cheap_labels}
    split = data.draw_split(run_data.source, num_labeled=60, seed=0, validation=0.4, **trust)
    noisy = dataclasses.replace(run_data, split=split)
    folder, made = RunFolder(tmp_path), networks("teacher", "student")
    finalize.finish(folder, noisy, made, draw_report=False, seconds={}, serve="teacher")
    labels = run_data.source.train.labels
    given = split.given_labels(labels)
    for role in ("teacher", "student"):
        predicted = np.where(spoiled(role), (labels + 1) % 3, labels)
        rows = suspected(folder)
        assert set(rows) == {index for index in split.cheap if predicted[index] != given[index]}
        assert not set(rows) & set(split.trusted)
        assert set(rows) & set(split.mislabeled)
        for index, row in rows.items():
            told = [row[name] for name in ("image", "label", "predicted", "true_label")]
            assert told == [str(value) for value in (index, given[index], predicted[index], labels[index])]
            assert float(row["confidence"]) > float(row["probability_of_label"])
        finalize.complete(folder, noisy, serve="student", draw_report=False)


def test_without_noise_there_is_no_truth_to_tell(run_data, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    finalize.finish(folder, run_data, networks("student"), draw_report=False, seconds={})
    rows = suspected(folder)
    assert set(rows) == set(np.flatnonzero(spoiled("student"))) & set(run_data.split.labeled)
    assert all("true_label" not in row for row in rows.values())

    # A network that agrees with all labels leaves the head of the table.
    monkeypatch.setattr(evaluation, "suspects", lambda _: [])
    finalize.write_suspect_labels(folder, run_data, networks("student")["student"])
    assert not suspected(folder)
    head = (tmp_path / "suspect_labels.csv").read_text().strip()
    assert head.split(",") == list(next(iter(rows.values())))


def test_a_run_completes_whose_images_have_names_that_are_no_text(run_data, tmp_path, monkeypatch):
    names = [os.fsdecode(b"caf\xe9 %d.png" % index) for index in range(COUNT)]
    monkeypatch.setattr(run_data.source.train, "names", names)
    folder, command = RunFolder(tmp_path), os.fsdecode(b"train --labeled_dir=caf\xe9")
    metrics = finalize.finish(folder, run_data, networks("student"), command=command, seconds={})
    assert folder.read_metrics()["command"] == metrics["command"] == command
    assert {row["image"] for row in suspected(folder).values()} <= set(names)
    assert b"caf\xe9 " in (tmp_path / "suspect_labels.csv").read_bytes()
    # Without the images the page has their names.
    page = report.page(tmp_path).read_text("utf-8")
    assert r"caf\xe9 " in page
    assert r"--labeled_dir=caf\xe9" in page
