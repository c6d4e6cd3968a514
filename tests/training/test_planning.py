import numpy as np
import pytest

from mpl_tf.runs.settings import StageSettings
from mpl_tf.training.planning import StageTimes, largest_steps, plan_stages


def test_the_largest_number_is_that_of_a_search_through_all():
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs = np.cumsum(rng.exponential(size=400)) + rng.uniform(0, 3)
        multiple = int(rng.integers(1, 5))
        fitting = [steps for steps in range(multiple, 400, multiple) if costs[steps] <= 150.0]

        def cost(steps, costs=costs):
            return costs[steps] if steps < len(costs) else np.inf

        assert largest_steps(cost, 150.0, multiple=multiple) == max(fitting)
    assert largest_steps(lambda steps: steps, 2.5, multiple=3) == 0
    assert largest_steps(lambda steps: steps, 3.0, multiple=3) == largest_steps(lambda steps: steps, 3.0) == 3


@pytest.mark.parametrize(("steps", "epoch_steps"), [(10, 5), (11, 5), (4, 5)])
def test_a_stage_takes_what_its_parts_take_one_after_the_other(steps, epoch_steps):
    times = StageTimes(preparation=7.0, step=0.5, evaluation=0.25, inference=0.125, checkpoint=2.0)
    seconds = 7.0
    for step in range(1, steps + 1):
        seconds += 0.5
        if step % epoch_steps == 0 or step == steps:
            # Twelve validation images, four that are labeled, and the checkpoint.
            seconds += sum([0.25] * 12) + sum([0.125] * 4) + 2.0
    settings = StageSettings(steps=steps, epoch_steps=epoch_steps, batch_size=2)
    assert times.training(settings, validation_images=12, labeled_images=4) == pytest.approx(seconds)


def linear(seconds, preparation=0.0):
    return lambda steps: preparation + seconds * steps if steps else 0.0


def planned(costs, budget, fewest_steps=1):
    options = {"start": "supervised", "fraction": 0.2, "reference": "longer", "fewest_steps": fewest_steps}
    return plan_stages(costs, budget, **options)


def test_training_time_is_divided_equally():
    costs = {
        "supervised": linear(0.5),
        "longer": linear(0.5),
        "uda": linear(2.0, 10.0),
        "mpl": linear(4.0, 20.0),
    }
    # First steps and preparations take 37 of 1,000 s. A fifth of the others makes 193.1 s of the start, the rest of
    # them three times 256.8 s more than what each has had.
    assert planned(costs, 1000.0) == {"supervised": 386, "longer": 514, "uda": 129, "mpl": 65}
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs = {
            name: linear(*rng.uniform(0.1, 3, 2))
            for name in ("supervised", "longer", "uda", "mpl", "fixmatch")
        }
        budget = rng.uniform(200, 2000)
        steps = planned(costs, budget)
        assert list(steps) == list(costs)
        assert sum(costs[stage](count) for stage, count in steps.items()) <= budget
        training = budget - sum(cost(1) for cost in costs.values())
        for stage, count in steps.items():
            # A fifth for the start, and a quarter of four fifths for each of the others.
            slot = costs[stage](1) + training * 0.2
            assert costs[stage](count) <= slot < costs[stage](count + 1)


def test_methods_that_do_not_fit_are_left_out():
    costs = {"supervised": linear(1.0), "longer": linear(1.0), "uda": linear(1.0), "mpl": linear(3.0)}
    # Meta Pseudo Labels would make (3 + 94 · 0.8 / 3) / 3 steps, which are 9; without it, UDA makes 1 + 97 · 0.4.
    assert list(planned(costs, 100.0, fewest_steps=9)) == ["supervised", "longer", "uda", "mpl"]
    assert planned(costs, 100.0, fewest_steps=10) == {"supervised": 20, "longer": 39, "uda": 39}
    # What is preferred less but fits stays.
    both = planned(costs | {"fixmatch": linear(1.0)}, 100.0, fewest_steps=10)
    assert both == {"supervised": 20, "longer": 26, "uda": 26, "fixmatch": 26}
    # One method is tried anyway, but not where it makes no step at all.
    assert planned(costs, 10.0, fewest_steps=1000) == {"supervised": 2, "longer": 3, "uda": 3}
    costs["uda"] = linear(1.0, 100.0)
    assert planned(costs, 100.0, fewest_steps=1000) == {"supervised": 20, "longer": 79}
    assert planned(costs, 2.0) == {"supervised": 1, "longer": 1}
    assert planned(costs, 1.5) == {}
