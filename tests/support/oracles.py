"""Independent formulas in NumPy float64, written from the papers and not from the code under test.

Derivatives are taken by complex steps: Im f(x + i·h) / h with h = 1e-30 is the derivative of an analytic f
without any rounding of differences, so that 1e-10 is a fair tolerance and no backward pass is trusted.
"""

import itertools
import math

import numpy as np


def softmax(logits):
    exponentials = np.exp(logits - np.max(np.real(logits), axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def cross_entropies(targets, logits):
    return -(targets * np.log(softmax(logits))).sum(axis=-1)


def one_hot(labels, num_classes):
    return np.eye(num_classes)[np.asarray(labels)]


def smoothed(labels, num_classes, smoothing):
    return one_hot(labels, num_classes) * (1 - smoothing) + smoothing / num_classes


def kl_divergences(target_logits, logits):
    targets, predictions = softmax(target_logits), softmax(logits)
    return (targets * np.log(targets / predictions)).sum(axis=-1)


def entropies(logits):
    probabilities = softmax(logits)
    return -(probabilities * np.log(probabilities)).sum(axis=-1)


def consistencies(logits_on_weak, logits_on_strong, *, temperature, threshold):
    """One term of UDA's equation 1 per example, masked where the untempered maximum is below the threshold."""
    kept = softmax(logits_on_weak).max(axis=-1) >= threshold
    return kept * kl_divergences(logits_on_weak / temperature, logits_on_strong)


def wait_warmup_cosine(step, *, peak, steps, warmup, wait):
    if step < wait:
        return 0.0
    if step < wait + warmup:
        return peak * (step - wait + 1) / warmup
    if step >= steps:
        return 0.0
    return peak * (1 + math.cos(math.pi * (step - wait - warmup) / (steps - wait - warmup))) / 2


def averaged(values, decay):
    """The average of values[0], values[1], … that starts at values[0] and sees values[t + 1] at step t."""
    average = values[0]
    for step, value in enumerate(values[1:]):
        current = min(decay, (1 + step) / (10 + step))
        average = current * average + (1 - current) * value
    return average


def global_norm(tensors):
    return math.sqrt(sum((np.asarray(tensor, np.float64) ** 2).sum() for tensor in tensors))


def relative_error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def gradient(function, point, *, step=1e-30):
    """∂ function / ∂ point of a real, analytic scalar function, by complex steps."""
    tangents = np.zeros(point.shape)
    for index in np.ndindex(point.shape):
        moved = point.astype(np.complex128)
        moved[index] += 1j * step
        tangents[index] = np.imag(function(moved)) / step
    return tangents


def derivative_along(function, point, direction, *, step=1e-30):
    """The derivative of `function` at a list of arrays along another, by one complex step."""
    moved = [value + 1j * step * tangent for value, tangent in zip(point, direction, strict=True)]
    return np.imag(function(moved)) / step


def per_example_sampled(teacher_logits, labels, student_logits, tangents, learning_rate):
    """One feedback per image, for the class that was sampled: (η/N) ⟨p_i - y_i, u_i⟩ (q_i - y_i)."""
    drawn = one_hot(labels, teacher_logits.shape[-1])
    worth = ((softmax(student_logits) - drawn) * np.asarray(tangents)).sum(axis=-1, keepdims=True)
    return learning_rate / len(drawn) * worth * (softmax(teacher_logits) - drawn)


def labelings(num_images, num_classes):
    """Every way to label the images, each int64 `[N]`."""
    pairs = itertools.product(range(num_classes), repeat=num_images)
    return [np.array(labels, np.int64) for labels in pairs]


def probability(labels, teacher_logits):
    return np.prod(softmax(teacher_logits)[np.arange(len(labels)), labels])


class TinyStudent:
    """Two inputs, tanh units, K logits: a student whose step and whose loss after it are written out.

    Weights are the list (W1, b1, W2, b2); everything takes complex weights and targets too.
    """

    def __init__(self, *, hidden=4, num_classes=3, labeled=5, unlabeled=3, seed=0):
        generator = np.random.default_rng(seed)
        shapes = [(2, hidden), (hidden,), (hidden, num_classes), (num_classes,)]
        self.weights = [generator.normal(size=shape) for shape in shapes]
        self.num_classes = num_classes
        self.labeled_images = generator.normal(size=(labeled, 2))
        self.labels = generator.integers(num_classes, size=labeled)
        self.unlabeled_images = generator.normal(size=(unlabeled, 2))
        self.teacher_logits = generator.normal(size=(unlabeled, num_classes))

    def logits(self, images, weights):
        kernel, bias, output_kernel, output_bias = weights
        return np.tanh(images @ kernel + bias) @ output_kernel + output_bias

    def labeled_loss(self, weights):
        targets = one_hot(self.labels, self.num_classes)
        return cross_entropies(targets, self.logits(self.labeled_images, weights)).mean()

    def gradients(self, images, targets, weights):
        """Backpropagation of the mean cross-entropy to the targets, by hand."""
        kernel, bias, output_kernel, output_bias = weights
        hidden = np.tanh(images @ kernel + bias)
        on_logits = (softmax(hidden @ output_kernel + output_bias) - targets) / len(images)
        on_hidden = (on_logits @ output_kernel.T) * (1 - hidden**2)
        return [images.T @ on_hidden, on_hidden.sum(axis=0), hidden.T @ on_logits, on_logits.sum(axis=0)]

    def labeled_gradients(self, weights):
        return self.gradients(self.labeled_images, one_hot(self.labels, self.num_classes), weights)

    def after_step(self, targets, learning_rate):
        """θ' = θ - η ∇ mean CE(targets, S(x_u; θ))."""
        tangents = self.gradients(self.unlabeled_images, targets, self.weights)
        return [w - learning_rate * tangent for w, tangent in zip(self.weights, tangents, strict=True)]

    def meta_gradient(self, learning_rate):
        """∂ L_l(θ') / ∂ teacher logits, where the student learns from softmax(teacher logits)."""
        return gradient(
            lambda logits: self.labeled_loss(self.after_step(softmax(logits), learning_rate)),
            self.teacher_logits,
        )

    def sampled_meta_gradient(self, learning_rate):
        """∂ E_y[L_l(θ'(y))] / ∂ teacher logits, where the student learns from labels drawn from them."""
        losses = [
            (labels, self.labeled_loss(self.after_step(one_hot(labels, self.num_classes), learning_rate)))
            for labels in labelings(len(self.teacher_logits), self.num_classes)
        ]
        return gradient(
            lambda logits: sum(probability(labels, logits) * loss for labels, loss in losses),
            self.teacher_logits,
        )
