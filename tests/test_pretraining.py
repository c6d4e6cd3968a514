"""The program of pre-training against self-training: trials that differ in one thing each, and what adds what."""

import json
import pathlib
import runpy

import comparison

from recipes import compare
from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "claims" / "pretraining.py"))
NETWORK = pathlib.Path("pre-training/networks/student.keras")


def differing(one, other):
    return set(one.split()) ^ set(other.split())


def test_the_trials_differ_in_what_they_are_named_for():
    starts = PROGRAM["starts"](NETWORK)
    trials, name = PROGRAM["trials"]([2, 100], starts), PROGRAM["trial_name"]
    assert len(trials) == 2 * 2 * 2 * 2
    for percent, labels in ((2, 576), (100, 28_800)):
        for augmentation in ("weak", "strong"):
            for method in ("supervised", "self-training"):
                cells = [trials[name(percent, augmentation, start, method)] for start in starts]
                assert f"--labels={labels}" in cells[0].split()
                assert differing(*cells) == {"--model=lenet-5", f"--model={NETWORK}", "--head=random"}
            # Both streams of self-training are augmented as supervised training is.
            assert ("--norandaugment_labeled --nounlabeled_noise" in cells[0]) == (augmentation == "weak")
            supervised = trials[name(percent, augmentation, "random", "supervised")]
            assert ("--randaugment_labeled" in supervised) == (augmentation == "strong")
    few, all_of_them = (trials[name(percent, "weak", "random", "supervised")] for percent in (2, 100))
    assert differing(few, all_of_them) == {"--labels=576", "--labels=28800"}
    # recipes.compare reads them.
    assert list(compare.parse_trials([f"{trial}: {words}" for trial, words in trials.items()])) == list(
        trials
    )


def test_another_network_is_a_third_start_that_is_fine_tuned_with_care():
    starts = PROGRAM["starts"](NETWORK, "weights/lite0.keras")
    assert list(starts) == ["random", "Fashion-MNIST", "lite0"]
    assert "--model=weights/lite0.keras" in starts["lite0"]
    assert "--head=random" not in starts["lite0"]


def test_all_numbers_of_steps_are_scaled():
    (words,) = [
        words
        for trial, words in PROGRAM["trials"]([2], PROGRAM["starts"](NETWORK), scale=0.01).items()
        if trial == "2 %, weak, random, self-training"
    ]
    assert {"--teacher_steps=6", "--steps=6", "--epoch_steps=3"} <= set(words.split())
    assert "--steps=20" in PROGRAM["pretraining"](scale=0.01)


def write_run(folder, trial, seed, accuracy, **seconds):
    run = folder / f"{compare.files.folder_name(trial)}.{seed}"
    run.mkdir()
    metrics = {"test": {"student": {"accuracy": accuracy}}, "cpu_seconds": seconds}
    (run / "metrics.json").write_text(json.dumps(metrics))


def test_the_grid_has_the_differences_of_equal_seeds(tmp_path):
    starts = list(PROGRAM["starts"](NETWORK))
    accuracies = {
        ("random", "supervised"): (0.90, 0.92),
        ("random", "self-training"): (0.93, 0.93),
        ("Fashion-MNIST", "supervised"): (0.94, 0.98),
        ("Fashion-MNIST", "self-training"): (0.95, 0.96),
    }
    trials = {
        PROGRAM["trial_name"](2, augmentation, *cell): values
        for augmentation in ("weak", "strong")
        for cell, values in accuracies.items()
    }
    # A row of which a cell is missing is left out.
    del trials["2 %, strong, Fashion-MNIST, self-training"]
    for trial, values in trials.items():
        for seed, accuracy in enumerate(values):
            write_run(tmp_path, trial, seed, accuracy, teacher=8.0, method=20.0)
    results = comparison.read_results(tmp_path, trials)
    lines = PROGRAM["grid"](results, [2, 20], starts).splitlines()
    accuracies, gains = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if " 576 |" in line
    )
    assert accuracies[:3] == ["576", "weak", "2"]
    assert accuracies[3:] == [
        "91.00 ± 1.41",
        "93.00 ± 0.00",
        "96.00 ± 2.83",
        "95.50 ± 0.71",
        "28, 28, 28, 28",
    ]
    assert gains == ["576", "weak", "+2.00 ± 1.00", "+5.00 ± 1.00", "-0.50 ± 1.50"]
