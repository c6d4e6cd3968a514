"""What a batch is made of: its numbers and sizes, and checks whose errors say what to do."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def unwrapped(data: Any) -> Any:
    """The batch in what Keras hands to a step: in a tuple, where it comes from `train_on_batch` or a generator.

    Args:
        data: a batch, or a tuple of one and of None.
    """
    if isinstance(data, tuple) and data and isinstance(data[0], dict) and all(x is None for x in data[1:]):
        return data[0]
    return data


def as_floats(batch: dict) -> dict:
    """The same training batch with numbers that its step can compute with.

    Args:
        batch: whose images may be whole numbers, or of different types, and whose stored labels of any.

    Returns:
        A batch with these in float32. Images that all have one floating-point type keep it.
    """
    if not isinstance(batch, dict) or not all(isinstance(entries, dict) for entries in batch.values()):
        return batch  # For which `check_training_batch` raises.
    views = ("image", "weak", "strong")
    found = {
        tf.as_dtype(entries[view].dtype) for entries in batch.values() for view in views if view in entries
    }
    as_they_are = len(found) == 1 and found.pop().is_floating

    def converted(key, value):
        is_wanted = key == "probabilities" or (key in views and not as_they_are)
        return tf.cast(value, tf.float32) if is_wanted else value

    return {
        stream: {key: converted(key, value) for key, value in entries.items()}
        for stream, entries in batch.items()
    }


def check_evaluation_batch(data: Any) -> tuple:
    """Images and labels `[B]` of an evaluation.

    Args:
        data: `{"image", "label"}` or `(x, y)`; more than these may be there.

    Raises:
        ValueError: where there are no labels, or they are not one whole number per image.
    """
    if isinstance(data, dict) and {"image", "label"} <= set(data):
        images, labels = data["image"], data["label"]
    elif isinstance(data, tuple | list) and len(data) >= 2 and data[1] is not None:
        images, labels = data[:2]
    else:
        raise ValueError(
            'Evaluation needs labeled images: pass a dataset of {"image": …, "label": …} or x and y, '
            f"not {tf.nest.map_structure(lambda value: getattr(value, 'shape', value), data)}."
        )
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == 1:
        # As keras.datasets has them.
        labels = tf.squeeze(labels, axis=1)
    elif labels.shape.rank is None:
        # As Keras traces them that has met both.
        labels = tf.reshape(labels, [batch_size(images)])
    _check_class_numbers(labels)
    return images, tf.cast(labels, tf.int32)


def evaluation_weights(data: Any) -> tf.Tensor | None:
    """Weights `[B]` of an evaluation's examples: `"sample_weight"` or the third entry; None where there are none."""
    weights = data.get("sample_weight") if isinstance(data, dict) else (*data, None, None)[2]
    # A column of them, or what Keras has traced for both.
    return None if weights is None else tf.reshape(weights, [-1])


def check_training_batch(
    data: Any,
    network: keras.Model,
    *,
    unlabeled: bool,
    index: bool = False,
    probabilities: tuple = (),
    trusted: str | None = None,
) -> None:
    """Raises for a batch that does not have the structure and the shapes that a `train_step` reads.

    Args:
        data: what `train_step` was given.
        network: one that the images are for.
        unlabeled: whether both views of unlabeled images are read.
        index: whether their positions among the training images are read too.
        probabilities: the streams, of `"labeled"` and `"unlabeled"`, that come with a teacher's stored labels.
        trusted: what reads which labels are trusted, as the error is to call it; None where nothing does.
    """
    needed: dict[str, tuple[str, ...]] = {"labeled": ("image", "label")}
    if unlabeled:
        needed["unlabeled"] = ("weak", "strong", "index") if index else ("weak", "strong")
    for stream, keys in needed.items():
        if not isinstance(data, dict) or stream not in data or not set(keys) <= set(data[stream]):
            raise ValueError(
                f"The batch has no {stream!r} entry with {' and '.join(map(repr, keys))}: "
                "make batches with mpl_tf.data.training_batches."
            )
        for key in keys:
            shape = tuple(data[stream][key].shape[1:])
            if key == "label":
                _check_class_numbers(data[stream][key])
            elif key != "index" and not fits_input(shape, network.input_shape[1:]):
                raise ValueError(
                    f"The batch's {stream} {key} images have shape {shape}, but {network.name!r} takes "
                    f"{tuple(network.input_shape[1:])}: build the networks with the images' shape."
                )
        if "weight" in data[stream]:
            keys = (*keys, "weight")
            _check_weights(data[stream]["weight"])
        if "trusted" in data[stream]:
            keys = (*keys, "trusted")
            _check_trusted(data[stream]["trusted"])
        _check_same_length(stream, {key: data[stream][key].shape[0] for key in keys})
    if trusted and "trusted" not in data["labeled"]:
        raise ValueError(
            f"The batch's labeled entry has no 'trusted', and {trusted} measures the student on trusted images "
            f"alone: draw the split with trusted=, load them with trusted_dir=, or do without {trusted}."
        )
    for stream in probabilities:
        if "probabilities" not in data[stream]:
            raise ValueError(
                f"The batch's {stream} entry has no 'probabilities', the teacher's stored labels: pass targets= "
                "of a label store to mpl_tf.data.training_batches."
            )
        classes, expected = data[stream]["probabilities"].shape[-1], network.output_shape[-1]
        if classes != expected:
            raise ValueError(
                f"The stored labels have {classes} classes and {network.name!r} has {expected}: label the images "
                "with a teacher of the same classes."
            )


def fits_input(shape: Sequence[int | None], input_shape: Sequence[int | None]) -> bool:
    """Whether a network takes images of a shape, of which it may leave sides open.

    Args:
        shape: `(H, W, C)`, of the images.
        input_shape: that of the network, without the batch; None for a side that it leaves open.
    """
    return len(shape) == len(input_shape) and all(
        side in (None, given) for side, given in zip(input_shape, shape, strict=True)
    )


def _check_class_numbers(labels):
    if len(labels.shape) != 1 or not tf.as_dtype(labels.dtype).is_integer:
        raise ValueError(
            f"The batch's labels are {tf.as_dtype(labels.dtype).name} of shape {tuple(labels.shape)}: pass one whole "
            "number per image, its class; the argmax of one-hot labels."
        )


def _check_weights(weights):
    if len(weights.shape) != 1 or not tf.as_dtype(weights.dtype).is_floating:
        raise ValueError(
            f"The batch's weights are {tf.as_dtype(weights.dtype).name} of shape {tuple(weights.shape)}: pass one "
            "floating-point number per labeled image."
        )


def _check_trusted(trusted):
    if len(trusted.shape) != 1 or tf.as_dtype(trusted.dtype) != tf.bool:
        raise ValueError(
            f"The batch's trusted is {tf.as_dtype(trusted.dtype).name} of shape {tuple(trusted.shape)}: pass one "
            "bool per labeled image."
        )


def _check_same_length(stream, rows):
    if len({count for count in rows.values() if count is not None}) > 1:
        counts = ", ".join(f"{key} {count}" for key, count in rows.items())
        raise ValueError(
            f"The entries of the batch's {stream!r} have different lengths ({counts}): each row of all of them "
            "belongs to one image."
        )


def check_index_batch(data: Any) -> None:
    """Raises for a batch that does not number the images that are to be generated."""
    if not isinstance(data, dict) or "index" not in data.get("generated", ()):
        raise ValueError(
            "The batch has no 'generated' entry with 'index': make batches with mpl_tf.data.index_batches."
        )


def batch_size(images: tf.Tensor) -> int | tf.Tensor:
    """How many images a batch has: an int where that is known before the graph runs, else an int32 scalar.

    Args:
        images: `[B, …]`, or anything else with an entry for each image, of known rank.
    """
    return images.shape[0] if images.shape[0] is not None else tf.unstack(tf.shape(images))[0]


def static_batch_size(images: tf.Tensor) -> int:
    """How many images a batch has; raises where the number is not known when the step is traced."""
    if images.shape[0] is None:
        raise ValueError(
            "A batch of an unknown number of images cannot be cut into micro-batches: batch the dataset with "
            "drop_remainder=True, or pass micro_batches=1."
        )
    return images.shape[0]
