"""How many steps one call from Python makes: several where networks are so small that the call itself counts.

A call of a compiled step costs about a millisecond in Python and TensorFlow, whatever the step does. Several steps in
one call are the same steps; in between nobody is told of them, and a signal waits for the last.
"""

import math
from collections.abc import Iterable

import keras
import tensorflow as tf

from mpl_tf.models.surgery import leaf_layers

_MOST_STEPS = 50
# What a loop around the step takes longer to trace is made up for by some hundreds of calls.
_FEWEST_STEPS = 500
# How long a call may take, by a careful guess of what a core multiplies in a second.
_SECONDS, _PRODUCTS_PER_SECOND = 0.5, 1e10
# A forward pass, and a backward one of twice the size.
_PASSES = 3


def suitable_steps(
    networks: Iterable[keras.Model], batches: object, *, epoch_steps: int, total_steps: int
) -> int:
    """Finds how many steps a call is to make.

    Args:
        networks: all that take part in a step.
        batches: what `fit` draws from; of other things than datasets nothing is known.
        epoch_steps: updates per epoch, which calls have to divide.
        total_steps: updates that are made before anything is traced anew.

    Returns:
        The largest divisor of `epoch_steps` up to 50 whose steps take half a second at most, guessed from the
        networks' products. 1 for large networks, few steps, and where the guess is not possible.
    """
    if total_steps < _FEWEST_STEPS:
        return 1
    products = _PASSES * _examples(batches) * sum(map(products_of_pass, networks))
    if not math.isfinite(products):
        return 1
    seconds = products / _PRODUCTS_PER_SECOND
    most = _MOST_STEPS if seconds * _MOST_STEPS <= _SECONDS else int(_SECONDS / seconds)
    return max(number for number in range(1, max(1, most) + 1) if epoch_steps % number == 0)


def products_of_pass(network: keras.Model) -> float:
    """Counts the products of one image's forward pass: those of weights that are matrices, at each position.

    Args:
        network: any.

    Returns:
        The number; infinity where a layer's output has no fixed size.
    """
    total = 0.0
    for layer in leaf_layers(network):
        sizes = [math.prod(weight.shape) for weight in layer.weights if len(weight.shape) > 1]
        if sizes:
            total += sum(sizes) * _positions(layer)
    return total


def _positions(layer):
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        # A layer that is called more than once has several outputs.
        return math.inf
    return math.inf if None in shape[1:] else math.prod(shape[1:-1])


def _examples(batches):
    """How many views of images, or points, there are in a batch, or numbers that images are made of."""
    spec = getattr(batches, "element_spec", None)
    shapes = [leaf.shape for leaf in tf.nest.flatten(spec) if isinstance(leaf, tf.TensorSpec)]
    if not shapes or any(not shape.rank or shape[0] is None for shape in shapes):
        return math.inf
    return sum(shape[0] for shape in shapes if len(shape) > 1) or max(shape[0] for shape in shapes)
