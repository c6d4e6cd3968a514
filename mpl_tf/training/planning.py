"""How many steps fit into some time: arithmetic on measured durations, in seconds of whichever clock they are of."""

import dataclasses
import math
from collections.abc import Callable, Mapping

from mpl_tf.runs.settings import StageSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageTimes:
    """How long the parts of a stage take.

    Args:
        preparation: of building the method and of the first calls, in which it is traced.
        step: of an update.
        evaluation: of an image, by all networks that the stage is evaluated by.
        inference: of an image, by one of them.
        checkpoint: of saving one.
    """

    preparation: float
    step: float
    evaluation: float
    inference: float
    checkpoint: float

    def training(self, settings: StageSettings, *, validation_images: int, labeled_images: int = 0) -> float:
        """Seconds of a stage: its preparation, its steps, and what follows each of its epochs.

        Args:
            settings: steps and epochs.
            validation_images: that are evaluated after each epoch.
            labeled_images: that are labeled after each epoch.
        """
        epochs = math.ceil(settings.steps / settings.epoch_steps)
        after_each = validation_images * self.evaluation + labeled_images * self.inference + self.checkpoint
        return self.preparation + settings.steps * self.step + epochs * after_each


def largest_steps(cost: Callable[[int], float], budget: float, *, multiple: int = 1) -> int:
    """Finds the largest number of steps that costs no more than a budget.

    Args:
        cost: steps → seconds, growing without bound.
        budget: seconds.
        multiple: which the number has to be a multiple of.

    Returns:
        The number; 0 where not even `multiple` steps fit.
    """
    high = 1
    while cost(high * multiple) <= budget:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle * multiple) <= budget else (low, middle)
    return low * multiple


def plan_stages(
    costs: Mapping[str, Callable[[int], float]],
    budget: float,
    *,
    start: str,
    fraction: float,
    reference: str,
    fewest_steps: int = 1,
) -> dict[str, int]:
    """Divides a budget among stages that are to be compared: a common start, a reference, and methods.

    What is left after a first step of every stage, with its preparation, is training time. The start gets a fraction
    of it; the rest is divided equally between the reference and the methods. A method that would then make too few
    steps is left out, the least preferred first: two that have trained say more than four that have not. One is
    planned wherever it makes a step at all.

    Args:
        costs: stage → steps → seconds; beside the start and the reference, the methods in the order of preference.
        budget: seconds.
        start: the stage that all others start from.
        fraction: of the training time for it, in (0, 1).
        reference: the stage that the methods are compared with.
        fewest_steps: of a method, where there are several.

    Returns:
        Stage → steps, the start first, then the reference, then the methods that fit. Empty where nothing does.
    """
    methods = [stage for stage in costs if stage not in (start, reference)]
    while True:
        first = {stage: costs[stage](1) for stage in (start, reference, *methods)}
        training = budget - sum(first.values())
        if training >= 0:
            equal = (1 - fraction) * training / (len(methods) + 1)
            slots = {stage: seconds + equal for stage, seconds in first.items()}
            slots[start] = first[start] + fraction * training
            # At least the one step that has been counted, whatever the last digit of a sum is.
            steps = {stage: max(1, largest_steps(costs[stage], slot)) for stage, slot in slots.items()}
            too_few = [stage for stage in methods if steps[stage] < fewest_steps]
            if len(methods) <= 1 or not too_few:
                return steps
            methods.remove(too_few[-1])
        elif methods:
            methods.pop()
        else:
            return {}
