"""Requests that an exported network is checked and warmed up with: one set of inputs, for every signature."""

import numpy as np
import tensorflow as tf

from mpl_tf.export import signatures


def random_inputs(shape: tuple[int | None, ...], count: int) -> np.ndarray:
    """Noise that covers the range of pixels, or of standardized points.

    Args:
        shape: of one input. Free sides get 32 pixels.
        count: of inputs.

    Returns:
        `[count, *shape]`: uint8 images or float32 points.
    """
    generator = np.random.default_rng(0)
    size = (count, *(side or 32 for side in shape))
    if len(shape) == 3:
        return generator.integers(0, 256, size, np.uint8)
    return generator.normal(size=size).astype(np.float32)


def requests(inputs: np.ndarray, offered: dict[str, signatures.Signature]) -> dict[str, np.ndarray]:
    """The same inputs in the form that each signature takes.

    Args:
        inputs: from `random_inputs`.
        offered: signatures by name.

    Returns:
        Signature's name as servers know it → its input. Images are encoded as PNG, which loses nothing.
    """
    prepared = {}
    for name, signature in offered.items():
        if name == signatures.BYTES:
            prepared[name] = np.array([_png(image) for image in inputs], object)
        elif name == signatures.CLASSIFY:
            prepared[name] = np.array([example(row).SerializeToString() for row in inputs], object)
        else:
            key = signatures.DEFAULT if name == signatures.PIXELS else name
            prepared[key] = inputs.astype(signature.spec.dtype.as_numpy_dtype)
    return prepared


def example(values: np.ndarray) -> tf.train.Example:
    """The tf.Example of one input, as the Classify signature reads it."""
    if signatures.takes_files(values.shape):
        encoded = tf.train.Feature(bytes_list=tf.train.BytesList(value=[_png(values)]))
        features = {signatures.ENCODED_FEATURE: encoded}
    else:
        numbers = tf.train.Feature(float_list=tf.train.FloatList(value=values.ravel()))
        features = {signatures.VALUES_FEATURE: numbers}
    return tf.train.Example(features=tf.train.Features(feature=features))


def _png(image):
    return tf.io.encode_png(image).numpy()
