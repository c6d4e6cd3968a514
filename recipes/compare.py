"""Runs several recipes over several seeds and writes one table with paired differences.

Each cell is a run of a recipe in a folder and a process of its own; finished cells are not run again, so the same
command continues where it was stopped. The cells of one seed share the split, the initial weights, the order of
the pictures and their augmentation, so their differences are paired.

    python -m recipes.compare --preset=digits --seeds=0-4 --run_dir=runs/compare \
        --cell='supervised: supervised' --cell='no feedback: mpl --feedback=none' \
        --cell='per example: mpl --feedback=per_example' --reference='no feedback'
"""

import concurrent.futures
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys

from absl import app, flags

from mpl_tf import files, report
from mpl_tf.run_folder import RunFolder
from recipes import start

FLAGS = flags.FLAGS

flags.DEFINE_multi_string("cell", [], "'name: recipe --flag=value …'; may be repeated.")
flags.DEFINE_string("seeds", "0-4", "As 0-4, or 0,3,7.")
flags.DEFINE_string("reference", None, "The cell that differences are taken to; the first when not given.")
flags.DEFINE_enum("domain", "test", ["validation", "test"], "Whose accuracy the table shows.")
flags.DEFINE_integer("jobs", 1, "Cells at a time; more suits networks too small to fill the cores.", 1)
flags.DEFINE_string("run_dir", None, "Folder for the cells' run folders and the table.")
flags.mark_flag_as_required("run_dir")


def main(_):
    """Runs the missing cells, then writes table.md and table.png."""
    if FLAGS.preset:
        start.preset_path(FLAGS.preset)
    cells = parse_cells(FLAGS.cell)
    seeds = parse_seeds(FLAGS.seeds)
    reference = FLAGS.reference or next(iter(cells))
    if reference not in cells:
        raise app.UsageError(f"--reference={reference!r} is not a cell: choose one of {', '.join(cells)}.")
    results = {}
    pairs = [(name, seed) for seed in seeds for name in cells]
    with concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
        finished = pool.map(lambda pair: run_cell(pair[0], cells[pair[0]], pair[1]), pairs)
        for pair, metrics in zip(pairs, finished, strict=True):
            results[pair] = metrics
            write_table(results, cells, reference)
    print((pathlib.Path(FLAGS.run_dir) / "table.md").read_text())


def parse_cells(texts: list[str]) -> dict[str, list[str]]:
    """Cell name → arguments of `python -m`.

    Args:
        texts: as `"name: recipe --flag=value"`.

    Raises:
        absl.app.UsageError: for no cell, one of another form, or a name used twice.
    """
    if not texts:
        raise app.UsageError(
            "There is nothing to compare: give at least one --cell='name: recipe --flag=value'."
        )
    cells = {}
    for text in texts:
        name, colon, command = text.partition(":")
        words = shlex.split(command)
        if not colon or not words or not re.fullmatch(r"[a-z_]+", words[0]):
            raise app.UsageError(f"--cell={text!r} is not of the form 'name: recipe --flag=value'.")
        if name.strip() in cells:
            raise app.UsageError(f"Two cells are called {name.strip()!r}: give each its own name.")
        cells[name.strip()] = words
    return cells


def parse_seeds(text: str) -> list[int]:
    """The seeds of `"0-4"` or `"0,3,7"`."""
    if match := re.fullmatch(r"(\d+)-(\d+)", text):
        return list(range(int(match[1]), int(match[2]) + 1))
    if re.fullmatch(r"\d+(,\d+)*", text):
        return [int(seed) for seed in text.split(",")]
    raise app.UsageError(f"--seeds={text!r} is neither a range as 0-4 nor a list as 0,3,7.")


def run_cell(name: str, command: list[str], seed: int) -> dict:
    """The metrics of a cell, from its folder or from a run made now."""
    folder = pathlib.Path(FLAGS.run_dir) / f"{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}.{seed}"
    if (metrics := RunFolder(folder).read_metrics()) is not None:
        return metrics
    recipe, *options = command
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
        raise RuntimeError(f"The cell {name!r}, seed {seed}, stopped:\n{finished.stderr[-3000:]}")
    return RunFolder(folder).read_metrics()


def accuracies(results: dict, name: str, role: str) -> dict[int, float]:
    """Seed → accuracy in per cent of one network of a cell."""
    return {
        seed: 100.0 * metrics[FLAGS.domain][role]["accuracy"]
        for (cell, seed), metrics in results.items()
        if cell == name and role in metrics[FLAGS.domain]
    }


def summary(values: list[float]) -> str:
    """Mean ± sample standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.2f} ± {deviation:.2f}"


def paired(values: dict[int, float], others: dict[int, float]) -> str:
    """Mean ± standard error of the differences over the seeds that both have."""
    differences = [values[seed] - others[seed] for seed in values if seed in others]
    if len(differences) < 2:
        return ""
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return f"{statistics.mean(differences):+.2f} ± {error:.2f}"


def write_table(results: dict, cells: dict, reference: str) -> None:
    """Writes table.md: a row per cell with each network's accuracy, and the final network's difference."""
    final = {}
    for name in cells:
        roles = [metrics[FLAGS.domain] for (cell, _), metrics in results.items() if cell == name]
        if roles:
            final[name] = "finetuned" if "finetuned" in roles[0] else "student"
    rows = []
    for name, role in final.items():
        values = accuracies(results, name, role)
        others = accuracies(results, reference, final.get(reference, role))
        seconds = [sum(results[name, seed]["seconds"].values()) for seed in values]
        row = {"cell": name, "seeds": str(len(values))}
        for column in ("teacher", "student", "finetuned"):
            known = list(accuracies(results, name, column).values())
            row[f"{column} %"] = summary(known) if known else ""
        row[f"final - {reference}"] = paired(values, others) if name != reference else ""
        row["pictures"] = f"{next(results[name, seed]['pictures'] for seed in values):,}"
        row["seconds"] = f"{statistics.mean(seconds):.0f}"
        rows.append(row)
    text = (
        f"{FLAGS.domain} accuracy, mean ± standard deviation over seeds; the difference of the final network to "
        f"{reference!r} is paired by seed, mean ± standard error.\n\n{report.table(rows)}\n"
    )
    with files.replacing(pathlib.Path(FLAGS.run_dir) / "table.md") as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    app.run(main)
