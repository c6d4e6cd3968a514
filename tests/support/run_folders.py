"""What two run folders have in common."""

import pathlib

import keras
import numpy as np


def assert_same_networks(run: pathlib.Path, other: pathlib.Path) -> None:
    """Asserts that every network of a run has, to the bit, the weights of the other run's network of that name."""
    for file in sorted((run / "networks").iterdir()):
        weights = [
            keras.saving.load_model(folder / "networks" / file.name).get_weights() for folder in (run, other)
        ]
        for one, expected in zip(*weights, strict=True):
            np.testing.assert_array_equal(one, expected)
