"""Labels of unequal trust on the command line: from the flags to the split, the batches, the page and refusals."""

import csv
import json
import shutil

import numpy as np
import pytest

from mpl_tf import data
from tests.programs import forked
from tests.recipes.test_new_requests import make_images

SMALL = [
    "--model=mlp-8x1",
    "--batch_size=10",
    "--steps=2",
    "--epoch_steps=1",
    "--progress=none",
    "--notensorboard",
]
SMALL += ["--noreport", "--randaugment_operations=0"]
TRUST = ["--labels=60", "--trusted=20", "--label_noise=symmetric:0.5", "--seed=3"]


def run(recipe, *options, expect_success=True):
    finished = forked.run(f"recipes.{recipe}", *SMALL, *options)
    assert (finished.returncode == 0) == expect_success, finished.stderr[-3000:]
    return finished.stdout if expect_success else finished.stderr


def suspects(folder):
    with (folder / "suspect_labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_mpl_with_feedback_on_trusted_labels_and_fine_tuning_on_them(tmp_path):
    options = [*TRUST, "--unlabeled_ratio=2", "--feedback_on=trusted", f"--run_dir={tmp_path / 'mpl'}"]
    run("mpl", *options)
    split = json.loads((tmp_path / "mpl" / "split.json").read_text())
    assert split["arguments"]["label_noise"] == "symmetric:0.5"
    assert {"labeled": 60, "trusted": 20, "mislabeled": 20}.items() <= split["counts"].items()
    source = data.load("digits")
    for index, wrong in zip(split["mislabeled"], split["wrong_labels"], strict=True):
        assert source.train.labels[index] != wrong
    rows = suspects(tmp_path / "mpl")
    assert 0 < len(rows) <= 40
    assert not {int(row["index"]) for row in rows} & set(split["trusted"])
    # The same command goes on, and another trust is another run.
    assert "This run was complete" in run("mpl", *options)
    assert "--trusted=20 there, --trusted=10 here" in run(
        "mpl", *options, "--trusted=10", expect_success=False
    )

    network = tmp_path / "mpl" / "networks" / "student.keras"
    options = [option for option in SMALL if not option.startswith("--model")]
    finished = forked.run(
        "recipes.finetune", *options, *TRUST, f"--network={network}", "--cheap_labels=ignore", "--randaugment=paper",
        f"--run_dir={tmp_path / 'tuned'}",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    tuned = json.loads((tmp_path / "tuned" / "split.json").read_text())
    assert (tuned["labeled"], tuned["trusted"], len(tuned["ignored"])) == (
        split["trusted"],
        split["trusted"],
        40,
    )
    assert tuned["mislabeled"] == split["mislabeled"]


def test_learning_to_reweight(tmp_path):
    run("learning_to_reweight", *TRUST, "--trusted_weight=0.5", f"--run_dir={tmp_path / 'run'}")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["test"]) == {"student"}
    (row, *_) = csv.DictReader((tmp_path / "run" / "history.csv").open(newline=""))
    assert 0.0 <= float(row["helpful_fraction"]) <= 1.0
    assert suspects(tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "measures cheap labels on trusted ones: say which are by --trusted_dir or --trusted."),
        (["--labels=20", "--trusted=20"], "weighs cheap labels, and these flags leave none"),
        (["--trusted_dir=here", "--cheap_labels=ignore"], "weighs cheap labels, and these flags leave none"),
    ],
)
def test_learning_to_reweight_needs_labels_of_both_kinds(options, message):
    assert message in run("learning_to_reweight", *options, "--only_check_args", expect_success=False)


def test_feedback_on_trusted_labels_where_none_is_trusted_is_refused_before_training(tmp_path):
    options = [
        "--labels=20",
        "--unlabeled_ratio=2",
        "--baseline",
        "--feedback_on=trusted",
        f"--run_dir={tmp_path}",
    ]
    said = run("mpl", *options, expect_success=False)
    assert (
        "--feedback_on=trusted measures the student on trusted images, and digits.0@20 has none: say which"
        in said
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--cheap_labels=ignore"],
            "--cheap_labels=ignore leaves the trusted labels alone: say which are by",
        ),
        (
            ["--trusted=5", "--trusted_dir=here"],
            "--trusted draws which labels are trusted, and --trusted_dir holds",
        ),
        (["--label_noise=0.3"], "'0.3' is no noise: give symmetric or pairs, a colon and the fraction"),
        (["--label_noise=pairs:1.0"], "'pairs:1.0' is no noise"),
        (["--label_noise=pairs:-0.1"], "'pairs:-0.1' is no noise"),
        (["--trusted=0"], "--trusted"),
    ],
)
def test_flags_without_a_meaning_are_refused_at_once(options, message):
    assert message in run("supervised", *options, "--only_check_args", expect_success=False)


def test_a_folder_of_trusted_images(tmp_path):
    make_images(tmp_path / "labeled", count=9)
    make_images(tmp_path / "trusted", count=4, start=20)
    # Checked, and found to be the other one.
    shutil.copy(tmp_path / "labeled/cat/0.png", tmp_path / "trusted/dog/checked.png")
    folders = [
        "--dataset=folders",
        f"--labeled_dir={tmp_path / 'labeled'}",
        f"--trusted_dir={tmp_path / 'trusted'}",
    ]
    shown = run("supervised", *folders, "--validation=0.3", "--report", f"--run_dir={tmp_path / 'run'}")
    assert "cheaply labeled copies of trusted images: 1" in shown
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    # 9 trusted, of which 3 are measured with, and 17 cheap ones that are left.
    assert {"labeled": 23, "trusted": 6, "validation": 3}.items() <= split["counts"].items()
    names = {row["image"] for row in suspects(tmp_path / "run")}
    assert all("/labeled/" in name for name in names)
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Trusted labels" in page
    assert "half of every labeled batch" in page
    assert np.load(tmp_path / "run" / "outcomes.npz")
