"""Wrong labels that experiments make: as many as asked for, never right, the same under a seed."""

import numpy as np
import pytest

from mpl_tf.data.label_noise import LabelNoise

LABELS = np.arange(600) % 5
INDICES = np.arange(0, 600, 2)


def drawn(text, indices=INDICES, seed=3):
    return LabelNoise.parse(text).draw(LABELS, indices, num_classes=5, seed=seed)


@pytest.mark.parametrize("text", ["symmetric:0.3", "pairs:0.3", "symmetric:0", "pairs:0.995"])
def test_exactly_so_many_labels_are_wrong_and_no_others(text):
    wrong, labels = drawn(text)
    assert len(wrong) == len(labels) == round(float(text.partition(":")[2]) * 300)
    assert set(wrong) <= set(INDICES)
    assert (np.diff(wrong) > 0).all()
    assert (labels != LABELS[wrong]).all()
    assert ((labels >= 0) & (labels < 5)).all()


def test_symmetric_noise_takes_any_other_class_and_pairs_the_next_one():
    wrong, labels = drawn("symmetric:0.9")
    steps = (labels - LABELS[wrong]) % 5
    assert (np.bincount(steps, minlength=5)[1:] > 270 / 4 - 25).all()
    wrong, labels = drawn("pairs:0.9")
    np.testing.assert_array_equal(labels, (LABELS[wrong] + 1) % 5)


def test_noise_follows_the_seed_and_grows():
    less, more = drawn("symmetric:0.2"), drawn("symmetric:0.5")
    again = drawn("symmetric:0.2")
    assert all(map(np.array_equal, less, again))
    assert set(less[0]) != set(drawn("symmetric:0.2", seed=4)[0])
    labels = dict(zip(*more, strict=True))
    assert {index: labels.get(index) for index in less[0]} == dict(zip(*less, strict=True))


@pytest.mark.parametrize(
    "text", ["symmetric", "symmetric:", "uniform:0.3", "pairs:1", "pairs:-0.1", "pairs:nan", "0.3", ""]
)
def test_what_is_no_noise_is_refused(text):
    with pytest.raises(
        ValueError, match=f"label_noise={text!r} is no noise: pass symmetric or pairs, a colon"
    ):
        LabelNoise.parse(text)
