"""The programs of docs/few_labels.md: each task names its trials and their lengths."""

import re
import runpy

import pytest

from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "few_labels.py"))


@pytest.mark.parametrize("name", PROGRAM["TASKS"])
def test_every_task_has_all_methods_and_a_length_for_each(name):
    task = PROGRAM["TASKS"][name]
    trials = task.trials(None)
    methods = ("supervised", "UDA", "FixMatch", "FreeMatch", "MPL", PROGRAM["WITHOUT_FEEDBACK"])
    names = [*((PROGRAM["START"],) if task.start else ()), *methods]
    assert [trial.split(": ")[0] for trial in trials] == [f"--trial={name}" for name in names]
    assert all(" --steps=" in trial and " --epoch_steps=" in trial for trial in trials)
    assert all(" --initialize=" in trial for trial in trials[-2:])


def test_methods_go_on_from_a_supervised_trial_that_is_run_before_them():
    task = PROGRAM["TASKS"]["cifar10_4000"]
    start, method = task.trials(None, only=["MPL"])
    assert start.partition(": ")[0] == f"--trial={PROGRAM['START']}"
    assert f"--steps={task.start} " in start
    assert f" --initialize={{{PROGRAM['START']}}}/networks/student.keras " in method
    assert f"--steps={2 * task.start} " in task.scaled(2.0).trials(None, only=["UDA"])[0]
    baseline = task.trials(None)[1]
    assert baseline.startswith("--trial=supervised: ")
    assert "--initialize" not in baseline


def test_the_placebo_is_the_same_but_for_whose_feedback_it_is():
    task = PROGRAM["TASKS"]["mnist_100"]
    name, _, trial = task.trials(None, placebo=True)[-1].partition(": ")
    assert name == f"--trial={PROGRAM['PLACEBO']}"
    assert trial.replace(" --feedback_placebo", "") == task.trials(None)[4].partition(": ")[2]


def test_some_trials_of_another_length():
    task = PROGRAM["TASKS"]["cifar10_250"]
    plain = task.trials(None, only=["UDA", "MPL"])
    twice = task.scaled(2.0).trials(None, only=["MPL", "UDA"])
    assert [trial.partition(": ")[0] for trial in twice] == ["--trial=UDA", "--trial=MPL"]
    longer = plain[0].replace("--steps=260 --epoch_steps=130", "--steps=520 --epoch_steps=260")
    assert longer == twice[0] != plain[0]
    assert "--supervised_steps=1000" in twice[1]
    assert "--steps=150 " in twice[1]
    with pytest.raises(ValueError, match=r"\['uda'\] are no trials of this task"):
        task.trials(None, only=["uda"])


@pytest.mark.parametrize(
    ("preset", "name"), [("mnist_100", "mnist_100"), ("fashion_mnist_1000", "fashion_1000")]
)
def test_presets_and_the_command_of_their_headers_are_trials_of_the_table(preset, name):
    def flags_of(text):
        return dict(re.findall(r"--(\w+)=(\S+)", text))

    text = (ROOT / "recipes" / "presets" / f"{preset}.flags").read_text("utf-8")
    header = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    uda, mpl = PROGRAM["TASKS"][name].trials(None, only=["UDA", "MPL"])
    of_preset = flags_of(text.removeprefix(header))
    of_command = of_preset | flags_of(header.partition("python -m recipes.mpl ")[2])
    # Where a run is looked at in between is no part of what it learns.
    for trial, given in ((uda, of_preset), (mpl, of_command)):
        expected = flags_of(trial.partition(": ")[2]) | {"epoch_steps": given["epoch_steps"]}
        assert expected.items() <= given.items()
