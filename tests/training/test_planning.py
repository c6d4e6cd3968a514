import numpy as np
import pytest

from mpl_tf.runs.settings import StageSettings
from mpl_tf.training.planning import StageTimes, largest_steps


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
    assert largest_steps(lambda steps: steps, 3.0, multiple=3) == 3


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
