import math

import numpy as np
import pytest

from mpl_tf.utils.validation import (
    check_choice,
    check_distribution,
    check_integer,
    check_labeled_fraction,
    check_range,
)


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.25), np.int64(1)])
def test_within_accepts_its_bounds_and_what_lies_between(value):
    assert check_range("share", value, low=0.0, high=1.0) is None


@pytest.mark.parametrize("value", [-1e-9, 1.0001, math.nan, math.inf])
def test_within_refuses_what_lies_outside(value):
    with pytest.raises(ValueError, match=r"^share=.* is out of range: pass a value between 0 and 1\.$"):
        check_range("share", value, low=0.0, high=1.0)


def test_within_without_an_upper_bound():
    assert check_range("steps", 10**9, low=2) is None
    with pytest.raises(ValueError, match=r"^steps=1 is out of range: pass a value of at least 2\.$"):
        check_range("steps", 1, low=2)


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], 1j])
def test_within_refuses_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"^share=.* is not a number: pass one between 0 and 1\.$"):
        check_range("share", value, low=0.0, high=1.0)


def test_within_accepts_none_only_where_it_is_optional():
    assert check_range("clip", None, low=0.0, optional=True) is None
    with pytest.raises(ValueError, match=r"^clip=None is not a number: pass one of at least 0\.$"):
        check_range("clip", None, low=0.0)


def test_one_of_accepts_a_choice():
    assert check_choice("color", "red", ("red", "green")) is None


def test_one_of_names_the_nearest():
    message = r"^color='gren' is unknown: did you mean 'green'\? Choose one of 'red', 'green'\.$"
    with pytest.raises(ValueError, match=message):
        check_choice("color", "gren", ("red", "green"))


def test_one_of_takes_choices_that_are_no_words():
    assert check_choice("jit", True, (True, False, "auto")) is None
    with pytest.raises(ValueError, match=r"^jit='aut' .* mean 'auto'\? Choose one of True, False, 'auto'\.$"):
        check_choice("jit", "aut", (True, False, "auto"))


@pytest.mark.parametrize("value", [2, np.int64(5)])
def test_whole_accepts_whole_numbers(value):
    assert check_integer("rows", value, low=2) is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.0, "is not a whole number: pass one of at least 2"),
        (1, "is out of range"),
        (True, "is not a number"),
    ],
)
def test_whole_refuses_others(value, message):
    with pytest.raises(ValueError, match=f"^rows={value} {message}"):
        check_integer("rows", value, low=2)


def test_whole_with_an_upper_bound_and_where_it_is_optional():
    assert check_integer("worker", 3, low=0, high=3) is None
    assert check_integer("per_class", None, low=1, optional=True) is None
    for value, message in ((4, "is out of range: pass a value"), (0.5, "is not a whole number: pass one")):
        with pytest.raises(ValueError, match=f"^worker={value} {message} between 0 and 3"):
            check_integer("worker", value, low=0, high=3)


@pytest.mark.parametrize("value", ["xyzzy", None, 3])
def test_one_of_names_the_choices_where_none_is_near(value):
    with pytest.raises(ValueError, match=r"is unknown: Choose one of 'red', 'green'\.$"):
        check_choice("color", value, iter(["red", "green"]))


@pytest.mark.parametrize(
    ("ratio", "smallest"), [(7, 0.0), (5, 0.16), (1, 0.5), (0, 1.0), (4, 0.2), (99, 0.01)]
)
def test_batches_with_enough_labels_pass(ratio, smallest):
    check_labeled_fraction(ratio, smallest=smallest)


@pytest.mark.parametrize(
    ("ratio", "smallest", "message"),
    [
        (
            7,
            0.16,
            r"unlabeled_ratio=7 makes 12\.5% of a batch labeled, less than min_labeled_fraction=0\.16: pass unl",
        ),
        (6, 0.16, "pass unlabeled_ratio=5 at most"),
        (5, 0.2, "pass unlabeled_ratio=4 at most"),
        (
            1,
            0.6,
            r"makes 50\.0% of a batch labeled, less than min_labeled_fraction=0\.6: lower it to 0\.5 or less",
        ),
    ],
)
def test_batches_with_too_few_labels_are_refused_with_the_ratio_that_is_allowed(ratio, smallest, message):
    with pytest.raises(ValueError, match=message):
        check_labeled_fraction(ratio, smallest=smallest)


def test_distribution_accepts_fractions_that_sum_to_1():
    assert check_distribution("prior", (0.2, 0.0, 0.8), size=3) is None
    assert check_distribution("prior", np.full(7, 1 / 7, np.float32), size=7) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.5, 0.5), "^prior has 2 values: pass one for each of the 3 classes"),
        (
            (0.2, 0.2, 0.2),
            r"^prior=\(0.2, 0.2, 0.2\) is no distribution over the classes: .*sum, 0.6 here, is 1",
        ),
        ((1.5, -0.5, 0.0), "is no distribution over the classes"),
        ((math.nan, 0.5, 0.5), "is no distribution over the classes"),
        ((), "^prior has 0 values"),
        (0.5, "^prior=0.5 is no distribution: pass a fraction for each class"),
        ("abc", "^prior='abc' is no distribution: pass a fraction"),
    ],
)
def test_distribution_refuses_what_is_none(values, message):
    with pytest.raises(ValueError, match=message):
        check_distribution("prior", values, size=3)
