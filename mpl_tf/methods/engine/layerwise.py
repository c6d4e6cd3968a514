"""A smaller learning rate for a network's backbone than for its head.

Keras' optimizers have one learning rate. A factor on the gradients would do for plain SGD, but Adam and its
relatives divide it out again. So the factor is put on what an optimizer's step has changed: w ← w₀ + f (w₁ − w₀).
Keras' optimizers change weights, and decay them, in proportion to the learning rate, so this is the step that an
optimizer of its own, with f times the learning rate, would make on these weights, under a schedule and with momentum
too, whose velocity is a sum of such changes. It needs no state: nothing is lost on resuming, and every replica does
the same.
"""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from mpl_tf.models import heads


class BackboneSteps:
    """Shortens an optimizer's steps on all weights of a network but its head's.

    Args:
        network: whose last layer is dense.
        factor: f, of the backbone's learning rate to the head's, 0…1; 1 changes nothing.

    Raises:
        ValueError: for a network without such a head.
    """

    def __init__(self, network: keras.Model, factor: float):
        self.network = network
        self.factor = float(factor)
        self.variables = []
        if self.factor == 1.0:
            return
        head = heads.find_head(network)
        if head is None:
            raise ValueError(
                f"backbone_learning_rate_factor={factor} needs a network that ends in a dense layer, the head, and "
                f"{network.name!r} does not: leave it at 1, or build the network with a layer logits."
            )
        in_head = {id(variable) for variable in head.trainable_variables}
        self.variables = [v for v in network.trainable_variables if id(v) not in in_head]

    def scale(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Multiplies those of a network's gradients by f that belong to the backbone.

        Args:
            tensors: one per trainable variable of the network.

        Returns:
            As many.
        """
        short = {id(variable) for variable in self.variables}
        pairs = zip(tensors, self.network.trainable_variables, strict=True)
        return [tensor * self.factor if id(variable) in short else tensor for tensor, variable in pairs]

    @contextlib.contextmanager
    def shorten(self) -> Iterator[None]:
        """Goes back a part of the way that the optimizer's step inside the block has gone."""
        before = [tf.identity(variable.value) for variable in self.variables]
        yield
        for variable, old in zip(self.variables, before, strict=True):
            variable.assign(old + self.factor * (variable.value - old))
