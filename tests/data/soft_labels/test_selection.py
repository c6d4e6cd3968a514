import collections
import warnings

import numpy as np
import pytest

from mpl_tf.data.soft_labels import selection


def oracle(probabilities, threshold, per_class, balance):
    """The selection as one would do it by hand, in lists."""
    best = [(max(row), list(row).index(max(row))) for row in probabilities.tolist()]
    kept = [row for row, (confidence, _) in enumerate(best) if confidence >= threshold]
    if not balance:
        return kept
    of_class = collections.defaultdict(list)
    for row in kept:
        of_class[best[row][1]].append(row)
    if per_class is None:
        per_class = round(len(kept) / len(of_class))
    chosen = []
    for members in of_class.values():
        members.sort(key=lambda row: (-best[row][0], row))
        taken = members[:per_class]
        while len(taken) + len(members) <= per_class:
            taken = taken + members
        chosen += taken + members[: per_class - len(taken)]
    return sorted(chosen)


def select(probabilities, **options):
    confidence, classes = probabilities.max(axis=1), probabilities.argmax(axis=1)
    return selection.select_indices(confidence, classes, probabilities.shape[1], **options)


def drawn(seed, count=400, num_classes=4, *, ties=False):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.linspace(0.2, 1.5, num_classes), count)
    if ties:
        probabilities = generator.multinomial(4, np.ones(num_classes) / num_classes, count) / 4
    return probabilities.astype(np.float32)


@pytest.mark.filterwarnings("ignore:No image is predicted")
@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("per_class", [None, 1, 3, 25, 1000])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9])
def test_the_selection_is_the_one_made_by_hand(threshold, per_class, balance):
    for seed in range(8):
        probabilities = drawn(seed, ties=seed % 2 == 0)
        # A power of two and its sums compare alike in both precisions; 0.9 does not.
        rows = select(probabilities, threshold=threshold, per_class=per_class, balance=balance)
        expected = oracle(probabilities, np.float32(threshold), per_class, balance)
        assert rows.dtype == np.int64
        assert rows.tolist() == expected


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_equal_and_none_left_out_is_surer_than_one_taken(seed):
    probabilities = drawn(seed, count=400)
    confidence, classes = probabilities.max(axis=1), probabilities.argmax(axis=1)
    rows = select(probabilities, threshold=0.4, per_class=40)
    np.testing.assert_array_equal(np.bincount(classes[rows]), [40] * 4)
    assert confidence[rows].min() >= 0.4
    times = np.bincount(rows, minlength=len(probabilities))
    for label in range(4):
        own = np.flatnonzero((classes == label) & (confidence >= 0.4))
        assert np.ptp(times[own]) <= 1
        more, fewer = own[times[own] == times[own].max()], own[times[own] < times[own].max()]
        if len(fewer):
            assert confidence[more].min() >= confidence[fewer].max()


def test_the_order_of_the_images_does_not_matter_without_ties():
    probabilities = drawn(0, count=200)
    order = np.random.default_rng(1).permutation(200)
    rows = select(probabilities, per_class=30)
    shuffled = select(probabilities[order], per_class=30)
    np.testing.assert_array_equal(np.sort(order[shuffled]), rows)


def test_of_equally_confident_rows_the_first_are_taken():
    probabilities = np.tile(np.float32([0.75, 0.25]), (6, 1))
    with pytest.warns(UserWarning, match="predicted as class 1 with"):
        assert select(probabilities, per_class=4).tolist() == [0, 1, 2, 3]
    with pytest.warns(UserWarning, match="predicted as class 1 with"):
        assert select(probabilities, per_class=8).tolist() == [0, 0, 1, 1, 2, 3, 4, 5]


def test_the_default_number_is_the_mean_over_the_classes_that_have_any():
    probabilities = np.eye(4, dtype=np.float32)[[0] * 7 + [1] * 2 + [3] * 3]
    with pytest.warns(
        UserWarning, match=r"predicted as class 2 with a confidence of at least 0.3, so the student"
    ):
        rows = select(probabilities)
    np.testing.assert_array_equal(np.bincount(probabilities.argmax(axis=1)[rows]), [4, 4, 0, 4])


def test_no_warning_when_every_class_has_a_row():
    with warnings.catch_warnings(record=True, action="always") as caught:
        rows = select(np.eye(3, dtype=np.float32))
    assert not caught
    assert rows.tolist() == [0, 1, 2]


def test_select_indices_is_select():
    probabilities = drawn(3)
    rows = selection.select_indices(probabilities.max(axis=1), probabilities.argmax(axis=1), 4, per_class=20)
    np.testing.assert_array_equal(rows, select(probabilities, per_class=20))


def test_the_report_counts_every_row():
    classes = np.array([0, 0, 0, 1, 1, 3])
    report = selection.selection_report(classes, np.array([0, 2, 3, 3, 3]), 4)
    assert report.predicted.tolist() == [3, 2, 0, 1]
    assert report.distinct.tolist() == [2, 1, 0, 0]
    assert report.dropped.tolist() == [1, 1, 0, 1]
    assert report.duplicated.tolist() == [0, 2, 0, 0]
    assert report.selected.tolist() == [2, 3, 0, 0]


@pytest.mark.parametrize(
    ("probabilities", "options", "message"),
    [
        (drawn(0), {"threshold": 1.5}, "threshold=1.5 is out of range"),
        (drawn(0), {"per_class": 0}, "per_class=0 is out of range"),
        (drawn(0), {"per_class": 1.5}, "per_class=1.5 is not a whole number"),
        (drawn(0)[None], {}, r"are float32 \(1, 4\) and int64 \(1, 4\): pass a float and an integer"),
        (np.eye(4, dtype=int), {}, r"are int64 \(4,\) and int64 \(4,\): pass a float"),
        (np.full((3, 4), np.nan), {}, "Row 0 has a confidence that is not finite"),
        (
            np.full((3, 4), 0.25),
            {"threshold": 0.5},
            r"threshold=0.5 keeps none of 3 images, the most confident of which has 0.25: lower the threshold",
        ),
    ],
)
def test_validation(probabilities, options, message):
    with pytest.raises(ValueError, match=message):
        select(probabilities, **options)


@pytest.mark.parametrize(("confidence", "classes"), [([], []), ([0.5, 0.5], [1]), ([0.5], [1.0])], ids=str)
def test_vectors_that_do_not_belong_together_are_refused(confidence, classes):
    with pytest.raises(ValueError, match="pass a float and an integer for each row, of at least one"):
        selection.select_indices(np.array(confidence), np.array(classes), 4)
