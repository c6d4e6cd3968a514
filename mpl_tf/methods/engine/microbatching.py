"""A network's pass in training mode, whose activations may be kept for a part of it only.

The losses of every method need nothing from a network but its logits. So its pass can be made in micro-batches, of
which the logits are kept; where a gradient comes back, each micro-batch is passed once more, and the weights'
gradients are added up. This happens inside one step, which optimizers that accumulate gradients cannot do for Meta
Pseudo Labels: its feedback needs a student's step for every teacher's.

The pass is a pure function of the weights and of the state (BatchNorm's moving statistics, dropout's seeds). The
second pass of a micro-batch begins with the state that the first one began with, so that it draws the same masks,
and nothing is counted twice.
"""

import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.data.batches import static_batch_size
from mpl_tf.distribute import replicas
from mpl_tf.methods.engine import kernels, normalization, pointwise
from mpl_tf.methods.engine.rematerialization import Segments, not_before
from mpl_tf.models.surgery import regularized_parts


class TrainingPass:
    """Logits of a network in training mode.

    Args:
        network: built `keras.Model` from images to logits.
        micro_batches: in how many parts a batch is passed. Each has its fraction of every stream, and BatchNorm takes
            its statistics over it; without BatchNorm and dropout the result does not depend on their number.
        rematerialize: whether the backward pass computes activations again, block by block, instead of keeping them.
    """

    def __init__(self, network: keras.Model, *, micro_batches: int = 1, rematerialize: bool = False):
        self.network = network
        pointwise.prepare(network)
        normalization.prepare(network)
        self.micro_batches = micro_batches
        self.segments = Segments(network) if rematerialize else None

    @property
    def is_plain(self) -> bool:
        """Whether it is no other than calling the network."""
        return self.micro_batches == 1 and self.segments is None

    def logits(self, images: tf.Tensor, *, transposable: bool = False) -> tf.Tensor:
        """The pass of a training step, which moves the network's statistics and seeds on.

        Args:
            images: `[B, H, W, C]`. In several micro-batches no gradient reaches them.
            transposable: as in `kernels.training_pass`, for a plain pass.

        Returns:
            float32 `[B, K]`.
        """
        if self.is_plain:
            with kernels.training_pass(transposable=transposable):
                logits = tf.cast(self.network(images, training=True), tf.float32)
            _warn_of_added_losses(self.network)
            return logits
        state = tensors(self.network.non_trainable_variables)
        logits, state = self(images, tensors(self.network.trainable_variables), state)
        for variable, value in zip(self.network.non_trainable_variables, state, strict=True):
            variable.assign(value)
        return logits

    def __call__(
        self, images: tf.Tensor, weights: list, state: list, *, statistics: bool = True
    ) -> tuple[tf.Tensor, list]:
        """The pass as a function, differentiable once with respect to the weights.

        Args:
            images: `[B, H, W, C]`.
            weights: one tensor per trainable variable of the network.
            state: one per non-trainable variable.
            statistics: whether the moving statistics of the state afterwards are wanted; they may not move else.

        Returns:
            Logits float32 `[B, K]`, and the state afterwards.
        """
        if self.micro_batches == 1:
            return self._whole(images, weights, state, statistics=statistics)
        parts = self._cut(images)

        @tf.custom_gradient
        def run(*weights):
            def backward(tangents, *_):
                with tf.control_dependencies([tangents]):
                    return self._gradients(images, parts, weights, state, tangents)

            return self._logits(images, parts, weights, state), backward

        return run(*weights)

    def derivative(
        self, images: tf.Tensor, weights: list, state: list, *, along: list, method: Callable
    ) -> tf.Tensor:
        """Derivative of the logits along a direction of the weights.

        Args:
            images: `[B, H, W, C]`.
            weights: as in a call.
            state: as in a call.
            along: tensors of the weights' shapes.
            method: `estimators.directional_derivative`, or the one by reverse mode.

        Returns:
            float32 `[B, K]`.
        """
        if self.micro_batches == 1:
            return method(
                lambda weights: self.plain(images, weights, state, statistics=False)[0], weights, along
            )

        def derivative_of(rows, derivatives, state):
            def logits(weights):
                nonlocal state
                part, state = self.plain(tf.gather(images, rows), weights, state)
                return part

            part = method(logits, list(map(tf.identity, weights)), list(map(tf.identity, along)))
            return _put(derivatives, rows, part), state

        derivatives = tf.zeros([images.shape[0], self.network.output_shape[-1]])
        return _in_turn(derivative_of, self._cut(images), derivatives, state)[0]

    def plain(
        self, images: tf.Tensor, weights: list, state: list, *, statistics: bool = True
    ) -> tuple[tf.Tensor, list]:
        """The same as a call in one piece, all of whose activations are kept; differentiable any number of times."""
        with kernels.training_pass(statistics=statistics):
            logits, state = self.network.stateless_call(list(weights), list(state), images, training=True)
        return tf.cast(logits, tf.float32), list(state)

    def _logits(self, images, parts, weights, state):
        """The logits of all micro-batches, and the state afterwards."""

        def add_logits(rows, logits, state):
            part, state = self.plain(tf.gather(images, rows), weights, state)
            return _put(logits, rows, part), state

        logits = tf.zeros([images.shape[0], self.network.output_shape[-1]])
        return _in_turn(add_logits, parts, logits, state)

    def _gradients(self, images, parts, weights, state, tangents):
        """The weights' gradients, summed over all micro-batches, of which each is passed once more."""

        def add_gradients(rows, sums, state):
            # Under names of the loop's own, or the tape would not find them there.
            own = list(map(tf.identity, weights))
            with tf.GradientTape() as tape:
                tape.watch(own)
                part, state = self._whole(not_before(tangents, tf.gather(images, rows)), own, state)
            gradients = tape.gradient(part, own, tf.gather(tangents, rows), tf.UnconnectedGradients.ZERO)
            return [total + gradient for total, gradient in zip(sums, gradients, strict=True)], state

        return _in_turn(add_gradients, parts, [tf.zeros_like(weight) for weight in weights], state)[0]

    def _whole(self, images, weights, state, *, statistics=True):
        """One pass without micro-batches, to be differentiated."""
        if self.segments is None:
            return self.plain(images, weights, state, statistics=statistics)
        logits, state = self.segments(images, weights, state)
        return tf.cast(logits, tf.float32), state

    def _cut(self, images):
        """Which rows each micro-batch has: arrays `[m, b]` of those that have b rows each."""
        rows = static_batch_size(images)
        count = min(self.micro_batches, rows)
        # Every count-th row, since a batch may hold its labeled images first and its unlabeled ones after them.
        parts = [np.arange(first, rows, count) for first in range(count)]
        larger = rows % count
        return [np.stack(same) for same in (parts[:larger], parts[larger:]) if same]


def _warn_of_added_losses(network):
    """Warns of what layers pass to `add_loss`, which only a pass shows; `compile` has warned of regularizers."""
    if network.losses and not regularized_parts(network):
        warnings.warn(
            f"A layer of {network.name!r} calls add_loss, and a method minimizes the losses of its paper alone: what "
            "is added has no effect. Subclass the method to minimize it, too.",
            stacklevel=2,
        )


def _put(logits, rows, part):
    return tf.tensor_scatter_nd_update(logits, rows[:, tf.newaxis], part)


def _in_turn(step, parts, total, state):
    """Calls `step(rows, total, state)` for each part after the one before, so that one is in memory at a time."""
    for same_size in parts:
        total, state = _loop(step, tf.constant(same_size), total, state)
    return total, state


def _loop(step, parts, total, state):
    if replicas.replica_count() == 1:
        _, total, state = tf.while_loop(
            lambda index, *_: index < parts.shape[0],
            lambda index, *values: (index + 1, *step(parts[index], *values)),
            (0, total, state),
            parallel_iterations=1,
        )
        return total, state
    # Sums over replicas, which synchronized BatchNorm makes, cannot be inside of a loop.
    for rows in tf.unstack(parts):
        with tf.control_dependencies(tf.nest.flatten((total, state))):
            total, state = step(rows, total, state)
    return total, state


def tensors(variables: list) -> list:
    """The current values of Keras variables, unaffected by later assignments."""
    return [tf.convert_to_tensor(variable.value) for variable in variables]
