"""Sentences of recipes.auto, about numbers whose meaning is known."""

import itertools

import numpy as np
import pytest

from mpl_tf import evaluation, report


def difference(correct, other):
    found = evaluation.paired_difference(np.array(correct), np.array(other))
    return {"difference": found.value, "standard_error": found.standard_error, "count": len(correct)}


def metrics(wins, losses, count, methods=2, test=()):
    """Of `count` validation images, a third of which both networks get right."""

    def split(wins, losses, count):
        both = count // 3
        rest = count - both - wins - losses
        first = np.array([True] * (both + wins) + [False] * (losses + rest))
        second = np.array([True] * both + [False] * wins + [True] * losses + [False] * rest)
        accuracies = {"uda": {"accuracy": first.mean()}, "supervised_longer": {"accuracy": second.mean()}}
        return difference(first, second), accuracies

    gain = {"method": "uda", "reference": "supervised_longer", "methods": methods}
    found = {"gain": gain}
    gain["validation"], found["validation"] = split(wins, losses, count)
    if test:
        gain["test"], found["test"] = split(*test)
    return found


def test_what_the_unlabeled_images_have_brought():
    # 24 of 120 images; √((37 − 24²/122) / 122²) of them is an error of 4.7 points.
    text = report.gain_summary(metrics(30, 6, 120))
    assert text == (
        "The unlabeled images have brought 20.0 ± 4.7 percentage points: the UDA student is right on 58.3 % of 120 "
        "validation images, the longer trained baseline on 38.3 %."
    )
    assert "have cost 20.0 ± 4.7 percentage points" in report.gain_summary(metrics(6, 30, 120))
    details = report.gain_details(metrics(30, 6, 120))
    # 24 of 122 images, and 1.96 of these errors.
    assert "The 95 % interval of the difference is +10.5 to +28.8 points" in details
    assert "one of 2 that were compared on these very images, and may be ahead partly by chance" in details
    assert "one of" not in report.gain_details(metrics(30, 6, 120, methods=1))
    assert "have trained for the same time" in details
    told = {"plan": {"steps": {"supervised": 1, "uda": 5}, "seconds": {}}}
    assert "have trained for as many steps as were given" in report.gain_details(metrics(30, 6, 120) | told)


def test_test_images_come_first_and_what_may_be_chance_is_said_to_be():
    found = metrics(3, 2, 30, test=(40, 10, 400))
    assert report.gain_summary(found).startswith(
        "The unlabeled images have brought 7.5 ± 1.7 percentage points: the UDA student is right on 43.2 % of 400"
    )
    details = report.gain_details(found)
    assert details.endswith(
        "On the 30 validation images by which networks were compared it is +3.3 ± 7.6 points."
    )
    assert "one of" not in details
    assert report.gain_summary(metrics(3, 2, 30)).startswith(
        "What the unlabeled images have brought, +3.3 ± 7.6 percentage points, cannot be told from chance: the UDA"
    )
    # 1 of 32 images ± 1.96 √(6 − 1²/32) of them.
    assert "is −11.8 to +18.1 points" in report.gain_details(metrics(3, 2, 30))


def test_what_the_choice_of_a_network_takes_for_chance_is_no_gain():
    images = np.arange(30)
    for wins, losses in itertools.product(range(10), repeat=2):
        right = {"uda": images < wins, "supervised_longer": (images >= wins) & (images < wins + losses)}
        # The worse one, which is last, is taken where the images do not tell it from the better.
        order = sorted(right, key=lambda role: right[role].sum(), reverse=True)
        is_told = evaluation.choose(right, order=order).role == order[0]
        assert ("from chance" not in report.gain_summary(metrics(wins, losses, 30))) == is_told


def test_without_a_method_nothing_is_said_of_its_gain():
    assert "No method that uses unlabeled images was trained" in report.gain_summary({"validation": {}})
    assert report.gain_details({"validation": {}}) == ""


def test_a_method_that_nothing_was_compared_with_is_not_denied():
    stages = {"supervised": 10, "supervised_longer": 20, "uda": 20}
    assert "there were no images to compare networks on" in report.gain_summary({"plan": {"steps": stages}})
    del stages["supervised_longer"]
    text = report.gain_summary({"validation": {}, "plan": {"steps": stages}})
    assert "no supervised network has trained for as long" in text
    del stages["uda"]
    assert "No method that uses" in report.gain_summary({"validation": {}, "plan": {"steps": stages}})


def test_the_trend_compares_the_last_quarter_with_the_one_before():
    accuracies = [0.1] * 10 + [0.4, 0.5, 0.6, 0.5, 0.5] + [0.7, 0.8, 0.6, 0.7, 0.7]
    found = report.trend(accuracies, 84)
    assert found["rise"] == pytest.approx(0.2)
    assert found["quarter"] == pytest.approx(0.7)
    # Of 84 images, and one more of each kind, 59.8 are right.
    assert found["standard_error"] == pytest.approx(np.sqrt(59.8 * 26.2 / 86**3))
    assert report.trend([0.5] * 7, 84) == report.trend([0.5] * 20, 0) == {}


def test_the_outlook_names_what_was_rising_and_no_number_for_the_future():
    trends = {
        "uda": report.trend([0.5] * 15 + [0.7] * 5, 84),
        "supervised": report.trend([0.7] * 20, 84),
        "mpl": {},
    }
    longer = difference([True] * 50 + [False] * 34, [True] * 48 + [False] * 36)
    text = report.outlook(trends, longer, count=84)
    assert "still rising (the UDA student by 20.0 points)" in text
    assert (
        "The supervised baseline ended flat, as far as 84 validation images can tell (± 5.0 points)" in text
    )
    assert (
        "The supervised network gained +2.4 ± 2.0 points from its longer training, which is no proof." in text
    )
    assert "too short to tell" in report.outlook({"mpl": {}}, None, count=84)
    worse = difference([True] * 30 + [False] * 54, [True] * 50 + [False] * 34)
    assert "The supervised network lost 23.8 ± 4.7 points in its longer" in report.outlook(
        {}, worse, count=84
    )


def test_what_is_always_right_rises_no_more_and_few_images_do_not_prove_it():
    trends = {"uda": report.trend([0.9] * 6 + [1.0] * 2, 30)}
    assert trends["uda"]["rise"] > trends["uda"]["standard_error"] > 0.02
    assert "The UDA student ended flat, as far as 30 validation images can tell (± 3.1" in report.outlook(
        trends, None, count=30
    )
