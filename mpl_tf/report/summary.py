"""What a run, or a comparison of several, has come to: one or two sentences that say no more than the numbers do."""

import math
import statistics
from collections.abc import Mapping

from scipy import stats

from mpl_tf.evaluation.selection import STANDARD_ERRORS
from mpl_tf.runs.roles import baseline_role, chosen_role, final_role, role_name


def run_summary(metrics: Mapping | None, *, labels: int | None = None, noun: str = "image") -> str:
    """Says how good a run's final network is, and what it has over supervised training on the same labels.

    A difference counts as one where it is larger than 1.96 standard errors, as for two independent samples of
    images. The networks see the same images, so that this errs on the careful side.

    Args:
        metrics: what metrics.json holds; None before the end of a run.
        labels: how many labels the run had.
        noun: what the examples are called, in the singular.

    Returns:
        Plain text.
    """
    metrics = metrics or {}
    split = measured_split(metrics)
    networks = metrics.get(split, {})
    role = chosen_role(metrics)
    if role not in networks and "served" in metrics:
        return f"There were no validation and no test {noun}s, so how good the networks are was not measured."
    if role not in networks:
        return "The run has not come to its end, so there are no final accuracies yet."
    result = networks[role]
    subject = f"The {role_name(role)} is right on {percent(result['accuracy'])} of "
    subject += counted(result["count"], f"{split} {noun}")
    last = final_role(networks)
    if role == baseline_role(networks, metrics.get("seconds", ())) and last not in (None, role):
        return f"{subject}, {_difference(result, networks[last], f'the {role_name(last)}', noun)}"
    if "supervised" in networks:
        other, whose = networks["supervised"], f"supervised training on {_labels(labels)}"
    elif "teacher" in networks:
        # A run that counts the teacher's own seconds has trained it before, on the labels alone.
        alone = "teacher" in metrics.get("seconds", {})
        known = f", which learned from {_labels(labels)} alone" if alone else ""
        other, whose = networks["teacher"], f"its teacher{known}"
    else:
        low, high = interval(result)
        return (
            f"{subject} (95 % interval {100 * low:.1f} to {percent(high)}). No other network was trained in this "
            "run, so there is nothing to compare it with."
        )
    text = f"{subject}, {_difference(result, other, whose, noun)}"
    if whose == "its teacher":
        text += (
            f" No supervised baseline was trained, so what the unlabeled {noun}s have brought is not known."
        )
    return text


def comparison_summary(accuracies: Mapping[str, Mapping[int, float]], *, reference: str, split: str) -> str:
    """Says which trial is best and what it has over the reference.

    A difference counts as one where Student's 95 % interval of the mean of the paired differences leaves out 0.

    Args:
        accuracies: trial → seed → accuracy in per cent.
        reference: the trial that the differences are taken to.
        split: whose accuracies they are, `"test"` or `"validation"`.

    Returns:
        Plain text.
    """
    values = {trial: runs for trial, runs in accuracies.items() if runs}
    if reference not in values or len(values) < 2:
        return "There are not yet two trials to compare."
    best = max(values, key=lambda trial: statistics.mean(values[trial].values()))
    seeds = counted(len(values[best]), "seed")
    mean = f"{statistics.mean(values[best].values()):.1f} % {split} accuracy, mean over {seeds}"
    text = f"Of {len(values)} trials, {best} is best: {mean}"
    if best == reference:
        return f"{text}. No trial has a higher mean than this reference."
    common = [seed for seed in values[best] if seed in values[reference]]
    differences = [values[best][seed] - values[reference][seed] for seed in common]
    if not differences:
        return f"{text}. It has no seed in common with {reference}."
    if len(differences) < 2:
        return f"{text}. One seed says nothing about chance: run more to compare it with {reference}."
    difference = statistics.mean(differences)
    error = statistics.stdev(differences) / len(differences) ** 0.5
    direction = "above" if difference > 0 else "below"
    text += f", {abs(difference):.1f} ± {error:.1f} percentage points {direction} {reference}"
    if abs(difference) > stats.t.ppf(0.975, len(differences) - 1) * error:
        return f"{text}."
    return f"{text}: too little to tell from chance with so many seeds."


def measured_split(metrics: Mapping) -> str | None:
    """`"test"` where a run has test images, else `"validation"`, or None where it has neither."""
    return next((split for split in ("test", "validation") if metrics.get(split)), None)


def interval(result: Mapping) -> tuple[float, float]:
    """The 95 % interval of an accuracy, Wilson 1927.

    Args:
        result: `accuracy` in `[0, 1]` and `count`.
    """
    hits = round(result["accuracy"] * result["count"])
    return tuple(stats.binomtest(hits, result["count"]).proportion_ci(0.95, "wilson"))


def accuracy_with_error(result: Mapping) -> str:
    """`97.50 ± 0.82`, or `100.00 (2 of 2)`: there the normal standard error would be 0, as if it were certain.

    Args:
        result: `accuracy` in `[0, 1]`, its `standard_error`, and `count`.
    """
    accuracy, count = result["accuracy"], result["count"]
    if accuracy in (0.0, 1.0):
        return f"{100 * accuracy:.2f} ({round(accuracy * count):,} of {count:,})"
    return f"{100 * accuracy:.2f} ± {100 * result['standard_error']:.2f}"


def percent(fraction: float) -> str:
    """`0.975` as `97.5 %`."""
    return f"{100 * fraction:.1f} %"


def counted(count: int, noun: str) -> str:
    """`360 images`, `1 image`."""
    return f"{count:,} {noun}" + "s" * (count != 1)


def adjusted(accuracy: float, count: int) -> tuple[float, float]:
    """An accuracy with one success and one failure added, and its variance, which is not 0 where all are right.

    Agresti, Caffo 2000, Simple and effective confidence intervals for proportions and differences of proportions
    result from adding two successes and two failures.

    Args:
        accuracy: in `[0, 1]`.
        count: of the examples.
    """
    fraction = (accuracy * count + 1) / (count + 2)
    return fraction, fraction * (1 - fraction) / (count + 2)


def _difference(result, other, whose, noun):
    difference = result["accuracy"] - other["accuracy"]
    (fraction, variance), (other_fraction, other_variance) = (
        adjusted(found["accuracy"], found["count"]) for found in (result, other)
    )
    error = math.sqrt(variance + other_variance)
    points = f"{100 * abs(difference):.1f} ± {100 * error:.1f} percentage points"
    direction = "above" if difference > 0 else "below"
    if abs(fraction - other_fraction) > STANDARD_ERRORS * error:
        return f"{points} {direction} {whose}."
    if not difference:
        return f"exactly as {whose}."
    return f"{points} {direction} {whose}: too little to tell from chance on so many {noun}s."


def _labels(count):
    return "the same labels" if count is None else f"the same {counted(count, 'label')}"
