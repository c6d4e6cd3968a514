"""From the data flags to the views and the data of a run, in this process."""

import types

import numpy as np
import pytest
from absl import flags
from PIL import Image

from mpl_tf import data
from mpl_tf.runs.folder import RunFolder
from recipes.common import program, shared_flags

GIVEN = {
    "randaugment_operations": 1,
    "randaugment_magnitude": 5.0,
    "randaugment": "paper",
    "randaugment_labeled": False,
    "noise": 0.1,
    "augment_on": "host",
    "balance": "none",
    "crop": "auto",
    "crop_area": 0.35,
    "fill": "128",
}


@pytest.fixture
def source():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    images[:, 0] = images[:, -1] = images[:, :, 0] = images[:, :, -1] = (1, 2, 3)
    return data.from_arrays(images, np.arange(12) % 2, flip=False)


@pytest.fixture
def give(monkeypatch):
    """Gives the flags these values."""
    return lambda **values: monkeypatch.setattr(program, "FLAGS", types.SimpleNamespace(**GIVEN | values))


def strong(**options):
    return data.StrongView(num_operations=1, magnitude=5.0, flip=False, **options)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, (data.WeakView(flip=False), strong())),
        (
            {"crop": "resized", "crop_area": 0.5},
            (data.RandomResizedCrop(flip=False, area=0.5), strong(padding=0)),
        ),
        ({"fill": "0"}, (data.WeakView(flip=False, fill=0), strong(fill=0))),
        ({"fill": "255, 0,7"}, (data.WeakView(flip=False, fill=(255, 0, 7)), strong(fill=(255, 0, 7)))),
        ({"fill": "auto"}, (data.WeakView(flip=False, fill=(1, 2, 3)), strong(fill=(1, 2, 3)))),
        ({"augment_on": "device"}, (data.WeakView(flip=False), strong(static_shapes=True))),
    ],
    ids=str,
)
def test_the_flags_choose_the_views(source, give, values, expected):
    give(**values)
    assert program.views(source) == expected


@pytest.mark.parametrize("fill", ["black", "-1", "1.5", "", "1,,2", "300"])
def test_a_fill_that_is_no_color_is_refused(source, give, fill):
    give(fill=fill)
    with pytest.raises(ValueError, match=r"(--fill=.* is no color: pass a level)|(fill is 300; expected)"):
        program.views(source)


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_labeled_images_may_be_shown_by_their_strong_view(source, give, monkeypatch, tmp_path, augment_on):
    give(augment_on=augment_on, randaugment_labeled=True, randaugment_operations=0)
    monkeypatch.setattr(program, "load_source", lambda: source)
    monkeypatch.setattr(program, "split_options", lambda: {"num_labeled": None, "seed": 0, "validation": 0})
    run_data = program.load_data(str(tmp_path))
    assert run_data.balance == "none"
    assert run_data.labeled_view == data.Chain(run_data.weak, run_data.strong)
    sizes = {"batch_size": 4, "unlabeled_ratio": 1, "seed": 3, "start": 2}
    batch = next(iter(run_data.batches(**sizes)))
    if augment_on == "device":
        batch = run_data.augmentation(3)(batch)
    give(augment_on=augment_on, randaugment_operations=0)
    plain = program.load_data(str(tmp_path))
    assert plain.labeled_view is None
    drawn = next(iter(plain.batches(**sizes)))
    if augment_on == "device":
        drawn = plain.augmentation(3)(drawn)
    for view in ("weak", "strong"):
        np.testing.assert_array_equal(batch["unlabeled"][view], drawn["unlabeled"][view])
    assert not np.array_equal(batch["labeled"]["image"], drawn["labeled"]["image"])


def test_the_split_of_a_start_that_has_trained_nothing_binds_no_other(source, give, monkeypatch, tmp_path):
    give()
    monkeypatch.setattr(program, "load_source", lambda: source)

    def draw(seed):
        options = {"num_labeled": None, "seed": seed, "validation": 0}
        monkeypatch.setattr(program, "split_options", lambda: options)
        return program.load_data(str(tmp_path), write_split=seed == 0).split.name

    assert draw(0) == "arrays.0@12"
    # Somebody may have laid it there to be used.
    with pytest.raises(ValueError, match=r"holds the split 'arrays\.0@12'"):
        draw(1)
    RunFolder(tmp_path).verify_or_write_config({"seed": 0})
    assert draw(1) == "arrays.1@12"
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "student.keras").touch()
    with pytest.raises(ValueError, match=r"holds the split 'arrays\.0@12'"):
        draw(1)


def test_a_run_folder_among_the_images_is_refused(monkeypatch, tmp_path):
    given = {"labeled_dir": f"{tmp_path}/labeled", "unlabeled_dir": str(tmp_path), "test_dir": None}
    monkeypatch.setattr(program, "_optional", lambda *names: {name: given.get(name) for name in names})
    with pytest.raises(ValueError, match=rf"lies in unlabeled_dir={tmp_path}, .*: choose a folder outside"):
        program._check_outside_images(tmp_path / "runs" / "pets")
    program._check_outside_images(tmp_path.with_name("runs"))


def test_how_alike_images_may_be_is_part_of_a_run_that_leaves_them_out(monkeypatch):
    known = flags.FlagValues()
    flags.DEFINE_integer("near_duplicates", 8, "", flag_values=known, module_name="recipes.x")
    flags.DEFINE_string("duplicates", "drop", "", flag_values=known, module_name="recipes.x")
    flags.DEFINE_string("initialize", None, "", flag_values=known, module_name="recipes.x")
    known.mark_as_parsed()
    monkeypatch.setattr(program, "FLAGS", known)
    assert program.configuration() == {"duplicates": "drop", "initialize": None}
    known.duplicates = "drop_near"
    assert program.configuration()["near_duplicates"] == "8"


FOLDERS = {
    "dataset": "folders", "data_dir": None, "unlabeled_dir": None, "test_dir": None, "image_size": None,
    "skip_unreadable": False, "channels": None, "flip": "auto", "duplicates": None, "near_duplicates": None,
    "resize": None, "interpolation": None, "trusted_dir": None,
    "seed": 0,
}  # fmt: skip


@pytest.fixture
def labeled_dir(tmp_path):
    for number, name in enumerate(("ant", "ant", "cat")):
        (tmp_path / name).mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("values", "flip", "shape"),
    [
        ({}, True, (8, 12, 3)),
        ({"flip": "true"}, True, (8, 12, 3)),
        ({"flip": "false", "channels": "1"}, False, (8, 12, 1)),
        ({"image_size": "6"}, True, (6, 6, 3)),
        ({"image_size": "4x6"}, True, (4, 6, 3)),
        ({"image_size": "4x6", "resize": "pad", "interpolation": "lanczos"}, True, (4, 6, 3)),
    ],
    ids=str,
)
def test_the_flags_say_what_is_done_to_images_of_folders(labeled_dir, give, capsys, values, flip, shape):
    give(**FOLDERS | {"labeled_dir": labeled_dir} | values)
    source = program.load_source()
    assert (source.flip, source.image_shape) == (flip, shape)
    assert source.resizing == (values.get("resize", "crop"), values.get("interpolation", "bilinear"))
    assert capsys.readouterr().out == "folders: 3 images (3 .png)\n"


@pytest.mark.parametrize("name", ["digits", "two_moons"])
def test_the_flip_of_other_datasets_can_be_said_too(give, name):
    for text, flip in (("auto", False), ("true", True), ("false", False)):
        give(**FOLDERS | {"dataset": name, "labeled_dir": None, "flip": text})
        assert program.load_source().flip is flip
    give(**FOLDERS | {"dataset": name, "labeled_dir": None, "channels": "1"})
    with pytest.raises(ValueError, match="channels=1 is read for the dataset 'folders' and not for"):
        program.load_source()
    give(**FOLDERS | {"dataset": name, "labeled_dir": None, "resize": "pad"})
    with pytest.raises(ValueError, match="resize=pad does not apply"):
        program.load_source()


@pytest.mark.parametrize(
    ("text", "value", "size"),
    [
        ("96", "96", 96),
        ("72x96", "72x96", (72, 96)),
        ("72X96", "72x96", (72, 96)),
        ("32×32", "32", 32),
        (64, "64", 64),
    ],
)
def test_sizes_are_one_number_or_height_and_width(text, value, size):
    parser = shared_flags.ImageSizeParser()
    assert parser.parse(text) == value == parser.parse(value)
    assert shared_flags.image_size(value) == size
    assert shared_flags.image_size(None) is None


@pytest.mark.parametrize("text", ["", "large", "3", "64x2", "1x2x3", "-8", "8.5", "x8"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match=r"is no size: give a number|is too small: give at least 4"):
        shared_flags.ImageSizeParser().parse(text)


def test_steps_of_a_call_are_a_number_or_found():
    parser = shared_flags.StepsPerExecutionParser()
    assert [parser.parse(text) for text in ("auto", "1", "50", 3)] == ["auto", 1, 50, 3]
    for text in ("0", "-1", "1.5", "many", "", 0):
        with pytest.raises(ValueError, match="is no number of steps: give auto, or a number of at least 1"):
            parser.parse(text)
