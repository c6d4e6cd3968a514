"""Runs several recipes over several seeds and writes one table with paired differences.

Each trial is a run of a recipe in a folder and a process of its own; finished trials are not run again, so the same
command continues where it was stopped. The trials of one seed share the split, the initial weights, the order of
the images and their augmentation, so their differences are paired.

    python -m recipes.compare --preset=digits --seeds=0-4 --run_dir=runs/compare \
        --trial='supervised: supervised' --trial='no feedback: mpl --feedback=none' \
        --trial='per example: mpl --feedback=per_example' --ablation='per example = no feedback' \
        --trial='distilled: distillation --teacher={per example}/networks/teacher.keras'

`{trial}` in a trial's flags is the run folder of another trial, which must come before it, with the same seed.
"""

import concurrent.futures
import os
import pathlib
import re
import shlex
import subprocess
import sys

from absl import app, flags

from mpl_tf import report
from mpl_tf.report.comparison import final_accuracies
from mpl_tf.runs.folder import RunFolder
from mpl_tf.utils import files
from recipes.common import start

FLAGS = flags.FLAGS

flags.DEFINE_multi_string("trial", [], "'name: recipe --flag=value …'; may be repeated.")
flags.DEFINE_multi_string(
    "ablation", [], "'trial = other trial': the other is the first without what makes it."
)
flags.DEFINE_string("seeds", "0-4", "As 0-4, or 0,3,7.")
flags.DEFINE_string("reference", None, "The trial that differences are taken to; the first when not given.")
flags.DEFINE_enum("split", "test", ["validation", "test"], "Whose accuracy the table shows.")
flags.DEFINE_integer("jobs", 1, "Trials at a time; more suits networks too small to fill the cores.", 1)
flags.DEFINE_string("run_dir", None, "Folder for the trials' run folders and the table.")
flags.mark_flag_as_required("run_dir")


def main(_):
    """Runs the missing trials, and writes table.md, table.png and report.html after each."""
    if FLAGS.preset:
        start.preset_path(FLAGS.preset)
    trials = parse_trials(FLAGS.trial)
    seeds = parse_seeds(FLAGS.seeds)
    reference = FLAGS.reference or next(iter(trials))
    if reference not in trials:
        raise app.UsageError(f"--reference={reference!r} is not a trial: choose one of {', '.join(trials)}.")
    ablations = parse_ablations(FLAGS.ablation, trials)
    needed = {name: other_trials(name, trials) for name in trials}
    results = {name: {} for name in trials}
    with concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
        # In this order, so that a trial that another one reads has been started before it.
        futures = {}
        for seed in seeds:
            for name in trials:
                before = [futures[other, seed] for other in needed[name]]
                futures[name, seed] = pool.submit(run_trial, name, trials[name], seed, before)
        try:
            for (name, seed), future in futures.items():
                results[name][seed] = future.result()
                write_report({trial: runs for trial, runs in results.items() if runs}, reference, ablations)
        except RuntimeError:
            pool.shutdown(cancel_futures=True)
            raise
    print((pathlib.Path(FLAGS.run_dir) / "table.md").read_text("utf-8"))


def parse_trials(texts: list[str]) -> dict[str, list[str]]:
    """Trial name → arguments of `python -m`.

    Args:
        texts: as `"name: recipe --flag=value"`.

    Raises:
        absl.app.UsageError: for no trial, one of another form, or a name used twice.
    """
    if not texts:
        raise app.UsageError(
            "There is nothing to compare: give at least one --trial='name: recipe --flag=value'."
        )
    trials = {}
    for text in texts:
        name, colon, command = text.partition(":")
        # A trial's name may have spaces; between braces they do not part words.
        words = shlex.split(re.sub(r"\{[^{}]*\}", lambda other: shlex.quote(other[0]), command))
        if not colon or not words or not re.fullmatch(r"[a-z_]+", words[0]):
            raise app.UsageError(f"--trial={text!r} is not of the form 'name: recipe --flag=value'.")
        if name.strip() in trials:
            raise app.UsageError(f"Two trials are called {name.strip()!r}: give each its own name.")
        trials[name.strip()] = words
    return trials


def parse_seeds(text: str) -> list[int]:
    """The seeds of `"0-4"` or `"0,3,7"`."""
    if match := re.fullmatch(r"(\d+)-(\d+)", text):
        return list(range(int(match[1]), int(match[2]) + 1))
    if re.fullmatch(r"\d+(,\d+)*", text):
        return [int(seed) for seed in text.split(",")]
    raise app.UsageError(f"--seeds={text!r} is neither a range as 0-4 nor a list as 0,3,7.")


def parse_ablations(texts: list[str], trials: dict) -> dict[str, str]:
    """Trial → the trial that it is compared with.

    Raises:
        absl.app.UsageError: for a text of another form, or names that are no trials.
    """
    ablations = {}
    for text in texts:
        name, equals, other = (part.strip() for part in text.partition("="))
        if not equals or not {name, other} <= set(trials):
            raise app.UsageError(
                f"--ablation={text!r} is not of the form 'trial = other trial' with two of {', '.join(trials)}."
            )
        ablations[name] = other
    return ablations


def other_trials(name: str, trials: dict[str, list[str]]) -> list[str]:
    """The trials whose run folders a trial's flags name.

    Raises:
        absl.app.UsageError: for a name that is no trial, or one that does not come before this trial.
    """
    named = re.findall(r"\{([^{}]*)\}", " ".join(trials[name]))
    before = list(trials)[: list(trials).index(name)]
    for other in named:
        if other not in before:
            raise app.UsageError(
                f"The trial {name!r} reads {{{other}}}, which is no trial before it: put that --trial first, or "
                f"choose one of {', '.join(before) or 'none'}."
            )
    return named


def trial_folder(name: str, seed: int) -> pathlib.Path:
    """The run folder of a trial with a seed."""
    return pathlib.Path(FLAGS.run_dir) / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}.{seed}"


def run_trial(name: str, command: list[str], seed: int, needed: list) -> dict:
    """The metrics of a trial, from its folder or from a run made now.

    Args:
        name: of the trial.
        command: recipe and flags.
        seed: of the run.
        needed: futures of the trials that must have finished before.
    """
    folder = trial_folder(name, seed)
    if (metrics := RunFolder(folder).read_metrics()) is not None:
        return metrics
    for future in needed:
        future.result()
    recipe, *options = command
    options = [
        re.sub(r"\{([^{}]*)\}", lambda other: str(trial_folder(other[1], seed)), option) for option in options
    ]
    preset = [f"--preset={FLAGS.preset}"] if FLAGS.preset else []
    own = [f"--seed={seed}", f"--run_dir={folder}", "--progress=none", "--notensorboard"]
    print(f"{name}, seed {seed}", flush=True)
    threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, os.cpu_count() // FLAGS.jobs))} if FLAGS.jobs > 1 else {}
    finished = subprocess.run(
        [sys.executable, "-m", f"recipes.{recipe}", *preset, *options, *own],
        capture_output=True,
        text=True,
        env=os.environ | threads,
    )
    if finished.returncode:
        raise RuntimeError(f"The trial {name!r}, seed {seed}, stopped:\n{finished.stderr[-3000:]}")
    return RunFolder(folder).read_metrics()


def write_report(results: dict, reference: str, ablations: dict[str, str]) -> None:
    """Writes table.md, table.png and report.html of the trials that have results."""
    folder = pathlib.Path(FLAGS.run_dir)
    options = {"reference": reference, "split": FLAGS.split}
    with files.replacing(folder / "table.md") as temporary:
        temporary.write_text(report.comparison_table(results, ablations=ablations, **options), "utf-8")
    accuracies = {name: list(final_accuracies(runs, FLAGS.split).values()) for name, runs in results.items()}
    report.plots.save_png(report.plots.comparison(accuracies, **options), folder / "table.png")
    report.comparison_page(
        folder,
        results,
        ablations=ablations,
        runs={name: {seed: trial_folder(name, seed) for seed in runs} for name, runs in results.items()},
        command=" ".join(["python", "-m", "recipes.compare", *map(shlex.quote, sys.argv[1:])]),
        **options,
    )


if __name__ == "__main__":
    app.run(main)
