"""Select, pair, augment, batch: from random-access images to the one batch dict.

Everything a batch holds is a function of (seed, step). A run that resumes at step t therefore draws the images
and the augmentations that an uninterrupted one would, without a checkpoint of the input pipeline.
"""

import dataclasses
import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.data import prefetching
from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.images.images import Images
from mpl_tf.data.images.source import Source
from mpl_tf.data.lookup import Lookup
from mpl_tf.data.splits import Split
from mpl_tf.data.streams import AlternatingStream, BalancedStream, Stream
from mpl_tf.utils.validation import check_choice

BALANCES = ("none", "sample", "weight")
# Both streams, and their augmentations, draw from seeds of their own.
LABELED_STREAM, UNLABELED_STREAM = "labeled", "unlabeled"
# So are trusted images, which are seen under the augmentations of the labeled stream, of which they are half.
TRUSTED_STREAM = "trusted"


def training_batches(
    source: Source,
    split: Split,
    *,
    batch_size: int,
    unlabeled_ratio: int = 0,
    weak: Callable,
    strong: Callable | None = None,
    labeled_view: Callable | None = None,
    targets: Any = None,
    labeled_targets: bool = False,
    balance: str = "none",
    augment: bool = True,
    seed: int = 0,
    start: int = 0,
    shard: tuple = (0, 1),
) -> tf.data.Dataset:
    """An endless dataset of training batches, beginning at step `start`.

    Both streams go through their own images in epochs of their own, shuffled anew each time, so neither the few
    labeled nor the many unlabeled images are dropped or starved, whatever their numbers. With `balance="sample"`,
    the labeled stream goes through the classes instead, in a new order each time, and each class through its own
    images: every class comes equally often, and within a class every image does. With `balance="weight"`, images are
    drawn as with `"none"`, and each brings the weight of its class for the losses on labels, see `class_weights`.

    Where some labels are trusted and others cheap, every other labeled image is a trusted one: half of each batch,
    and of each replica's part of it, however few there are. Both kinds go through their own images as above.

    Args:
        source: `mpl_tf.data.Source`.
        split: `mpl_tf.data.Split` of it.
        batch_size: B, labeled images per step.
        unlabeled_ratio: μ, unlabeled images per labeled one; 0 leaves the unlabeled entry out.
        weak: callable `(images, seed=, position=) → float32 [n, …]`, the weakly augmented view.
        strong: the same for the strong view, which starts from the weak one. Needed when μ > 0.
        labeled_view: the same for labeled images; None for the weak view.
        targets: soft labels of the unlabeled images, what `LabelStore.targets` returns: an object with
            `fetch(index: int64 [n]) → float32 [n, K]`. None for none.
        labeled_targets: whether the labeled images get soft labels from `targets` too.
        balance: `"sample"` draws labeled images of all classes equally often, however few a class has; `"weight"`
            draws all images equally often and weighs rare classes more; `"none"` does neither.
        augment: whether to make the views here. False leaves that to `BatchViews` inside of a training step: both
            entries then have the images as they are, `"image"`, and int64 `"position"`.
        seed: of the order and the augmentation.
        start: the first step.
        shard: `(index, count)`: which of `count` equal parts of every batch, for processes that train together.

    Returns:
        A dataset, whose `steps_per_epoch` says after how many batches every image of the larger stream has been
        drawn, of `{"labeled": {"image": float32 [B, …], "label": int32 [B]}, "unlabeled": {"weak": float32
        [μB, …], "strong": float32 [μB, …], "index": int64 [μB]}}` with images in 0…255. With `targets`, the
        unlabeled entry has `"probabilities"` float32 `[μB, K]` too, and with `labeled_targets` the labeled one
        float32 `[B, K]`. With `balance="weight"` the labeled entry has `"weight"` float32 `[B]`, and where the split
        has trusted labels `"trusted"` bool `[B]`.

    Raises:
        ValueError: for a size out of range or an empty part of the split.
    """
    _check_sizes(batch_size, unlabeled_ratio)
    if labeled_targets and targets is None:
        raise ValueError(
            "labeled_targets=True needs soft labels: pass targets=, what LabelStore.targets returns."
        )
    source = split.as_trained(source)
    _check_labels(source, split)
    check_choice("balance", balance, BALANCES)
    labeled = _labeled_stream(source, split, batch_size, seed, shard, by_class=balance == "sample")
    unlabeled = None
    if unlabeled_ratio:
        if strong is None:
            raise ValueError("Unlabeled images need a strong view: pass strong=, or unlabeled_ratio=0.")
        if not len(split.unlabeled):
            raise ValueError(
                f"The split {split.name!r} has no unlabeled images: add some, or pass unlabeled_ratio=0."
            )
        unlabeled = Stream(split.unlabeled, batch_size * unlabeled_ratio, seed, UNLABELED_STREAM, shard)
    labels = Lookup(source.train.labels, tf.int32)
    weights = _weights_of_classes(source, split) if balance == "weight" else None
    trusted = _trusted_labels(source, split) if len(split.trusted) else None
    fetch, shape = _traceable(source.train.fetch), tuple(source.image_shape)

    def soft_labels(index):
        return tf.ensure_shape(targets.fetch(index), (index.shape[0], source.num_classes))

    def drawn(stream, step):
        index, position = stream.draw(step)
        image = tf.ensure_shape(fetch(index), (stream.rows, *shape))
        return index, {"image": image, "position": position}

    def draw(step):
        index, entry = drawn(labeled, step)
        batch = {"labeled": {**entry, "label": labels(index)}}
        if weights is not None:
            batch["labeled"]["weight"] = weights(batch["labeled"]["label"])
        if trusted is not None:
            batch["labeled"]["trusted"] = trusted(index)
        if labeled_targets:
            batch["labeled"]["probabilities"] = soft_labels(index)
        if unlabeled is not None:
            index, entry = drawn(unlabeled, step)
            batch["unlabeled"] = {**entry, "index": index}
            if targets is not None:
                batch["unlabeled"]["probabilities"] = soft_labels(index)
        return batch

    views = BatchViews(weak=weak, strong=strong, labeled_view=labeled_view, seed=seed)

    @tf.autograph.experimental.do_not_convert
    def make_batch(step):
        return views(draw(step)) if augment else draw(step)

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    batches = prefetching.map_ahead(steps, make_batch)
    streams = [labeled] if unlabeled is None else [labeled, unlabeled]
    batches.steps_per_epoch = max(math.ceil(stream.count / stream.size) for stream in streams)
    return batches


def _check_sizes(batch_size, unlabeled_ratio):
    whole = all(isinstance(number, numbers.Integral) for number in (batch_size, unlabeled_ratio))
    if not whole or batch_size < 1 or unlabeled_ratio < 0:
        raise ValueError(
            f"batch_size={batch_size} and unlabeled_ratio={unlabeled_ratio} make no batch: "
            "the first must be a whole number of at least 1 and the second one of at least 0."
        )


def _weights_of_classes(source, split):
    """Class → weight of its labels, for `balance="weight"`."""
    drawn_how_often = np.where(np.isin(split.labeled, split.trusted), *_frequencies(split))
    labels = source.train.labels[split.labeled]
    return Lookup(class_weights(labels, source.num_classes, drawn_how_often), tf.float32)


def _trusted_labels(source, split):
    """Index of a training image → whether its label is a trusted one."""
    mask = np.zeros(len(source.train), bool)
    mask[split.trusted] = True
    return Lookup(mask, tf.bool)


def class_weights(labels: np.ndarray, num_classes: int, frequencies: np.ndarray | None = None) -> np.ndarray:
    """Weights of the classes that make each count the same, however many labels it has.

    w_c = N / (K n_c), inverse to the class' frequency: every class has the same sum of weights, and the mean weight
    over the labels is 1, so that a loss keeps its size. The mean is over all labels and not over a batch, whose loss
    therefore is an unbiased estimate, and the same on one replica and on several.

    Args:
        labels: int `[N]`, of the labeled images.
        num_classes: K; of these, classes without a label count neither in K nor get a weight.
        frequencies: float `[N]`, how often each image is drawn, of a mean of 1; None for all alike. n_c then counts
            draws.

    Returns:
        float32 `[num_classes]`.
    """
    counts = np.bincount(np.asarray(labels), weights=frequencies, minlength=num_classes)
    present = np.count_nonzero(counts)
    weights = np.divide(len(labels), present * counts, out=np.zeros(num_classes), where=counts > 0)
    return weights.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class BatchViews:
    """Augments a drawn batch; a pure function of the images, their positions and the seed.

    Args:
        weak: callable `(images, seed=, position=) → float32 [n, …]`, the weakly augmented view.
        strong: the same for the strong view, which starts from the weak one; None where nothing unlabeled is drawn.
        labeled_view: the same for labeled images; None for the weak view.
        seed: of the run.

    Raises:
        ValueError: for a view that is not called so.
    """

    weak: Callable
    strong: Callable | None = None
    labeled_view: Callable | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("weak", "strong", "labeled_view"):
            _check_view(name, getattr(self, name))

    def __call__(self, drawn: dict) -> dict:
        """Makes the views.

        Args:
            drawn: `{"labeled": {"image", "position", …}, "unlabeled": {"image", "position", …}}`, images `[n, …]`
                in 0…255 of static shape and their positions int64 `[n]` in their streams; the second entry may lack.

        Returns:
            The batch that every `train_step` reads: `"image"` float32 in the labeled entry, `"weak"` and `"strong"`
            in the unlabeled one, and what else there was.
        """
        labeled = dict(drawn["labeled"])
        images, drawn_at = labeled.pop("image"), self._position(labeled, LABELED_STREAM)
        batch = {
            "labeled": {
                **labeled,
                "image": _like(images, _traceable(self.labeled_view or self.weak)(images, **drawn_at)),
            }
        }
        if "unlabeled" in drawn and self.strong is not None:
            unlabeled = dict(drawn["unlabeled"])
            images, drawn_at = unlabeled.pop("image"), self._position(unlabeled, UNLABELED_STREAM)
            weak = _like(images, _traceable(self.weak)(images, **drawn_at))
            batch["unlabeled"] = {
                **unlabeled,
                "weak": weak,
                "strong": _like(images, _traceable(self.strong)(weak, **drawn_at)),
            }
        return batch

    def _position(self, entry, stream):
        return {"seed": fold_in(self.seed, stream), "position": entry.pop("position")}


def index_batches(batch_size: int, *, start: int = 0, shard: tuple = (0, 1)) -> tf.data.Dataset:
    """An endless dataset for methods that make their images themselves: it only counts them.

    Args:
        batch_size: B, generated images per step over all replicas.
        start: the first step.
        shard: as in `training_batches`.

    Returns:
        A dataset of `{"generated": {"index": int64 [B]}}`, the images' numbers since step 0.

    Raises:
        ValueError: for a batch without images.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} makes no batch: it must be at least 1.")
    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    rows = batch_size // shard[1]
    offsets = shard[0] * rows + tf.range(rows, dtype=tf.int64)

    @tf.autograph.experimental.do_not_convert
    def make_batch(step):
        return {"generated": {"index": step * batch_size + offsets}}

    return prefetching.untuned(steps.map(make_batch))


def evaluation_batches(
    images: Images, indices: np.ndarray | None = None, *, batch_size: int = 256
) -> tf.data.Dataset:
    """Each image once, in order and not augmented.

    Args:
        images: `mpl_tf.data.Images`.
        indices: int `[n]`, which of them; None for all.
        batch_size: images per batch; the last batch may be smaller.

    Returns:
        A dataset of `{"image": float32 [b, …], "label": int32 [b], "index": int64 [b]}`.
    """
    labels, fetch = Lookup(images.labels, tf.int32), _traceable(images.fetch)

    @tf.autograph.experimental.do_not_convert
    def make_batch(index):
        image = tf.ensure_shape(tf.cast(fetch(index), tf.float32), (None, *images.image_shape))
        return {"image": image, "label": labels(index), "index": index}

    return prefetching.map_ahead(_index_batches(images, indices, batch_size), make_batch)


def image_batches(
    images: Images,
    indices: np.ndarray | None = None,
    batch_size: int = 256,
    view: Callable | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Each image once, in order, to be labeled: not augmented, or through a view.

    Args:
        images: `mpl_tf.data.Images`.
        indices: int `[n]`, which of them; None for all.
        batch_size: images per batch; the last batch may be smaller.
        view: callable `(images, seed=, position=) → float32 [n, …]`, or None for the images as they are. What it
            draws for an image depends on `seed` and the image's index alone, not on the batch.
        seed: of the view.

    Returns:
        A dataset of `{"image": float32 [b, …], "index": int64 [b]}` with images in 0…255.
    """
    view_seed, fetch = fold_in(seed, "pseudo labels"), _traceable(images.fetch)
    view = view and _traceable(view)

    @tf.autograph.experimental.do_not_convert
    def make_batch(index):
        image = fetch(index)
        image = tf.cast(image, tf.float32) if view is None else view(image, seed=view_seed, position=index)
        return {"image": tf.ensure_shape(image, (None, *images.image_shape)), "index": index}

    return prefetching.map_ahead(_index_batches(images, indices, batch_size), make_batch)


def _index_batches(images, indices, batch_size: int) -> tf.data.Dataset:
    """Some indices in order, or all where they are None, int64 `[b]` at a time."""
    if indices is None:
        return tf.data.Dataset.range(len(images)).batch(batch_size)
    take = tf.autograph.experimental.do_not_convert(Lookup(indices, tf.int64))
    return tf.data.Dataset.range(len(indices)).batch(batch_size).map(take)


def _check_view(name, view):
    if view is not None and not _is_view(view):
        raise ValueError(
            f"{name}={view} is not called as view(images, seed=…, position=…): pass lambda images, seed, position: "
            "…, in which a layer of Keras is called as layer(images, training=True)."
        )


def _is_view(view):
    if isinstance(view, keras.layers.Layer):
        # Calling one takes any keyword, also those that its `call` does not know.
        return {"seed", "position"} <= inspect.signature(view.call).parameters.keys()
    try:
        inspect.signature(view).bind("images", seed=0, position=0)
    except TypeError:
        return False
    return True


def _traceable(function: Callable) -> Callable:
    """A function that may be traced without AutoGraph.

    Ours branch on nothing that a graph computes, and translating them would take longer than tracing them. A user's
    own may, so that it becomes a function of TensorFlow, which translates what it needs.
    """
    owner = getattr(function, "__self__", function)
    name = getattr(owner, "__module__", type(owner).__module__)
    return function if name.partition(".")[0] == __name__.partition(".")[0] else tf.function(function)


def _labeled_stream(source, split, batch_size, seed, shard, *, by_class) -> Stream | AlternatingStream:
    """The labeled images; where some are trusted and others are not, both kinds in turn."""

    def stream(indices, name):
        placed = (batch_size, seed, name, shard)
        if by_class:
            return BalancedStream(indices, source.train.labels, *placed)
        return Stream(indices, *placed)

    if len(split.trusted) in (0, len(split.labeled)):
        return stream(split.labeled, LABELED_STREAM)
    cheap = stream(np.setdiff1d(split.labeled, split.trusted), LABELED_STREAM)
    trusted = stream(split.trusted, TRUSTED_STREAM)
    return AlternatingStream(trusted, cheap, batch_size, seed, LABELED_STREAM, shard)


def _frequencies(split) -> tuple[float, float]:
    """How often a trusted and a cheap labeled image is drawn, of a mean of 1."""
    total, trusted = len(split.labeled), len(split.trusted)
    if trusted in (0, total):
        return 1.0, 1.0
    return total / (2 * trusted), total / (2 * (total - trusted))


def _check_labels(source, split):
    labels = np.asarray(source.train.labels)[np.asarray(split.labeled, np.int64)]
    if not len(labels):
        raise ValueError(f"The split {split.name!r} has no labeled images: a teacher needs some.")
    if labels.min() < 0 or labels.max() >= source.num_classes:
        wrong = labels[(labels < 0) | (labels >= source.num_classes)][0]
        raise ValueError(
            f"The label {wrong} of a labeled image is outside 0…{source.num_classes - 1}, the classes of "
            f"{source.name!r}: mend the labels or the class names."
        )


def _like(images, view) -> tf.Tensor:
    return tf.ensure_shape(view, images.shape)
