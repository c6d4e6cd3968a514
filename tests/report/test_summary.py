import math

import numpy as np
import pytest
from scipy import special

from mpl_tf.report import accuracy_with_error, comparison_summary, run_summary
from mpl_tf.report.summary import interval


def metrics(split="test", count=360, **correct):
    """What metrics.json holds of networks that are right so many times."""
    return {split: {role: {"accuracy": hits / count, "count": count} for role, hits in correct.items()}}


def test_a_clear_gain_is_stated_with_its_standard_error():
    text = run_summary(metrics(finetuned=351, student=340, supervised=285), labels=20)
    # Agresti and Caffo: one success and one failure more, of each network.
    shares = [(351 + 1) / 362, (285 + 1) / 362]
    error = 100 * math.sqrt(sum(share * (1 - share) / 362 for share in shares))
    assert text == (
        f"The fine-tuned student is right on 97.5 % of 360 test images, 18.3 ± {error:.1f} percentage points "
        "above supervised training on the same 20 labels."
    )


def test_a_loss_is_stated_as_one():
    text = run_summary(metrics(student=200, supervised=300), labels=1)
    assert text.startswith("The student is right on 55.6 % of 360 test images, 27.8 ±")
    assert text.endswith("points below supervised training on the same 1 label.")


@pytest.mark.parametrize(("hits", "clear"), [(340, False), (344, False), (360, True)])
def test_a_difference_within_its_error_is_called_one_that_chance_can_make(hits, clear):
    text = run_summary(metrics(student=hits, supervised=337), labels=20)
    assert ("too little to tell from chance on so many images" in text) != clear


def test_all_right_is_no_certainty():
    # Both have a standard error of 0 by the plain formula, which would call any difference of one image proven.
    assert "too little to tell" in run_summary(metrics(count=5, student=5, supervised=4))
    assert "too little to tell" in run_summary(metrics(count=2, student=2, supervised=0))


def test_equal_accuracies_are_equal():
    text = run_summary(metrics(student=300, supervised=300))
    assert text.endswith("on 83.3 % of 360 test images, exactly as supervised training on the same labels.")


def test_without_a_baseline_the_teacher_is_what_there_is():
    text = run_summary(metrics(student=340, teacher=250), labels=20)
    assert "points above its teacher. No supervised baseline was trained" in text
    trained_before = metrics(student=340, teacher=250) | {"seconds": {"teacher": 3.0, "method": 5.0}}
    text = run_summary(trained_before, labels=20)
    assert text.endswith("points above its teacher, which learned from the same 20 labels alone.")


def test_a_network_alone_has_an_interval_and_nothing_to_be_compared_with():
    text = run_summary(metrics("validation", 1, student=1))
    assert text.startswith(
        "The student is right on 100.0 % of 1 validation image (95 % interval 20.7 to 100.0 %)."
    )
    assert "nothing to compare it with" in text


@pytest.mark.parametrize("nothing", [None, {}, {"test": {}}, metrics("validation", teacher=3)])
def test_a_run_without_numbers_has_no_run_summary(nothing):
    assert run_summary(nothing) == "The run has not come to its end, so there are no final accuracies yet."


def test_a_run_that_has_ended_without_images_to_measure_on_is_not_called_unfinished():
    found = run_summary({"served": {"role": "student"}, "steps": 8})
    assert "not come to its end" not in found
    assert "no validation and no test images" in found


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (7, 7), (351, 360), (1, 2)])
def test_the_interval_is_wilsons(hits, count):
    z = math.sqrt(2) * special.erfinv(0.95)
    middle = (hits + z**2 / 2) / (count + z**2)
    half = z / (count + z**2) * math.sqrt(hits * (count - hits) / count + z**2 / 4)
    np.testing.assert_allclose(
        interval({"accuracy": hits / count, "count": count}), [middle - half, middle + half], atol=1e-12
    )


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    [(0, 2, "0.00 (0 of 2)"), (2, 2, "100.00 (2 of 2)"), (1, 2, "50.00 ± 35.36")],
)
def test_an_accuracy_of_few_images_is_not_called_certain(hits, count, expected):
    accuracy = hits / count
    error = math.sqrt(accuracy * (1 - accuracy) / count)
    assert accuracy_with_error({"accuracy": accuracy, "standard_error": error, "count": count}) == expected


def accuracies(**trials):
    return {trial: dict(enumerate(values)) for trial, values in trials.items()}


def compared(**trials):
    return comparison_summary(accuracies(**trials), reference="plain", split="test")


def test_the_best_trial_is_compared_by_seed_and_students_t():
    clear = compared(plain=(50, 60, 70), taught=(60, 71, 80))
    assert clear.startswith(
        "Of 2 trials, taught is best: 70.3 % test accuracy, mean over 3 seeds, 10.3 ± 0.3"
    )
    assert clear.endswith("percentage points above plain.")
    # 2.5 standard errors, which two degrees of freedom do not take for more than chance: there it takes 4.3.
    unclear = compared(plain=(50, 60, 70), taught=(60, 65, 72))
    assert "too little to tell from chance with so many seeds" in unclear


def test_the_best_trial_may_be_the_reference_or_have_one_seed():
    assert "No trial has a higher mean than this reference" in compared(plain=(90, 90), taught=(80, 80))
    assert "One seed says nothing about chance" in compared(plain=(50,), taught=(80,))
    assert "not yet two trials" in compared(plain=(50,))
    apart = {"plain": {0: 50.0, 1: 51.0}, "taught": {2: 80.0, 3: 81.0}}
    text = comparison_summary(apart, reference="plain", split="test")
    assert text.endswith("mean over 2 seeds. It has no seed in common with plain.")
