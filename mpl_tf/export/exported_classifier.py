"""An exported classifier of images, found and loaded again."""

import hashlib
import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from mpl_tf.data.images.decoding import CROPPED, checked_resizing
from mpl_tf.data.images.images import content_fingerprint
from mpl_tf.export import signatures
from mpl_tf.utils import files


class ExportedClassifier:
    """A version that `saved_model` wrote, as a function of decoded images. Needs no Keras.

    Args:
        path: of the version, or of the folder of the versions, of which the highest is taken.

    Attributes:
        path: of the version.
        image_shape: `(H, W, C)` of the images that it takes.
        resizing: how files of other sizes are brought to it, as in training.
        top_k: how many classes it names for each.

    Raises:
        FileNotFoundError: where there is no SavedModel.
        ValueError: for one that cannot be read, or that does not classify images of one size.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = find_version(path)
        try:
            # Kept, because its variables live as long as it does.
            self._loaded = tf.saved_model.load(str(self.path))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise ValueError(
                f"The SavedModel in {str(self.path)!r} cannot be read ({' '.join(str(error).split())}): export it "
                "again."
            ) from error
        self._signature = self._loaded.signatures.get(signatures.UINT8)
        shape = (
            () if self._signature is None else self._signature.structured_input_signature[1]["images"].shape
        )
        if not signatures.takes_files(tuple(shape[1:])):
            raise ValueError(
                f"The SavedModel in {str(self.path)!r} does not classify gray or RGB images of one size by its "
                f"signature {signatures.UINT8!r}: give one that training with --export_dir or recipes.export wrote."
            )
        self.image_shape = tuple(shape[1:])
        noted = self.path / "assets" / signatures.RESIZING_FILE
        self.resizing = (
            checked_resizing(**json.loads(noted.read_text("utf-8"))) if noted.is_file() else CROPPED
        )
        self.top_k = self._signature.structured_outputs["scores"].shape[-1]

    def __call__(self, images: np.ndarray | tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Classifies images.

        Args:
            images: uint8 `[n, *image_shape]`.

        Returns:
            The names of the likeliest classes, most likely first, bytes `[n, top_k]`, and their probabilities,
            float32 `[n, top_k]`.
        """
        outputs = self._signature(images=tf.convert_to_tensor(images))
        return outputs["classes"].numpy(), outputs["scores"].numpy()

    def fingerprint(self) -> str:
        """The SHA-256, in hexadecimal, of the graph and its variables."""
        parts = []
        for file in [self.path / "saved_model.pb", *sorted(self.path.glob("variables/*"))]:
            with file.open("rb") as stream:
                parts += [file.name, hashlib.file_digest(stream, "sha256").hexdigest()]
        return content_fingerprint(*parts)


def find_version(path: str | os.PathLike) -> pathlib.Path:
    """The folder of a SavedModel.

    Args:
        path: that folder, or that of its versions, of which the highest is taken.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for a .keras file, which does not know the names of its classes.
    """
    path = files.user_path(path)
    if path.suffix == ".keras":
        raise ValueError(
            f"{str(path)!r} is a .keras file, which does not know the names of its classes: export it by "
            "python -m recipes.export --run_dir=<its run> --export_dir=saved_models/<name>, and give that folder."
        )
    if (path / "saved_model.pb").is_file():
        return path
    versions = [file.parent for file in path.glob("*/saved_model.pb") if file.parent.name.isdecimal()]
    if not versions:
        raise FileNotFoundError(
            f"There is no exported model at {str(path)!r}: give the folder of a version or of all versions, as "
            "training with --export_dir and recipes.export leave it."
        )
    return max(versions, key=lambda version: int(version.name))
