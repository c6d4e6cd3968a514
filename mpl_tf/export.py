"""A finished network as a SavedModel that TensorFlow and TensorFlow Serving read without Keras."""

import os
import pathlib
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import checks, files
from mpl_tf.methods import refusals

# Largest difference between the network's logits and the written model's, relative to the largest logit.
TOLERANCE = 1e-4


def saved_model(
    network: keras.Model,
    directory: str | os.PathLike,
    *,
    class_names: Sequence[str],
    num_checks: int = 8,
) -> pathlib.Path:
    """Writes the next version of a SavedModel, and reads it back before it counts as written.

    The signature `serving_default` (also `tf.saved_model.load(path).serve`) takes `images`, float32
    `[batch, *input_shape]` as the network does: raw pixels in 0…255, or points. It returns `probabilities` and
    `logits`, float32 `[batch, K]`, and `classes`, string `[batch]`, the name of the most likely class. The
    names are also in `assets/labels.txt`, one per line.

    Args:
        network: built `keras.Model` from pictures or points to logits `[batch, K]`.
        directory: folder of the versions. The new one is `directory/<highest version + 1>`, the first
            `directory/1`. It appears in one step, so that a server which watches the folder never meets half a
            model, and no version that exists is touched.
        class_names: K different names, in the order of the logits.
        num_checks: on how many random inputs the written model must agree with the network.

    Returns:
        The folder of the new version.

    Raises:
        ValueError: when the network does not have one input and logits, when the class names do not fit it, or
            inside the scope of a strategy.
        RuntimeError: when the written model does not compute what the network does. No version is left then.
    """
    _refuse_network(network)
    class_names = list(class_names)
    _refuse_class_names(class_names, network)
    checks.within("num_checks", num_checks, low=1)
    directory = pathlib.Path(directory)
    while True:
        version = directory / str(_next_version(directory))
        try:
            with files.replacing(version) as temporary:
                _write(network, class_names, temporary)
                _compare(network, temporary, num_checks)
            return version
        except OSError:
            # Another program may have taken this number meanwhile: then there is a next one.
            if not version.exists():
                raise


def classifier(network: keras.Model, class_names: Sequence[str]) -> Callable[[tf.Tensor], dict]:
    """The function that is exported.

    Args:
        network: `keras.Model` from pictures or points to logits `[batch, K]` of any float type.
        class_names: K names, in the order of the logits.

    Returns:
        A function of `images` `[batch, *input_shape]` that returns the dict of `probabilities` and `logits`,
        float32 `[batch, K]`, and `classes`, string `[batch]`.
    """
    names = tf.constant(class_names)

    def classify(images):
        logits = tf.cast(network(images, training=False), tf.float32)
        return {
            "probabilities": tf.nn.softmax(logits),
            "logits": logits,
            "classes": tf.gather(names, tf.argmax(logits, axis=-1)),
        }

    return classify


def _write(network, class_names, folder):
    archive = keras.export.ExportArchive()
    archive.track(network)
    images = tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, name="images")
    archive.add_endpoint("serve", classifier(network, class_names), input_signature=[images])
    archive.write_out(str(folder), verbose=False)
    labels = folder / "assets" / "labels.txt"
    labels.parent.mkdir(exist_ok=True)
    labels.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")


def _compare(network, folder, num_checks):
    images = _random_inputs(network.input_shape[1:], num_checks)
    # On the CPU, since accelerators round float32 products to fewer digits, not always in the same way; and
    # both as graphs, whose fused 16-bit kernels round differently from eager ones.
    with tf.device("CPU:0"):
        expected = tf.function(classifier(network, [""] * network.output_shape[-1]))(images)["logits"]
        written = tf.saved_model.load(str(folder)).signatures["serving_default"](images=images)["logits"]
        difference = tf.reduce_max(tf.abs(written - expected)) / tf.maximum(
            1.0, tf.reduce_max(tf.abs(expected))
        )
    if not np.isfinite(expected).all():
        raise RuntimeError(
            f"The network {network.name!r} was not exported, because its logits on random inputs are not "
            "finite: take a checkpoint from before its training diverged."
        )
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"The SavedModel of {network.name!r} was discarded, because its logits on {num_checks} random "
            f"inputs are {float(difference):.2g} away from the network's, more than {TOLERANCE:g}: look for a "
            "layer that computes something else when it is traced."
        )


def _random_inputs(shape, count):
    """Noise that covers the range of pixels, or of standardized points. Free sides get 32 pixels."""
    generator = np.random.default_rng(0)
    size = (count, *(side or 32 for side in shape))
    inputs = generator.normal(size=size) if len(shape) == 1 else generator.uniform(0.0, 255.0, size)
    return tf.constant(inputs, tf.float32)


def _next_version(directory):
    names = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    return 1 + max((int(name) for name in names if name.isdecimal()), default=0)


def _refuse_network(network):
    if tf.distribute.has_strategy():
        raise ValueError(
            "An export inside strategy.scope() would be read back onto every replica: call it after the scope."
        )
    refusals.networks({"network": network})
    ends = [getattr(network, end, None) for end in ("input_shape", "output_shape")]
    single = all(isinstance(shape, tuple) and len(shape) > 1 for shape in ends)
    if not single or len(ends[1]) != 2 or ends[1][-1] is None:
        raise ValueError(
            f"{network.name!r} maps {ends[0]} to {ends[1]}, but an export needs one input and logits of shape "
            "(None, number of classes): pass one network, for a training method its `served` one."
        )


def _refuse_class_names(class_names, network):
    num_classes = network.output_shape[-1]
    if len(class_names) != num_classes:
        raise ValueError(
            f"There are {len(class_names)} class names, but {network.name!r} has {num_classes} outputs: pass "
            "one name for each, in the order of the logits."
        )
    for index, name in enumerate(class_names):
        if not isinstance(name, str) or name.splitlines() != [name]:
            raise ValueError(
                f"The class name {name!r} is not one line of text, as each line of labels.txt must be: rename it."
            )
        if name in class_names[:index]:
            raise ValueError(f"The class name {name!r} is there more than once: give every class its own.")
