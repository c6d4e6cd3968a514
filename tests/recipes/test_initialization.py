"""Runs whose networks start from trained weights, as a user asks for it with --initialize."""

import json
import shutil

import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models.fingerprints import weights_fingerprint
from tests.programs import forked

SMALL = [
    "--model=mlp-16x1", "--labels=20", "--batch_size=10", "--epoch_steps=5", "--progress=none", "--noreport",
    "--notensorboard", "--randaugment_operations=0", "--ema_decay=0",
]  # fmt: skip


def run(recipe, *options, expect_success=True):
    finished = forked.run(f"recipes.{recipe}", *SMALL, *options)
    assert (finished.returncode == 0) == expect_success, finished.stderr[-3000:]
    return finished.stdout if expect_success else finished.stderr


def networks(folder):
    return {path.stem: models.load(path) for path in (folder / "networks").glob("*.keras")}


def weights(network):
    return np.concatenate([weight.ravel() for weight in network.get_weights()])


def test_from_a_file_and_from_a_baseline_that_the_run_trains(tmp_path):
    # From the baseline: it is in the table, and what has no learning rate is still what it was.
    options = [
        "--initialize=supervised",
        "--supervised_steps=20",
        "--steps=5",
        "--unlabeled_ratio=2",
        "--select=best",
    ]
    first = [*options, "--teacher_learning_rate=0", f"--run_dir={tmp_path / 'first'}"]
    shown = run("mpl", *first)
    assert all(
        name in shown
        for name in ("supervised baseline", "teacher", "student", "\nserved: ", "validation images")
    )
    assert all(f"best epoch, {stage}: " in shown for stage in ("supervised", "method"))
    found = networks(tmp_path / "first")
    start = weights(found["supervised"])
    np.testing.assert_array_equal(weights(found["teacher"]), start)
    fresh = weights(models.build("mlp-16x1", 10, (8, 8, 1), seed=0))
    moved, apart = (np.linalg.norm(each - start) for each in (weights(found["student"]), fresh))
    assert 0 < moved < 0.3 * apart
    metrics = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert list(metrics["test"]) == ["supervised", "teacher", "student"]
    digest = weights_fingerprint(found["supervised"])
    assert metrics["initialization"] == {"role": "supervised", "steps": 20, "weights_sha256": digest}

    # From its file: a network without a learning rate is still what it was.
    file = tmp_path / "start.keras"
    shutil.copy(tmp_path / "first" / "networks" / "supervised.keras", file)
    options = [f"--initialize={file}", "--learning_rate=0", f"--run_dir={tmp_path / 'second'}"]
    run("supervised", *options, "--steps=5")
    np.testing.assert_array_equal(weights(networks(tmp_path / "second")["student"]), start)
    metrics = json.loads((tmp_path / "second" / "metrics.json").read_text())
    assert metrics["initialization"] == {"file": str(file), "weights_sha256": digest}
    # A complete run needs the file no more; one that goes on is told when it is another.
    file.unlink()
    assert "there was nothing left to do" in run("supervised", *options, "--steps=5")
    shutil.copy(tmp_path / "first" / "networks" / "student.keras", file)
    refused = run("supervised", *options, "--steps=10", expect_success=False)
    assert f"started from file={file}, weights_sha256={digest}, and now there is" in refused


# Builds each student and trains none of them.
NOISY = """
import sys, types
from absl import flags
from recipes import noisy_student as recipe
from recipes.common import program
flags.FLAGS(sys.argv)
recipe.builders.settle_optimizer()
from mpl_tf import models
from mpl_tf.models.fingerprints import weights_fingerprint
data = program.load_data("unused", write_split=False)
names = ("teacher", "round_1", "file")
built = {name: recipe.builders.bare_network("mlp-16x1", data, seed=seed) for seed, name in enumerate(names, 10)}
for initialize in ("supervised", "teacher", "file.keras", None):
    flags.FLAGS.initialize = initialize
    initial = built["file"] if initialize == "file.keras" else None
    run = types.SimpleNamespace(data=data, networks=built, initial=initial)
    student = recipe.build_student(2, built["round_1"], run).student
    found = {weights_fingerprint(network): name for name, network in built.items()}
    print(initialize, found.get(weights_fingerprint(student)))
"""


def test_noisy_students_start_from_the_first_teacher_or_from_the_network_that_labeled():
    finished = forked.run(NOISY, *SMALL)
    assert finished.returncode == 0, finished.stderr[-3000:]
    starts = [line.split() for line in finished.stdout.splitlines()]
    assert starts == [
        ["supervised", "teacher"],
        ["teacher", "round_1"],
        ["file.keras", "file"],
        ["None", "None"],
    ]


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (
            "mpl",
            ["--initialize=student"],
            "'student' is not among these: give none, supervised, or the path of a .keras file",
        ),
        (
            "supervised",
            ["--initialize=supervised"],
            "'supervised' is not among these: give none, or the path of a .keras file",
        ),
        ("mpl", ["--initialize=supervised", "--teacher_model=mlp-8x1"], "leave --teacher_model out"),
        ("uda", ["--serve=teacher"], "teacher"),
        ("uda", ["--serve=supervised"], "--serve names a network that this run does not train"),
        ("supervised", ["--serve=finetuned"], "--serve names a network that this run does not train"),
        ("pseudo_labels", ["--serve=teacher"], "--serve=teacher names a network that this run does not have"),
        ("uda", ["--supervised_steps=3"], "pass --initialize=supervised too, or leave it out"),
        ("uda", ["--initialize={0}/absent.keras"], "absent.keras does not exist"),
        ("uda", ["--initialize={0}/wide.keras"], "does not fit --model=mlp-16x1, since"),
        ("uda", ["--initialize={0}/letters.keras"], "was trained for other classes"),
        (
            "noisy_student",
            ["--initialize=teacher", "--models=mlp-16x1,mlp-8x1", "--rounds=2"],
            "needs equal networks",
        ),
        (
            "noisy_student",
            ["--initialize=teacher", "--teacher={0}/wide.keras"],
            "wide.keras to start from that one",
        ),
        (
            "noisy_student",
            ["--teacher_model=mlp-8x1", "--teacher={0}/wide.keras"],
            "--teacher_model=mlp-8x1 one that the run would train: leave one of them out",
        ),
        (
            "noisy_student",
            ["--teacher_steps=3", "--teacher={0}/wide.keras"],
            "which --teacher_steps=3 would not train: leave one of them out",
        ),
        (
            "pseudo_labels",
            ["--initialize=supervised", "--pseudo_labels=fixed", "--teacher_steps=3"],
            "pass --supervised_steps",
        ),
    ],
)
def test_what_cannot_be_started_from_is_refused_before_anything_is_trained(
    tmp_path, recipe, options, message
):
    models.save(models.build("mlp-17x1", 10, (8, 8, 1), seed=0), tmp_path / "wide.keras")
    letters = models.build("mlp-16x1", 10, (8, 8, 1), seed=0, class_names="abcdefghij")
    models.save(letters, tmp_path / "letters.keras")
    options = [option.format(tmp_path) for option in options]
    refused = run(recipe, *options, "--steps=5", f"--run_dir={tmp_path / 'run'}", expect_success=False)
    assert message in " ".join(refused.split())
    assert not list(tmp_path.glob("run/**/step_*"))
