"""Checks of the values in batches that somebody else has made: classes, indices, the range of the pixels.

A dataset is looked at as it goes by, outside of the compiled step, where XLA drops assertions: losses are nan for a
label that is no class, and a GPU gathers zeros for an index beyond a table, without a word.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.data.batches import unwrapped
from mpl_tf.methods import validation
from mpl_tf.models.surgery import leaf_layers

# Where images are, in batches of training and of evaluation.
_IMAGES = ("image", "weak", "strong")
_WHOLE_NUMBERS = (("labeled", "label"), ("validation", "label"), ("unlabeled", "index"))
# A network that divides by this or more, or subtracts it, has been made for 0…255.
_LARGE = 32.0


class BatchValues:
    """Looks at the values of datasets while somebody trains on them.

    Args:
        networks: the classifiers, which all take the same images.
        num_images: rows of the table that unlabeled images are looked up in; None where there is none.
    """

    def __init__(self, networks: list[keras.Model], num_images: int | None = None) -> None:
        self.num_classes = networks[0].output_shape[-1]
        self.num_images = num_images
        self.rescaling = next(filter(takes_bytes, networks), None)
        self._found: ValueError | None = None

    def watch(self, data: Any) -> Any:
        """A dataset of the same batches, each of which is checked when it is drawn; anything else as it is.

        Args:
            data: what `fit` was given as `x` or as `validation_data`.
        """
        if not isinstance(data, tf.data.Dataset) or not _entries(data.element_spec):
            return data
        seen: set[tuple] = set()

        def look(*values):
            try:
                self._check(dict(zip(_entries(data.element_spec), values, strict=True)), seen)
            except ValueError as error:
                self._found = error
                raise
            return np.int32(0)

        @tf.autograph.experimental.do_not_convert
        def checked(*batch):
            batch = batch if len(batch) > 1 else batch[0]
            tf.numpy_function(look, list(_entries(batch).values()), tf.int32)
            return batch

        return data.map(checked)

    @contextlib.contextmanager
    def raise_found(self) -> Iterator[None]:
        """Raises what has been found, in place of what TensorFlow makes of it."""
        try:
            yield
        except tf.errors.OpError:
            if self._found is None:
                raise
            raise self._found from None

    def _check(self, entries, seen):
        for (stream, key), values in entries.items():
            if not values.size:
                continue
            if key == "label" and values.dtype.kind in "iu":
                check_labels(values, self.num_classes, stream)
            elif key == "index" and self.num_images is not None and values.dtype.kind in "iu":
                validation.check_indices(values, self.num_images)
            elif key in _IMAGES and (stream, key) not in seen and values.any():
                # Black images are black in any range, so that the next ones are looked at.
                seen.add((stream, key))
                check_pixels(values, self.rescaling, f"{stream} {key}")


def takes_bytes(network: keras.Model) -> bool:
    """Whether a network begins with layers that bring pixels in 0…255 to another range.

    Args:
        network: from images to logits.
    """
    for layer in leaf_layers(network):
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = np.abs(layer.scale).max(), np.abs(layer.offset).max()
            return bool(scale <= 1.0 and (scale <= 1.0 / _LARGE or offset >= _LARGE))
        if layer.trainable_weights:
            return False
    return False


def check_labels(labels: np.ndarray, num_classes: int, stream: str) -> None:
    """Raises for a label that is none of the classes.

    Args:
        labels: whole numbers.
        num_classes: K, of the networks.
        stream: as the error is to call the images.
    """
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"A {stream} image has the label {wrong[0]}, and the classes of the networks are 0…{num_classes - 1}: "
            "number the classes from 0 on, leave out images without a label, or build the networks with more classes."
        )


def check_pixels(images: np.ndarray, rescaling: keras.Model | None, what: str) -> None:
    """Raises for images with numbers that are none, and for a range other than 0…255 where a network is made for it.

    Args:
        images: some, not all of them black.
        rescaling: the network that brings pixels in 0…255 to another range itself; None where none is known to.
        what: as the error is to call the images.
    """
    low, high = float(images.min()), float(images.max())
    if not np.isfinite([low, high]).all():
        raise ValueError(f"The batch's {what} images hold NaN or infinity: mend or leave out these images.")
    if rescaling is None or images.ndim != 4:
        return
    remedy = None
    if low >= 0.0 and high < 2.0:
        remedy = "multiply them by 255"
    elif low < 0.0 and high < _LARGE:
        remedy = "undo what standardized them"
    if remedy:
        raise ValueError(
            f"The batch's {what} images have values in {low:.3g}…{high:.3g}, and {rescaling.name!r}, which rescales "
            f"its images itself, takes 0…255: {remedy}."
        )


def _entries(data):
    """(stream, key) → what there is to look at in a batch, or in the specification of one."""
    data = unwrapped(data)
    if isinstance(data, tuple) and len(data) >= 2:
        data = {"image": data[0], "label": data[1]}
    if not isinstance(data, dict):
        return {}
    streams = data if all(isinstance(value, dict) for value in data.values()) else {"validation": data}
    return {
        (stream, key): value
        for stream, entries in streams.items()
        for key, value in entries.items()
        if (key in _IMAGES or (stream, key) in _WHOLE_NUMBERS) and hasattr(value, "dtype")
    }
