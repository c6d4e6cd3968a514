"""The studies on digits: trials that recipes.compare can read, for rows that are on the page of claims."""

import runpy

import pytest

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
    assert not {"--dropout", "--randaugment_labeled"} & set(trials["first teacher"].replace("=", " ").split())
