import itertools
import json

import numpy as np
import pytest

from mpl_tf import evaluation
from tests.support import oracles


def predictions(count=200, seed=0):
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.1, 1.0, count)
    return confidence, generator.random(count) < confidence**2


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_bins_hold_what_is_above_their_lower_bound_and_up_to_their_upper(bins):
    confidence, correct = predictions()
    # Bounds of bins themselves, where there are four.
    confidence[:4] = [0.25, 0.5, 0.75, 1.0]
    error = 0.0
    for number, entry in enumerate(evaluation.reliability(confidence, correct, bins=bins)):
        low, high = number / bins, (number + 1) / bins
        members = [i for i, value in enumerate(confidence) if low < value <= high]
        assert (entry["low"], entry["high"]) == pytest.approx((low, high))
        assert entry["count"] == len(members)
        if not members:
            assert entry["confidence"] is entry["accuracy"] is None
            continue
        mean_confidence = sum(confidence[i] for i in members) / len(members)
        accuracy = sum(int(correct[i]) for i in members) / len(members)
        assert entry["confidence"] == pytest.approx(mean_confidence, rel=1e-12)
        assert entry["accuracy"] == pytest.approx(accuracy, rel=1e-12)
        error += len(members) / 200 * abs(accuracy - mean_confidence)
    found = evaluation.expected_calibration_error(confidence, correct, bins=bins)
    assert found == pytest.approx(error, rel=1e-12)
    assert error > 0.05


def calibrated(count, num_classes=6, seed=0):
    """Logits, and labels drawn from their softmax."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, num_classes)) * 2
    # Gumbel's trick: the largest of logits plus Gumbel noise is a draw from the softmax.
    return logits, np.argmax(logits + generator.gumbel(size=logits.shape), axis=1)


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_logits_that_are_calibrated_but_for_a_factor_have_it_as_their_temperature(factor):
    logits, labels = calibrated(30_000)
    temperature = evaluation.fit_temperature(factor * logits, labels)
    assert temperature == pytest.approx(factor, rel=0.02)
    before, after = (
        evaluation.summarize(evaluation.outcomes(scaled, labels), 6)
        for scaled in (factor * logits, factor * logits / temperature)
    )
    assert after["ece"] < 0.01
    assert (before["ece"] > 0.05) == (factor != 1.0)
    assert after["nll"] <= before["nll"]
    assert after["confusion"] == before["confusion"]


def test_the_temperature_is_that_of_a_grid_search():
    logits, labels = calibrated(300, seed=4)
    temperature = evaluation.fit_temperature(1.7 * logits, labels)
    grid = np.exp(np.linspace(np.log(0.2), np.log(20), 2001))
    targets = oracles.one_hot(labels, 6)
    losses = [oracles.cross_entropies(targets, 1.7 * logits / value).mean() for value in grid]
    assert temperature == pytest.approx(grid[np.argmin(losses)], rel=0.0025)
    assert oracles.cross_entropies(targets, 1.7 * logits / temperature).mean() <= min(losses)


def test_no_temperature_is_fitted_where_everything_is_right():
    with pytest.warns(UserWarning, match="All 3 predictions are right"):
        assert evaluation.fit_temperature(np.eye(3), np.arange(3)) == 1.0


def test_the_largest_temperature_is_said_to_be_one():
    with pytest.warns(UserWarning, match="The best temperature is 100"):
        temperature = evaluation.fit_temperature(np.eye(4), np.array([1, 2, 3, 0]))
    assert temperature == pytest.approx(100.0, rel=0.01)


def test_selective_prediction_is_that_of_a_loop():
    confidence, correct = predictions(60)
    found = evaluation.selective(confidence, correct, points=7)
    ranking = sorted(range(60), key=lambda i: -confidence[i])
    risks = [sum(not correct[i] for i in ranking[:kept]) / kept for kept in range(1, 61)]
    assert found["aurc"] == pytest.approx(sum(risks) / 60, rel=1e-12)
    assert [point["coverage"] for point in found["curve"]] == [(k + 1) / 7 for k in range(7)]
    for k, point in enumerate(found["curve"]):
        kept = int(np.ceil(60 * (k + 1) / 7))
        assert point["accuracy"] == pytest.approx(1 - risks[kept - 1], rel=1e-12)
        assert sum(confidence >= point["threshold"]) == kept
    assert json.loads(json.dumps(found)) == found


def test_equal_confidences_count_as_if_in_random_order():
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.2])
    correct = np.array([True, False, True, True, False, False])
    areas = []
    for order in itertools.permutations(range(1, 5)):
        wrong = [not correct[i] for i in (0, *order, 5)]
        areas.append(np.mean([sum(wrong[:kept]) / kept for kept in range(1, 7)]))
    assert max(areas) > min(areas)
    for order in ([0, 1, 2, 3, 4, 5], [5, 2, 3, 0, 1, 4]):
        found = evaluation.selective(confidence[order], correct[order])
        assert found["aurc"] == pytest.approx(np.mean(areas), rel=1e-12)


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "do not go together"),
        ([0.5], [True, False], "do not go together"),
        ([0.5, 3.2], [True, False], r"lie in 0.5…3.2: pass probabilities"),
        ([0.5, np.nan], [True, False], "pass probabilities"),
    ],
)
def test_what_are_no_confidences_is_refused(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        evaluation.expected_calibration_error(np.array(confidence), np.array(correct))


def test_no_logits_are_refused():
    with pytest.raises(ValueError, match="There are no logits"):
        evaluation.fit_temperature(np.zeros((0, 3)), np.zeros(0, int))
