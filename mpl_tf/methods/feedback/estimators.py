"""The student's feedback to the teacher: every estimator of the meta gradient, as pure functions.

Meta Pseudo Labels (Pham et al. 2021, arXiv 2003.10580) trains the teacher to lower the loss that the
student has on labeled images *after* learning from the teacher's pseudo labels:

    minimise over θ_T   L_l(θ_S'),   θ_S' = θ_S - η ∇ (1/N) Σ_i CE(ŷ_i, S(x_i; θ_S)).

Each estimator returns the gradient of that with respect to the teacher's logits t_i on the unlabeled
images; the caller carries it into the teacher's weights with the vector-Jacobian product of the pass it
made anyway. In the table q = softmax(t), v = ∇L_l at the NEW weights, u_i = derivative of the student's logits on
image i along v, at the OLD weights.

| estimator | gradient on t_i | exactness for a plain SGD step |
|---|---|---|
| `per_example` | (η/N) q_i ⊙ (u_i - ⟨q_i, u_i⟩) | equals autodiff through the soft-label step |
| `scalar` with `dot_product` | h (q_i - y_i), h = η ⟨v, g⟩ | unbiased up to O(η²) |
| `scalar` with the loss difference | the same, h = L_l(θ_S) - L_l(θ_S') | unbiased for E_y[L_l(θ_S'(y))] |
| `unrolled` | autodiff through the soft-label step | exact |

g is the gradient of the *mean* cross-entropy that the student descended, and (q_i - y_i) the gradient of
the *sum* of the teacher's cross-entropies to its own samples. The paper's pseudo-code takes the mean there,
which is the same direction divided by N.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

Weights = Sequence[tf.Tensor]


def directional_derivative(
    function: Callable[[Weights], tf.Tensor], weights: Weights, direction: Weights
) -> tf.Tensor:
    """Derivative of `function` at `weights` along `direction`, in one forward-mode pass.

    Args:
        function: maps a list of tensors to logits `[N, K]`. It must use the tensors it is handed;
            `keras.Model.stateless_call` does.
        weights: where the derivative is taken: the student's old weights.
        direction: tensors of the same shapes: v.

    Returns:
        float `[N, K]`: u.
    """
    with tf.autodiff.ForwardAccumulator(list(weights), list(direction)) as accumulator:
        outputs = function(weights)
    return accumulator.jvp(outputs, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def directional_derivative_by_reverse(
    function: Callable[[Weights], tf.Tensor], weights: Weights, direction: Weights
) -> tf.Tensor:
    """The same derivative by two reverse passes: ∂⟨Jᵀw, direction⟩/∂w, which does not depend on w.

    Slower than `directional_derivative`, but right where forward mode is not: TensorFlow's accumulator loses the
    tangents that pass through an all-reduce, as those of synchronized BatchNorm over several replicas do.

    Args:
        function: as in `directional_derivative`.
        weights: the student's old weights.
        direction: v.

    Returns:
        float `[N, K]`: u.
    """
    weights = list(weights)
    with tf.GradientTape() as outer_tape:
        with tf.GradientTape() as inner_tape:
            inner_tape.watch(weights)
            outputs = function(weights)
        cotangent = tf.zeros_like(outputs)
        outer_tape.watch(cotangent)
        pulled_back = inner_tape.gradient(
            outputs, weights, output_gradients=cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        product = inner_product(pulled_back, direction)
    return outer_tape.gradient(product, cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO)


class TransposedGradient:
    """The same derivative from the gradient that the network has learned from: no further pass through it.

    Where ⟨w, f⟩ is added to a loss of the outputs f, its gradient with respect to the weights is g + Jᵀ w: linear
    in w, and with w = 0 still g. The derivative of ⟨g + Jᵀ w, v⟩ with respect to w is J v (J. Townsend 2017, *A new
    trick for calculating Jacobian vector products*). It costs two products per layer, where a forward-mode pass
    costs three, and keeps the activations of the pass until it is taken.

    Args:
        outputs: float `[N, K]`, recorded by the tape that the gradient will be taken from.
    """

    def __init__(self, outputs: tf.Tensor):
        self.cotangents = tf.zeros_like(outputs)
        self.term = tf.reduce_sum(self.cotangents * outputs)

    def record(self, gradients: Callable[[], list[tf.Tensor]]) -> list[tf.Tensor]:
        """Computes the gradients that the derivative will be taken of.

        Args:
            gradients: returns those of the loss with `term`, one tensor per weight.

        Returns:
            What that returns.
        """
        with tf.GradientTape(watch_accessed_variables=False) as self._tape:
            self._tape.watch(self.cotangents)
            self._gradients = gradients()
        return self._gradients

    def directional_derivative(self, direction: Weights) -> tf.Tensor:
        """The derivative of the outputs along a direction; once.

        Args:
            direction: v, of the shapes of the recorded gradients.

        Returns:
            float `[N, K]`: u.
        """
        zero = tf.UnconnectedGradients.ZERO
        return self._tape.gradient(self._gradients, self.cotangents, list(direction), zero)


def finite_difference(
    function: Callable[[Weights], tf.Tensor],
    weights: Weights,
    direction: Weights,
    *,
    outputs: tf.Tensor,
    radius: float = 3e-4,
) -> tf.Tensor:
    """Approximates `directional_derivative` with one plain forward pass: (f(θ + εv) - f(θ)) / ε.

    Args:
        function: as in `directional_derivative`.
        weights: the student's old weights.
        direction: v.
        outputs: float `[N, K]`, `function(weights)`, known from the pass that the student learned from.
        radius: ε‖v‖, the length of the step taken in weight space.

    Returns:
        float `[N, K]`. In float32 its relative error was 0.3 to 1.2% at the default radius on three networks, a
        convolutional and two wide residual ones, and larger at every other: above, activations change their side;
        below, the logits' difference drowns in their rounding.
    """
    epsilon = radius / tf.maximum(tf.linalg.global_norm(direction), 1e-12)
    moved = [weight + epsilon * tangent for weight, tangent in zip(weights, direction, strict=True)]
    return (function(moved) - outputs) / tf.cast(epsilon, outputs.dtype)


def softmax_jacobian_product(teacher_logits: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """The gradient of Σ_k q_k values_k with respect to the logits of q: q ⊙ (values - ⟨q, values⟩).

    Args:
        teacher_logits: float `[N, K]`.
        values: float `[N, K]`, what each class of each image is worth.

    Returns:
        float `[N, K]`.
    """
    probabilities = tf.nn.softmax(teacher_logits)
    return probabilities * (values - tf.reduce_sum(probabilities * values, axis=-1, keepdims=True))


def per_example(teacher_logits: tf.Tensor, tangents: tf.Tensor, *, learning_rate: tf.Tensor) -> tf.Tensor:
    """The exact meta gradient, every class of every image at once: no sampling noise.

    Args:
        teacher_logits: float `[N, K]`, on the images that the student learned from.
        tangents: float `[N, K]`, u: `directional_derivative` of the student's logits along v.
        learning_rate: η of the student's step.

    Returns:
        float `[N, K]`: (η/N) q ⊙ (u - ⟨q, u⟩).
    """
    scale = learning_rate / tf.cast(tf.shape(tangents)[0], tangents.dtype)
    return scale * softmax_jacobian_product(teacher_logits, tangents)


def dot_product(
    labeled_gradients: Weights, student_gradients: Weights, *, learning_rate: tf.Tensor
) -> tf.Tensor:
    """The paper's scalar h = η ⟨v, g⟩ (appendix A, equation 12).

    Args:
        labeled_gradients: v, the gradient of the labeled loss at the student's new weights.
        student_gradients: g, the gradient that the student descended, at its old weights.
        learning_rate: η of the student's step.

    Returns:
        scalar: to first order, how much the step lowered the labeled loss.
    """
    product = inner_product(labeled_gradients, student_gradients)
    return _in_dtype(learning_rate, product.dtype) * product


def inner_product(left: Weights, right: Weights) -> tf.Tensor:
    """⟨left, right⟩ over two lists of tensors of the same shapes; a scalar."""
    return tf.add_n([tf.reduce_sum(a * b) for a, b in zip(left, right, strict=True)])


def cosine(value: tf.Tensor, left: Weights, right: Weights) -> tf.Tensor:
    """The scale-free form of a scalar feedback, value / (‖left‖ ‖right‖); zero where a norm is zero."""
    norms = tf.linalg.global_norm(left) * tf.linalg.global_norm(right)
    return tf.math.divide_no_nan(_in_dtype(value, norms.dtype), norms)


def scalar(teacher_logits: tf.Tensor, labels: tf.Tensor, feedback: tf.Tensor) -> tf.Tensor:
    """REINFORCE with one feedback for the whole batch: h (q_i - y_i).

    A positive h means that the student improved, and descending this gradient makes the sampled labels more
    likely. h is the OLD labeled loss minus the NEW one; with the sign reversed the teacher learns to hurt.

    Args:
        teacher_logits: float `[N, K]`.
        labels: int `[N]`, the one sample that the student learned from.
        feedback: scalar h.

    Returns:
        float `[N, K]`: the gradient of h Σ_i CE(y_i, t_i).
    """
    one_hot = tf.one_hot(labels, teacher_logits.shape[-1], dtype=teacher_logits.dtype)
    return feedback * (tf.nn.softmax(teacher_logits) - one_hot)


def unrolled(
    teacher_logits: tf.Tensor,
    student_logits: Callable[[Weights], tf.Tensor],
    labeled_loss: Callable[[Weights], tf.Tensor],
    weights: Weights,
    *,
    learning_rate: tf.Tensor,
    other_loss: Callable[[Weights], tf.Tensor] | None = None,
) -> tf.Tensor:
    """Autodiff through the student's soft-label SGD step: second order, slow, and nothing to derive.

    Args:
        teacher_logits: float `[N, K]`.
        student_logits: maps the student's weights to its logits `[N, K]` on the same images.
        labeled_loss: maps the student's weights to its loss on the labeled images.
        weights: the student's old weights.
        learning_rate: η of the step to go through.
        other_loss: maps the student's weights to what its step minimizes beside the mean cross-entropy; None for
            nothing.

    Returns:
        float `[N, K]`: ∂ L_l(θ - η ∇ (mean CE + other loss)) / ∂ teacher_logits.
    """
    weights = list(weights)
    with tf.GradientTape() as teacher_tape:
        teacher_tape.watch(teacher_logits)
        with tf.GradientTape() as student_tape:
            student_tape.watch(weights)
            log_probabilities = tf.nn.log_softmax(student_logits(weights))
            targets = tf.nn.softmax(teacher_logits)
            loss = -tf.reduce_mean(tf.reduce_sum(targets * log_probabilities, axis=-1))
            if other_loss is not None:
                loss += other_loss(weights)
        gradients = student_tape.gradient(loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        new_weights = [
            weight - _in_dtype(learning_rate, weight.dtype) * gradient
            for weight, gradient in zip(weights, gradients, strict=True)
        ]
        new_loss = labeled_loss(new_weights)
    return teacher_tape.gradient(new_loss, teacher_logits)


def normalize(
    tangents: tf.Tensor, *, root_mean_square: tf.Tensor, floor: float | tf.Tensor, clip: float | None
) -> tf.Tensor:
    """Divides what the classes are worth by their own size, and bounds them.

    The floor lets the feedback fade as v → 0; without it a student that has nothing left to learn would go on
    pushing its teacher at full strength.

    Args:
        tangents: float `[N, K]`, centered values.
        root_mean_square: scalar, their root mean square over the global batch.
        floor: the divisor is at least this, and at least 1e-12.
        clip: bound on the result, in both directions; None for no bound.

    Returns:
        float `[N, K]`.
    """
    values = tangents / tf.maximum(tf.maximum(root_mean_square, floor), 1e-12)
    return values if clip is None else tf.clip_by_value(values, -clip, clip)


def _in_dtype(number, dtype):
    """A number in this dtype; tf.cast would round a Python float to float32 on the way to float64."""
    return tf.cast(number, dtype) if tf.is_tensor(number) else tf.convert_to_tensor(number, dtype)
