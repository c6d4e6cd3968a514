import statistics

import numpy as np
import pytest
from matplotlib.collections import PathCollection

from mpl_tf import report

ACCURACIES = {"plain": (0.5, 0.7, 0.6), "taught": (0.9, 0.8, 1.0), "silent": (0.8, 0.8, 0.9)}


def results(**images):
    def run(trial, accuracy):
        networks = {"student": {"accuracy": accuracy - 0.1}, "finetuned": {"accuracy": accuracy}}
        if trial == "plain":
            networks = {"student": {"accuracy": accuracy}}
        splits = {"test": networks, "validation": {key: {"accuracy": 0.25} for key in networks}}
        seconds = {"method": 2.0, "finetune": 1.0}
        cpu_seconds = {"method": 5.0, "finetune": 100.0 * accuracy}
        spent = {"seconds": seconds, "cpu_seconds": cpu_seconds}
        return {**splits, **spent, "steps": 10, "images": images.get(trial, 1000)}

    return {
        trial: {seed: run(trial, value) for seed, value in enumerate(values)}
        for trial, values in ACCURACIES.items()
    }


def row(text, trial):
    names, values = (
        [part.strip() for part in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith(("| trial", f"| {trial}"))
    )
    return dict(zip(names, values, strict=True))


def expected_difference(trial, other):
    differences = 100 * (np.array(ACCURACIES[trial]) - np.array(ACCURACIES[other]))
    return f"{differences.mean():+.2f} ± {statistics.stdev(differences) / len(differences) ** 0.5:.2f}"


def test_the_table_has_means_deviations_and_paired_differences():
    text = report.comparison_table(results(), reference="plain", ablations={"taught": "silent"})
    taught = row(text, "taught")
    assert taught["fine-tuned student %"] == f"90.00 ± {100 * statistics.stdev(ACCURACIES['taught']):.2f}"
    assert taught["student %"].startswith("80.00")
    assert taught["final - plain"] == expected_difference("taught", "plain")
    assert taught["final - its ablation"] == expected_difference("taught", "silent")
    assert (taught["updates"], taught["images"], taught["seconds"]) == ("10", "1,000", "3")
    # The mean over seeds of the sums over stages.
    assert taught["CPU s"] == "95"
    names = [name.strip() for name in text.splitlines()[2].strip("|").split("|")]
    assert names[names.index("updates") + 1] == "CPU s"
    assert row(text, "plain")["final - plain"] == row(text, "silent")["final - its ablation"] == ""


def test_the_split_may_be_validation():
    text = report.comparison_table(results(), reference="plain", split="validation")
    assert row(text, "taught")["fine-tuned student %"] == "25.00 ± 0.00"
    assert "final - its ablation" not in text


def test_differences_are_over_the_seeds_that_both_have():
    unfinished = results()
    del unfinished["plain"][2]
    text = report.comparison_table(unfinished, reference="plain")
    assert row(text, "taught")["final - plain"] == "+25.00 ± 15.00"
    del unfinished["plain"][1]
    assert row(report.comparison_table(unfinished, reference="plain"), "taught")["final - plain"] == ""


def test_a_trial_without_images_of_the_split_is_refused():
    untested = results()
    del untested["taught"][1]["test"]
    with pytest.raises(
        ValueError, match=r"'taught', seed 1, had no test images .* split=validation, or run it"
    ):
        report.comparison_table(untested, reference="plain")
    report.comparison_table(untested, reference="plain", split="validation")


def test_unequal_budgets_are_said():
    assert "the same number of updates of their students" in report.comparison_table(
        results(), reference="plain"
    )
    assert "The trials differ in images: see" in report.comparison_table(
        results(plain=500), reference="plain"
    )


def test_a_linear_probe_has_made_no_updates():
    probed = results()
    for metrics in probed["plain"].values():
        del metrics["steps"], metrics["images"]
    text = report.comparison_table(probed, reference="plain")
    assert row(text, "plain")["updates"] == row(text, "plain")["images"] == ""
    assert row(text, "taught")["updates"] == "10"
    assert "The trials differ in updates and in images: see" in text


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_figure_shows_every_run_and_every_mean(seeds):
    some = {trial: [100 * value for value in values[:seeds]] for trial, values in ACCURACIES.items()}
    (axes,) = report.plots.comparison(some, reference="plain", title="A comparison").axes
    points = [group.get_offsets() for group in axes.collections if isinstance(group, PathCollection)]
    assert [len(group) for group in points] == [seeds] * 3
    for group, values in zip(points, ACCURACIES.values(), strict=True):
        assert np.allclose(group[:, 0], [100 * value for value in values[:seeds]])
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ACCURACIES)
    means = [container.lines[0].get_xdata()[0] for container in axes.containers]
    np.testing.assert_allclose(means, [np.mean(values) for values in some.values()])
