"""Plain SGD, with momentum or without, as one operation per weight.

Keras makes a step of a dozen operations for each weight, which together are a third of what a training step consists
of. TensorFlow has kernels that make the same step of one: nothing lies in memory between, and what is left to trace
and to launch is small.
"""

import keras
import tensorflow as tf


class MomentumSteps:
    """The steps of a Keras optimizer, made without it where it is plain SGD.

    Args:
        optimizer: built here if it is not yet, so that its slots are known to be in the order of the variables.
        variables: of the network that it is for.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]):
        self.optimizer, self.variables = optimizer, variables
        self.is_ordered = not optimizer.built
        # A loss scale that is built again has its variables twice, which no file fits then.
        if not optimizer.built:
            optimizer.build(variables)

    def apply(self, gradients: list[tf.Tensor]) -> bool:
        """Makes a step, and counts it.

        Args:
            gradients: one tensor per variable.

        Returns:
            Whether it was made; False where that is for the optimizer itself to do.
        """
        optimizer = self.optimizer
        if not (self.is_ordered and _is_plain(optimizer) and _are_plain(gradients, self.variables)):
            return False
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        slots = optimizer.momentums or [None] * len(self.variables)
        dtypes = {gradient.dtype for gradient in gradients}
        rates = {dtype: tf.cast(rate, dtype) for dtype in dtypes}
        momenta = {dtype: tf.constant(optimizer.momentum, dtype) for dtype in dtypes}
        for variable, slot, gradient in zip(self.variables, slots, gradients, strict=True):
            weight, rate = variable.value.handle, rates[gradient.dtype]
            if slot is None:
                tf.raw_ops.ResourceApplyGradientDescent(var=weight, alpha=rate, delta=gradient)
            else:
                tf.raw_ops.ResourceApplyKerasMomentum(
                    var=weight,
                    accum=slot.value.handle,
                    lr=rate,
                    grad=gradient,
                    momentum=momenta[gradient.dtype],
                    use_nesterov=optimizer.nesterov,
                )
        optimizer.iterations.assign_add(1)
        return True


def _is_plain(optimizer):
    """Whether it does nothing but SGD's step, and on one device."""
    others = ("weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")
    return (
        type(optimizer) is keras.optimizers.SGD
        and not any(getattr(optimizer, name) for name in (*others, "gradient_accumulation_steps", "use_ema"))
        and not tf.distribute.has_strategy()
    )


def _are_plain(gradients, variables):
    """Whether each weight has a dense gradient of its own format, and nothing that Keras would do to it besides."""
    return all(
        isinstance(gradient, tf.Tensor)
        and gradient.dtype == variable.dtype
        and variable.constraint is None
        and not variable.overwrite_with_gradient
        for gradient, variable in zip(gradients, variables, strict=True)
    )
