"""Labels of unequal trust: which images are trusted, cheap or ignored, and what a run sees of each."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.images.load import from_arrays
from mpl_tf.data.pipeline import class_weights, training_batches
from mpl_tf.data.run_data import RunData
from mpl_tf.data.split_files import load_or_draw_split, write_split
from mpl_tf.data.splits import Split, draw_split

NAMES = ("a", "b", "c", "d")


def make_source(trusted=None):
    """200 images of 4 classes, whose two pixels tell their position; 40 more without a label."""
    positions = np.arange(240).astype(np.uint16).view(np.uint8).reshape(-1, 1, 2, 1)
    labels = np.random.default_rng(0).permutation(200) % 4
    mask = None
    if trusted is not None:
        mask = np.zeros(200, bool)
        mask[trusted] = True
    return from_arrays(
        positions[:200], labels, unlabeled_images=positions[200:], class_names=NAMES, trusted=mask
    )


@pytest.fixture
def source():
    return make_source()


def draw(source, **options):
    return draw_split(source, **{"num_labeled": 60, "seed": 1, "validation": 20} | options)


def counts(source, indices):
    return np.bincount(source.train.labels[indices], minlength=4).tolist()


def test_the_drawn_trusted_images_are_labeled_ones_of_all_classes(source):
    plain, split = draw(source), draw(source, trusted=10)
    np.testing.assert_array_equal(split.labeled, plain.labeled)
    np.testing.assert_array_equal(split.validation, plain.validation)
    assert set(split.trusted) < set(split.labeled)
    assert sorted(counts(source, split.trusted)) == [2, 2, 3, 3]
    np.testing.assert_array_equal(split.cheap, np.setdiff1d(split.labeled, split.trusted))
    assert not len(split.ignored)
    assert (
        repr(split) == "Split('arrays.1@60': 60 labeled, 10 of these trusted, 220 unlabeled, 20 validation)"
    )


@pytest.mark.parametrize("num_labeled", [20, 100, None])
def test_the_trusted_images_are_the_same_with_any_number_of_labels(source, num_labeled):
    np.testing.assert_array_equal(
        draw(source, trusted=10, num_labeled=num_labeled).trusted, draw(source, trusted=10).trusted
    )


@pytest.mark.parametrize("inside", [True, False])
def test_ignored_labels_make_unlabeled_images(source, inside):
    used = draw(source, trusted=10, labeled_in_unlabeled=inside)
    split = draw(
        source, trusted=10, labeled_in_unlabeled=inside, cheap_labels="ignore", label_noise="pairs:0.4"
    )
    np.testing.assert_array_equal(split.labeled, used.trusted)
    np.testing.assert_array_equal(split.trusted, used.trusted)
    np.testing.assert_array_equal(split.ignored, used.cheap)
    np.testing.assert_array_equal(split.cheap, used.cheap)
    assert set(split.unlabeled) == set(used.unlabeled) | set(split.ignored)
    assert sum(split.labels_per_class.values()) == 10
    assert split.name == "arrays.1@10"
    seen = split.as_trained(source)
    assert (seen.train.labels[split.ignored] == -1).all()
    others = np.setdiff1d(np.arange(240), split.ignored)
    np.testing.assert_array_equal(seen.train.labels[others], source.train.labels[others])
    # Their own labels are still to be had, to be checked.
    given = split.given_labels(source.train.labels)
    assert (given[split.ignored] != source.train.labels[split.ignored]).sum() == 20


def test_noise_is_in_cheap_labels_alone(source):
    split = draw(source, trusted=20, label_noise="symmetric:0.3")
    assert len(split.mislabeled) == round(0.3 * 40)
    assert set(split.mislabeled) <= set(split.cheap)
    assert split.label_noise == "symmetric:0.3"
    assert "20 of these trusted, 12 cheap labels wrong," in repr(split)
    data = RunData(source=source, split=split, weak=None, strong=None)
    labels = data.source.train.labels
    np.testing.assert_array_equal(np.flatnonzero(labels != source.train.labels), split.mislabeled)
    np.testing.assert_array_equal(labels[split.mislabeled], split.wrong_labels)
    np.testing.assert_array_equal(data.source.train.true_labels, source.train.labels)
    assert data.source.train.fingerprint() == source.train.fingerprint()
    # The classes are counted as training sees them, and the data of a run may be changed in parts.
    assert list(split.labels_per_class.values()) == counts(data.source, split.labeled)
    again = dataclasses.replace(data, balance="sample")
    assert again.source.train is data.source.train


def test_without_trusted_images_all_labels_are_cheap(source):
    split = draw(source, label_noise="symmetric:0.5")
    np.testing.assert_array_equal(split.cheap, split.labeled)
    assert len(split.mislabeled) == 30


def test_a_source_that_knows_its_trusted_images_measures_with_these_alone():
    trusted = np.arange(0, 80)
    source = make_source(trusted)
    split = draw(source, num_labeled=100, validation=0.25)
    assert set(split.validation) < set(trusted)
    assert len(split.validation) == 20
    # Of each class the trusted ones come first, and here there is room for all that are left.
    assert set(split.trusted) == set(trusted) - set(split.validation)
    assert counts(source, split.labeled) == [25] * 4
    fewer = draw(source, num_labeled=20, validation=0.25)
    np.testing.assert_array_equal(fewer.trusted, fewer.labeled)
    assert set(draw(source, num_labeled=None, validation=0.25).labeled) == set(range(200)) - set(
        split.validation
    )
    assert "200 labeled (80 of them trusted) and 40 unlabeled" in repr(source)


def test_unlabeled_images_that_a_run_looks_at_have_no_ignored_label(source):
    split = draw(source, trusted=10, cheap_labels="ignore")
    data = RunData(source=source, split=split, weak=None, strong=None)
    assert not set(data.unlabeled_sample(240)) & set(split.ignored)


@pytest.mark.parametrize(
    ("trusted", "arguments", "message"),
    [
        (None, {"trusted": 0}, "trusted=0 is out of range: 60 images are labeled, so pass 1 to 60 of them"),
        (None, {"trusted": 61}, "trusted=61 is out of range"),
        (None, {"trusted": True}, "trusted=True is out of range"),
        ([0, 1], {"trusted": 5}, "trusted=5 draws what is trusted, and 'arrays' says which labels are"),
        (
            None,
            {"cheap_labels": "ignore"},
            "cheap_labels='ignore' leaves no label to learn from, since none is",
        ),
        (
            None,
            {"cheap_labels": "ignore", "trusted": 3},
            "cheap_labels='ignore' leaves no label to the class '.', of which none is trusted",
        ),
        (None, {"cheap_labels": "drop"}, "cheap_labels='drop'"),
        (None, {"label_noise": "0.3"}, "label_noise='0.3' is no noise"),
    ],
)
def test_what_has_no_meaning_is_refused(trusted, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw(make_source(trusted), validation=0, **arguments)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            np.zeros(4, bool),
            r"trusted is bool of the shape \(4,\) with 0 true: pass one bool for each of the 4",
        ),
        (np.ones(3, bool), r"trusted is bool of the shape \(3,\)"),
        (np.ones(4), r"trusted is float64"),
    ],
)
def test_a_mask_that_is_none_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(np.arange(16).reshape(4, 2, 2, 1), [0, 1, 0, 1], trusted=mask)


def test_the_mask_follows_images_that_are_left_out():
    images = np.arange(24, dtype=np.uint8).reshape(6, 2, 2, 1)
    images[3] = images[1]
    labels, trusted = [0, 1, 0, 0, 1, 0], np.array([0, 0, 0, 1, 0, 1], bool)
    # The third is the second under its checked label.
    source = from_arrays(
        images, labels, trusted=trusted, duplicates="drop", unlabeled_images=images[:1] + 100
    )
    np.testing.assert_array_equal(source.train.labels, [0, 0, 0, 1, 0, -1])
    np.testing.assert_array_equal(source.trusted, [0, 0, 1, 0, 1, 0])
    assert source.reading.copies == {"cheaply labeled copies of trusted images": 1}
    assert (
        "1 cheap labels are corrected by trusted ones of the same images, such as images[1] ('1') by"
        in str(source.reading.notes)
    )


ARGUMENTS = {"num_labeled": 60, "seed": 1, "validation": 20}
TRUST = {"trusted": 20, "label_noise": "pairs:0.5"}


@pytest.mark.parametrize("ignore", [{}, {"cheap_labels": "ignore"}], ids=["use", "ignore"])
@pytest.mark.parametrize("listed", [10**6, 10])
def test_a_file_gives_the_same_split_again(source, tmp_path, monkeypatch, ignore, listed):
    monkeypatch.setattr("mpl_tf.data.split_files.LISTED_INDICES", listed)
    options = ARGUMENTS | TRUST | ignore
    drawn = load_or_draw_split(tmp_path / "split.json", source, **options)
    read = load_or_draw_split(tmp_path / "split.json", source, **options)
    for field in dataclasses.fields(Split):
        one, other = getattr(drawn, field.name), getattr(read, field.name)
        np.testing.assert_array_equal(one, other, strict=True) if isinstance(one, np.ndarray) else None
        assert isinstance(one, np.ndarray) or one == other, field.name
    document = json.loads((tmp_path / "split.json").read_text())
    expected = {"trusted": 20, "mislabeled": 20} | ({"ignored": 40} if ignore else {})
    assert expected.items() <= document["counts"].items()
    assert (tmp_path / "split.npz").exists() == (listed == 10)
    with pytest.raises(
        ValueError, match=r"trusted=20, .*label_noise='pairs:0\.5'\), and another is asked for"
    ):
        load_or_draw_split(tmp_path / "split.json", source, **options | {"trusted": 10})


def test_the_file_of_a_split_without_trust_is_as_it_was(source, tmp_path):
    write_split(tmp_path / "split.json", draw(source))
    assert json.loads((tmp_path / "split.json").read_text()).keys() == {
        "arguments", "name", "labels_per_class", "validation_per_class", "fingerprint", "counts", "labeled",
        "validation",
    }  # fmt: skip
    written = (tmp_path / "split.json").read_bytes()
    write_split(tmp_path / "split.json", draw(source, seed=2))
    assert (tmp_path / "split.json").read_bytes() == written


def test_a_file_with_other_trusted_images_is_refused(tmp_path):
    options = {"num_labeled": None, "seed": 1, "validation": 0}
    load_or_draw_split(tmp_path / "split.json", make_source(range(10)), **options)
    load_or_draw_split(tmp_path / "split.json", make_source(range(10)), **options)
    for other in (None, range(9), range(1, 11)):
        with pytest.raises(ValueError, match=r"with 10 trusted labels, and .* are trusted in 'arrays' now"):
            load_or_draw_split(tmp_path / "split.json", make_source(other), **options)


def plain(images, *, seed, position):
    return tf.cast(images, tf.float32)


def batches(source, split, steps=20, **options):
    settings = {"batch_size": 6, "weak": plain, "seed": 3} | options
    return list(training_batches(source, split, **settings).take(steps).as_numpy_iterator())


def positions(batch):
    return batch["labeled"]["image"].astype(np.uint8).reshape(-1, 2).view(np.uint16)[:, 0].astype(int)


@pytest.mark.parametrize("balance", ["none", "sample"])
def test_half_of_every_batch_and_of_every_part_of_it_is_trusted(source, balance):
    split = draw(source, trusted=10, label_noise="pairs:0.5")
    drawn = batches(source, split, balance=balance)
    for batch in drawn:
        np.testing.assert_array_equal(batch["labeled"]["trusted"], [True, False] * 3)
        np.testing.assert_array_equal(np.isin(positions(batch), split.trusted), batch["labeled"]["trusted"])
        labels = split.given_labels(source.train.labels)
        np.testing.assert_array_equal(batch["labeled"]["label"], labels[positions(batch)])
    # 60 of each kind: six times the ten, and the fifty once and ten of them twice; by classes as these have them,
    # which noise has made unequal.
    of_kinds = np.concatenate([positions(batch) for batch in drawn])
    often = np.unique_counts(of_kinds[::2]).counts
    assert (often == 6).all() if balance == "none" else (often >= 5).all()
    assert len(np.unique(of_kinds[1::2])) == (50 if balance == "none" else 49)
    parts = [batches(source, split, balance=balance, shard=(part, 3)) for part in range(3)]
    for whole, *shards in zip(drawn, *parts, strict=True):
        joined = np.concatenate([positions(shard) for shard in shards])
        np.testing.assert_array_equal(joined, positions(whole))
        assert all(shard["labeled"]["trusted"].sum() == 1 for shard in shards)
    resumed = batches(source, split, steps=5, balance=balance, start=15)
    for one, other in zip(drawn[15:], resumed, strict=True):
        np.testing.assert_array_equal(positions(one), positions(other))


def test_where_all_or_none_are_trusted_there_is_one_stream(source):
    plain_split, ignoring = draw(source), draw(source, trusted=10, cheap_labels="ignore")
    assert "trusted" not in batches(source, plain_split, steps=1)[0]["labeled"]
    everything = draw(source, trusted=60)
    for one, other in zip(batches(source, plain_split), batches(source, everything), strict=True):
        np.testing.assert_array_equal(positions(one), positions(other))
        assert other["labeled"]["trusted"].all()
    drawn = batches(source, ignoring, steps=5)
    assert set(np.concatenate([positions(batch) for batch in drawn])) == set(ignoring.trusted)
    assert all(batch["labeled"]["trusted"].all() for batch in drawn)


def test_an_epoch_is_over_when_both_kinds_have_been_drawn(source):
    split = draw(source, trusted=10)
    assert training_batches(source, split, batch_size=6, weak=plain).steps_per_epoch == 17


def test_class_weights_count_draws():
    labels = np.array([0, 0, 0, 1, 2])
    # The last image is drawn as often as all others together.
    weights = class_weights(labels, 3, np.array([5 / 8] * 4 + [5 / 2]))
    np.testing.assert_allclose(weights, [8 / 9, 8 / 3, 2 / 3], rtol=1e-6)


def test_weights_of_drawn_images_have_the_mean_1(source):
    labels = np.concatenate([np.zeros(30, int), np.ones(18, int), np.full(12, 2)])
    images = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1).repeat(2, axis=2)
    unequal = from_arrays(images, labels, trusted=np.isin(np.arange(60), [0, 1, 2, 30, 48]))
    split = draw_split(unequal, num_labeled=None, seed=0, validation=0)
    drawn = batches(unequal, split, steps=55, batch_size=10, balance="weight")
    weights = np.concatenate([batch["labeled"]["weight"] for batch in drawn])
    classes = np.concatenate([batch["labeled"]["label"] for batch in drawn])
    assert weights.mean() == pytest.approx(1.0, abs=1e-5)
    sums = np.bincount(classes, weights=weights)
    np.testing.assert_allclose(sums, sums.mean(), rtol=1e-5)
