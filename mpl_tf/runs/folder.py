"""What a run leaves on disk, and how it finds its way back: flags, checkpoints, history, metrics.

    runs/<name>/flags.txt  split.json  history.csv  pseudo_label_classes.csv  checkpoints/  networks/  metrics.json
                confusion.npz  outcomes.npz  curves.png  report.html  identity.txt

Every file is written beside its place and renamed, so a killed run leaves whole files only.
"""

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import models
from mpl_tf.utils import files

STORED_CHECKPOINTS = 2
# Names of files may have bytes that are no text; they survive here as they do in Python's own paths.
_AS_FILE_NAMES: Any = {"encoding": "utf-8", "errors": "surrogateescape"}


@dataclasses.dataclass(frozen=True)
class SelectedEpoch:
    """The best epoch of a stage.

    Attributes:
        epoch: its number, from 0 on.
        step: at its end.
        accuracy: on the validation images.
        weights: of the network of inference.
    """

    epoch: int
    step: int
    accuracy: float
    weights: list[np.ndarray]

    def as_dict(self) -> dict:
        """All but the weights, ready for JSON."""
        return {"epoch": self.epoch, "step": self.step, "accuracy": self.accuracy}


class RunFolder:
    """A run's folder, or the folder of one of its later stages.

    Args:
        path: where it is, or will be.
        writes: whether this process writes there. Of several that train together one does, and the others read.
    """

    def __init__(self, path: str | os.PathLike, *, writes: bool = True):
        self.path, self.writes = files.user_path(path), writes

    def stage(self, name: str) -> "RunFolder":
        """The folder of a later stage, `<run>/<name>/`."""
        return RunFolder(self.path / name, writes=self.writes)

    def check_configuration(
        self,
        flags: Mapping[str, object],
        *,
        defaults: Mapping[str, object] | None = None,
        resume: bool = True,
        may_grow: bool = True,
    ) -> None:
        """Checks that the folder is free for a run, or holds this very one, without writing anything.

        A folder in which nothing has been trained is free, whatever its `flags.txt` says. A run may be given more
        `steps`, and another fine-tuning while it has none.

        Args:
            flags: name → value of everything that the result depends on; None is left out.
            defaults: name → value of a flag that is not given: what a run had of a flag that is newer than it.
            resume: whether a folder with the same configuration may be continued.
            may_grow: whether more `steps` go on from where fewer ended, and not on another way.

        Raises:
            ValueError: when the folder holds another configuration, or may not be resumed.
        """
        if not self.has_results():
            return
        if not resume:
            raise ValueError(
                f"The run folder {str(self.path)!r} already holds a run and resume is off: choose another "
                "run_dir, or remove the folder yourself."
            )
        known, wanted = self.read_flags(), _flag_values(flags)
        if not known:
            return
        then = _flag_values(defaults or {}) | known
        differing = {name for name in known.keys() | wanted.keys() if then.get(name) != wanted.get(name)}
        if may_grow and self._grows(known, wanted):
            differing.discard("steps")
        if not self.has_completed() and not self.stage("finetune").has_results():
            differing = {name for name in differing if not name.startswith("finetune_")}
        if differing:
            sides = (then, "there"), (wanted, "here")
            named = [
                f"--{name}={values[name]} {side}"
                for values, side in sides
                for name in sorted(differing)
                if name in values
            ]
            raise ValueError(
                f"The run folder {str(self.path)!r} holds another configuration ({', '.join(named)}): "
                "choose another run_dir, or pass the flags in its flags.txt to continue it."
            )

    def verify_or_write_config(
        self,
        flags: Mapping[str, object],
        *,
        defaults: Mapping[str, object] | None = None,
        resume: bool = True,
        may_grow: bool = True,
    ) -> int | None:
        """Makes the folder this configuration's, as its `flags.txt`, a flagfile, says from then on.

        A run that is given more steps keeps what it had measured as `metrics.at_step_N.json`, and its fine-tuning as
        `finetune.at_step_N/`.

        Args:
            flags: as for `check_configuration`.
            defaults: as for `check_configuration`.
            resume: as for `check_configuration`.
            may_grow: as for `check_configuration`.

        Returns:
            The number of steps that the run had before it was given more; None where it was not.

        Raises:
            ValueError: as `check_configuration`.
        """
        self.check_configuration(flags, defaults=defaults, resume=resume, may_grow=may_grow)
        known, wanted = self.read_flags(), _flag_values(flags)
        results = self.has_results()
        before = int(known["steps"]) if results and self._grows(known, wanted) else None
        if self.writes and self.has_only_been_claimed():
            # Drawn anew, under other flags or of images that have changed.
            (self.path / "split.json").unlink(missing_ok=True)
        if not self.writes or known == wanted:
            return before
        if before is not None:
            for name in ("finetune", "metrics.json"):
                old = self.path / name
                if old.exists():
                    old.rename(old.with_name(f"{old.stem}.at_step_{before}{old.suffix}"))
        with files.replacing(self.path / "flags.txt") as temporary:
            lines = [f"--{name}={value}\n" for name, value in sorted(wanted.items())]
            temporary.write_text("".join(lines), **_AS_FILE_NAMES)
        return before

    def read_flags(self) -> dict[str, str]:
        """What flags.txt says, name → text; empty where there is none.

        Raises:
            ValueError: when something has been trained here and the file has lost some of its lines, so that the run
                would go on under other flags.
        """
        source = self.path / "flags.txt"
        if not source.exists():
            return {}
        text = source.read_text(**_AS_FILE_NAMES)
        lines = text.splitlines()
        known = dict(line.removeprefix("--").split("=", 1) for line in lines if "=" in line)
        if not (known and text.endswith("\n")) and self.has_results():
            raise ValueError(
                f"{source} is empty or was cut off: put back the lines that it had, the last one with its end, or "
                "remove it where the flags that you give are sure to be those that the run began with."
            )
        return known

    def read_split(self) -> dict:
        """The contents of split.json; empty where there is none."""
        remedy = (
            "remove it and start the run's command again, which draws the same split from the same images"
        )
        return files.read_json(self.path / "split.json", remedy) or {}

    def has_completed(self) -> bool:
        """Whether a run has come to its end here."""
        return (self.path / "metrics.json").exists()

    def has_results(self) -> bool:
        """Whether anything has been trained or labeled here, in any stage."""
        patterns = ("checkpoints/step_*", "networks/*.keras", "labels/shard_*")
        return self.has_completed() or any(any(self.path.rglob(pattern)) for pattern in patterns)

    def has_only_been_claimed(self) -> bool:
        """Whether a run was to begin here and has trained nothing: its flags and its split bind no other."""
        return bool(self.read_flags()) and not self.has_results()

    @staticmethod
    def _grows(known: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
        return "steps" in known and "steps" in wanted and int(wanted["steps"]) > int(known["steps"])

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process out of the folder while the block runs; the lock dies with the process.

        Raises:
            files.LockedError: when another process holds it.
        """
        if not self.writes:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        message = (
            f"Another process is training in the run folder {str(self.path)!r}: wait until it has ended, or choose "
            "another run_dir."
        )
        with files.locked(self.path / ".lock", message):
            yield

    # --- checkpoints -----------------------------------------------------------------------------------

    def checkpoints(self) -> list[pathlib.Path]:
        """The checkpoints, oldest first."""
        return sorted((self.path / "checkpoints").glob("step_*.weights.h5"))

    def save_checkpoint(self, method: keras.Model) -> pathlib.Path:
        """Saves everything that the next step depends on, and removes all but the newest checkpoints.

        Raises:
            files.DiskFullError: when there is no room; the older checkpoints are untouched.
        """
        destination = self.path / "checkpoints" / f"step_{int(method.step.numpy()):09d}.weights.h5"
        if not self.writes:
            # Every process takes part: running means are summed over all of them while they are read.
            with tempfile.TemporaryDirectory() as folder:
                method.save_weights(pathlib.Path(folder) / destination.name)
            return destination
        with files.replacing(destination) as temporary:
            # HDF5 does not survive a full disk: it may end the process.
            files.reserve(temporary, size_on_disk(method))
            method.save_weights(temporary)
        for old in self.checkpoints()[:-STORED_CHECKPOINTS]:
            old.unlink()
        return destination

    def restore_checkpoint(self, method: keras.Model) -> None:
        """Loads the newest readable checkpoint into a compiled method; does nothing when there is none.

        A checkpoint that cannot be read is set aside with the suffix `.unreadable`, and said so, once an older one
        has been loaded.

        Raises:
            ValueError: when there are checkpoints and none can be read. They stay as they are, so that the next start
                does not find an empty folder and train over the run.
        """
        if self.writes:
            for folder in (self.path, self.path / "checkpoints", self.path / "networks"):
                files.remove_unfinished(folder)
        unreadable: dict[pathlib.Path, Exception] = {}
        for checkpoint in reversed(self.checkpoints()):
            try:
                method.load_weights(checkpoint)
            except (OSError, KeyError, ValueError) as error:
                unreadable[checkpoint] = error
                continue
            self._set_aside(unreadable)
            return
        if unreadable:
            newest, reason = next(iter(unreadable.items()))
            raise ValueError(
                f"None of the checkpoints in {str(newest.parent)!r} can be read (the newest: {reason}): mend what is "
                "in the way and start again, or train again in another run_dir."
            )

    def _set_aside(self, unreadable: Mapping[pathlib.Path, Exception]) -> None:
        for checkpoint, error in unreadable.items() if self.writes else ():
            aside = checkpoint.with_name(f"{checkpoint.name}.unreadable")
            checkpoint.rename(aside)
            print(f"The checkpoint {checkpoint} cannot be read ({error}); it is kept as {aside.name}.")

    # --- who it is ------------------------------------------------------------------------------------

    def identity(self) -> str:
        """A name that no other run has, by which a run that goes on knows what it has left elsewhere."""
        source = self.path / "identity.txt"
        if not source.exists():
            with files.replacing(source) as temporary:
                temporary.write_text(f"{uuid.uuid4().hex}\n")
        return source.read_text().strip()

    def verify_or_write_initialization(self, facts: Mapping[str, object]) -> None:
        """Notes in `initialization.json` which weights a run starts from, or checks that a run goes on from the same.

        Args:
            facts: what tells them apart, such as `{"file": …, "weights_sha256": …}`; ready for JSON.

        Raises:
            ValueError: when something has been trained here that started from other weights.
        """
        path = self.path / "initialization.json"
        remedy = f"put back a copy of it, or remove it if the run started from {_listed(facts)}"
        known = files.read_json(path, remedy) if self.has_results() else None
        if known is not None and known != facts:
            raise ValueError(
                f"The run in {str(self.path)!r} started from {_listed(known)}, and now there is {_listed(facts)}: "
                "put the former file back, or choose another run_dir."
            )
        if self.writes and known is None:
            with files.replacing(path) as temporary:
                temporary.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")

    # --- history and metrics ---------------------------------------------------------------------------

    def read_history(self, *, until_step: int | None = None) -> list[dict]:
        """The rows of history.csv; those of epochs after `until_step`, which a kill undid, are left out."""
        return self.read_rows("history.csv", until_step=until_step)

    def recorded_sum(self, column: str) -> float:
        """The sum of a column of history.csv over all epochs; a row without it counts 0."""
        return sum(float(row.get(column) or 0) for row in self.read_history())

    def write_history(self, rows: list[dict]) -> None:
        """Writes history.csv; columns are the union of all rows', in the order they first appear."""
        self.write_rows("history.csv", rows)

    def read_rows(self, name: str, *, until_step: int | None = None) -> list[dict]:
        """The rows of a CSV file with a column `step`, as `read_history`; none where there is no file.

        Raises:
            ValueError: when the file is damaged: what is written next would be without the rows that are lost.
        """
        source = self.path / name
        if not source.exists():
            return []
        remedy = "put back a copy of it, or remove it and do without the rows that it had"
        with files.reading(source, remedy), source.open(newline="", **_AS_FILE_NAMES) as stream:
            text = stream.read()
            # Also of no rows the line of the columns is written.
            if not text.endswith("\n"):
                raise ValueError("the end of its last line is missing")
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
            return [row for row in rows if until_step is None or int(row["step"]) <= until_step]

    def write_rows(self, name: str, rows: list[dict], *, columns: Iterable[str] = ()) -> None:
        """Writes a CSV file, as `write_history`; `columns` come first, and are there without any row."""
        if not self.writes:
            return
        columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
        with (
            files.replacing(self.path / name) as temporary,
            temporary.open("w", newline="", **_AS_FILE_NAMES) as stream,
        ):
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)

    def read_metrics(self) -> dict | None:
        """The contents of metrics.json, which the end of a run writes; None before that."""
        remedy = (
            "put back a copy of it, or remove it and start the run's command again, which evaluates its networks and "
            "writes it anew, without what recipes.evaluate has added"
        )
        return files.read_json(self.path / "metrics.json", remedy)

    def write_metrics(self, metrics: dict) -> None:
        """Writes metrics.json, and what it holds of confusion matrices into confusion.npz, to those already there."""
        write_metrics(self.path / "metrics.json", metrics)

    def read_confusions(self) -> dict[str, np.ndarray]:
        """The confusion matrices of confusion.npz, int `[K, K]`, by names such as `"validation/student"`."""
        return _read_matrices(self.path / "confusion.npz")

    # --- the best epoch --------------------------------------------------------------------------------

    def save_selected(self, network: keras.Model, *, epoch: int, step: int, accuracy: float) -> None:
        """Saves the weights of the best epoch so far, beside those of the one before.

        Killed before the checkpoint of this epoch, the run goes on from the former and undoes the epoch.

        Args:
            network: of inference.
            epoch: that has ended, from 0 on.
            step: at its end.
            accuracy: on the validation images.
        """
        if not self.writes:
            return
        # NumPy's files have no bfloat16, of which float32 holds every number.
        weights = [
            weight.astype(np.float32) if weight.dtype.kind == "V" else weight
            for weight in network.get_weights()
        ]
        arrays: dict[str, Any] = {str(index): weight for index, weight in enumerate(weights)}
        arrays |= {"epoch": epoch, "step": step, "accuracy": accuracy}
        destination = self.path / "selected" / f"step_{step:09d}.npz"
        with files.replacing(destination) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)
        for old in sorted(destination.parent.glob("step_*.npz"))[:-STORED_CHECKPOINTS]:
            old.unlink()

    def read_selected(self, *, until_step: int) -> "SelectedEpoch | None":
        """The best epoch up to a step; those after it, which a kill undid, are removed.

        Raises:
            ValueError: when its file is damaged. The one before it was not the best, and does not take its place.
        """
        newest = None
        for path in sorted((self.path / "selected").glob("step_*.npz")):
            if int(path.stem.removeprefix("step_")) <= until_step:
                newest = path
            elif self.writes:
                path.unlink()
        if newest is None:
            return None
        with files.reading(newest, "put back a copy of it, or train again in another run_dir"):
            with np.load(newest) as stored:
                values = {name: stored[name] for name in stored.files}
            facts = int(values.pop("epoch")), int(values.pop("step")), float(values.pop("accuracy"))
            return SelectedEpoch(*facts, weights=[values[str(index)] for index in range(len(values))])

    def write_outcomes(self, correct: Mapping[str, np.ndarray]) -> None:
        """Writes outcomes.npz: role → bool `[N]`, whether the network is right on each validation image."""
        _write_arrays(self.path / "outcomes.npz", correct)

    def read_outcomes(self) -> dict[str, np.ndarray]:
        """What `write_outcomes` wrote; empty where there is no such file."""
        remedy = "remove it: it is measured again when a network is chosen to be served"
        return _read_arrays(self.path / "outcomes.npz", remedy)

    def save_network(self, role: str, network: keras.Model) -> None:
        """Saves `networks/<role>.keras`."""
        if not self.writes:
            return
        with files.replacing(self.path / "networks" / f"{role}.keras") as temporary:
            models.save(network, temporary)

    def load_network(self, role: str) -> keras.Model:
        """Loads `networks/<role>.keras`, not compiled."""
        return models.load(self.path / "networks" / f"{role}.keras")


def write_metrics(path: pathlib.Path, metrics: dict) -> None:
    """Writes numbers as JSON, and the confusion matrices among them into `confusion.npz` beside it.

    A matrix of 1,000 classes has a million numbers, which nobody reads in a JSON file.

    Args:
        path: of the file, `….json`. Matrices of another prefix than metrics.json's are `<prefix>.confusion.npz`.
        metrics: dicts in dicts; a matrix is what the key `"confusion"` has.
    """
    small, matrices = _without_matrices(metrics)
    if matrices:
        destination = _matrices_path(path)
        _write_arrays(destination, _read_matrices(destination) | matrices)
    text = json.dumps(small, indent=1)
    # A list of numbers on one line.
    text = re.sub(r"\[\n[^\[\]{}]*?\n\s*\]", lambda found: json.dumps(json.loads(found[0])), text)
    with files.replacing(path) as temporary:
        temporary.write_text(f"{text}\n", "utf-8")


def _matrices_path(path):
    return path.with_name("confusion.npz") if path.stem == "metrics" else path.with_suffix(".confusion.npz")


def _write_arrays(path, arrays):
    with files.replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _read_matrices(path):
    return _read_arrays(
        path, "put back a copy of it, or remove it and do without the confusion matrices in it"
    )


def _read_arrays(path, remedy):
    """Name → array; empty where there is no such file."""
    if not path.exists():
        return {}
    with files.reading(path, remedy), np.load(path) as stored:
        return {name: stored[name] for name in stored.files}


def _without_matrices(metrics, prefix=()):
    """The numbers without the confusion matrices, and these by the names of the dicts that they were in."""
    small, matrices = {}, {}
    for key, value in metrics.items():
        if key == "confusion":
            matrices["/".join(prefix)] = np.asarray(value)
        elif isinstance(value, dict):
            small[key], inner = _without_matrices(value, (*prefix, key))
            matrices |= inner
        else:
            small[key] = value
    return small, matrices


def _listed(facts: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in facts.items())


def _flag_values(flags: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in flags.items() if value is not None}


def size_on_disk(method: keras.Model) -> int:
    """An upper bound in bytes: the numbers, and what HDF5 adds to each array."""
    optimizers = [getattr(method, f"{role}_optimizer", None) for role in method.roles]
    variables = [
        *method.variables,
        *(v for optimizer in optimizers if optimizer for v in optimizer.variables),
    ]
    return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size + 4096 for v in variables)
