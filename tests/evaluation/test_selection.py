"""The choice of the network that is served, against counting image by image and against resampling."""

import itertools

import numpy as np
import pytest

from mpl_tf.evaluation import selection
from mpl_tf.runs.roles import role_name

ORDER = ["supervised", "teacher", "student", "finetuned"]


def outcomes(*counts, total=400, seed=0):
    """Role → independent outcomes with so many right ones, in the order of ORDER."""
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(np.arange(total) < count) for count in counts]
    return dict(zip(ORDER, rows, strict=False))


def nested(*counts, total=400):
    """The same, where a better network is right wherever a worse one is: what few images can tell apart."""
    return {role: np.arange(total) < count for role, count in zip(ORDER, counts, strict=False)}


def choose(correct, **options):
    options = {"order": list(correct), "baseline": "supervised", "name": role_name} | options
    return selection.choose(correct, **options)


@pytest.mark.parametrize("pattern", itertools.product([0, 1], repeat=6))
def test_the_paired_error_is_that_of_the_images_and_two_more(pattern):
    first, second = np.reshape(pattern, (2, 3)).astype(bool)
    # Half an image of each kind: both right, both wrong, either one alone.
    differences = np.concatenate([first.astype(float) - second, [0.0, 0.0, 1.0, -1.0]])
    weights = np.concatenate([np.ones(3), np.full(4, 0.5)])
    mean = (weights * differences).sum() / weights.sum()
    variance = (weights * (differences - mean) ** 2).sum() / weights.sum()
    found = selection.paired_difference(first, second)
    assert found.value == pytest.approx(first.mean() - second.mean())
    assert found.standard_error == pytest.approx((variance / weights.sum()) ** 0.5)
    assert found.standard_errors * found.standard_error == pytest.approx(mean)


def test_the_paired_error_is_what_resampling_the_images_gives():
    rng = np.random.default_rng(0)
    first = rng.random(500) < 0.8
    # Right on mostly the same images: unpaired, the error would be more than twice as large.
    second = np.where(rng.random(500) < 0.9, first, rng.random(500) < 0.7)
    difference = first.astype(float) - second
    drawn = difference[rng.integers(0, 500, (20_000, 500))].mean(axis=1)
    found = selection.paired_difference(first, second)
    assert found.standard_error == pytest.approx(drawn.std(), rel=0.03)
    assert (
        str(found)
        == f"{100 * abs(difference.mean()):.1f} ± {100 * found.standard_error:.1f} percentage points"
    )


def test_a_difference_that_one_image_makes_is_within_its_error_and_one_of_two_is_not():
    one, two = (selection.paired_difference(np.arange(50) < count, np.zeros(50, bool)) for count in (1, 2))
    assert one.standard_errors < 1 < two.standard_errors


def test_the_best_is_taken_where_the_images_tell_it_from_all_others():
    choice = choose(outcomes(200, 260, 330, 220))
    assert choice.role == "student"
    assert "The student is the best on 400 validation images, 17.5 ± " in choice.reason
    assert choice.reason.endswith("above the teacher, the next.")
    assert choice.warning is None
    # The baseline too.
    assert choose(outcomes(330, 200, 260, 220)).role == "supervised"


def test_among_those_that_cannot_be_told_apart_the_last_in_the_methods_order_is_taken():
    choice = choose(outcomes(200, 330, 335, 328))
    assert choice.role == "finetuned"
    assert (
        "400 validation images are too few to tell the fine-tuned student from the student" in choice.reason
    )
    assert "1.8 ± " in choice.reason
    assert "later in the method's own order" in choice.reason
    choice = choose(outcomes(200, 330, 335, 335))
    assert choice.role == "finetuned"
    assert choice.reason == (
        "No network is better than the fine-tuned student on 400 validation images, which are too few to tell it "
        "from the student and the teacher."
    )


def test_nothing_is_taken_that_the_baseline_is_ahead_of_by_more_than_its_error():
    # Two images that the baseline alone gets right are more than an error, and one is not.
    choice = choose(nested(202, 202, 200, 200))
    assert choice.role == "teacher"
    assert choice.reason.count("is more than a standard error behind the supervised baseline there") == 2
    assert choose(nested(201, 190, 190, 200)).role == "finetuned"
    assert choose(nested(202, 190, 190, 200)).role == "supervised"
    # Where another one is best, and what is taken is below the baseline, this is said.
    correct = {**nested(200, 150), "finetuned": np.arange(400) < 199}
    correct["student"] = np.roll(np.arange(400) < 201, 3)
    choice = choose({role: correct[role] for role in ("supervised", "student", "finetuned")})
    assert choice.role == "finetuned"
    assert (
        "It is 0.2 ± 0.4 percentage points below the supervised baseline on 400 validation images."
        in choice.reason
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_choice_never_is_one_that_the_images_speak_against(seed):
    """For random outcomes: it is told from none by 95 %, and not from the baseline by an error."""
    rng = np.random.default_rng(seed)
    correct = outcomes(*rng.integers(15, 35, 4), total=50, seed=seed)
    found = choose(correct)

    def ahead(role):
        difference = correct[role].astype(float) - correct[found.role]
        padded = np.concatenate([difference, [0.0, 1.0, -1.0, 0.0]])
        weights = np.concatenate([np.ones(50), np.full(4, 0.5)])
        mean = np.average(padded, weights=weights)
        return mean / np.sqrt(np.average((padded - mean) ** 2, weights=weights) / 52)

    best = max(ORDER[::-1], key=lambda role: correct[role].sum())
    assert ahead(best) <= 1.95997
    assert ahead("supervised") <= 1
    # Nothing later in the order would have done.
    for later in ORDER[ORDER.index(found.role) + 1 :]:
        other = selection.paired_difference(correct[best], correct[later])
        baseline = selection.paired_difference(correct["supervised"], correct[later])
        assert other.standard_errors > 1.95996 or baseline.standard_errors > 1


def test_a_baseline_that_cannot_be_taken_is_named_where_it_is_better():
    correct = outcomes(300, 200, 250)
    order = ["teacher", "student"]
    choice = choose(correct, order=order)
    assert choice.role == "student"
    assert "It is 12.5 ± 3." in choice.reason
    assert "percentage points below the supervised baseline on 400 validation images." in choice.reason
    assert "below the supervised baseline" in choose(correct, order=["student"]).reason
    assert "below" not in choose(correct, order=["student"], baseline="teacher").reason


def test_without_images_or_without_others_there_is_nothing_to_compare():
    choice = selection.choose({}, order=ORDER, baseline="supervised", name=role_name)
    assert choice.role == "finetuned"
    assert (
        "There are no validation images to compare networks on: the fine-tuned student is the last"
        in choice.reason
    )
    alone = selection.choose(outcomes(1), order=["supervised"], name=role_name)
    assert alone == selection.Choice(
        "supervised", "The supervised baseline is the only network to choose from."
    )
    with pytest.raises(ValueError, match="no network to choose from"):
        selection.choose({}, order=[])
    with pytest.raises(ValueError, match="cannot be paired"):
        selection.paired_difference(np.ones(3, bool), np.ones(4, bool))


def test_what_is_asked_for_is_taken_and_warned_of_where_it_is_worse_than_the_baseline():
    correct = outcomes(300, 250, 290, 310)
    choice = choose(correct, serve="teacher")
    assert (choice.role, choice.reason) == ("teacher", "The teacher was asked for.")
    assert "is 12.5 ± 3." in choice.warning
    assert "below the supervised baseline on 400 validation images: with serve='auto'" in choice.warning
    assert "too little to tell from chance" in choose(correct, serve="student").warning
    assert choose(correct, serve="finetuned").warning is None
    assert choose(correct, serve="supervised").warning is None
    assert choose({}, order=ORDER, serve="teacher").warning is None
