"""Reduced Meta Pseudo Labels' calibrator: a small network that adjusts a large teacher's stored distributions."""

import keras
from keras import layers

from mpl_tf.models.surgery import clone_with_edits, seed_from
from mpl_tf.utils.validation import check_integer


def build_calibrator(
    num_classes: int, *, width: int = 64, depth: int = 1, seed: int | None = None
) -> keras.Model:
    """Builds a multilayer perceptron from log-probabilities to logits that starts as the identity.

    Its last layer starts at zero and is added to its input, so that at first the student learns exactly what the
    large teacher said.

    Args:
        num_classes: K, 2 or more.
        width: units of each hidden layer.
        depth: hidden layers, with ReLU; 0 leaves a linear map of the log-probabilities.
        seed: of the initial weights; without one Keras' global generator draws them.

    Returns:
        A model from log-probabilities `[B, K]` to logits, float32 `[B, K]`.

    Raises:
        ValueError: for a number out of range.
    """
    check_integer("num_classes", num_classes, low=2)
    check_integer("width", width, low=1)
    check_integer("depth", depth, low=0)
    inputs = keras.Input((num_classes,), dtype="float32", name="log_probabilities")
    hidden = inputs
    for index in range(depth):
        hidden = layers.Dense(width, activation="relu", dtype="float32", name=f"hidden_{index + 1}")(hidden)
    change = layers.Dense(num_classes, kernel_initializer="zeros", dtype="float32", name="change")(hidden)
    logits = layers.Add(dtype="float32", name="logits")([inputs, change])
    model = keras.Model(inputs, logits, name="calibrator")
    return model if seed is None else clone_with_edits(model, seed_from(seed))
