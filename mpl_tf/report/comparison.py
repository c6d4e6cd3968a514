"""Several trials over several seeds, as a table: accuracies, paired differences, and what each has cost."""

import statistics
from collections.abc import Collection, Mapping

from mpl_tf.runs.roles import chosen_role, role_name
from mpl_tf.utils.markdown import table

# In the table they come in this order; the last one that a run has is the one that counts.
NETWORKS = ("teacher", "student", "finetuned")
_BUDGET = ("updates", "images")

# Trial → seed → what metrics.json of the run holds.
Results = Mapping[str, Mapping[int, Mapping]]


def comparison_table(
    results: Results, *, reference: str, ablations: Mapping[str, str] | None = None, split: str = "test"
) -> str:
    """Writes a row per trial: the accuracy of each network, paired differences, and what the trial has cost.

    Args:
        results: trial → seed → what metrics.json of the run holds.
        reference: the trial that the differences of every other one are taken to.
        ablations: trial → the trial that it is also compared with.
        split: whose accuracies are shown, `"test"` or `"validation"`.

    Returns:
        Markdown: what the numbers are, the table, and a note where the trials have not had the same budget.

    Raises:
        ValueError: when a run was not evaluated on this split.
    """
    rows = comparison_rows(results, reference=reference, ablations=ablations, split=split)
    return f"{legend(split)}\n\n{table(rows)}\n\n{budget_note(rows)}\n"


def comparison_rows(
    results: Results, *, reference: str, ablations: Mapping[str, str] | None = None, split: str = "test"
) -> list[dict[str, str]]:
    """The rows of `comparison_table`, which takes the same arguments."""
    ablations = ablations or {}
    rows = []
    for trial, runs in results.items():
        check_split(trial, runs, split)
        row = {"trial": trial, "seeds": str(len(runs))}
        for network in NETWORKS:
            known = list(accuracies(runs, network, split).values())
            row[f"{role_name(network)} %"] = mean_and_deviation(known) if known else ""
        row[f"final - {reference}"] = _difference(results, trial, reference, split)
        if ablations:
            row["final - its ablation"] = _difference(results, trial, ablations.get(trial), split)
        # All runs of a trial have these in common, but where --minutes has made the steps.
        row["updates"] = _mean(runs, "steps")
        row["CPU s"] = _mean_total(runs, "cpu_seconds")
        row["images"] = _mean(runs, "images")
        row["seconds"] = _mean_total(runs, "seconds")
        rows.append(row)
    return rows


def check_split(trial: str, runs: Mapping[int, Mapping], split: str) -> None:
    """Checks that a trial can be compared by its accuracies on a split.

    Args:
        trial: its name.
        runs: seed → what metrics.json of the run holds.
        split: `"test"` or `"validation"`.

    Raises:
        ValueError: when a run was not evaluated on it.
    """
    other, remedy = {"test": ("validation", "test_dir"), "validation": ("test", "validation above 0")}[split]
    for seed, metrics in runs.items():
        if split not in metrics:
            raise ValueError(
                f"The trial {trial!r}, seed {seed}, had no {split} images to be compared on: compare with "
                f"split={other}, or run it with {remedy}."
            )


def legend(split: str) -> str:
    """What the numbers in the table are."""
    return (
        f"{split} accuracy, mean ± standard deviation over seeds; differences of the networks that are served are "
        "paired by seed, mean ± standard error. CPU s are the seconds of all training steps on all cores together, "
        "without validation, and seconds those of the clock with it; both are means over seeds."
    )


def budget_note(rows: list[dict[str, str]]) -> str:
    """Whether the trials have had the same budget."""
    unequal = [name for name in _BUDGET if len({row[name] for row in rows}) > 1]
    if not unequal:
        return (
            "All trials have made the same number of updates of their students on the same number of images."
        )
    return f"The trials differ in {' and in '.join(unequal)}: see the columns."


def final_accuracies(runs: Mapping[int, Mapping], split: str = "test") -> dict[int, float]:
    """Seed → accuracy in per cent of the network that a run has chosen to serve, or else that it ends with."""
    roles = {seed: chosen_role(metrics) or "student" for seed, metrics in runs.items()}
    return {
        seed: 100.0 * metrics[split][roles[seed]]["accuracy"]
        for seed, metrics in runs.items()
        if roles[seed] in metrics[split]
    }


def accuracies(runs: Mapping[int, Mapping], network: str, split: str) -> dict[int, float]:
    """Seed → accuracy in per cent of one network of a trial, where there is such a network."""
    return {
        seed: 100.0 * metrics[split][network]["accuracy"]
        for seed, metrics in runs.items()
        if network in metrics[split]
    }


def _mean(runs, key):
    """The mean over seeds; empty for a linear probe, which makes no updates."""
    if any(key not in run for run in runs.values()):
        return ""
    return f"{statistics.mean(run[key] for run in runs.values()):,.0f}"


def _mean_total(runs, key):
    """The mean over seeds of the sum over stages; empty where a run has not recorded it."""
    if any(key not in run for run in runs.values()):
        return ""
    return f"{statistics.mean(sum(run[key].values()) for run in runs.values()):.0f}"


def mean_and_deviation(values: Collection[float], *, digits: int = 2) -> str:
    """Mean ± sample standard deviation, which is 0 for a single value.

    Args:
        values: one for each seed.
        digits: after the point.
    """
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def mean_and_error(differences: Collection[float], *, digits: int = 2) -> str:
    """Mean, with its sign, ± standard error.

    Args:
        differences: one for each seed, of two or more.
        digits: after the point.
    """
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return f"{statistics.mean(differences):+.{digits}f} ± {error:.{digits}f}"


def _difference(results, trial, other, split):
    """Mean ± standard error of the differences over the seeds that both have; empty for less than two."""
    if other is None or other == trial or other not in results:
        return ""
    values, others = (final_accuracies(results[name], split) for name in (trial, other))
    differences = [values[seed] - others[seed] for seed in values if seed in others]
    if len(differences) < 2:
        return ""
    return mean_and_error(differences)
