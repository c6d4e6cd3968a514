"""From the data flags to the views and the data of a run, in this process."""

import types

import numpy as np
import pytest

from mpl_tf import data
from recipes.common import program

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
