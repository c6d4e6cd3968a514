"""The program of the first table of docs/few_labels.md: folders like a user's, and what their runs say."""

import runpy

import numpy as np
from PIL import Image

from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "own_images.py"))
NAMES = [f"class {number}" for number in range(10)]


def some_images(count, seed):
    """Of equally many of each class, uint8; the red of an image says its class."""
    labels = np.random.default_rng(seed).permutation(np.arange(count) % len(NAMES))
    return np.broadcast_to((labels * 20).astype(np.uint8)[:, None, None, None], [count, 8, 8, 3]), labels


def test_each_seed_draws_classes_and_images_of_its_own(tmp_path, monkeypatch):
    sizes = {"LABELED": 2, "UNLABELED": 3, "TEST": 2}
    for name, size in sizes.items():
        monkeypatch.setitem(PROGRAM["write_folders"].__globals__, name, size)
    train, test = some_images(100, 0), some_images(50, 1)
    drawn = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        PROGRAM["write_folders"](folder, train, test, NAMES, seed)
        classes = {path.name for path in (folder / "labeled").iterdir()}
        assert len(classes) == 5
        assert classes == {path.name for path in (folder / "test").iterdir()}
        labeled = {path.name: path.parent.name for path in folder.glob("labeled/*/*.jpg")}
        unlabeled = {path.name for path in folder.glob("unlabeled/*.jpg")}
        assert len(labeled) == 5 * 2
        assert len(unlabeled) == 5 * 3
        assert not unlabeled & set(labeled)
        for name in (*labeled, *unlabeled):
            label = NAMES[train[1][int(name[:5])]]
            assert labeled.get(name, label) == label
            assert label in classes
        for path in folder.glob("test/*/*.jpg"):
            assert NAMES[test[1][int(path.name[:5])]] == path.parent.name
            image = np.asarray(Image.open(path))
            assert image.shape == (72, 96, 3)
            assert abs(image.mean() - 20 * test[1][int(path.name[:5])]) < 3
        drawn.append((classes, unlabeled))
    assert drawn[0][0] != drawn[1][0]
    # What is there stays.
    (tmp_path / "1" / "test").rename(tmp_path / "1" / "kept")
    PROGRAM["write_folders"](tmp_path / "1", train, test, NAMES, 1)
    assert not (tmp_path / "1" / "test").exists()


def test_the_table_says_what_each_seed_has_brought():
    def run(probe, uda, gain):
        return {
            "test": {"probe": {"accuracy": probe}, "uda": {"accuracy": uda}},
            "cpu_seconds": {"uda": 100.0},
            "gain": {"test": {"difference": gain, "standard_error": 0.02}},
            "served": {"role": "uda"},
        }

    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in PROGRAM["table"]({3: run(0.5, 0.7, 0.1), 4: run(0.6, 0.72, 0.04)}).splitlines()
    ]
    assert rows[0] == ["network", "seed 3", "seed 4", "test %", "CPU s"]
    assert rows[2:] == [
        ["probe", "50.0", "60.0", "55.0 ± 7.1", ""],
        ["uda", "70.0", "72.0", "71.0 ± 1.4", "100"],
        ["served", "uda", "uda", "", ""],
        ["what the unlabeled images brought", "+10.0 ± 2.0", "+4.0 ± 2.0", "+7.0 ± 3.0", ""],
    ]
