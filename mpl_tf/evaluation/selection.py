"""Which of a run's networks is served: a paired comparison on the validation images, and the choice in a sentence."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

# Of a normal distribution: 95 % lie within so many standard errors.
STANDARD_ERRORS = float(stats.norm.ppf(0.975))

AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A network, and why it is this one.

    Attributes:
        role: of the network.
        reason: a sentence or some.
        warning: a sentence where the network was asked for and is worse than the baseline; None elsewhere.
    """

    role: str
    reason: str
    warning: str | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much more often one network is right than another on the same images.

    Attributes:
        value: difference of the accuracies, in -1…1.
        standard_errors: the difference in units of its standard error.
        standard_error: of the difference.
        count: of the images.
    """

    value: float
    standard_errors: float
    standard_error: float
    count: int

    def as_dict(self) -> dict:
        """The difference, its standard error, and the count, ready for JSON."""
        return {"difference": self.value, "standard_error": self.standard_error, "count": self.count}

    def __str__(self) -> str:
        return f"{100 * abs(self.value):.1f} ± {100 * self.standard_error:.1f} percentage points"


def paired_difference(correct: np.ndarray, other: np.ndarray) -> Difference:
    """Compares two networks image by image.

    With b images that the first one alone gets right and c that the other alone does, of n, the difference of the
    accuracies is (b - c) / n. Its standard error is that of b + ½, c + ½ and n + 2 (Agresti, Min 2005, Simple
    improved confidence intervals for comparing matched proportions), which is above 0 where the networks agree on
    all images.

    Args:
        correct: bool `[N]`, whether the first network is right.
        other: bool `[N]`, whether the other is, on the same images.

    Returns:
        The difference; above 0 where the first network is right more often.

    Raises:
        ValueError: for outcomes of different images, or none.
    """
    correct, other = np.asarray(correct, bool), np.asarray(other, bool)
    if correct.shape != other.shape or not correct.size:
        raise ValueError(
            f"Outcomes of shape {correct.shape} and {other.shape} cannot be paired: pass those of the same "
            "images, at least one."
        )
    first, second = (int((a & ~b).sum()) for a, b in ((correct, other), (other, correct)))
    count = len(correct) + 2
    difference = first - second
    error = math.sqrt(first + second + 1 - difference**2 / count) / count
    return Difference(difference / len(correct), difference / count / error, error, len(correct))


def choose(
    correct: Mapping[str, np.ndarray],
    *,
    order: Sequence[str],
    baseline: str | None = None,
    serve: str = AUTO,
    name: Callable[[str], str] = str,
    noun: str = "image",
) -> Choice:
    """Chooses the network that is served.

    The best one on the validation images, where these are enough to tell it from all others (95 %). Where not: of
    those that cannot be told from the best, the last in the method's own order, but none that the baseline is ahead
    of by more than a standard error.

    Args:
        correct: role → bool `[N]`, whether the network is right on each validation image; empty without such images.
        order: the roles to choose from, in the method's own order, in which the last is meant to be the best.
        baseline: the role that was trained on the labeled images alone; None where there is none. Where it is not
            among those to choose from, the reason says when the chosen one is behind it.
        serve: `"auto"`, or the role that is asked for.
        name: role → what it is called in a sentence.
        noun: what the examples are called, in the singular.

    Returns:
        The role and the reason.

    Raises:
        ValueError: when there is nothing to choose from.
    """
    if not order:
        raise ValueError("There is no network to choose from: pass at least one role as order.")
    count = len(next(iter(correct.values()), ()))
    images = f"{count:,} validation {noun}" + "s" * (count != 1)
    if serve != AUTO:
        reason = f"The {name(serve)} was asked for."
        return Choice(serve, reason, _warning(correct, serve, baseline, images, name))
    preferred = list(reversed(order))
    if len(order) == 1:
        reason = f"The {name(order[0])} is the only network to choose from."
        return Choice(order[0], " ".join([reason, *_behind(correct, order[0], baseline, images, name)]))
    if not count:
        return Choice(
            preferred[0],
            f"There are no validation {noun}s to compare networks on: the {name(preferred[0])} is the last in the "
            "method's own order.",
        )
    # Of equally good ones the last in the method's order.
    best = max(preferred, key=lambda role: int(correct[role].sum()))
    against = {role: paired_difference(correct[best], correct[role]) for role in preferred}
    close = [role for role in preferred if against[role].standard_errors <= STANDARD_ERRORS]
    behind = {}
    if baseline is not None and baseline in order:
        ahead = {role: paired_difference(correct[baseline], correct[role]) for role in close}
        behind = {role: found for role, found in ahead.items() if found.standard_errors > 1}
    chosen = next(role for role in close if role not in behind)

    if chosen != best:
        sentences = [
            f"{images} are too few to tell the {name(chosen)} from the {name(best)}, which is {against[chosen]} "
            f"above it there: the {name(chosen)} is taken, as it is later in the method's own order."
        ]
    elif len(close) > 1:
        others = _listed([name(role) for role in close if role != chosen])
        sentences = [
            f"No network is better than the {name(chosen)} on {images}, which are too few to tell it from {others}."
        ]
    else:
        following = min((role for role in preferred if role != best), key=lambda role: against[role].value)
        sentences = [
            f"The {name(chosen)} is the best on {images}, {against[following]} above the {name(following)}, the next."
        ]
    for role, found in behind.items():
        if preferred.index(role) < preferred.index(chosen):
            sentences.append(
                f"The {name(role)} is more than a standard error behind the {name(str(baseline))} there ({found})."
            )
    if best != baseline:
        sentences += _behind(correct, chosen, baseline, images, name)
    return Choice(chosen, " ".join(sentences))


def _behind(correct, role, baseline, images, name) -> list[str]:
    """That a network is worse than the baseline, where it is."""
    if baseline is None or not {role, baseline} <= set(correct):
        return []
    found = paired_difference(correct[baseline], correct[role])
    return [f"It is {found} below the {name(baseline)} on {images}."] if found.value > 0 else []


def _warning(correct, role, baseline, images, name) -> str | None:
    """That the network which was asked for is worse than the baseline, where it is."""
    if baseline is None or not {role, baseline} <= set(correct):
        return None
    found = paired_difference(correct[baseline], correct[role])
    if found.value <= 0:
        return None
    chance = ", too little to tell from chance" if found.standard_errors <= STANDARD_ERRORS else ""
    return (
        f"The {name(role)}, which was asked for, is {found} below the {name(baseline)} on {images}{chance}: with "
        "serve='auto' the networks are compared."
    )


def _listed(names: Sequence[str]) -> str:
    names = [f"the {name}" for name in names]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
