"""What a network has learned from before, and what its run has held out."""

import types

import numpy as np
import pytest
from absl import flags

from mpl_tf import data
from mpl_tf.runs.folder import RunFolder
from recipes.common import origin


@pytest.fixture
def run(tmp_path):
    """The folder of a run on digits that held out another part than is usual, and one of its networks."""
    folder = RunFolder(tmp_path / "run")
    folder.verify_or_write_config({"dataset": "digits", "seed": 3, "validation": 0.2, "labels": 100})
    (folder.path / "networks").mkdir()
    network = folder.path / "networks" / "student.keras"
    network.touch()
    source = data.load("digits")
    split = data.draw_split(source, num_labeled=100, seed=3, validation=0.2)
    data.write_split(folder.path / "split.json", split)
    return types.SimpleNamespace(folder=folder, network=str(network), source=source, split=split)


def parsed(monkeypatch, *arguments):
    known = flags.FlagValues()
    flags.DEFINE_string("dataset", "digits", "Images.", flag_values=known)
    flags.DEFINE_integer("seed", 0, "Of the draw.", flag_values=known)
    flags.DEFINE_float("validation", 0.1, "Held out.", flag_values=known)
    flags.DEFINE_integer("trusted", None, "Of the labels.", flag_values=known)
    flags.DEFINE_string("trusted_dir", None, "Those that are.", flag_values=known)
    flags.DEFINE_enum("cheap_labels", "use", ["use", "ignore"], "The others.", flag_values=known)
    flags.DEFINE_string("label_noise", None, "Of the others.", flag_values=known)
    known(["recipe", *arguments])
    monkeypatch.setattr(origin, "FLAGS", known)
    return known


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], (3, 0.2)),
        (["--seed=0"], (0, 0.2)),
        (["--validation=0.1", "--seed=5"], (5, 0.1)),
        (["--dataset=folders"], (0, 0.1)),
    ],
)
def test_what_a_run_has_held_out_is_held_out_again_unless_the_user_says_otherwise(
    monkeypatch, capsys, run, arguments, expected
):
    known = parsed(monkeypatch, *arguments)
    origin.adopt_data(run.network)
    assert (known.seed, known.validation) == expected
    said = capsys.readouterr().out
    assert ("--validation=0.2" in said) == (expected[1] == 0.2)
    assert ("--seed=3" in said) == (expected[0] == 3)


def test_labels_are_those_that_a_run_has_had_unless_the_user_says_otherwise(monkeypatch, capsys, tmp_path):
    folder = RunFolder(tmp_path / "run")
    settings = {"trusted": 20, "cheap_labels": "ignore", "label_noise": "symmetric:0.3"}
    folder.verify_or_write_config({"dataset": "digits"} | settings)
    network = str(folder.path / "networks" / "student.keras")
    known = parsed(monkeypatch, "--cheap_labels=use")
    (folder.path / "networks").mkdir()
    origin.adopt_data(network)
    assert (known.trusted, known.cheap_labels, known.label_noise) == (20, "use", "symmetric:0.3")
    assert "--trusted=20 --label_noise=symmetric:0.3, so that labels are" in capsys.readouterr().out
    known = parsed(monkeypatch, "--trusted_dir=checked")
    origin.adopt_data(network)
    assert (known.trusted, known.cheap_labels, known.label_noise) == (None, "use", None)


def test_a_network_that_no_run_has_left_changes_nothing(monkeypatch, tmp_path, run):
    known = parsed(monkeypatch)
    (tmp_path / "networks").mkdir()
    for path in (
        tmp_path / "networks" / "a.keras",
        tmp_path / "run" / "b.keras",
        tmp_path / "gone" / "c.keras",
    ):
        origin.adopt_data(str(path))
        assert (known.seed, known.validation) == (0, 0.1)


def test_validation_images_that_a_network_has_learned_from_are_counted(run, warned):
    for seed, validation in ((3, 0.2), (3, 0.1)):
        same = data.draw_split(run.source, num_labeled=20, seed=seed, validation=validation)
        origin.warn_of_learned_validation(same, {"network": run.network})
    assert not warned()
    other = data.draw_split(run.source, num_labeled=20, seed=4, validation=0.2)
    expected = len(set(other.validation.tolist()) & set(run.split.labeled.tolist()))
    origin.warn_of_learned_validation(other, {"network": run.network})
    (said,) = warned()
    assert f"--network has learned from {expected} of the {len(other.validation)} validation images" in said
    assert said.endswith("pass --seed=3 --validation=0.2, as its run had it.")
    # Of other images nothing is known.
    labels = np.array(run.source.train.labels)
    labels[0] = (labels[0] + 1) % 10
    changed = data.Source(name="digits", train=data.ArrayImages(run.source.train.examples, labels), test=None,
                          class_names=run.source.class_names)  # fmt: skip
    split = data.draw_split(changed, num_labeled=20, seed=4, validation=0.2)
    origin.warn_of_learned_validation(split, {"network": run.network})
    assert len(warned()) == 1
