"""A network from the file that it was saved in."""

import os
import pathlib
import zipfile

import keras


def load(path: str | os.PathLike) -> keras.Model:
    """Reads a network, not compiled, in safe mode: nothing in the file is run as code.

    Args:
        path: of a `.keras` file.

    Returns:
        The network.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no `.keras` file, or holds code.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a .keras file, or a role of a run.")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a .keras file, or was cut off: give what network.save('name.keras') wrote."
        )
    return keras.saving.load_model(path, compile=False, safe_mode=True)
