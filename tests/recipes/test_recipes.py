"""Two steps of every recipe as a user starts it: a process of its own, with a command line."""

import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import app, flags

from mpl_tf import data, models
from mpl_tf.training.callbacks import preemption
from mpl_tf.utils import files
from recipes import compare
from tests.programs import forked

ROOT = pathlib.Path(__file__).parents[2]
PRESETS = sorted((ROOT / "recipes" / "presets").glob("*.flags"))
SMALL = ["--model=mlp", "--labels=20", "--batch_size=10", "--steps=2", "--epoch_steps=1", "--progress=none"]
# Each pipeline's graph of RandAugment takes seconds to trace; the first test has it.
SMALL += ["--noreport", "--notensorboard", "--randaugment_operations=0"]


def run(recipe, *options, expect_success=True, **of_process):
    finished = forked.run(f"recipes.{recipe}", *options, **of_process)
    assert (finished.returncode == 0) == expect_success, finished.stderr[-3000:]
    return finished


def test_mpl_then_finetune(tmp_path):
    small = [*SMALL, "--unlabeled_ratio=2", "--baseline", "--finetune_steps=2"]
    small += [
        "--teacher_micro_batches=2",
        "--student_micro_batches=3",
        "--rematerialize",
        "--randaugment_operations=2",
    ]
    options = [*small, f"--run_dir={tmp_path / 'mpl'}", f"--export_dir={tmp_path / 'exported'}"]
    shown = run("mpl", *options).stdout
    for text in ("supervised baseline", "teacher", "fine-tuned student", "validation accuracy %"):
        assert text in shown
    metrics = json.loads((tmp_path / "mpl" / "metrics.json").read_text())
    assert metrics["split"] == "digits.0@20"
    assert metrics["command"].startswith("python -m recipes.mpl --model=mlp")
    assert (tmp_path / "exported" / "1" / "saved_model.pb").exists()

    again = run("mpl", *options).stdout
    assert "fine-tuned student" in again
    assert not (tmp_path / "exported" / "2").exists()
    other = run("mpl", *options, "--learning_rate=0.3", expect_success=False)
    assert (
        "holds another configuration (--learning_rate=0.05 there, --learning_rate=0.3 here)" in other.stderr
    )

    network = tmp_path / "mpl" / "networks" / "student.keras"
    small = [option for option in SMALL if not option.startswith("--model")]
    run("finetune", f"--network={network}", *small, f"--run_dir={tmp_path / 'tuned'}")
    assert (tmp_path / "tuned" / "metrics.json").exists()


def test_the_page_of_a_run_and_the_page_drawn_again(tmp_path):
    options = [*SMALL, "--report", "--unlabeled_ratio=2", "--baseline", f"--run_dir={tmp_path}"]
    page = tmp_path / "report.html"
    assert f"report: {page}" in run("mpl", *options).stdout
    first = page.read_text("utf-8")
    assert "supervised training on the same 20 labels" in first
    assert all(title in first for title in (">Pseudo labels</h2>", ">Training images</h2>"))

    page.unlink()
    assert run("report", f"--run_dir={tmp_path}").stdout.strip() == str(page)
    assert page.read_text("utf-8") == first
    other = run("report", f"--run_dir={tmp_path}", "--seed=3", expect_success=False)
    assert "--seed=3 is not what the run in" in other.stderr


def test_uda_then_distillation(tmp_path):
    small = [*SMALL, "--unlabeled_ratio=2"]
    annealing = ["--tsa_schedule=linear", "--entropy_weight=0.1"]
    run("uda", "--preset=digits", "--warmup_steps=0", *small, *annealing, f"--run_dir={tmp_path / 'uda'}")
    uda = json.loads((tmp_path / "uda" / "metrics.json").read_text())
    assert set(uda["test"]) == {"student", "finetuned"}
    teacher = tmp_path / "uda" / "networks" / "student.keras"
    run("distillation", f"--teacher={teacher}", *small, f"--run_dir={tmp_path / 'distilled'}")
    distilled = json.loads((tmp_path / "distilled" / "metrics.json").read_text())
    # The teacher is the network that was handed in, unchanged.
    assert distilled["test"]["teacher"]["accuracy"] == uda["test"]["student"]["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fixmatch", "freematch"])
def test_fixmatch_and_freematch(tmp_path, recipe):
    small = [
        *SMALL,
        "--unlabeled_ratio=2",
        "--warmup_steps=0",
        "--finetune_steps=0",
        "--schedule=partial_cosine",
    ]
    options = [
        f"--preset={recipe}_digits",
        *small,
        "--distribution_alignment=labels",
        f"--run_dir={tmp_path}",
    ]
    run(recipe, *options)
    assert set(json.loads((tmp_path / "metrics.json").read_text())["test"]) == {"student"}
    assert "mask_rate" in (tmp_path / "history.csv").read_text()


@pytest.mark.slow
def test_pseudo_labels_of_a_teacher_of_the_current_model_and_stored(tmp_path):
    def trained(name, *options):
        small = [
            *SMALL,
            "--warmup_steps=0",
            "--finetune_steps=0",
            "--threshold=0.1",
            "--ramp_start=0",
            "--ramp_end=1",
        ]
        run("pseudo_labels", "--preset=digits", *small, *options, f"--run_dir={tmp_path / name}")
        return json.loads((tmp_path / name / "metrics.json").read_text())["test"]

    own = trained("own", "--pseudo_labels=fixed", "--teacher_steps=3")
    assert (tmp_path / "own" / "teacher" / "history.csv").exists()
    teacher = tmp_path / "own" / "networks" / "teacher.keras"
    given = trained("given", "--pseudo_labels=fixed", f"--teacher={teacher}")
    assert set(own) == set(given) == {"teacher", "student"}
    # The same labels from the network and from its file, so the same student.
    assert own == given
    trained("online", "--view=strong")
    arazo = [
        "--hard=false",
        "--mixup=1",
        "--prior_weight=0.8",
        "--entropy_weight=0.4",
        "--min_labeled_fraction=0.16",
    ]
    trained("stored", "--pseudo_labels=stored", *arazo)
    header = (tmp_path / "stored" / "history.csv").read_text().splitlines()[0]
    assert {"confident_fraction", "prior_divergence", "mask_rate"} <= set(header.split(","))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--min_labeled_fraction=0.16"], "unlabeled_ratio=7 makes 12.5% of a batch labeled"),
        (
            ["--teacher_steps=5"],
            "--pseudo_labels=online has no teacher: leave --teacher and --teacher_steps out",
        ),
    ],
)
def test_pseudo_labels_refuse_flags_that_do_not_fit(tmp_path, options, message):
    finished = run("pseudo_labels", *options, f"--run_dir={tmp_path / 'run'}", expect_success=False)
    assert message in finished.stderr
    assert not (tmp_path / "run").exists()


def test_data_free_learning(tmp_path):
    models.build("mlp", 10, (8, 8, 1), seed=1).save(tmp_path / "teacher.keras")
    small = [*SMALL, "--tensorboard", f"--teacher={tmp_path / 'teacher.keras'}", "--generator_width=8"]
    for kind, preset in (("learned", ["--preset=dafl_digits"]), ("noise", [])):
        folder = tmp_path / kind
        run("dafl", *preset, *small, f"--generator={kind}", f"--run_dir={folder}")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert set(metrics["test"]) == set(metrics["validation"]) == {"teacher", "student"}
        assert metrics["images"] == 20
        drawn = sorted(path.name for path in (folder / "generated").iterdir())
        assert drawn == ["epoch_000.png", "epoch_001.png", "last.png"]
        assert any((folder / "tensorboard" / "validation").iterdir())
        generator = keras.saving.load_model(folder / "networks" / "generator.keras", safe_mode=True)
        assert generator.output_shape == (None, 8, 8, 1)
        assert bool(generator.trainable_variables) == (kind == "learned")


def test_supervised_reads_the_preset_of_mpl(tmp_path):
    run(
        "supervised",
        "--preset=two_moons",
        "--steps=2",
        "--steps_per_execution=1",
        "--progress=none",
        "--noreport",
        "--notensorboard",
        f"--run_dir={tmp_path / 'moons'}",
    )
    metrics = json.loads((tmp_path / "moons" / "metrics.json").read_text())
    assert metrics["split"] == "two_moons.0@6"
    assert set(metrics["test"]) == {"student"}


def test_label_by_two_workers(tmp_path):
    models.build("mlp", 10, (8, 8, 1), seed=0).save(tmp_path / "teacher.keras")
    options = [f"--network={tmp_path / 'teacher.keras'}", f"--store={tmp_path / 'labels'}", "--labels=20"]
    options += ["--shard_size=500", "--workers=2", "--precision=mixed_bfloat16", "--threshold=0.15"]
    first = run("label", *options, "--worker=1").stdout
    assert re.search(r"labels: 500 of 500 images, .* shard 1 of 1", first)
    assert "This worker is done. 2 of 3 shards are still missing" in first
    image = tmp_path / "labels.png"
    shown = run("label", *options, "--worker=0", "--progress=none", f"--image={image}").stdout
    assert "1,293 images labeled by teacher.keras" in shown
    assert "right % (for information; true labels play no part)" in shown
    assert "| predicted class |" in shown
    assert image.exists()
    store = data.LabelStore.open(tmp_path / "labels")
    source = data.load("digits")
    split = data.draw_split(source, num_labeled=20, seed=0)
    np.testing.assert_array_equal(store.index, split.unlabeled)
    images = source.train.examples[store.index].astype("float32")
    teacher = keras.saving.load_model(tmp_path / "teacher.keras")
    expected = keras.ops.softmax(teacher.predict(images, verbose=0)).numpy()
    np.testing.assert_allclose(store.probabilities(), expected, atol=0.05)
    assert abs(store.probabilities() - expected).max() > 1e-4  # 16-bit arithmetic did take place.
    other = run("label", *options, "--view=strong", expect_success=False)
    assert (
        "holds other labels (teacher's noise None there and False here, teacher's view None" in other.stderr
    )


def test_compare_runs_the_missing_trials_and_writes_the_table(tmp_path):
    for seed, accuracy in enumerate((0.5, 0.7)):
        result = {"accuracy": accuracy, "standard_error": 0.01}
        metrics = {"test": {"student": result}, "seconds": {"method": 1.0}, "images": 20, "steps": 2}
        (tmp_path / f"plain.{seed}").mkdir()
        (tmp_path / f"plain.{seed}" / "metrics.json").write_text(json.dumps(metrics))
        made_of = {"command": ["supervised", f"--seed={seed}"], "files": {}}
        (tmp_path / f"plain.{seed}" / "trial.json").write_text(json.dumps({"trial": "plain", **made_of}))
    small = f"{' '.join(SMALL)} --unlabeled_ratio=2"
    # The second trial reads the first one's teacher, of the same seed.
    distilled = f"distillation --teacher={{mpl, silent}}/networks/teacher.keras {small}"
    trials = ["plain: supervised", f"mpl, silent: mpl {small}", f"distilled: {distilled}"]
    options = [f"--trial={trial}" for trial in trials] + ["--ablation=distilled = mpl, silent"]
    options += ["--seeds=0-1", "--jobs=2", f"--run_dir={tmp_path}"]
    # The notebook's test starts its trials as real processes.
    shown = run("compare", *options, python=forked.python_command()).stdout
    assert "plain, seed" not in shown
    assert "mpl, silent, seed 1" in shown
    assert f"report: {tmp_path / 'report.html'}" in shown
    table = (tmp_path / "table.md").read_text()
    assert "60.00 ± 14.14" in table
    assert "final - plain" in table
    for seed in (0, 1):
        mpl, distilled = (
            json.loads((compare_folder(tmp_path, trial, seed) / "metrics.json").read_text())
            for trial in ("mpl, silent", "distilled")
        )
        assert distilled["test"]["teacher"]["accuracy"] == mpl["test"]["teacher"]["accuracy"]
    assert (tmp_path / "table.png").stat().st_size > 0
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<span>-m</span> <span>recipes.compare</span>" in page
    assert "60.00 ± 14.14" in page
    log = (tmp_path / "distilled.1" / "log.txt").read_text()
    assert log.startswith("$ python -m recipes.distillation --teacher=")
    assert "training: method" in log


def test_a_trial_is_not_run_again_unless_its_flags_or_files_have_changed(tmp_path, monkeypatch):
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["compare", f"--run_dir={tmp_path}", "--jobs=2"])
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    started = []

    def recipe(program, log, environment):
        assert environment["TF_NUM_INTRAOP_THREADS"] == "3"  # as the user has said
        started.append(program[2:])
        print("Warning: a network is small", file=log, flush=True)
        (tmp_path / "one.0" / "metrics.json").write_text(json.dumps({"steps": len(started)}))
        return int("--fails" in program)

    monkeypatch.setattr(compare, "_run_to_its_end", recipe)
    teacher = tmp_path / "teacher.keras"
    teacher.touch()
    command = ["distillation", f"--teacher={teacher}"]
    assert compare.run_trial("one", command, 0, []) == {"steps": 1}
    assert compare.run_trial("one", command, 0, []) == {"steps": 1}
    assert compare.run_trial("one", [*command, "--steps=5"], 0, []) == {"steps": 2}
    teacher.write_bytes(b"another network")
    assert compare.run_trial("one", [*command, "--steps=5"], 0, []) == {"steps": 3}
    # What it was made of is lost.
    (tmp_path / "one.0" / "trial.json").write_text("")
    assert compare.run_trial("one", [*command, "--steps=5"], 0, []) == {"steps": 4}
    assert compare.run_trial("one", [*command, "--steps=5"], 0, []) == {"steps": 4}
    assert started[0][:3] == ["recipes.distillation", f"--teacher={teacher}", "--seed=0"]
    assert compare.trial_warnings(tmp_path / "one.0") == ["a network is small"]

    with pytest.raises(RuntimeError, match=r"The trial 'one', seed 0, stopped:\n(.|\n)*log\.txt"):
        compare.run_trial("one", [*command, "--fails"], 0, [])


def test_the_page_of_a_comparison_shows_what_its_trials_have_warned_of(tmp_path):
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["compare", f"--run_dir={tmp_path}"])
    networks = {"student": {"accuracy": 0.5, "count": 10}}
    run = {"test": networks, "seconds": {"method": 1.0}, "steps": 1, "images": 2}
    for trial in ("one", "two"):
        compare.trial_folder(trial, 0).mkdir()
    log = compare.trial_folder("two", 0) / "log.txt"
    log.write_text(
        "mpl_tf/x.py:7: UserWarning: The teacher <sees> nothing: train longer.\n  warnings.warn(\n"
    )
    compare.write_report({"one": {0: run}, "two": {0: run}}, "one", {})
    page = " ".join((tmp_path / "report.html").read_text("utf-8").split())
    link = f'<a href="{log.parent.name}/log.txt">two, seed 0</a>'
    assert f"<b>{link}</b> The teacher &lt;sees&gt; nothing: train longer." in page
    assert page.count("<li>") == 1


def compare_folder(folder, trial, seed):
    return folder / f"{files.folder_name(trial)}.{seed}"


def test_compare_looks_at_the_flags_of_every_trial_before_any_of_them_trains(tmp_path):
    trials = ["--trial=one: supervised --labels=20", "--trial=two: supervised --uda_weight=2"]
    refused = run("compare", *trials, f"--run_dir={tmp_path}", expect_success=False).stderr
    assert "The trial 'two' cannot be started" in refused
    assert "Unknown command line flag 'uda_weight'" in refused
    assert not list(tmp_path.iterdir())


def test_a_comparison_by_images_that_its_trials_lack_ends_with_a_sentence_and_begins_no_more(
    tmp_path, monkeypatch, capsys
):
    ran = []

    def trial(name, command, seed, needed):
        ran.append(seed)
        # All of them are waiting before the first has ended.
        time.sleep(0.3)
        return {"validation": {"student": {"accuracy": 0.5}}, "seconds": {}, "steps": 1, "images": 1}

    monkeypatch.setattr(compare, "run_trial", trial)
    monkeypatch.setattr(
        compare.subprocess, "run", lambda program, **_: subprocess.CompletedProcess(program, 0)
    )
    arguments = [
        "compare",
        "--trial=one: supervised --flagfile=own.flags",
        "--seeds=0-9",
        f"--run_dir={tmp_path}",
    ]
    flags.FLAGS.unparse_flags()
    flags.FLAGS(arguments)
    with pytest.raises(SystemExit):
        compare.main([])
    said = capsys.readouterr().err
    assert said == (
        "The trial 'one', seed 0, had no test images to be compared on: compare with split=validation, or run it "
        "with test_dir.\n"
    )
    assert ran == [0]
    # So it is with whatever else ends the comparison.
    ran.clear()
    monkeypatch.setattr(compare, "write_report", mock.Mock(side_effect=OSError))
    flags.FLAGS.unparse_flags()
    flags.FLAGS([*arguments, "--split=validation"])
    with pytest.raises(OSError):  # noqa: PT011
        compare.main([])
    assert len(ran) <= 2
    # Where the command line says it, no trial begins at all.
    ran.clear()
    folders = "--trial=two: supervised --dataset=folders --labeled_dir=x"
    flags.FLAGS.unparse_flags()
    flags.FLAGS([*arguments, folders])
    with pytest.raises(
        ValueError, match=r"'two' has no test images .* --split=validation, or give it --test_dir"
    ):
        compare.main([])
    assert not ran
    # What has folders needs no word for it in recipes.auto.
    flags.FLAGS.unparse_flags()
    flags.FLAGS([*arguments, folders.replace("supervised --dataset=folders", "auto --minutes=1")])
    with pytest.raises(ValueError, match="'two' has no test images"):
        compare.main([])
    assert not ran
    for enough in (["--split=validation"], [f"{folders} --test_dir=y".replace("two", "three")]):
        flags.FLAGS.unparse_flags()
        flags.FLAGS(["compare", *enough, "--run_dir=unused"])
        compare.check_trials(compare.parse_trials(flags.FLAGS.trial or [folders]), 0)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGTERM, preemption.PreemptedError), (signal.SIGINT, KeyboardInterrupt)],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_comparison_that_is_stopped_stops_its_trials(tmp_path, monkeypatch, number, expected):
    # A trial that takes a minute, and says when it was asked to end.
    program, log = tmp_path / "python", tmp_path / "one.0" / "log.txt"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--only_check_args*) exit 0;; esac\n'
        "trap 'kill $!; echo saved; exit 143' TERM\nsleep 60 &\necho begun\nwait\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(compare.sys, "executable", str(program))

    def stop():
        while not log.exists() or "begun" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    flags.FLAGS.unparse_flags()
    flags.FLAGS(["compare", "--trial=one: supervised", "--seeds=0-3", f"--run_dir={tmp_path}"])
    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(expected):
        compare.main([])
    assert log.read_text().endswith("begun\nsaved\n")
    assert not (tmp_path / "one.1").exists()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_trial_is_made_of_has_the_files_that_its_flags_name(tmp_path):
    network, labeled = tmp_path / "teacher.keras", tmp_path / "labeled"
    labeled.mkdir()
    network.write_bytes(b"one")
    (cache := tmp_path / "features").mkdir()
    arguments = ["--preset=digits", f"--teacher={network}", f"--labeled_dir={labeled}/", "--labels=20"]
    arguments += [f"--feature_cache={cache}"]

    def made():
        return compare.made_of("distillation", arguments)

    first = made()
    assert made() == first
    assert len(first["files"]) == 3
    (cache / "features.npz").write_bytes(b"of another trial")
    assert made() == first
    changes = [
        lambda: network.write_bytes(b"more"),
        lambda: os.utime(network, (1, 1)),
        lambda: (labeled / "new.png").write_bytes(b""),
        lambda: (labeled / "new.png").write_bytes(b"longer"),
        network.unlink,
    ]
    for change in changes:
        before = made()
        change()
        assert made() != before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trial=plain", "not of the form"),
        ("--trial=two: supervised --class='a", "class='a\" cannot be read: no closing quotation"),
        ("--seeds=1..3", "neither a range"),
        ("--seeds=3-1", "neither a range"),
        ("--reference=best", "is not a trial"),
        ("--ablation=one = two", "is not of the form 'trial = other trial' with two of one"),
        ("--trial=two: distillation --teacher={three}", "which is no trial before it: put that"),
        (
            "--trial=two: uda --seed=3",
            r"has --seed=3, which compare gives each run itself: .* choose --seeds",
        ),
    ],
)
def test_compare_refuses_what_it_cannot_read(option, message, capsys):
    arguments = ["--trial=one: supervised", "--run_dir=unused", option]
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["compare", *arguments])
    with pytest.raises(app.UsageError, match=message):
        compare.main([])


def test_a_seed_that_is_given_twice_is_one():
    assert compare.parse_seeds("3,0,3") == [3, 0]


def test_presets_name_only_flags_that_their_recipe_has():
    # One process for each recipe: two recipes cannot define the same flag in one.
    program = (
        "import importlib, sys; from absl import flags; importlib.import_module('recipes.' + sys.argv[1])\n"
        "required = ['--teacher=unused'] if 'teacher' in flags.FLAGS else []\n"
        "for preset in sys.argv[2:]:\n"
        "    flags.FLAGS.unparse_flags()\n"
        "    flags.FLAGS(['recipe', *required, f'--flagfile={preset}'])\n"
    )
    of_recipe = {}
    for preset in PRESETS:
        recipe = re.search(rf"python -m recipes\.(\w+) --preset={preset.stem}\b", preset.read_text())
        assert recipe, f"{preset.name} does not show its command"
        of_recipe.setdefault(recipe[1], []).append(str(preset))
    for recipe, presets in of_recipe.items():
        finished = forked.run(program, recipe, *presets)
        assert finished.returncode == 0, (recipe, finished.stderr[-2000:])


def test_an_unknown_dataset_is_refused_with_the_nearest(tmp_path):
    finished = run("supervised", "--dataset=digit", f"--run_dir={tmp_path}", expect_success=False)
    assert "ValueError: The dataset 'digit' is unknown, to TFDS too: nearest are digits" in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_noisy_student_then_reduced_mpl(tmp_path):
    small = [option for option in SMALL if not option.startswith("--steps")]
    rounds = ["--rounds=2", "--models=mlp,mlp-16x1", "--steps=2", "--threshold=0", "--targets=hard"]
    noise = ["--norandaugment_labeled", "--teacher_noise", "--teacher_view=strong", "--dropout=0.1"]
    options = [*small, "--unlabeled_ratio=2", f"--run_dir={tmp_path / 'noisy'}"]
    shown = run("noisy_student", *rounds, *noise, *options).stdout
    assert "labels of each round" in shown
    metrics = json.loads((tmp_path / "noisy" / "metrics.json").read_text())
    assert list(metrics["test"]) == ["teacher", "round_1", "student"]
    wrong = run(
        "noisy_student", "--models=mlp", *small, f"--run_dir={tmp_path / 'wrong'}", expect_success=False
    )
    assert "--models=mlp names 1 networks for 3 rounds" in wrong.stderr

    teacher = tmp_path / "noisy" / "networks" / "teacher.keras"
    own = ["--labeled_weight=0.5", "--calibrator_width=8", f"--run_dir={tmp_path / 'reduced'}"]
    run("reduced_mpl", f"--teacher={teacher}", *SMALL, "--unlabeled_ratio=2", *own)
    reduced = json.loads((tmp_path / "reduced" / "metrics.json").read_text())
    assert set(reduced["test"]) == {"student"}
    neither = run("reduced_mpl", *SMALL, f"--run_dir={tmp_path / 'neither'}", expect_success=False)
    assert "--teacher=None and --label_store=None: give one of them" in neither.stderr


def test_supervised_then_export(tmp_path):
    views = ["--crop=resized", "--fill=auto", "--randaugment_labeled"]
    run("supervised", *SMALL, *views, f"--run_dir={tmp_path / 'run'}")
    (tmp_path / "digits").mkdir()
    options = [f"--run_dir={tmp_path / 'run'}", "--export_dir=.", "--top_k=3"]
    kinds = ["float32", "float16", "int8", "int8_full"]
    variants = [f"--litert={','.join(kinds)}", "--max_accuracy_drop=1"]
    shown = run("export", *options, *variants, cwd=tmp_path / "digits").stdout
    assert "LiteRT models, measured: 720 of 720 images, " in shown
    assert "digits.0@20, 144 validation images, student" in shown
    for kind in kinds:
        assert re.search(rf"\| {kind} +\|.*\| builtin", shown)
        assert (tmp_path / "digits" / "1" / f"digits_{kind}.tflite").stat().st_size > 0
    card = (tmp_path / "digits" / "1" / "card.md").read_text()
    assert "- exported network: `student`" in card
    assert "- method: Supervised" in card
    assert "| int8_full |" in card
    assert "ECE %" in card
    signature = tf.saved_model.load(str(tmp_path / "digits" / "1")).signatures["serving_bytes"]
    answer = signature(image_bytes=tf.io.encode_png(tf.zeros([20, 30, 1], tf.uint8))[tf.newaxis])
    assert answer["classes"].shape == (1, 3)

    asked = [*options, "--role=finetuned", "--litert=int8"]
    refused = run("export", *asked, cwd=tmp_path / "digits", expect_success=False).stderr
    assert "role='finetuned' is unknown: Choose one of 'student'" in refused
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("mpl", ["--baseline", "--teacher_model=mlpp"], "No model is called 'mlpp'"),
        ("mpl", ["--baseline", "--feedback=unrolled", "--rematerialize"], "differentiates the student's pass twice"),
        ("noisy_student", ["--models=mlp,alexnet", "--rounds=2"], "alexnet takes images of at least 28"),
        ("distillation", ["--initialize=supervised", "--teacher=none.keras"], "none.keras does not exist"),
    ],
)  # fmt: skip
def test_what_a_later_stage_cannot_do_is_said_before_the_first_trains(tmp_path, recipe, options, message):
    options = [*SMALL, *options, "--unlabeled_ratio=1", f"--run_dir={tmp_path / 'run'}"]
    assert message in run(recipe, *options, expect_success=False).stderr
    # Where the flags are mended, no folder says that it holds another run.
    assert not (tmp_path / "run").exists()
