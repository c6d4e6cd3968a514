"""Paths as users write them, with `~`, variables, spaces or a final slash, in every argument that takes one."""

import numpy as np
import pytest
from PIL import Image

from mpl_tf import data, export, models
from mpl_tf.runs.folder import RunFolder
from tests.support import tiny

SPELLINGS = ["~/{}", "$WHERE/{}", "${{WHERE}}/{}/", "{}", "./{}/", "a b/../{}"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home, the working folder and $WHERE, with what a user may have there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "labeled" / name).mkdir(parents=True)
        for index in range(2):
            pixels = np.random.default_rng([len(name), index, ord(name[0])]).integers(
                0, 256, (8, 8, 3), np.uint8
            )
            Image.fromarray(pixels).save(tmp_path / "labeled" / name / f"{index}.png")
    tiny.plain_network("student").save(tmp_path / "student.keras")
    return tmp_path


def source(path):
    assert len(data.from_folders(path).train) == 4


def split(path):
    images = data.from_arrays(np.zeros((9, 4, 4, 1), np.uint8), np.arange(9) % 3, name="x", flip=False)
    data.load_or_draw_split(path, images, num_labeled=3, seed=0, validation=0)


def label_store(path):
    arguments = {"index": np.arange(3), "num_classes": 2, "teacher": {"file": "x"}, "fingerprint": "y"}
    data.LabelStore.create(path, **arguments)


def version(path):
    export.new_version(path, lambda folder: folder.mkdir())


def run_folder(path):
    RunFolder(path).write_metrics({})


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("use", "name", "leaves"),
    [
        (source, "labeled", None),
        (models.load, "student.keras", None),
        (split, "split.json", "split.json"),
        (label_store, "labels", "labels"),
        (version, "saved", "saved/1"),
        (run_folder, "run", "run/metrics.json"),
    ],
)
def test_an_argument_takes_paths_as_users_write_them(home, use, name, leaves, spelling):
    before = {path.name for path in home.iterdir()}
    use(spelling.format(name))
    assert leaves is None or (home / leaves).exists()
    # Nothing lies anywhere else, in a folder called ~ or $WHERE, say.
    assert {path.name for path in home.iterdir()} - before <= {name}


def test_a_model_in_the_working_folder_has_the_folders_name(home, monkeypatch):
    (home / "pets").mkdir()
    monkeypatch.chdir(home / "pets")
    made = export.saved_model(tiny.plain_network("student"), ".", class_names=["a", "b", "c"], num_checks=1)
    assert "pets" in (made / "card.md").read_text().splitlines()[0]
