"""What a run is made of: its settings, its data, and the devices that it trains on."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mpl_tf import checks, distribute
from mpl_tf.data import pipeline
from mpl_tf.data.batch_views import BatchViews


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run does with its method and its data.

    Args:
        run_dir: the folder that the run leaves.
        export_dir: where the finished student goes as `<export_dir>/<version>/`; None exports nothing.
        steps: updates of the method.
        epoch_steps: updates between two validations, history rows and checkpoints.
        batch_size: B, labeled pictures per update over all replicas.
        unlabeled_ratio: μ, unlabeled pictures per labeled one.
        seed: of the order of the pictures and their augmentation.
        baseline_steps: updates of the supervised baseline, where one is wanted.
        teacher_steps: updates of the supervised teacher, where one is wanted; 0 takes it as it is.
        confirmation_pictures: unlabeled pictures, of known class where there are any, on which each epoch's
            confirmation bias and classes are measured, at most; 0 measures none.
        finetune_steps: updates on the labeled pictures after the method; 0 leaves the fine-tuning out.
        finetune_batch_size: labeled pictures per such update.
        finetune_learning_rate: of the plain SGD that makes them.
        strategy: a name that `distribute.make_strategy` knows.
        jit_compile: True, False or `"auto"`.
        verbose: as in `keras.Model.fit`.
        tensorboard: whether to write event files into `<run_dir>/tensorboard`.
        report: whether to draw `<run_dir>/report.html` at the end.
        command: the command line that started the run, for metrics.json.
    """

    run_dir: str
    export_dir: str | None = None
    steps: int
    epoch_steps: int
    batch_size: int
    unlabeled_ratio: int = 0
    seed: int = 0
    baseline_steps: int = 0
    teacher_steps: int = 0
    confirmation_pictures: int = 1000
    finetune_steps: int = 0
    finetune_batch_size: int = 64
    finetune_learning_rate: float = 1e-3
    strategy: str = "default"
    jit_compile: bool | str = "auto"
    verbose: int | str = "auto"
    tensorboard: bool = True
    report: bool = True
    command: str = ""

    def __post_init__(self):
        for name in ("steps", "epoch_steps", "batch_size", "finetune_batch_size"):
            checks.within(name, getattr(self, name), low=1)
        for name in (
            "unlabeled_ratio", "baseline_steps", "teacher_steps", "confirmation_pictures", "finetune_steps", "seed",
        ):  # fmt: skip
            checks.within(name, getattr(self, name), low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """The pictures of a run, which of them are for what, and how they are augmented.

    Args:
        source: `mpl_tf.data.Source`.
        split: `mpl_tf.data.Split` of its training pictures.
        weak: the weak view, see `mpl_tf.data.make_views`.
        strong: the strong view.
        labeled_view: the view of labeled pictures; None for the weak one.
        targets: what a label store's `targets` returns, where the unlabeled pictures come with stored labels.
        labeled_targets: whether the labeled ones do too.
        balance: "sample" where labeled images of all classes are drawn equally often, else "none".
        augment_in_step: whether the views are made inside of the training step, on its device, and not by the input
            pipeline; the strong one then needs `static_shapes`.
    """

    source: object
    split: object
    weak: Callable
    strong: Callable
    labeled_view: Callable | None = None
    targets: object | None = None
    labeled_targets: bool = False
    balance: str = "none"
    augment_in_step: bool = False

    def batches(
        self, *, batch_size: int, unlabeled_ratio: int, seed: int, start: int, share: tuple = (0, 1)
    ) -> tf.data.Dataset:
        """Training batches from step `start` on, or a share of each."""
        return pipeline.training_batches(
            self.source,
            self.split,
            batch_size=batch_size,
            unlabeled_ratio=unlabeled_ratio,
            weak=self.weak,
            strong=self.strong,
            labeled_view=self.labeled_view,
            targets=self.targets if unlabeled_ratio else None,
            labeled_targets=self.labeled_targets and bool(unlabeled_ratio),
            balance=self.balance,
            augment=not self.augment_in_step,
            seed=seed,
            start=start,
            share=share,
        )

    def augmentation(self, seed: int) -> BatchViews | None:
        """What a training step does with the drawn pictures; None where the pipeline has done it."""
        if not self.augment_in_step:
            return None
        return BatchViews(self.weak, self.strong, self.labeled_view, seed)

    def unlabeled(self, *, share: tuple = (0, 1)) -> tf.data.Dataset:
        """Each unlabeled picture once and not augmented, or a share of them."""
        index, count = share
        return pipeline.picture_batches(self.source.train, self.split.unlabeled[index::count])

    def unlabeled_sample(self, count: int) -> np.ndarray:
        """Places of up to `count` unlabeled pictures that no label tells of.

        Those whose class is known are taken, or of none is, any: always the same, in rising order.
        """
        hidden = np.setdiff1d(self.split.unlabeled, self.split.labeled)
        known = hidden[np.asarray(self.source.train.labels)[hidden] >= 0]
        drawn = known if len(known) else hidden
        return np.sort(np.random.default_rng(0).permutation(drawn)[:count])

    def validation(self) -> tf.data.Dataset | None:
        """The held-out pictures, or None where none were held out."""
        if not len(self.split.validation):
            return None
        return pipeline.evaluation_batches(self.source.train, self.split.validation)

    def test(self) -> tf.data.Dataset | None:
        """The test pictures, or None where the source has none."""
        return None if self.source.test is None else pipeline.evaluation_batches(self.source.test)


def make_strategy(settings: RunSettings) -> tf.distribute.Strategy:
    """The strategy that the settings name, over whose replicas their batch divides.

    Raises:
        ValueError: for an unknown name or a batch that does not divide.
    """
    strategy = distribute.make_strategy(settings.strategy)
    replicas = strategy.num_replicas_in_sync
    if settings.batch_size % replicas:
        raise ValueError(
            f"batch_size={settings.batch_size} does not divide over {replicas} replicas: choose a multiple of "
            f"{replicas}."
        )
    return strategy
