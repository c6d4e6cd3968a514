"""The images of a run: which of them are for what, and under which views they are learned from."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from mpl_tf.data import pipeline
from mpl_tf.data.images.source import Source
from mpl_tf.data.soft_labels.store import LabelTargets
from mpl_tf.data.splits import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunData:
    """The images of a run, which of them are for what, and how they are augmented.

    Args:
        source: `mpl_tf.data.Source`. Its training images get the labels that the split has for them, with label
            noise and without the ignored ones: nothing in a run sees any others, but what asks for `true_labels`.
        split: `mpl_tf.data.Split` of its training images.
        weak: the weak view, see `mpl_tf.data.make_views`.
        strong: the strong view.
        labeled_view: the view of labeled images; None for the weak one.
        targets: what a label store's `targets` returns, where the unlabeled images come with stored labels.
        labeled_targets: whether the labeled ones do too.
        balance: "sample" where labeled images of all classes are drawn equally often, "weight" where rare classes
            weigh more in the losses on labels, else "none".
        augment_in_step: whether the views are made inside of the training step, on its device, and not by the input
            pipeline; the strong one then needs `static_shapes`.
    """

    source: Source
    split: Split
    weak: Callable
    strong: Callable
    labeled_view: Callable | None = None
    targets: LabelTargets | None = None
    labeled_targets: bool = False
    balance: str = "none"
    augment_in_step: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", self.split.as_trained(self.source))

    def batches(
        self, *, batch_size: int, unlabeled_ratio: int, seed: int, start: int, shard: tuple = (0, 1)
    ) -> tf.data.Dataset:
        """Training batches from step `start` on, or a shard of each."""
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
            shard=shard,
        )

    def augmentation(self, seed: int) -> pipeline.BatchViews | None:
        """What a training step does with the drawn images; None where the pipeline has done it."""
        if not self.augment_in_step:
            return None
        return pipeline.BatchViews(self.weak, self.strong, self.labeled_view, seed)

    def unlabeled(self, *, shard: tuple = (0, 1)) -> tf.data.Dataset:
        """Each unlabeled image once and not augmented, or a shard of them."""
        index, count = shard
        return pipeline.image_batches(self.source.train, self.split.unlabeled[index::count])

    def unlabeled_sample(self, count: int) -> np.ndarray:
        """Indices of up to `count` unlabeled images that no label tells of.

        Those whose class is known are taken, or of none is, any: always the same, in rising order.
        """
        labels = np.asarray(self.source.train.labels)
        hidden = self.split.hidden
        known = hidden[labels[hidden] >= 0]
        candidates = known if len(known) else hidden
        generator, count = np.random.default_rng(0), min(count, len(candidates))
        return np.sort(generator.choice(candidates, count, replace=False, shuffle=False))

    def validation(self) -> tf.data.Dataset | None:
        """The held-out images, or None where none were held out."""
        if not len(self.split.validation):
            return None
        return pipeline.evaluation_batches(self.source.train, self.split.validation)

    def test(self) -> tf.data.Dataset | None:
        """The test images, or None where the source has none."""
        return None if self.source.test is None else pipeline.evaluation_batches(self.source.test)
