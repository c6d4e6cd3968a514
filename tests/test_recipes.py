"""Two steps of every recipe as a user starts it: a process of its own, from the command line."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PRESETS = sorted((ROOT / "recipes" / "presets").glob("*.flags"))
SMALL = ["--model=mlp", "--labels=20", "--batch_size=10", "--steps=2", "--epoch_steps=1", "--progress=none"]


def run(recipe, *options, expect_success=True):
    finished = subprocess.run(
        [sys.executable, "-m", f"recipes.{recipe}", *map(str, options)],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert (finished.returncode == 0) == expect_success, finished.stderr[-3000:]
    return finished


def test_mpl_then_finetune(tmp_path):
    small = [*SMALL, "--unlabeled_ratio=2", "--baseline", "--finetune_steps=2"]
    options = [*small, f"--run_dir={tmp_path / 'mpl'}", f"--export_dir={tmp_path / 'exported'}"]
    shown = run("mpl", *options).stdout
    for text in ("supervised on the same labels", "teacher", "student, fine-tuned", "validation accuracy %"):
        assert text in shown
    metrics = json.loads((tmp_path / "mpl" / "metrics.json").read_text())
    assert metrics["split"] == "digits.0@20"
    assert metrics["command"].startswith("python -m recipes.mpl --model=mlp")
    assert (tmp_path / "exported" / "1" / "saved_model.pb").exists()

    again = run("mpl", *options).stdout
    assert "student, fine-tuned" in again
    assert not (tmp_path / "exported" / "2").exists()
    other = run("mpl", *options, "--learning_rate=0.3", expect_success=False)
    assert (
        "holds another configuration (--learning_rate=0.05 there, --learning_rate=0.3 here)" in other.stderr
    )

    network = tmp_path / "mpl" / "networks" / "student.keras"
    small = [option for option in SMALL if not option.startswith("--model")]
    run("finetune", f"--network={network}", *small, f"--run_dir={tmp_path / 'tuned'}")
    assert (tmp_path / "tuned" / "metrics.json").exists()


def test_supervised_reads_the_preset_of_mpl(tmp_path):
    preset = f"--flagfile={ROOT / 'recipes' / 'presets' / 'two_moons.flags'}"
    run("supervised", preset, "--steps=2", "--progress=none", f"--run_dir={tmp_path / 'moons'}")
    metrics = json.loads((tmp_path / "moons" / "metrics.json").read_text())
    assert metrics["split"] == "two_moons.0@6"
    assert set(metrics["test"]) == {"student"}


def test_compare_runs_each_cell_once_and_writes_the_table(tmp_path):
    cells = [
        f"--cell=plain: supervised {' '.join(SMALL)}",
        f"--cell=mpl, silent: mpl {' '.join(SMALL)} --unlabeled_ratio=2 --feedback=none",
    ]
    options = [*cells, "--seeds=0-1", f"--run_dir={tmp_path}"]
    assert run("compare", *options).stdout.count("seed") > 4
    table = (tmp_path / "table.md").read_text()
    assert "plain" in table
    assert "mpl, silent" in table
    assert "final - plain" in table
    assert (tmp_path / "mpl-silent.1" / "metrics.json").exists()
    assert "seed 0" not in run("compare", *options).stdout


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_name_only_flags_that_exist(preset):
    program = (
        "import sys; from absl import flags; import recipes.mpl, recipes.supervised;"
        "flags.FLAGS(['mpl', *sys.argv[1:]]); print(flags.FLAGS.dataset, flags.FLAGS.steps)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, f"--flagfile={preset}"],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    text = preset.read_text()
    undefok = next(line for line in text.splitlines() if line.startswith("--undefok="))
    # --undefok would also hide a misspelled flag: each name must be one that recipes.mpl knows.
    source = (ROOT / "recipes" / "mpl.py").read_text() + (ROOT / "recipes" / "common.py").read_text()
    for name in undefok.removeprefix("--undefok=").split(","):
        assert f'"{name}"' in source, name


def test_an_unknown_dataset_is_refused_with_the_nearest(tmp_path):
    finished = run("supervised", "--dataset=digit", f"--run_dir={tmp_path}", expect_success=False)
    assert "digits" in finished.stderr.splitlines()[-1]
