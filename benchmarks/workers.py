"""Meta Pseudo Labels in two processes, of which one is killed in the middle, beside one process.

1. One process runs `recipes.mpl`; then the same on half of the cores, where sums are rounded differently. How far the
   two end apart is what rounding alone does to such a run.
2. Two workers over TF_CONFIG on this machine run the same. In the middle of the epoch after --kill_after steps the
   second is killed with SIGKILL, the first stops, and both are started again.
3. Two processes that know nothing of each other run at once, each on half of the batch.

Printed are the course of 1 and 2, the differences of their weights, and the fraction of a worker's step in which it
talks with the other or waits for it: what 2 takes longer than 3. Each process of 2 and 3 keeps to its half of the
cores.
Options: --steps, --epoch_steps, --batch_size, --kill_after, --folder; all others are those of recipes.mpl.
"""

import argparse
import csv
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np

# A network without BatchNorm on images that come with a dependency, for those who choose nothing.
SMALL = ["--dataset=digits", "--labels=100", "--model=mlp", "--unlabeled_ratio=4"]
# So that the seconds of an epoch are those of its steps.
STEPS_ONLY = [
    "--validation=0",
    "--confirmation_images=0",
    "--noreport",
    "--notensorboard",
    "--progress=line",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--epoch_steps", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--kill_after", type=int, default=30)
    parser.add_argument("--folder", default=None, help="keeps the runs; a temporary folder when not given")
    options, recipe = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.folder or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        run(folder, options, recipe or SMALL)


def run(folder: pathlib.Path, options, recipe: list[str]) -> None:
    """All three, and what they show."""
    recipe = [*recipe, *STEPS_ONLY, f"--epoch_steps={options.epoch_steps}"]
    whole = [*recipe, f"--steps={options.steps}", f"--batch_size={options.batch_size}"]
    ended(start([*whole, f"--run_dir={folder / 'one'}"]))
    ended(start([*whole, f"--run_dir={folder / 'half'}"], half=0))
    resumed = killed_and_restarted(folder, [*whole, f"--run_dir={folder / 'two'}"], options.kill_after)

    half = [*recipe, f"--steps={4 * options.epoch_steps}", f"--batch_size={options.batch_size // 2}"]
    apart = [start([*half, f"--run_dir={folder / name}"], half=i) for i, name in enumerate(("left", "right"))]
    for process in apart:
        ended(process)

    print(f"\npython -m recipes.mpl {' '.join(whole)}\n")
    show_course(folder)
    show_difference(folder)
    together = seconds_per_step(folder / "two", after=resumed)
    alone = statistics.mean(seconds_per_step(folder / name) for name in ("left", "right"))
    print(f"\none process                           {seconds_per_step(folder / 'one'):7.3f} s per step")
    print(
        f"two workers                           {together:7.3f}, of which {1 - alone / together:.0%} all-reduce"
    )
    print(f"two at once on half a batch each      {alone:7.3f}")


def start(arguments: list[str], *, half: int | None = None, config: dict | None = None) -> subprocess.Popen:
    """A process of the recipe, on the first or the second half of the cores, or on all of them."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if config is not None:
        environment["TF_CONFIG"] = json.dumps(config)
    command = [sys.executable, "-m", "recipes.mpl", *arguments]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    cores = sorted(os.sched_getaffinity(0))
    mine = cores if half is None or len(cores) < 2 else np.array_split(cores, 2)[half].tolist()
    # A process inherits the cores that it may run on.
    os.sched_setaffinity(0, mine)
    process = subprocess.Popen(command, env=environment, **streams)
    os.sched_setaffinity(0, cores)
    return process


def ended(process: subprocess.Popen, status: int = 0) -> str:
    """What a process has printed, once it has ended as it should."""
    output, _ = process.communicate()
    if process.returncode != status:
        sys.exit(f"A process ended with status {process.returncode}, not {status}:\n{output}")
    return output


def killed_and_restarted(folder: pathlib.Path, arguments: list[str], kill_after: int) -> int:
    """Trains with two workers to the end; returns the step from which they went on."""
    first, second = start_two(arguments)
    while not any(int(row["step"]) >= kill_after for row in history(folder / "two")):
        if first.poll() is not None or second.poll() is not None:
            sys.exit(f"A worker ended early:\n{first.communicate()[0]}\n{second.communicate()[0]}")
        time.sleep(0.01)
    time.sleep(float(history(folder / "two")[-1]["seconds"]) / 2)
    second.kill()
    ended(second, -signal.SIGKILL)
    said = ended(first, 1).strip().splitlines()[-1]
    checkpoint = max((folder / "two" / "checkpoints").glob("step_*"))
    resumed = int(checkpoint.name[len("step_") :].split(".")[0])
    print(f"The second worker was killed after step {resumed}. The first said:\n  {said}")
    for process in start_two(arguments):
        ended(process)
    return resumed


def start_two(arguments: list[str]) -> list[subprocess.Popen]:
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    tasks = [{"type": "worker", "index": index} for index in range(2)]
    configs = [{"cluster": {"worker": addresses}, "task": task} for task in tasks]
    arguments = [*arguments, "--strategy=multi_worker"]
    return [start(arguments, half=index, config=config) for index, config in enumerate(configs)]


def history(run: pathlib.Path) -> list[dict]:
    path = run / "history.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def seconds_per_step(run: pathlib.Path, *, after: int = 0) -> float:
    """The median over the epochs but for the one in which the step is traced, and a last one that is cut short."""
    rows = [(int(row["step"]), float(row["seconds"])) for row in history(run)]
    lengths = [
        (step - before, seconds) for (before, _), (step, seconds) in zip([(0, 0), *rows], rows, strict=False)
    ]
    longest = max(length for length, _ in lengths)
    later = [
        (length, seconds) for (length, seconds), (step, _) in zip(lengths, rows, strict=True) if step > after
    ]
    return statistics.median(seconds / length for length, seconds in later[1:] if length == longest)


def show_course(folder: pathlib.Path) -> None:
    """The losses of the runs, epoch by epoch."""
    print("         student's loss                            teacher's loss on labels")
    print("  step   one process  half the cores  two          one process  half the cores  two")
    for rows in zip(*(history(folder / name) for name in ("one", "half", "two")), strict=True):
        student, teacher = ([float(row[name]) for row in rows] for name in ("loss", "teacher_labeled_loss"))
        columns = [f"{one:<11.5f}  {half:<14.5f}  {two:<11.5f}" for one, half, two in (student, teacher)]
        print(f"{rows[0]['step']:>6}   {columns[0]}  {columns[1]}".rstrip())


def show_difference(folder: pathlib.Path) -> None:
    """The largest difference of a weight from the one process, of every network, and the test accuracies."""
    print()
    for file in sorted((folder / "one" / "networks").glob("*.keras")):
        ends = {}
        for name in ("one", "half", "two"):
            network = keras.saving.load_model(folder / name / "networks" / file.name, compile=False)
            metrics = json.loads((folder / name / "metrics.json").read_text())
            ends[name] = network.get_weights(), 100 * metrics["test"][file.stem]["accuracy"]
        one, accuracy = ends.pop("one")
        print(
            f"{file.stem}: largest weight {max(np.abs(w).max() for w in one):.2f}, test accuracy {accuracy:.2f} %"
        )
        for name, (weights, accuracy) in ends.items():
            difference = max(np.abs(a - b).max() for a, b in zip(one, weights, strict=True))
            print(f"  {name + ':':6} largest difference {difference:.1e}, test accuracy {accuracy:.2f} %")


if __name__ == "__main__":
    main()
