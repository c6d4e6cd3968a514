"""recipes.auto from its plan to its end, with a clock that shows more whenever it is looked at."""

import json
import re

import pytest

from mpl_tf.runs.folder import RunFolder
from tests.programs import forked
from tests.support import run_folders

PROGRAM = """
import itertools, os, runpy, signal, sys, time
from mpl_tf.training import rehearsal
from mpl_tf.training.callbacks import monitors
looks, began = itertools.count(), time.perf_counter()
rehearsal.CLOCKS["wall"] = lambda: began + 0.01 * next(looks)
killed_in, sys.argv = sys.argv[1], ["auto.py", *sys.argv[2:]]
record = monitors.Record.on_epoch_end
def on_epoch_end(self, epoch, logs=None):
    record(self, epoch, logs)
    if self.folder.path.name == killed_in and epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
monitors.Record.on_epoch_end = on_epoch_end
runpy.run_module("recipes.auto", run_name="__main__", alter_sys=True)
"""
OPTIONS = [
    "--dataset=digits", "--labels=1000", "--nolabeled_in_unlabeled", "--model=mlp-8x1", "--minutes=0.1",
    "--progress=none", "--noreport", "--notensorboard", "--randaugment_operations=0", "--crop=none",
]  # fmt: skip


def run(*options, killed_in="nowhere"):
    return forked.run(PROGRAM, killed_in, *OPTIONS, *options)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A run folder with nothing but the plan, and what was printed."""
    folder = tmp_path_factory.mktemp("auto")
    finished = run(f"--run_dir={folder / 'run'}", "--plan_only")
    assert finished.returncode == 0, finished.stderr
    return folder, finished.stdout


def test_plan_only_prints_the_plan_and_trains_nothing(planned):
    folder, shown = planned
    plan = json.loads((folder / "run" / "plan.json").read_text())
    steps = dict(entry.split(":") for entry in plan["flags"]["stage_steps"])
    assert list(steps)[:3] == ["supervised", "supervised_longer", "uda"]
    for stage, count in steps.items():
        assert f"{int(count):,}" in shown
        assert plan["seconds"][stage] > 0
    assert sum(plan["seconds"].values()) <= 6.0
    # More labeled images than others: these are learned from all the same.
    assert "10 classes; 1,000 labeled images to learn from, 100 of each class; 150 without labels;" in shown
    assert "The plan of 0.1 minutes" in shown
    assert not list(folder.rglob("history.csv"))
    assert not RunFolder(folder / "run").has_results()


def test_killed_and_started_again_it_goes_on_as_planned(planned):
    folder, _ = planned
    options = [f"--run_dir={folder / 'run'}"]
    first = run(*options, killed_in="uda")
    assert first.returncode == -9, first.stderr
    trained = (folder / "run" / "supervised" / "history.csv").read_bytes()
    again = run(*options, "--progress=auto")
    assert again.returncode == 0, again.stderr
    assert (folder / "run" / "supervised" / "history.csv").read_bytes() == trained
    metrics = RunFolder(folder / "run").read_metrics()
    plan = json.loads((folder / "run" / "plan.json").read_text())
    steps = {stage: int(count) for stage, count in (e.split(":") for e in plan["flags"]["stage_steps"])}
    assert metrics["plan"]["steps"] == steps
    for stage, count in steps.items():
        assert int(RunFolder(folder / "run" / stage).read_history()[-1]["step"]) == count
        assert stage in metrics["validation"]
        assert stage in metrics["test"]
    gain = metrics["gain"]
    for split in ("validation", "test"):
        accuracies = [metrics[split][gain[role]]["accuracy"] for role in ("method", "reference")]
        assert gain[split]["difference"] == pytest.approx(accuracies[0] - accuracies[1])
    # What goes on has a heading, and nothing moves the cursor of a terminal that there is not.
    assert re.findall(r"^(.*), [\d,]+ steps:$", again.stdout, re.MULTILINE)[0] == "UDA student"
    assert "Epoch " in again.stdout
    assert not {"\b", "\x1b"} & set(again.stdout)
    assert "The unlabeled images have" in again.stdout or "What the unlabeled images have" in again.stdout

    # Other minutes are refused before anything is measured.
    other = run(*options, "--minutes=0.2")
    assert other.returncode == 1
    assert "was not planned for these minutes" in other.stderr
    assert not other.stdout

    # The same stages without a plan, and without a kill, end with the same networks.
    steps = f"--stage_steps={','.join(plan['flags']['stage_steps'])}"
    options = [option for option in OPTIONS if not option.startswith("--minutes")]
    plain = forked.run(PROGRAM, "nowhere", *options, steps, f"--run_dir={folder / 'plain'}")
    assert plain.returncode == 0, plain.stderr
    run_folders.assert_same_networks(folder / "run", folder / "plain")


def test_a_teacher_is_compared_and_counts_for_no_method_of_its_own(tmp_path):
    program = """
import json, sys, types
import numpy as np
from absl import flags
from mpl_tf.runs.folder import RunFolder
from recipes import auto
stages = {"supervised": 20, "supervised_longer": 21, "teacher": 25, "mpl": 30, "uda": 29}
flags.FLAGS(["auto", "--dataset=digits", "--model=mlp", "--weights=none", f"--stage_steps={sys.argv[1]}"])
right = {role: types.SimpleNamespace(correct=np.arange(40) < count) for role, count in stages.items()}
auto.finalize.collect_outcomes = lambda *_, **__: {"validation": right}
auto.finalize.summarize = lambda *_: {}
run = types.SimpleNamespace(
    completed=False, networks=dict.fromkeys(stages), facts={}, folder=RunFolder(sys.argv[2]),
    data=types.SimpleNamespace(split=types.SimpleNamespace(validation=range(40))),
)
auto.compare(run)
flags.FLAGS.stage_steps = ["supervised:1", "mpl:1", "supervised:2"]
try:
    auto.stage_steps()
except ValueError as error:
    run.facts["refused"] = str(error)
print(json.dumps(run.facts))
"""
    steps = "supervised:1,supervised_longer:1,mpl:1,uda:1"
    finished = forked.run(program, steps, str(tmp_path))
    assert finished.returncode == 0, finished.stderr[-2000:]
    facts = json.loads(finished.stdout)
    assert facts["gain"]["methods"] == 2
    assert facts["gain"]["validation"]["difference"] == pytest.approx((29 - 21) / 40)
    assert facts["longer"]["difference"] == pytest.approx((21 - 20) / 40)
    assert facts["refused"] == "--stage_steps has 'supervised' twice: say once how many steps it makes."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset=digits"], "Say how long you are willing to wait, as in --minutes=60"),
        (["--minutes=1"], "Give the folder of the labeled images, as in --labeled_dir=labeled"),
        # Before a network is looked for.
        (["--labeled_dir=no_such", "--minutes=1"], "labeled_dir=no_such does not exist"),
        (["--dataset=digits", "--minutes=1", "--stage_steps=supervised:1"], "pass one of them"),
    ],
)
def test_what_is_missing_is_asked_for(options, message):
    finished = forked.run("recipes.auto", *options)
    assert finished.returncode != 0
    assert message in finished.stderr + finished.stdout
    assert "weights" not in finished.stdout
