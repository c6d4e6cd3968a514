"""A finished network as a SavedModel that TensorFlow and TensorFlow Serving read without Keras."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import models
from mpl_tf.data.images.decoding import Resizing
from mpl_tf.export import card, signatures, validation, verification, warmup
from mpl_tf.export.example_requests import random_inputs, requests
from mpl_tf.utils import files
from mpl_tf.utils.validation import check_integer

# Largest difference between the network's outputs and the written model's, relative to the largest of them.
TOLERANCE = 1e-4


def saved_model(
    network: keras.Model,
    directory: str | os.PathLike,
    *,
    class_names: Sequence[str] | Mapping[str, int],
    provenance: card.Provenance | None = None,
    **options: Any,
) -> pathlib.Path:
    """Writes the next version of a SavedModel, and reads it back before it counts as written.

    `signatures.signatures` lists what the model answers: pixels, encoded images, tf.Examples. The version
    also holds `assets/labels.txt`, one class name per line, `assets/resizing.json`, how files of other sizes are
    brought to the network's (as its training images were, `models.set_resizing`), warm-up requests for
    TensorFlow Serving where
    tensorflow-serving-api is installed, and a model card, `card.md`.

    Args:
        network: built `keras.Model` from images or points to logits `[n, K]`; or a training method, whose served
            network is written.
        directory: folder of the versions. The new one is `directory/<highest version + 1>`, the first
            `directory/1`. It appears in one step, so that a server which watches the folder never meets half a
            model, and no version that exists is touched.
        class_names: K different names, in the order of the logits; or name → index of the logit.
        provenance: where the network comes from, for the model card. Where it names a run whose version is there
            already, because the run was killed after its export, that version is returned as it is.
        **options: of `write_saved_model`.

    Returns:
        The folder of the version.

    Raises:
        ValueError: when the network does not have one input and logits, when the class names do not fit it, or
            inside the scope of a strategy.
        RuntimeError: when the written model does not compute what the network does. No version is left then.
    """
    network, class_names = validation.single_network(network), validation.listed_names(class_names)
    directory = files.user_path(directory)
    run = provenance.run if provenance else None
    if run:
        files.remove_unfinished(directory, mark=run)
        for number in reversed(_numbers(directory)):
            if card.is_of_run(directory / str(number), run):
                return directory / str(number)

    name = directory.resolve().name

    def write(folder):
        write_saved_model(network, folder, name=name, class_names=class_names, **options)
        card.write_card(folder, network, name=name, class_names=class_names, provenance=provenance)

    return new_version(directory, write, mark=run)


def new_version(
    directory: str | os.PathLike, write: Callable[[pathlib.Path], None], *, mark: str | None = None
) -> pathlib.Path:
    """Adds the next version to a folder of versions, in one step.

    Args:
        directory: folder of the versions.
        write: makes the folder that it is given; it is a temporary one beside the versions. Called once more in
            the rare case that another program takes the number meanwhile.
        mark: of the temporary folder, see `files.replacing`.

    Returns:
        The folder of the new version.
    """
    directory = files.user_path(directory)
    while True:
        version = directory / str(1 + max(_numbers(directory), default=0))
        try:
            with files.replacing(version, mark=mark) as temporary:
                write(temporary)
            return version
        except OSError:
            # Another program may have taken this number meanwhile: then there is a next one.
            if not version.exists():
                raise


def write_saved_model(
    network: keras.Model,
    folder: str | os.PathLike,
    *,
    name: str,
    class_names: Sequence[str],
    top_k: int = 5,
    num_checks: int = 8,
    warm_up: bool | None = None,
    in_new_process: bool = False,
) -> None:
    """Writes a SavedModel into a folder that does not exist yet, and compares it with the network.

    Args:
        network: as for `saved_model`.
        folder: to make.
        name: that the model is served under.
        class_names: as for `saved_model`.
        top_k: how many classes the outputs `classes` and `scores` name.
        num_checks: on how many random inputs each signature must agree with the network, through both of
            TensorFlow's loaders.
        warm_up: whether to add warm-up requests; None adds them where tensorflow-serving-api is installed.
        in_new_process: whether to read the model back in a process that cannot import Keras, which takes seconds
            more, rather than in this one.

    Raises:
        ValueError: as for `saved_model`.
        RuntimeError: as for `saved_model`.
    """
    network, class_names = validation.single_network(network), validation.listed_names(class_names)
    validation.check_network(network)
    validation.check_class_names(class_names, network)
    validation.check_warm_up(warm_up, available=warmup.available())
    check_integer("top_k", top_k, low=1)
    check_integer("num_checks", num_checks, low=1)
    folder = files.user_path(folder)
    offered = signatures.signatures(network, class_names, top_k=top_k)
    _write(network, class_names, offered, folder)
    inputs = random_inputs(network.input_shape[1:], num_checks)
    asked = requests(inputs, offered)
    _compare(
        network,
        inputs,
        (verification.read_in_new_process if in_new_process else verification.read)(folder, asked),
    )
    if warm_up or (warm_up is None and warmup.available()):
        warmup.write(folder, asked, offered, name=name)


def _write(network, class_names, offered, folder):
    archive = keras.export.ExportArchive()
    archive.track(network)
    for name, signature in offered.items():
        archive.add_endpoint(name, signature.function, input_signature=[signature.spec])
    archive.write_out(str(folder), verbose=False)
    if signatures.CLASSIFY in offered:
        # SavedModels of TensorFlow 2 call every method "predict"; the Classify API wants its own.
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(folder))
        updater.replace_method_name(
            signature_key=signatures.CLASSIFY,
            method_name=signatures.CLASSIFY,
            tags=tf.saved_model.SERVING,
        )
        updater.save()
    labels = folder / "assets" / "labels.txt"
    labels.parent.mkdir(exist_ok=True)
    labels.write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")
    if signatures.takes_files(tuple(network.input_shape[1:])):
        resizing = labels.with_name(signatures.RESIZING_FILE)
        resizing.write_text(
            json.dumps(Resizing(*models.get_resizing(network))._asdict()) + "\n", encoding="utf-8"
        )


def _compare(network, inputs, answers):
    names = [""] * network.output_shape[-1]
    # On the CPU, since accelerators round float32 products to fewer digits, not always in the same way; and
    # both as graphs, whose fused 16-bit kernels round differently from eager ones.
    with tf.device("CPU:0"):
        expected = tf.function(signatures.classifier(network, names, top_k=len(names)))(tf.constant(inputs))
    expected = {key: value.numpy() for key, value in expected.items()}
    if not np.isfinite(expected["logits"]).all():
        raise RuntimeError(
            f"The network {network.name!r} was not exported, because its logits on random inputs are not "
            "finite: take a checkpoint from before its training diverged."
        )
    for loader, results in answers.items():
        for signature, outputs in results.items():
            for output in {"logits", "probabilities", "scores"} & outputs.keys():
                wanted = expected[output][:, : outputs[output].shape[1]]
                difference = abs(outputs[output] - wanted).max() / max(1.0, abs(wanted).max())
                if not difference <= TOLERANCE:
                    raise RuntimeError(
                        f"The SavedModel of {network.name!r} was discarded, because its {output} on {len(inputs)} "
                        f"random inputs are {difference:.2g} away from the network's, more than {TOLERANCE:g}, in "
                        f"the signature {signature!r} read by the {loader} loader: look for a layer that computes "
                        "something else when it is traced."
                    )


def _numbers(directory):
    names = [entry.name for entry in directory.iterdir()] if directory.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())
