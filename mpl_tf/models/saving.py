"""A network in a `.keras` file, with the names of its classes and how its images are brought to one size."""

import json
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence

import keras

from mpl_tf.models.class_names import check_class_names, get_class_names, set_class_names
from mpl_tf.models.resizing import get_resizing, set_resizing, warn_of_resizing
from mpl_tf.utils import files

# Members that Keras does not look at, beside its own config.json and metadata.json.
_CLASS_NAMES, _RESIZING = "class_names.json", "resizing.json"


def carried(network: keras.Model) -> dict[str, list[str]]:
    """Class names and resizing, as far as a network carries them, ready for JSON; Keras' configuration lacks them."""
    names = get_class_names(network)
    found = {} if names is None else {"class_names": list(names)}
    return found | ({"resizing": list(get_resizing(network))} if hasattr(network, "resizing") else {})


def carry(network: keras.Model, facts: Mapping[str, Sequence[str]]) -> None:
    """Notes on a network what `carried` has returned for the one that it was made of."""
    if "class_names" in facts:
        set_class_names(network, facts["class_names"])
    if "resizing" in facts:
        set_resizing(network, facts["resizing"])


def save(network: keras.Model, path: str | os.PathLike) -> None:
    """Saves a network as Keras does, and with it the class names and the resizing that it carries.

    Args:
        network: to save, without its optimizer.
        path: ends in `.keras`; a file that is there is replaced.
    """
    path = files.user_path(path)
    network.save(path)
    names = get_class_names(network)
    if names is not None:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(_CLASS_NAMES, json.dumps(names, ensure_ascii=False, indent=1) + "\n")
    if hasattr(network, "resizing"):
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(_RESIZING, json.dumps(get_resizing(network)) + "\n")


def load(
    path: str | os.PathLike,
    *,
    class_names: Sequence[str] | None = None,
    resizing: Sequence[str] | None = None,
) -> keras.Model:
    """Reads a network, not compiled, in safe mode: nothing in the file is run as code.

    Args:
        path: of a `.keras` file; where it holds a whole training method, the method's `inference_model` is meant.
        class_names: K names of the data that the network is to be combined with, in the order of their labels; None
            compares nothing.
        resizing: of the images that it is to be combined with; a network that learned from images in another way is
            warned of. None compares nothing.

    Returns:
        The network, which carries the class names and the resizing that it was saved with, if any.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no `.keras` file, holds code or layers that are not known, or was trained for other
            classes.
    """
    path = files.user_path(path)
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {wrong}: give a .keras file, or a role of a run.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a .keras file, or was cut off: give what network.save('name.keras') wrote."
        )
    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except (KeyError, TypeError) as error:
        raise ValueError(_cannot_be_read(path, error)) from error
    # The file may hold a whole training method, which `method.save` wrote.
    network = getattr(network, "inference_model", network)
    with zipfile.ZipFile(path) as archive:
        if _CLASS_NAMES in archive.namelist():
            set_class_names(network, json.loads(archive.read(_CLASS_NAMES)))
        if _RESIZING in archive.namelist():
            set_resizing(network, json.loads(archive.read(_RESIZING)))
    if class_names is not None:
        check_class_names(network, class_names)
    if resizing is not None:
        warn_of_resizing(network, resizing, name=path.name)
    return network


def layer_configs(path: str | os.PathLike) -> Iterator[tuple[str, Mapping]]:
    """Reads of which layers the network in a file is made, without building it.

    Args:
        path: of a `.keras` file.

    Yields:
        The class' name and the configuration of everything that has both; nothing where there is no such file: what
        builds the network says so.
    """
    path = files.user_path(path)
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        waiting = [json.loads(archive.read("config.json"))] if "config.json" in archive.namelist() else []
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if isinstance(part.get("config"), dict):
                yield str(part.get("class_name")), part["config"]
            part = list(part.values())
        if isinstance(part, list):
            waiting += part


def _cannot_be_read(path: pathlib.Path, error: Exception) -> str:
    """Keras' error about a file as a sentence."""
    if unknown := re.search(r"Could not locate \w+ '([^']+)'", str(error)):
        return (
            f"{path} has {unknown[1]!r}, which is not Keras' own: give a network of Keras' layers alone, or, in a "
            "script, import what keras.saving.register_keras_serializable makes known before."
        )
    return f"{path} is no file of a network ({error}): give what network.save('name.keras') wrote."
