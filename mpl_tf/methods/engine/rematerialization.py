"""A network as a chain of segments, of which only the inputs are kept until the backward pass.

Chen, Xu, Zhang, Guestrin 2016, *Training Deep Nets with Sublinear Memory Cost* (arXiv 1604.06174): a backward pass
that computes a segment's activations again from the segment's input needs the inputs of all segments and the
activations of one. In residual networks the segments found here are the blocks.

`keras.RematScope` and `tf.recompute_grad` are not used. They run a layer's `call` a second time, with what it does
to variables: dropout draws another mask for the gradient than it drew for the loss, and BatchNorm's moving statistics
move more than once. And a remat scope is a layer's, so what lies between the layers of a block would be kept.
"""

import collections

import keras
import tensorflow as tf

from mpl_tf.methods import validation
from mpl_tf.methods.engine import kernels
from mpl_tf.models.surgery import as_functional

# Shorter segments would save less than keeping their inputs costs.
SMALLEST_SEGMENT = 4


class Segments:
    """A network's pass in training mode, in segments.

    Args:
        network: built `keras.Model` from images to logits.

    Raises:
        ValueError: when its layers cannot be followed from the input to the output, or its class has a call of its
            own.
    """

    def __init__(self, network: keras.Model):
        self.network = network
        ends = _ends_of_segments(as_functional(network))
        self.segments = [keras.Model(start, end) for start, end in ends]

    def __call__(self, images: tf.Tensor, weights: list, state: list) -> tuple[tf.Tensor, list]:
        """The pass as a function, differentiable once with respect to images and weights.

        Args:
            images: `[B, H, W, C]`.
            weights: one tensor per trainable variable of the network.
            state: one per non-trainable variable.

        Returns:
            Logits `[B, K]`, and the state afterwards.
        """
        variables = [*self.network.trainable_variables, *self.network.non_trainable_variables]
        values = {id(variable): value for variable, value in zip(variables, [*weights, *state], strict=True)}
        outputs = tf.cast(images, tf.float32)
        for segment in self.segments:
            own_weights = [values[id(variable)] for variable in segment.trainable_variables]
            own_state = [values[id(variable)] for variable in segment.non_trainable_variables]
            outputs, own_state = _rematerialized(segment, outputs, own_weights, own_state)
            values.update(zip(map(id, segment.non_trainable_variables), own_state, strict=True))
        return outputs, [values[id(variable)] for variable in self.network.non_trainable_variables]


def _rematerialized(segment, inputs, weights, state):
    @tf.custom_gradient
    def run(inputs, *weights):
        def backward(tangents, *_):
            with tf.control_dependencies([tangents]):
                sources = [not_before(tangents, inputs), *map(tf.identity, weights)]
                with kernels.training_pass(statistics=False), tf.GradientTape() as tape:
                    tape.watch(sources)
                    outputs, _ = segment.stateless_call(sources[1:], state, sources[0], training=True)
                towards_inputs, *towards_weights = tape.gradient(
                    outputs, sources, tangents, tf.UnconnectedGradients.ZERO
                )
            # The segment before this one begins when this one's activations are read for the last time. The weights'
            # gradients read them too, and an executor that left those for later would keep all segments' activations.
            with tf.control_dependencies(towards_weights):
                return [tf.identity(towards_inputs), *towards_weights]

        with kernels.training_pass():
            outputs = segment.stateless_call(list(weights), state, inputs, training=True)
        return outputs, backward

    return run(inputs, *weights)


def not_before(tangents: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """The inputs of a second pass, which is to wait for the gradient, or its activations would wait in memory.

    XLA knows no control dependencies, and merges two passes unless their inputs differ; these do not in value.
    """
    zero = tf.minimum(tf.abs(tf.reshape(tangents, [-1])[0]), 0.0)
    return inputs + tf.cast(zero, inputs.dtype)


def _ends_of_segments(network):
    """First and last symbolic tensor of each segment: where one tensor alone carries the network on."""
    operations = keras.Function(network.inputs, network.outputs).operations
    operations = [op for op in operations if not isinstance(op, keras.layers.InputLayer)]
    readers = collections.Counter(id(tensor) for op in operations for tensor in keras.tree.flatten(op.input))
    readers[id(network.outputs[0])] += 1
    start, alive, ends = network.inputs[0], {id(network.inputs[0])}, []
    length, left = 0, len(operations)
    for op in operations:
        read = list(map(id, keras.tree.flatten(op.input)))
        if not alive.issuperset(read):
            break
        readers.subtract(read)
        alive |= set(map(id, keras.tree.flatten(op.output)))
        alive = {tensor for tensor in alive if readers[tensor]}
        length, left = length + 1, left - 1
        if alive == {id(op.output)} and (min(length, left) >= SMALLEST_SEGMENT or not left):
            ends.append((start, op.output))
            start, length = op.output, 0
    validation.check_layers(network, reached=start is network.outputs[0])
    return ends
