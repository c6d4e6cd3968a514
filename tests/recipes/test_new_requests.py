"""A run that is started again and asked for something else: it does what is missing, or refuses."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from mpl_tf import models
from tests.programs import forked


def make_images(folder, classes=("cat", "dog"), count=7, *, start=0, size=(12, 12)):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = np.random.default_rng([start, number, index]).integers(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{start + index}.png")


@pytest.fixture
def run(tmp_path):
    make_images(tmp_path / "labeled")
    make_images(tmp_path / "test1", count=5, start=50)
    make_images(tmp_path / "test2", count=9, start=90)

    def start(*options, expect_success=True):
        fixed = [
            "--dataset=folders", f"--labeled_dir={tmp_path / 'labeled'}", "--model=mlp-8x1", "--batch_size=4",
            "--schedule=constant", "--progress=none", "--notensorboard", f"--run_dir={tmp_path / 'run'}",
        ]  # fmt: skip
        finished = forked.run("recipes.supervised", *fixed, *options)
        assert (finished.returncode == 0) == expect_success, finished.stderr[-3000:]
        return finished.stdout if expect_success else finished.stderr

    return start


def metrics(folder):
    return json.loads((folder / "run" / "metrics.json").read_text())


def test_a_complete_run_does_what_is_asked_for_anew_and_never_shows_old_numbers(run, tmp_path):
    small = ["--image_size=8", "--steps=4"]
    first = run(*small, f"--test_dir={tmp_path / 'test1'}", "--noreport")
    assert "This run was complete" not in first
    assert metrics(tmp_path)["test"]["student"]["count"] == 10

    # The same once more, then other test images, then an export, then a page.
    again = run(*small, f"--test_dir={tmp_path / 'test1'}", "--noreport")
    assert "This run was complete: there was nothing left to do." in again
    other = run(*small, f"--test_dir={tmp_path / 'test2'}", "--noreport")
    assert "complete: evaluated on the test images, which it had not seen yet." in other
    assert metrics(tmp_path)["test"]["student"]["count"] == 18
    asked = [*small, f"--test_dir={tmp_path / 'test2'}", f"--export_dir={tmp_path / 'saved'}"]
    assert "complete: exported, its report drawn." in run(*asked)
    assert metrics(tmp_path)["export"] == str(tmp_path / "saved" / "1")
    assert (tmp_path / "run" / "report.html").exists()
    assert "there was nothing left to do" in run(*asked)
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["1"]

    refused = run(*asked, "--learning_rate=0.3", expect_success=False)
    assert "holds another configuration (--learning_rate=0.05 there, --learning_rate=0.3 here)" in refused

    # More steps.
    more = run("--image_size=8", "--steps=6", f"--test_dir={tmp_path / 'test2'}", "--noreport")
    assert "The run of 4 steps goes on to 6." in more
    assert "This run was complete" not in more
    assert metrics(tmp_path)["steps"] == 6
    assert json.loads((tmp_path / "run" / "metrics.at_step_4.json").read_text())["steps"] == 4
    fewer = run("--image_size=8", "--steps=5", expect_success=False)
    assert "--steps=6 there, --steps=5 here" in fewer


def test_advice_can_be_followed_and_what_the_end_needs_is_checked_at_the_start(run, tmp_path):
    make_images(tmp_path / "labeled", count=1, start=70, size=(20, 16))
    # The size is missing, as the message says, and nothing is left that would refuse the next start.
    assert "image_size" in run("--steps=2", expect_success=False)
    assert not (tmp_path / "run" / "flags.txt").exists()
    (tmp_path / "file").touch()
    for option in (f"--export_dir={tmp_path / 'file' / 'saved'}", "--export_dir=/proc/saved"):
        assert "export_dir=" in run("--steps=2", "--image_size=8", option, expect_success=False)
    name = tmp_path / "labeled" / os.fsdecode(b"caf\xe9")
    (tmp_path / "labeled" / "cat").rename(name)
    said = run("--steps=2", "--image_size=8", expect_success=False)
    assert "UTF-8" in said
    name.rename(tmp_path / "labeled" / "cat")
    assert not (tmp_path / "run" / "flags.txt").exists()
    run("--steps=2", "--image_size=8", "--noreport")
    # What does not change what was computed may change.
    shown = run("--steps=2", "--image_size=8", "--noreport", "--jit=off", "--skip_unreadable")
    assert "there was nothing left to do" in shown


def test_another_network_behind_the_same_path_is_refused(tmp_path):
    path = tmp_path / "teacher.keras"

    def finetune(*, expect_success, spelling=path):
        finished = forked.run(
            "recipes.finetune", "--dataset=digits", "--labels=20", "--steps=2", "--batch_size=10", "--noreport",
            f"--network={spelling}", "--progress=none", "--notensorboard", "--run_dir=run", cwd=tmp_path,
        )  # fmt: skip
        assert (finished.returncode == 0) == expect_success, finished.stderr[-3000:]
        return finished.stdout if expect_success else finished.stderr

    models.save(models.build("mlp-8x1", 10, (8, 8, 1), seed=0), path)
    finetune(expect_success=True)
    path.write_bytes(path.read_bytes())
    # Nor does another spelling of the path make another network.
    for spelling in ("teacher.keras", path):
        assert "there was nothing left to do" in finetune(expect_success=True, spelling=spelling)
    models.save(models.build("mlp-8x1", 10, (8, 8, 1), seed=1), path)
    assert f"was made with another --network={path}" in finetune(expect_success=False)
