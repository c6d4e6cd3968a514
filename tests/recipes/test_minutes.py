"""--minutes in place of --steps, with a clock that shows a hundredth of a second more whenever it is looked at."""

import json
import types

import pytest
from absl import flags

from mpl_tf.runs.folder import RunFolder
from recipes.common import minutes, start
from tests.programs import forked
from tests.support import run_folders

PROGRAM = """
import itertools, runpy, sys, time
from mpl_tf.training import rehearsal
looks, began = itertools.count(), time.perf_counter()
rehearsal.CLOCKS["wall"] = lambda: began + 0.01 * next(looks)
recipe = sys.argv[1]
sys.argv = [f"{recipe}.py", *sys.argv[2:]]
runpy.run_module(f"recipes.{recipe}", run_name="__main__", alter_sys=True)
"""
SMALL = [
    "--model=mlp-8x1",
    "--labels=20",
    "--batch_size=10",
    "--progress=none",
    "--noreport",
    "--notensorboard",
]
SMALL += ["--randaugment_operations=0"]
UNLABELED = ["--unlabeled_ratio=1", "--confirmation_images=0"]


def run(recipe, *options):
    return forked.run(PROGRAM, recipe, *SMALL, *options)


def test_minutes_make_steps_once_and_train_as_these_steps_do(tmp_path):
    options = ["--preset=fixmatch_digits", *UNLABELED, "--minutes=0.03", "--finetune_steps=3"]
    first = run("fixmatch", *options, f"--run_dir={tmp_path / 'minutes'}")
    assert first.returncode == 0, first.stderr
    planned = json.loads((tmp_path / "minutes" / "plan.json").read_text())["flags"]
    steps = planned["steps"]
    assert f"0.03 minutes make --steps={steps}: method" in first.stdout
    folder = RunFolder(tmp_path / "minutes")
    known = folder.read_flags()
    # What the preset counts in its thousand steps.
    assert known["steps"] == str(steps)
    assert known["warmup_steps"] == str(50 * steps // 1000)
    assert known["finetune_steps"] == "3"
    assert "minutes" not in known
    assert int(folder.read_history()[-1]["step"]) == steps
    # Of 1.8 s, 0.01 s for a step, and as much for each of those that were timed.
    assert 20 <= steps <= 130

    again = run("fixmatch", *options, f"--run_dir={tmp_path / 'minutes'}")
    assert again.returncode == 0, again.stderr
    assert "minutes make" not in again.stdout
    assert "This run was complete" in again.stdout

    flagfile = f"--flagfile={tmp_path / 'minutes' / 'flags.txt'}"
    plain = run("fixmatch", flagfile, f"--run_dir={tmp_path / 'steps'}")
    assert plain.returncode == 0, plain.stderr
    run_folders.assert_same_networks(tmp_path / "minutes", tmp_path / "steps")

    both = run(
        "fixmatch", "--preset=fixmatch_digits", "--minutes=1", "--steps=5", f"--run_dir={tmp_path / 'both'}"
    )
    assert both.returncode != 0
    assert "--minutes says how long and --steps how many: pass one of them" in both.stderr + both.stdout


@pytest.mark.parametrize(
    ("recipe", "options", "stages"),
    [
        ("mpl", ["--baseline", "--finetune_steps=2"], ["supervised", "method", "finetune"]),
        pytest.param(
            "noisy_student",
            ["--rounds=2", "--threshold=0"],
            ["teacher", "round_1", "round_2"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pseudo_labels",
            ["--pseudo_labels=fixed", "--threshold=0"],
            ["teacher", "method"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "pseudo_labels",
            ["--pseudo_labels=stored", "--threshold=0"],
            ["method"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_all_stages_are_planned_those_that_label_in_between_too(tmp_path, recipe, options, stages):
    finished = run(recipe, *options, *UNLABELED, "--minutes=0.05", f"--run_dir={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    seconds = json.loads((tmp_path / "plan.json").read_text())["seconds"]
    assert list(seconds) == [*stages, "evaluation", "before"]
    assert sum(seconds.values()) <= 3.0


def test_minutes_that_leave_no_time_for_a_step_are_refused_and_leave_nothing(tmp_path):
    finished = run("supervised", "--minutes=0.00001", f"--run_dir={tmp_path / 'run'}")
    assert finished.returncode != 0
    assert "--minutes=1e-05 leaves no time for a step: starting and measuring took" in finished.stderr
    assert not (tmp_path / "run" / "flags.txt").exists()


def test_a_damaged_plan_is_named(tmp_path):
    assert minutes.read(RunFolder(tmp_path)) == {}
    for text in ("", '{"minutes": 3, "fla'):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(ValueError, match=r"plan\.json is damaged .*: put back a copy"):
            minutes.read(RunFolder(tmp_path))


def test_lengths_keep_their_fraction_of_the_steps_unless_they_are_given(monkeypatch):
    known = {"warmup_steps": 0, "uda_ramp_steps": 0, "epoch_steps": 1, "teacher_steps": 1}
    parsed = {name: types.SimpleNamespace(parser=flags.IntegerParser(low)) for name, low in known.items()}
    monkeypatch.setattr(minutes, "FLAGS", parsed)
    monkeypatch.setattr(start, "given", lambda: {"warmup_steps"})
    reference = {
        "steps": 1000,
        "warmup_steps": 50,
        "uda_ramp_steps": 100,
        "epoch_steps": 40,
        "teacher_steps": None,
    }
    assert minutes.lengths(reference, 290) == {"steps": 290, "uda_ramp_steps": 29, "epoch_steps": 11}
    assert minutes.lengths(reference, 10)["epoch_steps"] == 1
    assert minutes.lengths(reference | {"epoch_steps": None}, 480, multiple=8)["epoch_steps"] == 24
