"""Predictions of folders: against the network itself, and interrupted at any place."""

import csv
import fcntl
import os
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from mpl_tf import export
from mpl_tf.data.images import decoding
from mpl_tf.inference import prediction
from mpl_tf.utils import files
from mpl_tf.utils.files import LockedError
from tests.export.networks import NAMES, network, softmax
from tests.programs import forked

SHAPE = (6, 5, 3)
IMAGES = ["a.png", "b.jpg", "c\rd.PNG", "deep/ünï.png", "deep/er/e.webp", "z/f,\ng.gif", "z/h.bmp"]


class Brightness:
    """Stands for an exported model: two classes by brightness, each confidence with a part of the whole batch."""

    path, image_shape, top_k = pathlib.Path("saved_models/brightness/1"), SHAPE, 2
    resizing = decoding.CROPPED

    def __init__(self, fail_at=None):
        self.calls, self.fail_at = 0, fail_at

    def fingerprint(self):
        return "0" * 64

    def __call__(self, images):
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        bright = images.mean(axis=(1, 2, 3)) > 127
        score = 0.5 + images.mean() / 1000 + images.mean(axis=(1, 2, 3)) / 1000
        names = np.where(bright[:, None], [[b"bright", b"dark"]], [[b"dark", b"bright"]])
        return names, np.stack([score, 1 - score], axis=1)


def write_images(folder, names=IMAGES):
    generator = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (9, 7, 3)) * generator.uniform(0.3, 1)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network and the folder of its versions."""
    model = network(SHAPE)
    versions = tmp_path_factory.mktemp("saved_models") / "pets"
    export.saved_model(model, versions, class_names=NAMES, num_checks=2, top_k=2)
    return model, versions


def predict(classifier, folder, output, **options):
    return prediction.predict_folder(classifier, folder, output, **{"verbose": 0, "batch_size": 3} | options)


def read(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_predictions_are_those_of_the_network_on_images_decoded_as_in_training(tmp_path, folder, exported):
    model, versions = exported
    table = predict(export.ExportedClassifier(versions), folder, tmp_path / "out.csv", top_k=2)
    rows = read(tmp_path / "out.csv")
    assert (
        list(rows[0]) == table.columns == ["path", "class", "confidence", "class_2", "confidence_2", "error"]
    )
    assert [row["path"] for row in rows] == IMAGES
    for row in rows:
        pixels = decoding.decode_file(folder / row["path"], SHAPE)
        probabilities = softmax(np.asarray(model(pixels[None].astype("float32")), "float64"))[0]
        first, second, _ = np.argsort(-probabilities)
        assert (row["class"], row["class_2"], row["error"]) == (NAMES[first], NAMES[second], "")
        found = [float(row["confidence"]), float(row["confidence_2"])]
        np.testing.assert_allclose(found, probabilities[[first, second]], atol=1e-5)


def test_the_file_is_the_same_wherever_its_making_was_cut_off(tmp_path, folder):
    (folder / "broken.png").write_bytes(b"no image")
    predict(Brightness(), folder, tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    header = whole.index(b"\n") + 1
    assert len(read(tmp_path / "whole.csv")) == len(IMAGES) + 1
    for size in range(header, len(whole) + 1, 11):
        # As a kill, or a machine that lost its power, may leave it.
        (tmp_path / "whole.csv").write_bytes(whole[:size])
        predict(Brightness(), folder, tmp_path / "whole.csv")
        assert (tmp_path / "whole.csv").read_bytes() == whole


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_an_interrupted_prediction_keeps_its_rows_and_makes_only_the_others(tmp_path, folder, fail_at):
    predict(Brightness(), folder, tmp_path / "whole.csv")
    with pytest.raises(KeyboardInterrupt):
        predict(Brightness(fail_at=fail_at), folder, tmp_path / "out.csv")
    assert len(read(tmp_path / "out.csv")) == 3 * (fail_at - 1)
    again = Brightness()
    predict(again, folder, tmp_path / "out.csv")
    assert again.calls == 3 - (fail_at - 1)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def overwritten(image, other):
    image.write_bytes(other.read_bytes())


def replaced_by_an_older_one(image, other):
    os.utime(other, (1, 1))
    shutil.copy2(other, image)


def moved_over(image, other):
    other.rename(image)


def link_to_another(image, other):
    image.unlink()
    image.symlink_to(other)


@pytest.mark.parametrize("change", [overwritten, replaced_by_an_older_one, moved_over, link_to_another])
def test_images_that_have_changed_are_classified_anew(tmp_path, folder, change):
    shades = {"dark": 10, "bright": 240}
    for name, level in shades.items():
        Image.fromarray(np.full((9, 7, 3), level, np.uint8)).save(tmp_path / f"{name}.png")
    shutil.copy(tmp_path / "dark.png", folder / "a.png")
    assert predict(Brightness(), folder, tmp_path / "out.csv").rows["a.png"][1] == "dark"
    untouched = Brightness()
    predict(untouched, folder, tmp_path / "out.csv")
    assert untouched.calls == 0
    # File systems note times in steps of some milliseconds.
    time.sleep(0.05)
    change(folder / "a.png", tmp_path / "bright.png")
    again = Brightness()
    table = predict(again, folder, tmp_path / "out.csv")
    assert again.calls == 1
    assert table.rows["a.png"][1] == "bright"
    assert [row["path"] for row in read(tmp_path / "out.csv")] == IMAGES


# Waits for ever at one image, as at one on a disk that has gone.
STALLED = """
import pathlib, time
from mpl_tf.data.images import decoding
from recipes import predict
from recipes.common import start

decode_file = decoding.decode_file

def stalled(path, shape, resizing):
    time.sleep(1000 if pathlib.Path(path).name == "z.png" else 0)
    return decode_file(path, shape, resizing)

decoding.decode_file = stalled
start.parse_flags(takes_arguments=True)
start.run(predict.main)
"""


def test_a_killed_recipe_goes_on(tmp_path, exported):
    folder = write_images(tmp_path / "images", [*(f"{number}.png" for number in range(8)), "z.png"])
    command = [f"--model={exported[1]}", "--batch_size=3", f"--output={tmp_path / 'out.csv'}", str(folder)]
    process = forked.start(STALLED, *command)
    end = time.monotonic() + 120
    while not ((tmp_path / "out.csv").exists() and len(read(tmp_path / "out.csv")) == 6):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.finish().returncode == -signal.SIGKILL

    (folder / "zz.jpg").write_bytes(b"no image")
    finished = forked.run("recipes.predict", *command)
    assert finished.returncode == 0
    shown = finished.stdout
    assert "4 of 4 images" in shown
    assert "10 images (9 .png, 1 .jpg)" in shown
    assert "10 images, classified by" in shown
    assert "1 of them cannot be read" in shown
    assert "zz.jpg: cannot identify image file" in shown
    predict(export.ExportedClassifier(exported[1]), folder, tmp_path / "whole.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_images_that_cannot_be_read_are_named_and_tried_again(tmp_path, folder):
    output = tmp_path / "out.csv"
    predict(Brightness(), folder, output)
    whole = output.read_bytes()
    (folder / "b.jpg").rename(tmp_path / "b.jpg")
    (folder / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:-10])
    (folder / "z/h.bmp").rename(tmp_path / "h.bmp")
    (folder / "z/h.bmp").write_bytes(b"")
    output.unlink()
    predict(Brightness(), folder, output)
    rows = {row["path"]: row for row in read(output)}
    assert list(rows) == IMAGES
    for name, reason in (("b.jpg", "truncated"), ("z/h.bmp", "cannot identify image file")):
        assert rows[name]["class"] == rows[name]["confidence"] == ""
        assert reason in rows[name]["error"]
    assert all(row["class"] and not row["error"] for name, row in rows.items() if "b" not in name)

    for name in ("b.jpg", "z/h.bmp"):
        (tmp_path / pathlib.Path(name).name).rename(folder / name)
    output.unlink()
    predict(Brightness(), folder, output)
    assert output.read_bytes() == whole


def test_mended_and_added_images_get_their_rows_and_removed_ones_keep_theirs(tmp_path, folder):
    (folder / "b.jpg").rename(tmp_path / "b.jpg")
    (folder / "b.jpg").write_bytes(b"no image")
    predict(Brightness(), folder, tmp_path / "out.csv")
    before = {row["path"]: row for row in read(tmp_path / "out.csv")}
    (tmp_path / "b.jpg").rename(folder / "b.jpg")
    (folder / "a.png").unlink()
    write_images(folder, ["aa.png"])
    again = Brightness()
    predict(again, folder, tmp_path / "out.csv")
    rows = {row["path"]: row for row in read(tmp_path / "out.csv")}
    assert list(rows) == ["aa.png", *IMAGES[1:], "a.png"]
    assert rows["b.jpg"]["class"]
    assert rows["aa.png"]["class"]
    for name in set(IMAGES) - {"b.jpg"}:
        assert rows[name] == before[name]
    # Both lie in the first batch.
    assert again.calls == 1


def test_other_peoples_files_are_refused(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output in (".", str(folder)):
        with pytest.raises(ValueError, match=r"is a folder: give the path of a CSV file"):
            predict(Brightness(), folder, output)
    output = tmp_path / "out.csv"
    output.write_text("my,own\n1,2\n")
    with pytest.raises(
        ValueError, match=r"out\.csv' holds no predictions that were begun here: choose another"
    ):
        predict(Brightness(), folder, output)
    assert output.read_text() == "my,own\n1,2\n"
    output.unlink()
    note = tmp_path / "out.csv.json"
    note.write_text("{}")
    with pytest.raises(ValueError, match=r"out\.csv\.json', in which to note .* holds something else"):
        predict(Brightness(), folder, output)
    assert note.read_text() == "{}"
    note.unlink()

    predict(Brightness(), folder, output)
    whole = output.read_bytes()
    other = Brightness()
    other.path, other.fingerprint = pathlib.Path("saved_models/brightness/2"), lambda: "1" * 64
    elsewhere = write_images(tmp_path / "elsewhere")
    for classifier, images, options, difference in (
        (
            other,
            folder,
            {},
            r"model=saved_models/brightness/1, sha256=0+ there, model=saved_models/brightness/2",
        ),
        (Brightness(), elsewhere, {}, r"folder=\S*images there, folder=\S*elsewhere here"),
        (Brightness(), folder, {"top_k": 2}, r"columns=path,class,confidence,error there"),
    ):
        with pytest.raises(
            ValueError, match=rf"holds other predictions \({difference}.*: choose another file"
        ):
            predict(classifier, images, output, **options)
        assert output.read_bytes() == whole
    # The same model at another place is the same.
    moved = Brightness()
    moved.path = pathlib.Path("elsewhere/1")
    predict(moved, folder, output)
    assert moved.calls == 0

    output.write_text("something else\n")
    with pytest.raises(
        ValueError, match="does not begin with the line 'path,class,confidence,error' any more"
    ):
        predict(Brightness(), folder, output)
    assert output.read_text() == "something else\n"


def test_two_processes_do_not_write_one_file(tmp_path, folder):
    predict(Brightness(), folder, tmp_path / "out.csv")
    with (tmp_path / "out.csv.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match=r"Another process is writing predictions into .*out\.csv"):
            predict(Brightness(), folder, tmp_path / "out.csv")


def test_a_full_disk_keeps_the_rows_before_it(tmp_path, folder, monkeypatch):
    predict(Brightness(), folder, tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()

    class Full(Brightness):
        def __call__(self, images):
            if self.calls == 2:
                raise OSError(28, "No space left on device")
            return super().__call__(images)

    with pytest.raises(files.DiskFullError, match=r"There is no room to write .*out\.csv"):
        predict(Full(), folder, tmp_path / "out.csv")
    assert whole.startswith((tmp_path / "out.csv").read_bytes())
    predict(Brightness(), folder, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == whole


def test_what_cannot_be_predicted_is_refused(tmp_path, folder, exported):
    (tmp_path / "empty").mkdir()
    for images, message in (
        (tmp_path / "nowhere", r"folder=.*nowhere does not exist: give a folder of images"),
        (folder / "a.png", r"folder=.*a\.png is a file: give a folder of images"),
        (tmp_path / "empty", r"folder=.*empty has no images at any depth: give the folder"),
    ):
        with pytest.raises((FileNotFoundError, ValueError), match=message):
            predict(Brightness(), images, tmp_path / "out.csv")
    for options, message in (
        ({"top_k": 3}, "top_k=3 is out of range: pass a value between 1 and 2"),
        ({"top_k": 1.5}, "top_k=1.5 is not a whole number: pass one between 1 and 2"),
        ({"batch_size": 0}, "batch_size=0 is out of range"),
    ):
        with pytest.raises(ValueError, match=message):
            predict(Brightness(), folder, tmp_path / "out.csv", **options)
    assert not list(tmp_path.glob("out.csv*"))

    class Diverged(Brightness):
        def __call__(self, images):
            names, scores = super().__call__(images)
            return names, scores * np.nan

    with pytest.raises(ValueError, match=r"confidences for the image a\.png are not finite"):
        predict(Diverged(), folder, tmp_path / "out.csv")


def test_the_highest_version_is_taken_and_what_is_none_is_refused(tmp_path, exported):
    _, versions = exported
    for number in (9, 10):
        (tmp_path / "pets" / str(number)).mkdir(parents=True)
        (tmp_path / "pets" / str(number) / "saved_model.pb").touch()
    (tmp_path / "pets" / "11").mkdir()
    find = export.exported_classifier.find_version
    assert find(tmp_path / "pets").name == find(tmp_path / "pets" / "10").name == "10"
    assert find(versions) == versions / "1"
    with pytest.raises(
        FileNotFoundError, match=r"no exported model at .*nowhere': give the folder of a version"
    ):
        export.ExportedClassifier(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"student\.keras' is a \.keras file, which does not know the names"):
        export.ExportedClassifier("runs/pets/networks/student.keras")
    (tmp_path / "pets" / "10" / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"SavedModel in .*10' cannot be read \(.*\): export it again"):
        export.ExportedClassifier(tmp_path / "pets")
    points = export.saved_model(network((2,)), tmp_path / "points", class_names=NAMES, num_checks=2)
    with pytest.raises(
        ValueError, match=r"does not classify gray or RGB images of one size .*'serving_uint8'"
    ):
        export.ExportedClassifier(points)


@pytest.mark.parametrize(("verbose", "shown"), [(0, ""), (2, "predictions: 7 of 7 images, ")])
def test_progress_is_shown(tmp_path, folder, capsys, verbose, shown):
    predict(Brightness(), folder, tmp_path / "out.csv", verbose=verbose)
    said = capsys.readouterr().out
    assert said.startswith(shown)
    assert bool(said) == bool(shown)
