"""A finished network as LiteRT models for devices, each measured against the network before it counts as exported."""

import functools
import pathlib
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.export import validation
from mpl_tf.export.interpreter import Interpreter, Model
from mpl_tf.models import heads
from mpl_tf.utils.progress import no_progress
from mpl_tf.utils.validation import check_choice, check_range

KINDS = ("float32", "float16", "int8", "int8_full")
# Of one image, for the latency: enough for a median, and little beside the conversion.
_TIMED, _UNTIMED = 50, 5
_BATCH_SIZE = 64


class Measurement(NamedTuple):
    """How good, how large and how fast a variant is.

    Attributes:
        kind: `"keras"` or one of `KINDS`.
        accuracy: on the validation images.
        agreement: fraction of them for which it predicts the class that the network does.
        size: of the file in bytes; of the weights for the network itself.
        latency: seconds for one image, the median of several calls on one thread (on as many as TensorFlow
            takes, for the network itself).
        operations: `"builtin"`, or what else the model needs.
    """

    kind: str
    accuracy: float
    agreement: float
    size: int
    latency: float
    operations: str

    def row(self) -> dict:
        """A row of the table of variants."""
        return {
            "variant": self.kind,
            "accuracy %": f"{100 * self.accuracy:.2f}",
            "agreement %": f"{100 * self.agreement:.2f}",
            "kB": f"{self.size / 1000:,.1f}",
            "ms per image": f"{1000 * self.latency:.3f}",
            "operations": self.operations,
        }


def write_variants(
    network: keras.Model,
    folder: pathlib.Path,
    *,
    name: str,
    kinds: Sequence[str],
    representative: np.ndarray,
    images: np.ndarray,
    labels: np.ndarray,
    max_accuracy_drop: float = 0.02,
    advance: Callable[[int], None] = no_progress,
) -> list[Measurement]:
    """Writes `<name>_<kind>.tflite` for each kind and measures it on held-out images.

    Args:
        network: built `keras.Model` from images or points to logits.
        folder: that exists.
        name: of the model.
        kinds: of `KINDS`: float32; float16 weights; `int8`, 8-bit weights, and activations quantized as they come
            (dynamic range); `int8_full`, 8-bit weights and activations, uint8 images (int8 points) in and uint8
            probabilities out, for accelerators without floating point.
        representative: float32 `[N, *input_shape]`, training images from which `int8_full` learns the ranges of
            the activations.
        images: float32 `[n, *input_shape]`, validation images.
        labels: int `[n]`, their classes.
        max_accuracy_drop: how far a variant's accuracy may be below the network's, in 0…1.
        advance: is told how many more images are done, `Progress.update`; each counts once for the network and once
            for each kind.

    Returns:
        The measurements of the network and of each kind that was written. A variant whose accuracy falls by more than
        allowed is not, and a warning says so.

    Raises:
        ValueError: for an unknown kind, no images, or where every variant's accuracy falls by more than allowed.
    """
    network = validation.single_network(network)
    validation.check_network(network)
    for kind in kinds:
        check_choice("kind", kind, KINDS)
    check_range("max_accuracy_drop", max_accuracy_drop, low=0.0, high=1.0)
    for what, examples in (("representative", representative), ("validation", images)):
        if not len(examples):
            raise ValueError(
                f"There are no {what} images to make and measure LiteRT models with: leave LiteRT out, or hold "
                "some out."
            )
    reference = _predictions(network.predict_on_batch, images, advance)
    accuracy = float(np.mean(reference == labels))
    size = sum(weight.numpy().nbytes for weight in network.weights)
    latency = median_seconds(lambda: network.predict_on_batch(images[:1]))
    measured, refused = [Measurement("keras", accuracy, 1.0, size, latency, "")], []
    for kind, model in convert(network, kinds, representative):
        run = Interpreter(model)
        predicted = _predictions(run, images, advance)
        found = Measurement(
            kind=kind,
            accuracy=float(np.mean(predicted == labels)),
            agreement=float(np.mean(predicted == reference)),
            size=len(model.content),
            latency=median_seconds(functools.partial(run, images[:1])),
            operations="builtin" if model.builtin else "builtin and TensorFlow's",
        )
        if accuracy - found.accuracy > max_accuracy_drop:
            # Of few images any difference is too large.
            less = ", which is less than one image" if max_accuracy_drop * len(labels) < 1 else ""
            refused.append(
                f"The LiteRT variant {kind!r} has an accuracy of {found.accuracy:.2%} on {len(labels)} validation "
                f"images, the network {accuracy:.2%}: more than max_accuracy_drop={max_accuracy_drop:g} below{less}"
            )
            continue
        (folder / f"{name}_{kind}.tflite").write_bytes(model.content)
        measured.append(found)
    if refused and len(measured) == 1:
        raise ValueError(" ".join(f"{reason}. Leave this variant out, or allow more." for reason in refused))
    for reason in refused:
        warnings.warn(f"{reason}, so that it is left out. Allow more to have it.", stacklevel=2)
    return measured


def convert(
    network: keras.Model, kinds: Sequence[str], representative: np.ndarray
) -> Iterator[tuple[str, Model]]:
    """Converts a network to functions of `images` that return `probabilities`, of any batch size.

    Args:
        network: from images or points to logits.
        kinds: of `KINDS`.
        representative: as for `write_variants`.

    Yields:
        Kind and model, in the order of `kinds`.
    """

    def probabilities(images):
        return {"probabilities": heads.probabilities(network, images)}

    images = tf.TensorSpec([None, *network.input_shape[1:]], tf.float32, "images")
    with tempfile.TemporaryDirectory() as folder:
        # Through a SavedModel: the converter does not freeze Keras 3's variables in a function of its own.
        archive = keras.export.ExportArchive()
        archive.track(network)
        archive.add_endpoint("serve", probabilities, input_signature=[images])
        archive.write_out(folder, verbose=False)
        for kind in kinds:
            try:
                yield kind, Model(_converter(folder, kind, representative, builtin=True).convert(), True)
            except Exception as error:  # The converter's own error class is not public.
                if "Converter" not in type(error).__name__:
                    raise
                yield kind, Model(_converter(folder, kind, representative, builtin=False).convert(), False)


def median_seconds(call: Callable[[], object]) -> float:
    """The median time of a call, after some that are not counted."""
    times = []
    for _ in range(_UNTIMED + _TIMED):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times[_UNTIMED:])


def _converter(folder, kind, representative, *, builtin):
    sets = tf.lite.OpsSet
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
    operations = [sets.TFLITE_BUILTINS_INT8 if kind == "int8_full" else sets.TFLITE_BUILTINS]
    converter.target_spec.supported_ops = operations if builtin else [*operations, sets.SELECT_TF_OPS]
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8_full":
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in representative)
        # Pixels are bytes already; points have signs.
        converter.inference_input_type = tf.uint8 if representative.ndim == 4 else tf.int8
        converter.inference_output_type = tf.uint8
    return converter


def _predictions(run, images, advance):
    """The most likely class of each image, int `[n]`."""
    classes = []
    for start in range(0, len(images), _BATCH_SIZE):
        classes.append(np.argmax(run(images[start : start + _BATCH_SIZE]), axis=-1))
        advance(len(classes[-1]))
    return np.concatenate(classes)
