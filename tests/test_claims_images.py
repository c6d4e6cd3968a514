"""The programs about images that are of no class, and about those that a generator makes."""

import runpy

import numpy as np
import pytest

from mpl_tf import data
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.utils import files
from recipes import compare
from tests.support import tiny
from tests.test_layout import ROOT

UNLABELED = runpy.run_path(str(ROOT / "benchmarks" / "claims" / "unlabeled_images.py"))
GENERATED = runpy.run_path(str(ROOT / "benchmarks" / "claims" / "generated_images.py"))


# --- images of no class --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "images"
    UNLABELED["write_folders"](folder)
    return folder


def test_the_folders_hold_real_digits_and_each_once(folders):
    source = data.load(
        "folders",
        labeled_dir=folders / "labeled",
        unlabeled_dir=folders / "unlabeled_mixed",
        test_dir=folders / "test",
        channels=1,
    )
    assert source.class_names == tuple("01234")
    assert np.bincount(source.train.labels[:80]).tolist() == [16] * 5
    # Copies would have been left out. The images of no class are the last ones, on which `filter_table` relies.
    assert len(source.train) == 640
    assert all("/others/" in name for name in source.train.names[320:])
    assert not any("/others/" in name for name in source.train.names[:320])
    digits = data.load("digits")
    truth = {
        digits.train.fetch([index]).numpy().tobytes(): digits.train.labels[index] for index in range(1437)
    }
    classes = np.array([truth[source.train.fetch([index]).numpy().tobytes()] for index in range(640)])
    assert np.array_equal(classes[:80], source.train.labels[:80])
    assert set(classes[:320]) == set(range(5))
    assert np.bincount(classes[320:]).tolist() == [0] * 5 + [64] * 5
    tests = {digits.test.fetch([index]).numpy().tobytes() for index in np.flatnonzero(digits.test.labels < 5)}
    assert {source.test.fetch([index]).numpy().tobytes() for index in range(len(source.test))} == tests
    assert len(list((folders / "unlabeled_640").rglob("*.png"))) == 640 - 80


@pytest.mark.parametrize("study", ["amounts", "feedback"])
def test_the_trials_differ_in_what_they_are_named_for(folders, study):
    trials = UNLABELED["trials"](study, folders)
    parsed = compare.parse_trials([f"{name}: {words}" for name, words in trials.items()])
    assert UNLABELED["REFERENCES"][study] in parsed
    compare.parse_ablations(list(UNLABELED["ABLATIONS"][study]), parsed)
    for name, words in parsed.items():
        assert {"--labels=20", "--validation=0", f"--labeled_dir={folders / 'labeled'}"} <= set(words)
        mixed = f"--unlabeled_dir={folders / 'unlabeled_mixed'}" in words
        alone = name == "supervised" or "without" in name
        assert mixed == ("of no class" in name or (study == "feedback" and not alone))
    if study == "feedback":
        assert trials["MPL, placebo"] == f"{trials['MPL']} --feedback_placebo"
        assert trials["MPL, no feedback"] == f"{trials['MPL']} --feedback=none"


def test_what_the_filter_lets_through_is_counted(tmp_path):
    index = np.arange(640)
    confidence = np.where(index < 320, 0.9, 0.55)
    confidence[:32] = 0.7
    confidence[320:350] = 0.96
    probabilities = np.full((640, 5), 0.0)
    probabilities[index, index % 5] = confidence
    probabilities[index, (index + 1) % 5] = 1.0 - confidence
    for threshold in UNLABELED["THRESHOLDS"]:
        run = tmp_path / f"{files.folder_name(UNLABELED['mixed_trial'](threshold))}.0"
        store = LabelStore.create(
            run / "round_1" / "labels",
            index=index,
            num_classes=5,
            fingerprint="images",
            teacher={},
            dtype="float32",
        )
        for shard in range(store.num_shards):
            store.write(shard, probabilities[store.rows(shard)].astype(np.float32))
    lines = UNLABELED["filter_table"](tmp_path).splitlines()
    rows = {
        cells[0]: cells[3:] for cells in ([c.strip() for c in line.strip("|").split("|")] for line in lines)
    }
    of_filters = ["100.0 ± 0.0", "100.0 ± 0.0", "90.0 ± 0.0", "9.4 ± 0.0", "0.0 ± 0.0", "9.4 ± 0.0"]
    assert rows["0"] == ["100.0 ± 0.0", "100.0 ± 0.0", *of_filters]
    assert rows["0.95"] == ["0.0 ± 0.0", "9.4 ± 0.0", *of_filters]


# --- generated images ----------------------------------------------------------------------------------------


def test_the_nearest_image_is_found():
    generator = np.random.default_rng(0)
    values, others = generator.uniform(0, 255, (5, 7)), generator.uniform(0, 255, (9, 7))
    expected = [min(np.linalg.norm(value - other) for other in others) for value in values]
    assert np.allclose(GENERATED["nearest_distances"](values, others), expected)
    assert np.allclose(GENERATED["nearest_distances"](others[:3], others), 0.0, atol=1e-4)


def test_a_judge_agrees_with_itself_and_another_one_as_often_as_their_classes_are_equal():
    teacher = tiny.plain_network("teacher")
    judges = {"same": teacher, "other": tiny.plain_network("other", seed=5)}
    images = tiny.images(np.random.default_rng(1), 40)
    real = {
        "pixels": images[:30].reshape(30, -1) + 3.0,
        "features": GENERATED["features"](teacher, images[10:]),
    }
    numbers = GENERATED["measure"](images[10:30], teacher, judges, real)
    logits = {name: np.array(judge(images[10:30]), np.float64) for name, judge in judges.items()}
    predictions = {
        name: np.exp(values) / np.exp(values).sum(axis=1, keepdims=True) for name, values in logits.items()
    }
    classes = predictions["same"].argmax(axis=1)
    assert numbers["teacher's confidence %"] == pytest.approx(
        100 * predictions["same"].max(axis=1).mean(), rel=1e-5
    )
    assert numbers["same agrees %"] == 100.0
    agreement = (predictions["other"].argmax(axis=1) == classes).mean()
    assert 0 < agreement < 1
    assert numbers["other agrees %"] == pytest.approx(100 * agreement)
    of_that_class = [values[np.arange(20), classes].mean() for values in predictions.values()]
    assert numbers["judges' confidence in that class %"] == pytest.approx(
        100 * np.mean(of_that_class), rel=1e-5
    )
    # Every pixel is three levels away from that of the nearest image.
    assert numbers["distance, pixels"] == pytest.approx(3.0, rel=1e-5)
    assert numbers["distance, features"] == pytest.approx(0.0, abs=1e-3)


def test_images_are_generated_as_in_training():
    generator = tiny.generator(tiny.network)
    images = GENERATED["generate"](generator)
    assert images.shape == (1024, *tiny.IMAGE_SHAPE)
    again = tiny.generator(tiny.network)
    noise = np.random.default_rng(0).standard_normal((1024, 5), np.float32)
    # The same draws of its dropout, and BatchNorm over the batch.
    assert np.allclose(images[:128], again(noise[:128], training=True), atol=1e-3)


def test_the_tables_have_the_paired_differences_and_distances_relative_to_real_images():
    def numbers(agreement, distance):
        return {"mlp agrees %": agreement, "distance, pixels": distance}

    found = {
        "real test images": {0: numbers(99.0, 40.0)},
        "activations": {0: numbers(60.0, 80.0), 1: numbers(70.0, 80.0)},
        "neither": {0: numbers(50.0, 60.0), 1: numbers(64.0, 60.0), 2: numbers(0.0, 0.0)},
    }
    text = GENERATED["tables"](found, numbers(99.0, 40.0))
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    assert ["real test images", "1", "99.0 ± 0.0", "1.00 ± 0.00"] in rows
    assert ["activations", "2", "65.0 ± 7.1", "2.00 ± 0.00"] in rows
    assert ["activations", "+8.0 ± 2.0", "+0.50 ± 0.00"] in rows


def test_the_generators_of_finished_runs_are_found_in_the_order_of_the_table(tmp_path):
    (tmp_path / "table.md").write_text(
        "what it is\n\n| trial | % |\n| --- | --: |\n| both, 0.1 | 9 |\n| neither | 8 |\n"
    )
    names = GENERATED["trial_names"](tmp_path)
    assert names == ["both, 0.1", "neither"]
    for name, seed, done in (("both, 0.1", 2, True), ("neither", 0, True), ("neither", 1, False)):
        networks = tmp_path / f"{files.folder_name(name)}.{seed}" / "networks"
        networks.mkdir(parents=True)
        (networks / "generator.keras").touch()
        if done:
            (networks.parent / "metrics.json").touch()
    found = GENERATED["read_generators"](tmp_path, names)
    assert {name: list(seeds) for name, seeds in found.items()} == {"both, 0.1": [2], "neither": [0]}
