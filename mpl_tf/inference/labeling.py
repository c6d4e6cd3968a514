"""What a finished network says about many images, written into a label store shard by shard."""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.data import pipeline
from mpl_tf.data.batches import fits_input
from mpl_tf.data.images.decoding import CROPPED
from mpl_tf.data.images.images import Images
from mpl_tf.data.images.source import Source
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.distribute import replicas
from mpl_tf.models import heads
from mpl_tf.models.validation import check_networks
from mpl_tf.utils.progress import Progress
from mpl_tf.utils.validation import check_integer


def label_into_store(
    network: keras.Model,
    source: Source,
    path: str | os.PathLike,
    *,
    index: np.ndarray,
    teacher: dict,
    shard_size: int = 4096,
    dtype: str = "float32",
    **options: Any,
) -> LabelStore:
    """Labels training images of a source into a store, which is made, or continued where the same request made it.

    Args:
        network: as for `label`.
        source: of the images and the classes.
        path: of the store's folder.
        index: int `[n]`, the training images to label, each once.
        teacher: names the network and all that its labels depend on besides the images and how they are resized;
            whatever JSON holds.
        shard_size: images per file of the store.
        dtype: of the numbers on disk, "float32" or "float16".
        **options: of `label`.

    Returns:
        The store. Where several workers label, it may lack the shards of the others.

    Raises:
        ValueError: as `LabelStore.create` and `label` do.
    """
    if source.resizing != CROPPED:
        # The fingerprint is that of the files.
        teacher = {**teacher, "resizing": "-".join(source.resizing)}
    store = LabelStore.create(
        path,
        index=index,
        num_classes=source.num_classes,
        teacher=teacher,
        fingerprint=source.train.fingerprint(),
        shard_size=shard_size,
        dtype=dtype,
    )
    label(network, source.train, store, **options)
    return store


def label(
    network: keras.Model,
    images: Images,
    store: LabelStore,
    *,
    batch_size: int = 256,
    workers: int = 1,
    worker: int = 0,
    training: bool = False,
    view: Callable | None = None,
    seed: int = 0,
    jit_compile: bool | str = "auto",
    verbose: int | str = "auto",
) -> int:
    """Makes the shards that a store lacks.

    A batch never holds images of two shards, so a shard's bytes do not depend on which others were there: killed
    at any moment and started again, or dealt out to several workers, the store ends up the same on the same kind of
    device. Runs on all replicas of the current strategy: call it in the `scope()` in which the network was built.

    Args:
        network: `keras.Model` from images `[B, …]` in 0…255 to logits `[B, K]`; of a training method, the network
            that it serves.
        images: `mpl_tf.data.Images` that the store's index counts, `source.train`.
        store: what `LabelStore.create` returned.
        batch_size: images per batch over all replicas; the last batch of a shard is filled up and cut again.
        workers: processes that label into this store, perhaps on different machines.
        worker: this one's number, 0…workers-1. It makes the shards whose number leaves this remainder.
        training: whether dropout and stochastic depth are on, as in Noisy Student's ablation of a noised teacher.
            BatchNorm keeps its learned statistics all the same, so that an image's label does not depend on its
            neighbors. What is drawn depends on `seed` and the image's position in the store alone.
        view: augments the images, `(images, seed=, position=) → float32 [B, …]`; None shows them as they are.
        seed: of the view and of dropout.
        jit_compile: True, False or `"auto"`: on for GPUs, off for CPUs.
        verbose: 0 for silence, 1 for a progress bar, 2 for a line every few seconds, `"auto"` for the bar in a
            terminal and lines elsewhere. Both show how much time is left.

    Returns:
        How many images this call labeled.

    Raises:
        ValueError: for a network, images and a store that do not belong together, a value out of range, or
            outputs that are not finite.
    """
    network = getattr(network, "inference_model", network)
    _check_misfits(network, images, store)
    check_integer("batch_size", batch_size, low=1)
    check_integer("workers", workers, low=1)
    check_integer("worker", worker, low=0, high=workers - 1)
    check_integer("seed", seed, low=0)
    shards = store.missing(range(worker, store.num_shards, workers))
    if not shards:
        return 0
    size = _batch_size(batch_size, store)
    rows = np.concatenate([_batches_of(store.rows(shard), size) for shard in shards])
    batches = pipeline.image_batches(images, store.index[rows.ravel()], size, view, seed)
    count = sum(_count(store.rows(shard)) for shard in shards)
    noise = _noise_on(network) if training else contextlib.nullcontext(lambda position: None)
    with noise as draw_from, Progress(count, "labels", verbose=verbose) as progress:
        predict = _compiled(network, training=training, jit_compile=jit_compile)
        results = _predictions(
            predict, batches, before_batch=lambda number: draw_from((seed, rows[number, 0]))
        )
        for number, shard in enumerate(shards, start=1):
            progress.set_postfix_str(f"shard {number} of {len(shards)}", refresh=False)
            probabilities = np.empty((_count(store.rows(shard)), store.num_classes), np.float32)
            for start in range(0, len(probabilities), size):
                part = probabilities[start : start + size]
                part[:] = next(results)[: len(part)]
                progress.update(len(part))
            _check_divergence(network, store.index[store.rows(shard)], probabilities)
            store.write(shard, probabilities)
    return count


def _compiled(network, *, training, jit_compile):
    """Images `[B, …]` → probabilities float32 `[B, K]` on every replica; traced once, for batches of one size."""
    strategy = tf.distribute.get_strategy()

    @tf.function(jit_compile=replicas.use_xla(jit_compile))
    def probabilities(images):
        return heads.probabilities(network, images, training=training)

    return tf.function(lambda images: strategy.run(probabilities, (images,)))


def _predictions(predict, batches, before_batch):
    """Yields each batch's probabilities as an array, in order.

    The device is given the next batch before it is asked for the results of the last one, so that it never waits
    for their way back or for a shard to be written.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync > 1:
        batches = strategy.experimental_distribute_dataset(batches)

    def gathered(per_replica):
        return np.concatenate([part.numpy() for part in strategy.experimental_local_results(per_replica)])

    waiting = None
    for number, batch in enumerate(batches):
        before_batch(number)
        latest = predict(batch["image"])
        if waiting is not None:
            yield gathered(waiting)
        waiting = latest
    yield gathered(waiting)


@contextlib.contextmanager
def _noise_on(network):
    """Prepares a network to be called with `training=True` without a trace of it remaining.

    Yields:
        A function that lets the network's random layers draw anew, from what its argument, some integers, says.
    """
    known = {id(weight) for weight in network.weights}
    random_states = [variable for variable in network.variables if id(variable) not in known]
    # Layers of other people may hold moving statistics where no list of layers shows them.
    before = [(variable, variable.numpy()) for variable in network.non_trainable_variables]
    # A frozen BatchNormalization runs in inference mode, whatever it is called with.
    frozen = [norm for norm in _batch_norms(network) if norm.trainable]

    def draw_from(position):
        for number, state in enumerate(random_states):
            entropy = np.random.SeedSequence([*map(int, position), number])
            state.assign(entropy.generate_state(2, np.uint32).astype(state.dtype))

    try:
        for norm in frozen:
            norm.trainable = False
        yield draw_from
    finally:
        for norm in frozen:
            norm.trainable = True
        for variable, value in before:
            variable.assign(value)


def _batch_norms(layer):
    if isinstance(layer, keras.layers.BatchNormalization):
        yield layer
    for inner in getattr(layer, "layers", ()):
        yield from _batch_norms(inner)


def _count(rows):
    return rows.stop - rows.start


def _batch_size(batch_size, store):
    """No larger than a shard, and the same for every replica."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return replicas * math.ceil(min(batch_size, _count(store.rows(0))) / replicas)


def _batches_of(rows, size):
    """int64 `[batches, size]`; the last batch is filled up with the last row."""
    batches = math.ceil(_count(rows) / size)
    filled = np.arange(rows.start, rows.start + batches * size)
    return np.minimum(filled, rows.stop - 1).reshape(batches, size)


def _check_misfits(network, images, store):
    check_networks({"network": network})
    shape, takes, gives = tuple(images.image_shape), network.input_shape[1:], network.output_shape[-1]
    if not fits_input(shape, takes):
        raise ValueError(
            f"The images have the shape {shape}, but {network.name!r} takes {takes}: load "
            "them in the size that the network was built for."
        )
    if gives != store.num_classes:
        raise ValueError(
            f"{network.name!r} has {gives} outputs, but the label store {str(store.path)!r} is for "
            f"{store.num_classes} classes: make a store for this network."
        )
    if images.fingerprint() != store.fingerprint:
        raise ValueError(
            f"The label store {str(store.path)!r} is for images with the fingerprint {store.fingerprint[:12]}…, "
            f"and these have {images.fingerprint()[:12]}…: bring the former back, or make another store."
        )


def _check_divergence(network, index, probabilities):
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"The outputs of {network.name!r} on image {index[np.argmin(finite)]} are not finite: take a "
            "checkpoint from before its training diverged."
        )
