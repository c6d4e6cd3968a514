r"""Runs several recipes over several seeds and writes one table with paired differences.

Each trial is a run of a recipe in a folder and a process of its own, with what it printed in log.txt. Finished trials
are not run again, so the same command goes on where it was stopped; one whose flags or files have changed goes to
its recipe, which does what is missing or refuses. The trials of one seed share the split, the initial weights, the
order of the images and their augmentation, so their differences are paired.

    python -m recipes.compare --preset=digits --seeds=0-4 --run_dir=runs/compare \
        --trial='supervised: supervised' --trial='no feedback: mpl --feedback=none' \
        --trial='per example: mpl --feedback=per_example' --ablation='per example = no feedback' \
        --trial='distilled: distillation --teacher={per example}/networks/teacher.keras'

`{trial}` in a trial's flags is the run folder of another trial, which must come before it, with the same seed.
"""

from absl import app, flags

from recipes.common import start
from recipes.common.start import define_path

FLAGS = flags.FLAGS

flags.DEFINE_multi_string("trial", [], "'name: recipe --flag=value …'; may be repeated.")
flags.DEFINE_multi_string(
    "ablation", [], "'trial = other trial': the other is the first without what makes it."
)
flags.DEFINE_string("seeds", "0-4", "As 0-4, or 0,3,7.")
flags.DEFINE_string("reference", None, "The trial that differences are taken to; the first when not given.")
flags.DEFINE_enum("split", "test", ["validation", "test"], "Whose accuracy the table shows.")
flags.DEFINE_integer("jobs", 1, "Trials at a time; more suits networks too small to fill the cores.", 1)
define_path("run_dir", None, "Folder for the trials' run folders and the table.")
flags.mark_flag_as_required("run_dir")

if __name__ == "__main__":
    # The preset is for the trials' recipes.
    start.parse_flags(expand_presets=False)

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

from mpl_tf import report
from mpl_tf.report.comparison import check_split, final_accuracies
from mpl_tf.runs.folder import RunFolder
from mpl_tf.training.callbacks.preemption import PreemptedError
from mpl_tf.utils import files

# Flags that name what a trial writes, and does not depend on.
WRITTEN = ("feature_cache", "export_dir")
# Flags that the comparison gives each run itself.
GIVEN = ("seed", "run_dir")

# The processes of the trials that are running, and whether they are to end.
_running: set[subprocess.Popen] = set()
_ending = threading.Event()


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
    check_trials(trials, seeds[0])
    results = {name: {} for name in trials}
    _ending.clear()
    with _sigterm_raised(), concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
        try:
            # In this order, so that a trial that another one reads has been started before it.
            futures = {}
            for seed in seeds:
                for name in trials:
                    before = [futures[other, seed] for other in needed[name]]
                    futures[name, seed] = pool.submit(run_comparable_trial, name, trials[name], seed, before)
            for future in futures.values():
                # Called in the thread of a trial, before it takes up the next one.
                future.add_done_callback(lambda done: _failed(done) and _begin_no_more(pool))
            for (name, seed), future in futures.items():
                results[name][seed] = future.result()
                write_report({trial: runs for trial, runs in results.items() if runs}, reference, ablations)
        except (PreemptedError, KeyboardInterrupt):
            # The signal may have come to this process alone, and they would go on without it.
            _begin_no_more(pool)
            _ending.set()
            for process in tuple(_running):
                process.terminate()
            raise
        except (RuntimeError, ValueError) as error:
            # At once: those that run beside it may take hours yet.
            print(error, file=sys.stderr, flush=True)
            sys.exit(1)
        finally:
            _begin_no_more(pool)
    folder = pathlib.Path(FLAGS.run_dir)
    print((folder / "table.md").read_text("utf-8"))
    print(f"report: {folder / report.PAGE}")


def _failed(done: concurrent.futures.Future) -> bool:
    return not done.cancelled() and done.exception() is not None


def _begin_no_more(pool: concurrent.futures.Executor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Inside the block a SIGTERM raises `PreemptedError`, as Ctrl-C raises `KeyboardInterrupt`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise PreemptedError(
            "Stopped by SIGTERM, and with it the trials that were running: start the same command again to go on "
            "from what they have saved.",
            number,
        )

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def parse_trials(texts: list[str]) -> dict[str, list[str]]:
    """Trial name → arguments of `python -m`.

    Args:
        texts: as `"name: recipe --flag=value"`.

    Raises:
        absl.app.UsageError: for no trial, one of another form, a flag that is not its own, or a name used twice.
    """
    if not texts:
        raise app.UsageError(
            "There is nothing to compare: give at least one --trial='name: recipe --flag=value'."
        )
    trials = {}
    for text in texts:
        name, colon, command = unicodedata.normalize("NFC", text).partition(":")
        # A trial's name may have spaces; between braces they do not part words.
        try:
            words = shlex.split(re.sub(r"\{[^{}]*\}", lambda other: shlex.quote(other[0]), command))
        except ValueError as error:
            raise app.UsageError(f"--trial={text!r} cannot be read: {str(error).lower()}.") from error
        if not colon or not words or not re.fullmatch(r"[a-z_]+", words[0]):
            raise app.UsageError(f"--trial={text!r} is not of the form 'name: recipe --flag=value'.")
        for word in words[1:]:
            if word.startswith("-") and word.lstrip("-").partition("=")[0] in GIVEN:
                raise app.UsageError(
                    f"--trial={text!r} has {word}, which compare gives each run itself: leave it out, and choose "
                    "--seeds and --run_dir of the comparison."
                )
        if name.strip() in trials:
            raise app.UsageError(f"Two trials are called {name.strip()!r}: give each its own name.")
        trials[name.strip()] = words
    return trials


def parse_seeds(text: str) -> list[int]:
    """The seeds of `"0-4"` or `"0,3,7"`, each once.

    Raises:
        absl.app.UsageError: for another text, and for a range without seeds.
    """
    seeds = []
    if match := re.fullmatch(r"(\d+)-(\d+)", text):
        seeds = list(range(int(match[1]), int(match[2]) + 1))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        # Two trials of one seed would be in one folder, at the same time.
        seeds = list(dict.fromkeys(map(int, text.split(","))))
    if not seeds:
        raise app.UsageError(f"--seeds={text!r} is neither a range as 0-4 nor a list as 0,3,7.")
    return seeds


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
    return pathlib.Path(FLAGS.run_dir) / f"{files.folder_name(name)}.{seed}"


def trial_arguments(command: list[str], seed: int) -> list[str]:
    """The arguments of a trial's recipe, all but where it goes."""
    options = [
        re.sub(r"\{([^{}]*)\}", lambda other: str(trial_folder(other[1], seed)), option)
        for option in command[1:]
    ]
    preset = [f"--preset={FLAGS.preset}"] if FLAGS.preset else []
    return [*preset, *options, f"--seed={seed}"]


def made_of(recipe: str, arguments: list[str]) -> dict:
    """All that a trial's result depends on: its command, and the size and time of every file that this names."""
    named = {}
    for argument in arguments:
        if argument.lstrip("-").startswith(WRITTEN):
            continue
        value = argument.partition("=")[2] or argument
        if argument.startswith("--preset="):
            value = str(start.preset_path(value))
        if value and (path := files.user_path(value)).exists():
            named[value] = file_stamp(path)
    return {"command": [recipe, *arguments], "files": named}


def file_stamp(path: pathlib.Path) -> list[int]:
    """How many files there are, their bytes together, and the time of the newest, in nanoseconds."""
    found = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    stats = [file.stat() for file in found]
    return [
        len(found),
        sum(stat.st_size for stat in stats),
        max((stat.st_mtime_ns for stat in stats), default=0),
    ]


def check_trials(trials: dict[str, list[str]], seed: int) -> None:
    """Has each trial's recipe look at its flags, before any of them trains.

    Raises:
        ValueError: for a recipe or a flag that there is not, and for no test images where these are compared.
    """
    for name, command in trials.items():
        arguments = trial_arguments(command, seed)
        if FLAGS.split == "test" and _has_no_test_images(arguments):
            raise ValueError(
                f"The trial {name!r} has no test images to be compared on: pass --split=validation, or give it "
                "--test_dir."
            )
        program = [sys.executable, "-m", f"recipes.{command[0]}", *arguments]
        checked = subprocess.run([*program, "--only_check_args"], capture_output=True, text=True)
        if checked.returncode:
            said = checked.stderr.strip().splitlines() or ["it says nothing"]
            raise ValueError(f"The trial {name!r} cannot be started: {said[0]}")


def _has_no_test_images(arguments: list[str]) -> bool:
    """Whether a trial's flags say so; what is in a flagfile shows when the trial has run."""
    presets = [argument.partition("=")[2] for argument in arguments if argument.startswith("--preset=")]
    lines = [line for preset in presets for line in start.preset_path(preset).read_text("utf-8").splitlines()]
    given = dict(
        argument.strip().lstrip("-").split("=", 1) for argument in [*lines, *arguments] if "=" in argument
    )
    # recipes.auto takes a folder of labeled images for a word that there are folders.
    has_folders = given.get("dataset") == "folders" or "labeled_dir" in given
    return has_folders and not given.get("test_dir")


def run_comparable_trial(name: str, command: list[str], seed: int, needed: list) -> dict:
    """What `run_trial` returns, with the accuracies that the table shows.

    Args:
        name: as for `run_trial`.
        command: as for `run_trial`.
        seed: as for `run_trial`.
        needed: as for `run_trial`.

    Raises:
        RuntimeError: when the run has stopped.
        ValueError: when it had no images of the split.
    """
    metrics = run_trial(name, command, seed, needed)
    check_split(name, {seed: metrics}, FLAGS.split)
    return metrics


def run_trial(name: str, command: list[str], seed: int, needed: list) -> dict:
    """The metrics of a trial, from its folder where it was made of the same, or from a run made now.

    What the run prints goes into `log.txt` of its folder.

    Args:
        name: of the trial.
        command: recipe and flags.
        seed: of the run.
        needed: futures of the trials that must have finished before.

    Raises:
        RuntimeError: when the run has stopped.
    """
    for future in needed:
        future.result()
    folder = trial_folder(name, seed)
    arguments = trial_arguments(command, seed)
    record, wanted = folder / "trial.json", {"trial": name, **made_of(command[0], arguments)}
    known = None
    # Of a damaged one the recipe says what its run is made of.
    with contextlib.suppress(FileNotFoundError, ValueError):
        known = json.loads(record.read_text(encoding="utf-8"))
    metrics = RunFolder(folder).read_metrics()
    if metrics is not None and known == wanted:
        return metrics
    print(f"{name}, seed {seed}", flush=True)
    own = [f"--run_dir={folder}", "--progress=none", "--notensorboard"]
    program = [sys.executable, "-m", f"recipes.{command[0]}", *arguments, *own]
    threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, os.cpu_count() // FLAGS.jobs))} if FLAGS.jobs > 1 else {}
    # Unless the user has said how many.
    environment = threads | os.environ
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a", encoding="utf-8", errors="surrogateescape") as log:
        print(f"$ {shlex.join(['python', *program[1:]])}", file=log, flush=True)
        started = log.tell()
        status = _run_to_its_end(program, log, environment)
    if status:
        said = log_since(folder, started)
        raise RuntimeError(
            f"The trial {name!r}, seed {seed}, stopped:\n{said[-3000:]}\n(all of it: {log.name})"
        )
    for warning in trial_warnings(folder):
        print(f"{name}, seed {seed}: {warning}", flush=True)
    with files.replacing(record) as temporary:
        temporary.write_text(json.dumps(wanted, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    return RunFolder(folder).read_metrics()


def _run_to_its_end(program: list[str], log: TextIO, environment: dict[str, str]) -> int:
    """The exit status of a trial's process."""
    with subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT, env=environment) as process:
        _running.add(process)
        if _ending.is_set():
            process.terminate()
        try:
            return process.wait()
        finally:
            _running.discard(process)


def log_since(folder: pathlib.Path, position: int) -> str:
    """What a trial's last run has printed."""
    with open(folder / "log.txt", encoding="utf-8", errors="replace") as log:
        log.seek(position)
        return log.read().strip()


def trial_warnings(folder: pathlib.Path) -> list[str]:
    """The different warnings in a trial's log, as `start` or Python writes them, in the order in which they came."""
    log = folder / "log.txt"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return list(dict.fromkeys(re.findall(r"^(?:.*?:\d+: \w*)?Warning: (.+)$", text, re.MULTILINE)))


def write_report(results: dict, reference: str, ablations: dict[str, str]) -> None:
    """Writes table.md, table.png and report.html of the trials that have results."""
    folder = pathlib.Path(FLAGS.run_dir)
    options = {"reference": reference, "split": FLAGS.split}
    with files.replacing(folder / "table.md") as temporary:
        temporary.write_text(report.comparison_table(results, ablations=ablations, **options), "utf-8")
    accuracies = {name: list(final_accuracies(runs, FLAGS.split).values()) for name, runs in results.items()}
    report.plots.save_png(report.plots.comparison(accuracies, **options), folder / "table.png")
    folders = {name: {seed: trial_folder(name, seed) for seed in runs} for name, runs in results.items()}
    report.comparison_page(
        folder,
        results,
        ablations=ablations,
        runs=folders,
        warnings={
            name: {seed: trial_warnings(path) for seed, path in runs.items()}
            for name, runs in folders.items()
        },
        command=" ".join(["python", "-m", "recipes.compare", *map(shlex.quote, sys.argv[1:])]),
        **options,
    )


if __name__ == "__main__":
    start.run(main)
