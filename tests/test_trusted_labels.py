"""The program of labels of unequal trust: its trials differ in one thing each, and its map says what beats what."""

import json
import runpy

import pytest

from recipes import compare
from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "claims" / "trusted_labels.py"))
SIZE = {"noise": "symmetric:0.3", "cheap": 100, "trusted": 20}


@pytest.mark.parametrize("name", PROGRAM["TASKS"])
def test_the_trials_share_labels_and_seeds_and_differ_in_what_they_are_named_for(name):
    task = PROGRAM["TASKS"][name]
    trials = task.trials(**SIZE, without_uda=True)
    assert list(trials)[:10] == list(task.trials(**SIZE)) == [
        "trusted alone, supervised", "trusted alone, UDA", "all labels, supervised", "all labels, UDA",
        "all labels, supervised, then trusted", "all labels, UDA, then trusted",
        "learning to reweight", "MPL", "MPL, placebo", "MPL, no feedback",
    ]  # fmt: skip
    for trial, words in trials.items():
        flags = words.split()
        assert {"--labels=120", "--trusted=20", "--label_noise=symmetric:0.3"} <= set(flags), trial
        assert ("--cheap_labels=ignore" in flags) == ("trusted alone" in trial or "then trusted" in trial)
        assert ("--feedback_on=trusted" in flags) == trial.startswith("MPL")
        assert ("--uda_weight=0" in flags) == ("no UDA" in trial)
        assert any(flag.startswith("--steps=") for flag in flags)
    for mpl in ("MPL", "MPL, no UDA"):
        assert trials[f"{mpl}, placebo"].replace(" --feedback_placebo", "") == trials[mpl]
    alone = trials["trusted alone, UDA"].replace(" --cheap_labels=ignore", "")
    assert alone == trials["all labels, UDA"]
    # recipes.compare reads them, and knows which other trials they need.
    parsed = compare.parse_trials([f"{trial}: {words}" for trial, words in trials.items()])
    assert list(parsed) == list(trials)
    assert compare.other_trials("all labels, UDA, then trusted", parsed) == ["all labels, UDA"]


def metrics(accuracy):
    return {"test": {"student": {"accuracy": accuracy}}, "cpu_seconds": {"method": 12.0}}


def test_the_map_compares_with_the_best_of_all_others(tmp_path):
    task = PROGRAM["TASKS"]["mnist"]
    means = dict(
        zip(task.trials(**SIZE), (0.5, 0.6, 0.4, 0.7, 0.65, 0.72, 0.68, 0.75, 0.71, 0.7), strict=True)
    )
    for trial, mean in means.items():
        for seed, change in ((0, -0.02), (3, 0.02)):
            folder = (
                tmp_path / "mnist" / "symmetric-0.3_100_20" / f"{compare.files.folder_name(trial)}.{seed}"
            )
            folder.mkdir(parents=True)
            more = 0.01 * (seed == 3) * (trial == "MPL")
            (folder / "metrics.json").write_text(json.dumps(metrics(mean + change + more)))
    # A setting in which trials are missing is left out.
    (tmp_path / "mnist" / "symmetric-0.5_100_20").mkdir()
    PROGRAM["write_map"](tmp_path / "mnist", task)
    text = (tmp_path / "mnist" / "map.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| symmetric")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["symmetric-0.3", "100", "20", "2"]
    assert cells[4] == "all labels, UDA, then trusted: 72.0 ± 2.8"
    assert cells[5] == "MPL: 75.5 ± 3.5"
    assert cells[6:9] == ["+3.5 ± 0.5", "+4.5 ± 0.5", "+5.5 ± 0.5"]
    # The fine-tuning goes on from a network that has taken as long.
    assert cells[9] == "24, 12"
