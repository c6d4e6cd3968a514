"""The rounds of Noisy Student (Xie et al. 2020, arXiv 1911.04252): label, filter, balance, train, repeat.

1. A teacher learns from the labeled images.
2. Without noise, it labels the unlabeled ones; the labels go into a store on disk.
3. A noised student learns from the labeled images and from the labels that are confident, balanced over classes.
4. The student becomes the teacher, and 2 follows again.

Killed anywhere, the run goes on there: finished stages are read back from their checkpoints, and labels that have
been made are not made again. Where several processes train together, each makes its shard of a store's files.

    runs/<name>/teacher/  round_1/labels/  round_1/labels.png  round_1/checkpoints/  …  finetune/  metrics.json
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from mpl_tf import report
from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.run_data import RunData
from mpl_tf.data.soft_labels import selection
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.distribute import replicas, workers
from mpl_tf.inference import labeling
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.supervised import Supervised
from mpl_tf.models.fingerprints import weights_fingerprint
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import StageSettings
from mpl_tf.training.run import Run
from mpl_tf.utils import files
from mpl_tf.utils.validation import check_integer, check_range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
    """How many rounds, and which of the teacher's labels a student learns from.

    Args:
        rounds: students in a row.
        teacher_steps: updates of the first teacher.
        threshold: confidence below which a label is left out, in 0…1.
        balance: whether every class gets the same number of images, the most confident ones, repeated where
            there are too few.
        per_class: this number; None for the mean over the classes.
        teacher_noise: whether dropout and stochastic depth act while the teacher labels. The paper's ablation.
        teacher_view: the view under which it labels; None for the images as they are.
        label_batch_size: images per step of the labeling.
        label_shard_size: images per file of labels: what a killed labeling loses, and what several processes deal
            out among themselves.

    Raises:
        ValueError: for a value out of range.
    """

    rounds: int = 3
    teacher_steps: int
    threshold: float = 0.3
    balance: bool = True
    per_class: int | None = None
    teacher_noise: bool = False
    teacher_view: Callable | None = None
    label_batch_size: int = 256
    label_shard_size: int = 4096

    def __post_init__(self):
        for name in ("rounds", "teacher_steps", "label_batch_size", "label_shard_size"):
            check_integer(name, getattr(self, name), low=1)
        check_range("threshold", self.threshold, low=0.0, high=1.0)
        if self.per_class is not None:
            check_integer("per_class", self.per_class, low=1)


def train_rounds(
    run: Run,
    build_teacher: Callable[[], Supervised],
    build_student: Callable[[int, keras.Model], NoisyStudent],
    settings: StageSettings,
    rounds: Rounds,
    *,
    jit_compile: bool | str = "auto",
) -> None:
    """Trains the first teacher and every student of a run, or goes on where that was stopped.

    A network that the run was given as its `"teacher"`, by `Run.add_network`, is the first teacher as it is. The last
    student is the run's `"student"`, the others are `"round_1"` and so on. `run.facts["rounds"]` holds a dict per
    round of which labels were used.

    Args:
        run: open.
        build_teacher: makes the compiled first teacher, where there is none; called inside the strategy's scope.
        build_student: takes the round, from 1 on, and the network that labeled, and makes the compiled student.
        settings: of each round.
        rounds: how many, and which labels are learned from.
        jit_compile: whether the labeling is compiled with XLA: True, False or `"auto"`.

    Raises:
        ValueError: for settings that do not fit the data or the strategy, or labels of which none is confident.
    """
    if run.completed:
        return
    history = []
    images_of_teacher = 0
    if "teacher" not in run.given:
        labeled_alone = dataclasses.replace(settings, unlabeled_ratio=0, steps=rounds.teacher_steps)
        run.train("teacher", build_teacher, labeled_alone)
        _save_stage(run, "teacher", "teacher")
        images_of_teacher = labeled_alone.images

    labeler = "teacher"
    for number in range(1, rounds.rounds + 1):
        stage, teacher = f"round_{number}", run.networks[labeler]
        store = _label(run, number, labeler, rounds, settings.seed, jit_compile)
        data, facts = _select(store, run.data, rounds, run.folder.stage(stage))
        history.append({"round": number, **facts})
        labeler = stage if number < rounds.rounds else "student"
        run.train(
            stage,
            functools.partial(build_student, number, teacher),
            # Another order and other augmentations in every round.
            dataclasses.replace(settings, seed=fold_in(settings.seed, stage)),
            role=labeler,
            data=data,
        )
        _save_stage(run, stage, labeler)
    run.facts |= {
        "method": NoisyStudent.__name__,
        "steps": rounds.rounds * settings.steps,
        "images": rounds.rounds * settings.images + images_of_teacher,
        "rounds": history,
    }


def _save_stage(run: Run, name: str, role: str) -> None:
    """Leaves the curves and the network of a stage in its folder."""
    stage = run.folder.stage(name)
    if stage.writes:
        curves = report.plots.curves(stage.read_history(), title=name)
        report.plots.save_png(curves, stage.path / "curves.png")
    stage.save_network("student", run.networks[role])


def _label(
    run: Run, number: int, labeler: str, rounds: Rounds, seed: int, jit_compile: bool | str
) -> LabelStore:
    """Step 2: the store of this round, complete."""
    stage, data, processes = run.folder.stage(f"round_{number}"), run.data, workers.worker_count(run.strategy)
    network = run.networks[labeler]
    # Several processes cannot run one network on different images: each takes a copy to a device of its own.
    scope = run.strategy.scope() if processes == 1 else contextlib.nullcontext()
    network = network if processes == 1 else replicas.local_copy(network, run.strategy)
    with scope:
        store = labeling.label_into_store(
            network,
            data.source,
            stage.path / "labels",
            index=data.split.unlabeled,
            teacher={"network": labeler, "round": number - 1, "weights_sha256": weights_fingerprint(network)},
            shard_size=rounds.label_shard_size,
            batch_size=rounds.label_batch_size,
            workers=processes,
            worker=workers.worker_index(run.strategy),
            training=rounds.teacher_noise,
            view=rounds.teacher_view,
            seed=fold_in(seed, f"labels of round {number}"),
            jit_compile=jit_compile,
            verbose=run.monitoring.verbose if stage.writes else 0,
        )
    workers.wait_for_all(run.strategy)
    if stage.writes:
        files.remove_unfinished(store.path)
    return store


def _select(store: LabelStore, data: RunData, rounds: Rounds, stage: RunFolder) -> tuple[RunData, dict]:
    """Step 3's images: the run's data with the chosen ones as its unlabeled part, and what was chosen."""
    choice: dict[str, Any] = {
        "threshold": rounds.threshold,
        "per_class": rounds.per_class,
        "balance": rounds.balance,
    }
    confidence, classes = store.confidence(), store.classes()
    rows = selection.select_indices(confidence, classes, store.num_classes, **choice)
    chosen = store.index[rows]
    if stage.writes:
        figure = report.plots.label_store(
            store,
            images=data.source.train,
            class_names=data.source.class_names,
            title=f"{data.split.name}, round {store.teacher['round'] + 1}",
            **choice,
        )
        report.plots.save_png(figure, stage.path / "labels.png")
    facts = {
        "labeled_by": store.teacher["network"],
        "images": len(store.index),
        "confident": int((confidence >= rounds.threshold).sum()),
        "different_images": len(np.unique(chosen)),
        "drawn_from": len(chosen),
        "wrong_fraction": _wrong_fraction(classes[rows], data.source.train.labels[chosen]),
    }
    split = dataclasses.replace(data.split, unlabeled=chosen)
    targets = store.targets(len(data.source.train))
    return dataclasses.replace(data, split=split, targets=targets), facts


def _wrong_fraction(classes, truth):
    """Of the chosen labels whose truth is known, the fraction that is wrong: to look at, never to choose by."""
    known = truth >= 0
    return float((classes != truth)[known].mean()) if known.any() else None
