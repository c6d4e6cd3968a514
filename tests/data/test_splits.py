import itertools
import json
import warnings

import numpy as np
import pytest

from mpl_tf.data import split_files
from mpl_tf.data.images.images import ArrayImages
from mpl_tf.data.images.source import Source
from mpl_tf.data.split_files import load_or_draw_split
from mpl_tf.data.splits import draw_split

SEEDS = range(5)


def make_source(counts, unknown=0, name="tiny"):
    """A source with so many images per class, in an order of its own, each image different."""
    labels = np.repeat([*range(len(counts)), -1], [*counts, unknown])
    labels = np.random.default_rng(0).permutation(labels)
    images = np.arange(len(labels)).astype(np.uint16).view(np.uint8).reshape(-1, 1, 2, 1)
    return Source(
        name, tuple(f"class {number}" for number in range(len(counts))), ArrayImages(images, labels)
    )


@pytest.fixture
def source():
    return make_source([50, 31, 20, 12], unknown=40)


def counted(source, indices):
    return np.bincount(source.train.labels[indices], minlength=source.num_classes).tolist()


def same(split, other):
    return all(
        np.array_equal(getattr(split, part), getattr(other, part))
        for part in ("labeled", "unlabeled", "validation")
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("inside", [True, False])
def test_every_image_has_its_place(source, seed, inside):
    split = draw_split(source, num_labeled=10, seed=seed, validation=0.2, labeled_in_unlabeled=inside)
    labeled, unlabeled, validation = map(set, (split.labeled, split.unlabeled, split.validation))
    everything = set(range(len(source.train)))
    assert (
        (len(split.labeled), len(split.validation))
        == (len(labeled), len(validation))
        == (10, round(0.2 * 113))
    )
    assert not labeled & validation
    assert unlabeled == everything - validation - (set() if inside else labeled)
    assert len(split.unlabeled) == len(unlabeled)
    assert (source.train.labels[[*labeled, *validation]] >= 0).all()
    assert set(np.flatnonzero(source.train.labels < 0)) <= unlabeled
    for part in (split.labeled, split.unlabeled, split.validation):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("num_labeled", [4, 5, 7, 8, 40])
def test_classes_get_equally_many_labels(source, seed, num_labeled):
    split = draw_split(source, num_labeled=num_labeled, seed=seed)
    counts = counted(source, split.labeled)
    assert sum(counts) == num_labeled
    assert max(counts) - min(counts) <= 1
    assert split.labels_per_class == dict(zip(source.class_names, counts, strict=True))


def test_the_seed_chooses_who_gets_the_rest(source):
    chosen = {
        tuple(counted(source, draw_split(source, num_labeled=5, seed=seed).labeled)) for seed in range(20)
    }
    assert chosen == {(2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)}


@pytest.mark.parametrize("seed", SEEDS)
def test_short_classes_give_what_they_have_and_others_fill_up(source, seed):
    with pytest.warns(
        UserWarning, match=r"fewer than 20 labels for some classes, \{'class 3': 12\}: other classes"
    ):
        split = draw_split(source, num_labeled=80, seed=seed, validation=0)
    counts = counted(source, split.labeled)
    assert counts[3] == 12
    assert counts[2] == 20
    assert sorted(counts[:2]) == [24, 24]


@pytest.mark.parametrize("seed", SEEDS)
def test_validation_is_proportional_to_the_classes(source, seed):
    sizes = np.array([50, 31, 20, 12])
    for validation in (0.1, 0.3, 17, 60):
        counts = counted(
            source, draw_split(source, num_labeled=None, seed=seed, validation=validation).validation
        )
        total = validation if isinstance(validation, int) else round(validation * 113)
        assert sum(counts) == total
        np.testing.assert_allclose(counts, sizes * total / 113, atol=1)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("counts", [(30, 30, 30), (50, 31, 20, 12), (90, 9, 8), (40, 1, 25)], ids=str)
def test_splits_that_held_one_of_each_class_are_as_they_were(counts, seed):
    # The rule of before, by which splits have been published: in proportion to the classes' sizes, and nothing else.
    source = make_source(counts, unknown=5)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(counts))
    queues = [generator.permutation(np.flatnonzero(source.train.labels == label)) for label in order]
    ranked = sorted(
        ((member + 0.5) / len(queue), number, index)
        for number, queue in enumerate(queues)
        for member, index in enumerate(queue)
    )
    compared = 0
    for validation in (0.1, 0.2, 0.3, 9, 15):
        size = validation if isinstance(validation, int) else round(validation * sum(counts))
        before = np.sort([index for _, _, index in ranked[:size]])
        if min(number for number, count in zip(counted(source, before), counts, strict=True) if count > 1):
            compared += 1
            with warnings.catch_warnings(action="ignore"):
                now = draw_split(source, num_labeled=None, seed=seed, validation=validation)
            np.testing.assert_array_equal(now.validation, before)
    assert compared >= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_every_class_of_two_images_has_one_in_validation(seed):
    source = make_source([60, 3, 2, 1])
    with pytest.warns(UserWarning, match=r"7 images are held out .*, 0 to 5 of each class: .* ±37 points"):
        split = draw_split(source, num_labeled=None, seed=seed, validation=7)
    assert counted(source, split.validation) == [5, 1, 1, 0]
    assert split.validation_per_class == {"class 0": 5, "class 1": 1, "class 2": 1, "class 3": 0}
    assert split.labels_per_class == {"class 0": 55, "class 1": 2, "class 2": 1, "class 3": 1}


def test_a_fraction_grows_until_every_class_has_one_and_a_number_does_not():
    source = make_source([2, 2, 3])
    with pytest.warns(UserWarning, match=r"3 images .* 1 of each class: .* ±57 points \(95 %\)\. Label"):
        assert counted(source, draw_split(source, num_labeled=None, seed=0).validation) == [1, 1, 1]
    with pytest.warns(UserWarning, match=r"and it says nothing of the classes without one \('class \d'\)"):
        split = draw_split(source, num_labeled=None, seed=0, validation=2)
    assert sorted(counted(source, split.validation)) == [0, 1, 1]
    for none in (0, 0.0):
        with warnings.catch_warnings(action="error"):
            assert not len(draw_split(source, num_labeled=None, seed=0, validation=none).validation)


@pytest.mark.parametrize(("validation", "warned"), [(96, True), (97, False), (300, False)])
def test_a_wide_interval_is_told(validation, warned):
    # 1.96 √(p (1 - p) / n) is widest at p = 1/2, and 0.1 there at n = 96.04.
    source = make_source([100, 200, 300])
    with warnings.catch_warnings(record=True, action="always") as caught:
        draw_split(source, num_labeled=None, seed=0, validation=validation)
    assert [issubclass(warning.category, UserWarning) for warning in caught] == [True] * warned


def test_a_class_that_validation_lacks_is_named_however_many_there_are():
    with pytest.warns(
        UserWarning, match=r"of each class: it says nothing of the classes without one \('class 1'\)"
    ):
        draw_split(make_source([900, 1, 300]), num_labeled=None, seed=0, validation=300)


def test_a_split_shows_its_numbers(source):
    split = draw_split(source, num_labeled=8, seed=3, validation=17)
    assert repr(split) == "Split('tiny.3@8': 8 labeled, 136 unlabeled, 17 validation)"


@pytest.mark.parametrize("inside", [True, False])
def test_hidden_are_the_unlabeled_images_that_no_label_tells_of(source, inside):
    split = draw_split(source, num_labeled=8, seed=3, validation=17, labeled_in_unlabeled=inside)
    others = set(range(len(source.train))) - {*split.labeled} - {*split.validation}
    assert split.hidden.tolist() == sorted(others)


def test_classes_of_one_size_have_equally_many_in_validation():
    source = make_source([30] * 5)
    assert counted(source, draw_split(source, num_labeled=5, seed=0, validation=50).validation) == [10] * 5


@pytest.mark.parametrize("seed", SEEDS)
def test_more_labels_include_the_fewer(source, seed):
    draws = [draw_split(source, num_labeled=number, seed=seed, validation=0) for number in range(4, 49)]
    draws.append(draw_split(source, num_labeled=None, seed=seed, validation=0))
    for fewer, more in itertools.pairwise(draws):
        assert set(fewer.labeled) < set(more.labeled)


def test_validation_does_not_depend_on_the_number_of_labels(source):
    few, many = (draw_split(source, num_labeled=number, seed=1) for number in (4, 40))
    np.testing.assert_array_equal(few.validation, many.validation)


def test_all_known_labels_are_used_where_no_number_is_given(source):
    split = draw_split(source, num_labeled=None, seed=2, validation=13)
    assert set(split.labeled) | set(split.validation) == set(np.flatnonzero(source.train.labels >= 0))
    assert split.name == "tiny.2@100"


def test_a_seed_is_a_draw(source):
    assert same(draw_split(source, num_labeled=8, seed=3), draw_split(source, num_labeled=8, seed=3))
    draws = [draw_split(source, num_labeled=8, seed=seed) for seed in SEEDS]
    for one, other in itertools.combinations(draws, 2):
        assert set(one.labeled) != set(other.labeled)
        assert set(one.validation) != set(other.validation)


def test_splits_are_named_as_in_fixmatch(source):
    split = draw_split(source, num_labeled=40, seed=3)
    assert split.name == "tiny.3@40"
    assert split.fingerprint == source.train.fingerprint()


def test_numpy_numbers_are_numbers(source, tmp_path):
    arguments = {"num_labeled": np.int64(8), "seed": np.int32(1), "validation": np.float64(0.2)}
    split = load_or_draw_split(tmp_path / "split.json", source, **arguments)
    assert same(split, draw_split(source, num_labeled=8, seed=1, validation=0.2))
    assert same(split, load_or_draw_split(tmp_path / "split.json", source, **arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_labeled": 0}, "num_labeled=0 is no number of labels: pass one of at least 1, or None"),
        ({"num_labeled": -4}, "num_labeled=-4 is no number of labels"),
        ({"num_labeled": 8.0}, r"num_labeled=8\.0 is no number of labels"),
        ({"num_labeled": 3}, "num_labeled=3 leaves a class without labels: 'tiny' has 4 classes"),
        (
            {"num_labeled": 103},
            r"num_labeled=103 is more than the 102 labels of 'tiny' that validation=0\.1 leaves",
        ),
        ({"seed": -1}, "seed=-1 is out of range: pass a value of at least 0"),
        ({"seed": 0.5}, r"seed=0\.5 is not a whole number: pass one of at least 0"),
        ({"validation": -0.1}, r"validation=-0\.1 is out of range: pass a fraction"),
        ({"validation": 1.0}, r"validation=1\.0 is out of range: pass a fraction of at least 0 and below 1"),
        ({"validation": float("nan")}, "validation=nan is out of range"),
        ({"validation": -1}, "validation=-1 is out of range: 113 images have a label"),
        (
            {"validation": 113},
            "validation=113 is out of range: 113 images have a label, so pass .* from 0 to 112",
        ),
        ({"validation": "some"}, "validation='some' is neither a number of images nor a fraction"),
        ({"validation": True}, "validation=True is neither a number of images nor a fraction"),
        ({"validation": 112}, r"validation=112 leaves no label to the class 'class \d': hold out fewer"),
    ],
)
def test_impossible_splits_are_refused(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_split(source, **{"num_labeled": 8, "seed": 0, **arguments})


def test_as_many_labels_as_there_are_can_be_asked_for(source):
    with pytest.warns(UserWarning, match="fewer than 25 labels"):
        assert len(draw_split(source, num_labeled=102, seed=0).labeled) == 102


def test_a_class_without_labels_is_named():
    with pytest.raises(
        ValueError, match="The class 'class 1' of 'tiny' has no image with a label: add some, or"
    ):
        draw_split(make_source([9, 0, 9]), num_labeled=8, seed=0)


@pytest.mark.parametrize("wrong", [4, -2])
def test_labels_outside_the_classes_are_refused(source, wrong):
    source.train.labels[5] = wrong
    with pytest.raises(
        ValueError, match=f"The label {wrong} of an image of 'tiny' is outside 0…3: mend the labels"
    ):
        draw_split(source, num_labeled=8, seed=0)


def test_a_file_gives_the_same_split_again(source, tmp_path):
    path = tmp_path / "new" / "split.json"
    arguments = {"num_labeled": 8, "seed": 1, "validation": 9, "labeled_in_unlabeled": False}
    drawn = load_or_draw_split(path, source, **arguments)
    written = path.read_bytes()
    read = load_or_draw_split(path, source, **arguments)
    assert same(drawn, draw_split(source, **arguments))
    assert same(read, drawn)
    assert read.validation_per_class == drawn.validation_per_class
    assert (read.name, read.labels_per_class, read.fingerprint) == (
        drawn.name,
        drawn.labels_per_class,
        drawn.fingerprint,
    )
    assert read.labeled.dtype == np.int64
    assert path.read_bytes() == written
    assert [entry.name for entry in path.parent.iterdir()] == ["split.json"]


def test_a_file_is_read_and_not_drawn_again(source, tmp_path):
    path = tmp_path / "split.json"
    split = load_or_draw_split(path, source, num_labeled=8, seed=1)
    document = json.loads(path.read_text())
    document["labeled"] = split.labeled[:-1].tolist()
    path.write_text(json.dumps(document))
    assert len(load_or_draw_split(path, source, num_labeled=8, seed=1).labeled) == 7


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"num_labeled": 9}, "num_labeled=9"),
        ({"num_labeled": None}, "num_labeled=None"),
        ({"seed": 2}, "seed=2"),
        ({"validation": 9}, "validation=9"),
        ({"labeled_in_unlabeled": False}, "labeled_in_unlabeled=False"),
    ],
)
def test_a_file_of_another_split_is_never_overwritten(source, tmp_path, change, asked):
    path = tmp_path / "split.json"
    arguments = {"num_labeled": 8, "seed": 1, "validation": 0.1}
    load_or_draw_split(path, source, **arguments)
    written = path.read_bytes()
    message = rf"split\.json holds the split 'tiny\.1@8' \(.*num_labeled=8, .*another is asked for .*{asked}"
    with pytest.raises(ValueError, match=message):
        load_or_draw_split(path, source, **{**arguments, **change})
    assert path.read_bytes() == written


def test_a_file_of_other_images_is_refused(source, tmp_path):
    path = tmp_path / "split.json"
    load_or_draw_split(path, source, num_labeled=8, seed=1)
    with pytest.raises(ValueError, match=r"dataset='tiny'.*another is asked for \(dataset='other'"):
        load_or_draw_split(path, make_source([50, 31, 20, 12], 40, name="other"), num_labeled=8, seed=1)
    with pytest.raises(
        ValueError,
        match=rf"fingerprint {source.train.fingerprint()[:12]}…, and those of 'tiny' now have .*: bring .*run_dir",
    ):
        load_or_draw_split(path, make_source([50, 31, 20, 13], 39), num_labeled=8, seed=1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"arguments": {"dataset": "tiny"}}', '{"arguments": 3}']
)
def test_a_file_that_holds_no_split_is_refused(source, tmp_path, text):
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=r"split\.json holds no split \(.*\): remove it, or give another path"
    ):
        load_or_draw_split(path, source, num_labeled=8, seed=1)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("far", r"split\.json has indices outside 0…152"),
        ("negative", r"split\.json has indices outside 0…152"),
        ("validation", r"split\.json trains on validation images"),
    ],
)
def test_a_file_with_impossible_indices_is_refused(source, tmp_path, part, message):
    path = tmp_path / "split.json"
    split = load_or_draw_split(path, source, num_labeled=8, seed=1)
    document = json.loads(path.read_text())
    wrong = {"far": 153, "negative": -1, "validation": int(split.validation[0])}
    document["labeled"].append(wrong[part])
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        load_or_draw_split(path, source, num_labeled=8, seed=1)


@pytest.fixture
def many(source, tmp_path, monkeypatch):
    """A path and the arguments of a split whose indices are too many for a JSON file."""
    monkeypatch.setattr(split_files, "LISTED_INDICES", 20)
    arguments = {"num_labeled": 12, "seed": 1, "validation": 9, "labeled_in_unlabeled": False}
    drawn = load_or_draw_split(tmp_path / "split.json", source, **arguments)
    return tmp_path / "split.json", arguments, drawn


def test_many_indices_lie_in_an_array_file_beside(source, many):
    path, arguments, drawn = many
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["split.json", "split.npz"]
    document = json.loads(path.read_text())
    assert not {"labeled", "unlabeled", "validation"} & set(document)
    assert document["counts"] == {"labeled": 12, "unlabeled": 132, "validation": 9}
    read = load_or_draw_split(path, source, **arguments)
    assert same(read, drawn)
    assert {part.dtype for part in (read.labeled, read.unlabeled, read.validation)} == {np.dtype(np.int64)}


def lost(path):
    path.unlink()


def cut_short(path):
    path.write_bytes(path.read_bytes()[:100])


def emptied(path):
    path.write_bytes(b"")


def exchanged(path):
    np.savez(path, labeled=np.arange(12), validation=np.arange(12, 21))


@pytest.mark.parametrize("harm", [lost, cut_short, emptied, exchanged])
def test_an_array_file_that_is_lost_or_another_is_refused(source, many, harm):
    path, arguments, _ = many
    harm(path.with_suffix(".npz"))
    with pytest.raises(ValueError, match=r"split\.json holds no split \(.*split\.npz|BadZipFile|EOFError"):
        load_or_draw_split(path, source, **arguments)


def test_nothing_is_written_for_a_split_that_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="num_labeled=3 leaves a class without labels"):
        load_or_draw_split(tmp_path / "split.json", source, num_labeled=3, seed=1)
    assert not list(tmp_path.iterdir())
