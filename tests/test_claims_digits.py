"""The studies on digits: trials that recipes.compare can read, for rows that are on the page of claims."""

import json
import runpy

import pytest

from mpl_tf.utils import files
from recipes import compare
from tests.test_claims import IDS
from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "claims" / "digits.py"))
STUDIES = PROGRAM["STUDIES"]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_names_presets_trials_and_rows_that_there_are(name):
    study = STUDIES[name]
    assert study.preset is None or (ROOT / "recipes" / "presets" / f"{study.preset}.flags").is_file()
    assert set(study.robustness) <= set(study.trials)
    parsed = compare.parse_trials([f"{trial}: {words}" for trial, words in study.trials.items()])
    assert list(parsed) == list(study.trials)
    for trial in parsed:
        compare.other_trials(trial, parsed)
    assert study.reference is None or study.reference in study.trials
    ablations = [f"{trial} = {other}" for trial, other in study.ablations.items()]
    assert compare.parse_ablations(ablations, parsed) == study.ablations
    assert set(study.answers) <= set(IDS)
    assert {trial for trials in study.answers.values() for trial in trials} <= set(study.trials)
    assert bool(study.teacher) == any(PROGRAM["TEACHER"] in words for words in study.trials.values())


def test_first_teachers_differ_in_their_noise_and_their_students_in_nothing_else():
    trials = STUDIES["first_teacher"].trials
    clean = trials["clean teacher"].removesuffix(" --dropout=0")
    assert trials["noised teacher"] == f"{clean} --randaugment_labeled"
    # The preset has dropout, and the recipe of supervised training no RandAugment.
    assert "--dropout=0" in trials["clean teacher"]
    assert trials["student of the noised"].replace("noised", "clean") == trials["student of the clean"]
    assert (
        trials["student of the noised"] == "noisy_student --teacher={noised teacher}/networks/student.keras"
    )


@pytest.mark.parametrize(
    ("name", "flag"), [("weak_view", "--weak_view=separate"), ("precision", "--precision=mixed_bfloat16")]
)
def test_what_makes_a_step_faster_is_all_that_differs(name, flag):
    for study in (STUDIES[name], STUDIES[f"{name}_cifar10"]):
        assert len(study.ablations) == len(study.trials) / 2
        for faster, plain in study.ablations.items():
            assert study.trials[faster] == f"{study.trials[plain]} {flag}"
    assert STUDIES[f"{name}_cifar10"].trials == STUDIES[name].trials


@pytest.mark.parametrize("name", ["robustness_fashion_mnist", "robustness_cifar10"])
def test_students_with_noise_and_without_have_one_first_teacher_which_has_none(name):
    trials = STUDIES[name].trials
    noise = "--nounlabeled_noise --norandaugment_labeled --nomodel_noise"
    assert trials["no noise"] == f"{trials['noise']} {noise}"
    assert "--teacher={first teacher}/networks/student.keras" in trials["noise"]
    assert "--dropout=0.3" in trials["noise"]
    images = [
        {word for word in words.split() if "=" in word}
        for words in (trials["noise"], trials["first teacher"])
    ]
    for flag in ("dataset", "labels", "validation", "model"):
        of_both = [[word for word in words if word.startswith(f"--{flag}=")] for words in images]
        assert of_both[0] == of_both[1]
        assert bool(of_both[0]) == (STUDIES[name].preset is None)
    assert not {"--dropout", "--randaugment_labeled"} & set(trials["first teacher"].replace("=", " ").split())


def test_each_loss_of_data_free_learning_is_off_once():
    trials = STUDIES["dafl_mnist"].trials
    # The perceptrons have fewer trials, and those as the convolutional networks have them.
    assert STUDIES["dafl_mnist_mlp"].trials.items() <= trials.items()
    for name, flag in {
        "one-hot loss off": "--one_hot_weight=0",
        "entropy off": "--entropy_weight=0",
        "activation loss off": "--activation_weight=0",
        "generator left untrained": "--generator_learning_rate=0",
        "noise": "--generator=noise",
    }.items():
        assert trials[name] == f"{trials['DAFL']} {flag}"


def test_the_table_of_robustness_has_each_network_of_each_trial(tmp_path, monkeypatch):
    def evaluated(clean, mce):
        return {
            "clean": {"accuracy": clean},
            "corruptions": {"mce": mce},
            "perturbations": {"mfr": 1.0},
            "fgsm": {"epsilon": [0, 4], "accuracy": [clean, clean / 2]},
        }

    waiting, flags = {}, []

    def evaluate(recipe, run_dir, *options):
        assert recipe == "evaluate"
        flags.append(options)
        folder = waiting.pop(run_dir)
        (folder / "metrics.json").write_text((folder / "later.json").read_text())

    monkeypatch.setattr(PROGRAM["comparison"], "run", evaluate)
    accuracies = {"noise": (0.75, 0.25), "no noise": (0.5, 0.5)}
    for trial, found in accuracies.items():
        for seed, clean in enumerate(found):
            folder = tmp_path / f"{files.folder_name(trial)}.{seed}"
            folder.mkdir()
            results = {"teacher": evaluated(0.5, 1.0), "student": evaluated(clean, 1.5 - clean)}
            (folder / "metrics.json").write_text(json.dumps({"evaluation": {"test": results}}))
    # One has not been evaluated yet. Where its images lie is no part of a run.
    (folder / "metrics.json").rename(folder / "later.json")
    (folder / "metrics.json").write_text("{}")
    waiting[f"--run_dir={folder}"] = folder
    table = PROGRAM["robustness"](tmp_path, list(accuracies), ["--data_dir=elsewhere"])
    assert not waiting
    assert len(flags) == 1
    assert "--data_dir=elsewhere" in flags[0]
    assert (tmp_path / "robustness.md").read_text() == f"{table}\n"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == ["trial", "network", "seeds", "clean", "mCE", "mFR", "FGSM ε 4"]
    assert [row[:3] for row in rows[2:]] == [
        [trial, role, "2"] for trial in accuracies for role in ("teacher", "student")
    ]
    assert rows[3][3:] == ["50.0 ± 35.4", "100.0 ± 35.4", "100.0 ± 0.0", "25.0 ± 17.7"]
