"""What the programs of this folder share: they run recipes, and read what the runs of a comparison have left."""

import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Collection, Mapping

from mpl_tf import report
from mpl_tf.utils import files

# Seed → what metrics.json of a run holds.
Runs = Mapping[int, Mapping]


def run(recipe: str, *flags: str) -> None:
    """Runs a recipe in a process of its own, and ends this one where that fails."""
    if code := subprocess.run([sys.executable, "-m", f"recipes.{recipe}", *flags]).returncode:
        sys.exit(code)


def length(steps: int) -> tuple[str, str]:
    """Flags: one evaluation in the middle, and one at the end."""
    return f"--steps={steps}", f"--epoch_steps={-(-steps // 2)}"


def scaled(steps: Mapping[str, int], scale: float) -> dict[str, int]:
    """Numbers of steps by their names, all multiplied, and of each at least 2."""
    return {name: max(2, round(count * scale)) for name, count in steps.items()}


def read_results(folder: pathlib.Path, trials: Collection[str]) -> dict[str, dict[int, dict]]:
    """Trial → its finished runs.

    Args:
        folder: of the comparison.
        trials: by their names.
    """
    found = {}
    for name in trials:
        paths = folder.glob(f"{files.folder_name(name)}.*/metrics.json")
        found[name] = {int(path.parent.suffix[1:]): json.loads(path.read_text("utf-8")) for path in paths}
    return found


def students(runs: Runs) -> dict[int, float]:
    """Seed → test accuracy of the student, in %."""
    return {seed: 100.0 * metrics["test"]["student"]["accuracy"] for seed, metrics in runs.items()}


def cpu_seconds(runs: Runs) -> float:
    """CPU seconds of a run's training, of all its stages together; the mean over seeds."""
    return statistics.mean(sum(metrics["cpu_seconds"].values()) for metrics in runs.values())


def difference(values: Mapping[int, float], others: Mapping[int, float], *, digits: int = 2) -> str:
    """Paired by seed: mean ± standard error, or the one difference that there is.

    Args:
        values: seed → number.
        others: the same of what they are compared with.
        digits: after the point.
    """
    differences = [values[seed] - others[seed] for seed in values if seed in others]
    if len(differences) < 2:
        return "".join(f"{difference:+.{digits}f}" for difference in differences)
    return report.mean_and_error(differences, digits=digits)
