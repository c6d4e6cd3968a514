"""How images were brought to a network's size in training, which the network carries into its export."""

import warnings
from collections.abc import Sequence

import keras

# How files are resized where a network does not say so.
DEFAULT = ("crop", "bilinear")


def set_resizing(network: keras.Model, resizing: Sequence[str]) -> keras.Model:
    """Notes how images of other sizes are brought to the size that a network takes.

    `models.save` writes it into the `.keras` file, `models.load` reads it back, the copies that this package makes
    carry it on, and an exported model does the same with the files that it is sent.

    Args:
        network: of images.
        resizing: of the data that it learned from, `Source.resizing`: the words of `resize` and of `interpolation`.

    Returns:
        The network itself.
    """
    resize, interpolation = resizing
    network.resizing = (str(resize), str(interpolation))
    return network


def get_resizing(network: keras.Model) -> tuple[str, str]:
    """Reads what a network carries, the words of `resize` and of `interpolation`; the default where it is nothing."""
    resize, interpolation = getattr(network, "resizing", DEFAULT)
    return resize, interpolation


def copy_resizing(network: keras.Model, copy: keras.Model) -> None:
    """Hands on what a network carries."""
    if hasattr(network, "resizing"):
        set_resizing(copy, network.resizing)


def warn_of_resizing(network: keras.Model, resizing: Sequence[str], *, name: str | None = None) -> None:
    """Warns where a network learned from images that were brought to its size in another way than these.

    Args:
        network: one that carries nothing passes.
        resizing: of the images that it is combined with.
        name: what to call it; None for its own name.
    """
    carried = get_resizing(network)
    if hasattr(network, "resizing") and carried != tuple(resizing):
        warnings.warn(
            f"{name or network.name} learned from images that were brought to one size by resize={carried[0]!r} and "
            f"interpolation={carried[1]!r}, and these are by {resizing[0]!r} and {resizing[1]!r}: pass the same, or "
            "expect it to be less accurate.",
            stacklevel=3,
        )
