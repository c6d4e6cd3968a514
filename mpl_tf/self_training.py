"""The rounds of Noisy Student (Xie et al. 2020, arXiv 1911.04252): label, filter, balance, train, repeat.

1. A teacher learns from the labeled pictures.
2. Without noise, it labels the unlabeled ones; the labels go into a store on disk.
3. A noised student learns from the labeled pictures and from the labels that are confident, balanced over classes.
4. The student becomes the teacher, and 2 follows again.

Killed anywhere, the run goes on there: finished stages are read back from their checkpoints, and labels that have
been made are not made again. Where several processes train together, each makes its share of a store's files.

    runs/<name>/teacher/  round_1/labels/  round_1/labels.png  round_1/checkpoints/  …  finetune/  metrics.json
"""

import contextlib
import dataclasses
from collections.abc import Callable

import keras
import numpy as np

from mpl_tf import checks, distribute, files, labeling, report, training, workers
from mpl_tf.data import label_store, selection
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.methods.supervised import Supervised
from mpl_tf.models.digest import weights_digest
from mpl_tf.run_folder import RunFolder
from mpl_tf.training import RunData, RunSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
    """How many rounds, and which of the teacher's labels a student learns from.

    Args:
        rounds: students in a row.
        teacher_steps: updates of the first teacher.
        threshold: confidence below which a label is left out, in 0…1.
        balance: whether every class gets the same number of pictures, the most confident ones, repeated where
            there are too few.
        per_class: this number; None for the mean over the classes.
        teacher_noise: whether dropout and stochastic depth act while the teacher labels. The paper's ablation.
        teacher_view: the view under which it labels; None for the pictures as they are.
        label_batch_size: pictures per step of the labeling.
        label_shard_size: pictures per file of labels: what a killed labeling loses, and what several processes deal
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
            checks.within(name, getattr(self, name), low=1)
        checks.within("threshold", self.threshold, low=0.0, high=1.0)
        checks.within("per_class", self.per_class, low=1, optional=True)


def run(
    build_teacher: Callable[[], Supervised],
    build_student: Callable[[int, keras.Model], NoisyStudent],
    data: RunData,
    settings: RunSettings,
    rounds: Rounds,
) -> dict:
    """Trains the first teacher and every student, or goes on where that was stopped.

    Args:
        build_teacher: makes the compiled first teacher; called inside the strategy's scope.
        build_student: takes the round, from 1 on, and the network that labeled, and makes the compiled student.
        data: pictures, split and views.
        settings: `steps` and `epoch_steps` are those of each round.
        rounds: how many, and which labels are learned from.

    Returns:
        What metrics.json holds; under `rounds` a dict per round of which labels were used.

    Raises:
        ValueError: for settings that do not fit the data or the strategy, or labels of which none is confident.
        workers.WorkerLostError: when another process that trains along has ended.
    """
    strategy = training.make_strategy(settings)
    folder = RunFolder(settings.run_dir, writes=workers.is_chief(strategy))
    with folder.locked(), workers.lost_workers_named(strategy):
        builders = build_teacher, build_student
        return training.finished(folder, data, settings) or _run(
            folder, strategy, *builders, data, settings, rounds
        )


def _run(folder, strategy, build_teacher, build_student, data, settings, rounds):
    networks, seconds, history = {}, {}, []

    with strategy.scope():
        teacher = build_teacher()
    plain = dataclasses.replace(settings, unlabeled_ratio=0, steps=rounds.teacher_steps)
    seconds["teacher"] = _fit(teacher, data, plain, folder.stage("teacher"))
    networks["teacher"] = teacher.served

    labeler = "teacher"
    for number in range(1, rounds.rounds + 1):
        stage = folder.stage(f"round_{number}")
        store = _label(networks[labeler], labeler, number, data, settings, rounds, stage, strategy)
        labeled_data, facts = _select(store, data, rounds, stage)
        with strategy.scope():
            student = build_student(number, networks[labeler])
        # Another order and other augmentations in every round.
        own = dataclasses.replace(settings, seed=settings.seed + 2_000_003 * number)
        labeler = f"round_{number}" if number < rounds.rounds else "student"
        seconds[labeler] = _fit(student, labeled_data, own, stage)
        networks[labeler] = student.served
        history.append({"round": number, **facts})

    if settings.finetune_steps:
        networks["finetuned"], seconds["finetune"] = training.finetune(
            networks["student"], data, settings, folder, strategy
        )
    steps = rounds.rounds * settings.steps
    pictures = steps * settings.batch_size * (1 + settings.unlabeled_ratio)
    pictures += rounds.teacher_steps * settings.batch_size
    facts = {"steps": steps, "seconds": seconds, "pictures": pictures, "rounds": history}
    networks = {role: distribute.local_copy(network, strategy) for role, network in networks.items()}
    if folder.writes:
        training.finish(folder, data, settings, networks, **facts)
    workers.wait_for_all(strategy)
    return folder.read_metrics()


def _fit(method, data, settings, stage):
    seconds = training.fit(method, data, settings, stage)
    if stage.writes:
        curves = report.plots.curves(stage.read_history(), title=stage.path.name)
        report.plots.save_png(curves, stage.path / "curves.png")
    stage.save_network("student", method.served)
    return seconds


def _label(network, name, number, data, settings, rounds, stage, strategy):
    """Step 2: the store of this round, complete."""
    processes = workers.worker_count(strategy)
    # Several processes cannot run one network on different pictures: each takes a copy to a device of its own.
    scope = strategy.scope() if processes == 1 else contextlib.nullcontext()
    network = network if processes == 1 else distribute.local_copy(network, strategy)
    store = label_store.LabelStore.create(
        stage.path / "labels",
        index=data.split.unlabeled,
        num_classes=data.source.num_classes,
        teacher={"network": name, "round": number - 1, "weights_sha256": weights_digest(network)},
        fingerprint=data.split.fingerprint,
        shard_size=rounds.label_shard_size,
    )
    with scope:
        labeling.label(
            network,
            data.source.train,
            store,
            batch_size=rounds.label_batch_size,
            workers=processes,
            worker=workers.worker_index(strategy),
            training=rounds.teacher_noise,
            view=rounds.teacher_view,
            seed=settings.seed + number,
            jit_compile=settings.jit_compile,
            verbose=settings.verbose if stage.writes else 0,
        )
    workers.wait_for_all(strategy)
    if stage.writes:
        files.remove_unfinished(store.path)
    return store


def _select(store, data, rounds, stage):
    """Step 3's pictures: the run's data with the chosen ones as its unlabeled part, and what was chosen."""
    choice = {"threshold": rounds.threshold, "per_class": rounds.per_class, "balance": rounds.balance}
    confidence, classes = store.confidence(), store.classes()
    rows = selection.select_rows(confidence, classes, store.num_classes, **choice)
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
        "pictures": len(store.index),
        "confident": int((confidence >= rounds.threshold).sum()),
        "different_pictures": len(np.unique(chosen)),
        "drawn_from": len(chosen),
        "wrong_share": _wrong_share(classes[rows], data.source.train.labels[chosen]),
    }
    split = dataclasses.replace(data.split, unlabeled=chosen)
    targets = store.targets(len(data.source.train))
    return dataclasses.replace(data, split=split, targets=targets), facts


def _wrong_share(classes, truth):
    """Of the chosen labels whose truth is known, the share that is wrong: to look at, never to choose by."""
    known = truth >= 0
    return float((classes != truth)[known].mean()) if known.any() else None
