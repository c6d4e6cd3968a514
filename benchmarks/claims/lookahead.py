"""One step of lookahead against many, for row M7 of docs/claims.md.

python benchmarks/claims/lookahead.py

Meta Pseudo Labels asks what a pseudo label did to the student's labeled loss one step later; MAML and DARTS unroll
many steps. Here the derivative of the labeled loss after K steps of plain SGD, with respect to the teacher's logits
on the batch of the first step, is taken exactly, by automatic differentiation through all K steps in float64, and
compared with that after one step. The teacher stands still. The other K - 1 steps are on the same batch again, whose
labels then count in each, or on other batches.

scikit-learn's digits; a teacher that has learned 20 labels, a student with one hidden layer of 32 units that has made
0, 100 or 1,000 updates on the teacher's labels, 80 images each, at the learning rate of the lookahead. Half a
minute of one core; prints two tables, the first of which is in docs/methods/mpl.md.
"""

import argparse
import itertools
from collections.abc import Callable, Collection, Sequence

import numpy as np
import sklearn.datasets
import tensorflow as tf

from mpl_tf import report

Weights = Sequence[tf.Tensor]

COUNTS = (1, 2, 4, 8, 16)
LEARNING_RATES = (0.01, 0.1, 1.0)
UPDATES = (0, 100, 1000)
BATCHES = ("same", "others")
NUM_LABELED, NUM_UNLABELED, HIDDEN, NUM_CLASSES = 20, 80, 32, 10


def lookahead_gradients(
    teacher_logits: tf.Tensor,
    student_loss: Callable[[Weights, tf.Tensor, int], tf.Tensor],
    labeled_loss: Callable[[Weights], tf.Tensor],
    weights: Weights,
    *,
    learning_rate: tf.Tensor,
    counts: Collection[int],
) -> dict[int, tf.Tensor]:
    """∂ L_l(θ_K) / ∂ teacher logits for several K, where θ_k = θ_{k-1} - η ∇ L_u(θ_{k-1}).

    Args:
        teacher_logits: float `[N, C]`, on the batch of the first step.
        student_loss: maps the student's weights, these logits and the number of the step, from 0, to L_u.
        labeled_loss: maps the student's weights to L_l.
        weights: θ_0.
        learning_rate: η.
        counts: the K.

    Returns:
        K → float `[N, C]`.
    """
    weights, losses = list(weights), {}
    with tf.GradientTape(persistent=True) as teacher_tape:
        teacher_tape.watch(teacher_logits)
        for step in range(max(counts)):
            with tf.GradientTape() as student_tape:
                student_tape.watch(weights)
                loss = student_loss(weights, teacher_logits, step)
            gradients = student_tape.gradient(loss, weights)
            weights = [w - learning_rate * gradient for w, gradient in zip(weights, gradients, strict=True)]
            if step + 1 in counts:
                losses[step + 1] = labeled_loss(weights)
    return {count: teacher_tape.gradient(loss, teacher_logits) for count, loss in losses.items()}


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Of the angle between two tensors, all numbers of each taken as one vector."""
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other)))


# --- the student and its teacher ----------------------------------------------------------------------------


def logits_of(weights: Weights, images: tf.Tensor) -> tf.Tensor:
    """A network with one hidden layer of rectified units: `[N, 64]` → `[N, C]`."""
    kernel, bias, output_kernel, output_bias = weights
    return tf.nn.relu(images @ kernel + bias) @ output_kernel + output_bias


def pseudo_label_loss(weights: Weights, images: tf.Tensor, teacher_logits: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy to the teacher's soft labels; written out, for second derivatives with respect to those."""
    logs = tf.nn.log_softmax(logits_of(weights, images))
    return -tf.reduce_mean(tf.reduce_sum(tf.nn.softmax(teacher_logits) * logs, axis=-1))


def labels_loss(weights: Weights, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy to integer labels."""
    logits = logits_of(weights, images)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def initial_weights(generator: np.random.Generator, hidden: int = HIDDEN) -> list[tf.Tensor]:
    """Random kernels of He's variance, and biases of 0."""
    shapes = [(64, hidden), (hidden, NUM_CLASSES)]
    kernels = [generator.normal(0.0, (2.0 / shape[0]) ** 0.5, shape) for shape in shapes]
    return [tf.constant(array) for kernel in kernels for array in (kernel, np.zeros(kernel.shape[1]))]


@tf.function
def train_teacher(weights, images, labels):
    """300 steps of gradient descent on the labeled images."""
    for _ in tf.range(300):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = labels_loss(weights, images, labels)
        weights = [
            w - 0.5 * gradient for w, gradient in zip(weights, tape.gradient(loss, weights), strict=True)
        ]
    return weights


@tf.function
def train_student(weights, images, teacher_logits, batches, learning_rate):
    """A step of SGD for each row of `batches`, the indices of its images."""
    for indices in batches:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = pseudo_label_loss(weights, tf.gather(images, indices), tf.gather(teacher_logits, indices))
        gradients = tape.gradient(loss, weights)
        weights = [w - learning_rate * gradient for w, gradient in zip(weights, gradients, strict=True)]
    return weights


@tf.function
def both_lookaheads(weights, images, teacher_logits, labeled_images, labels, learning_rate):
    """K → gradient, for K - 1 further steps on the same batch, and on other ones.

    Args:
        weights: of the student.
        images: `[K, N, 64]`, a batch for each step of the longest lookahead.
        teacher_logits: `[K, N, C]`.
        labeled_images: `[M, 64]`.
        labels: int `[M]`.
        learning_rate: η.
    """

    def on_the_same(weights, first_logits, step):
        return pseudo_label_loss(weights, images[0], first_logits)

    def on_others(weights, first_logits, step):
        return pseudo_label_loss(weights, images[step], teacher_logits[step] if step else first_logits)

    return {
        name: lookahead_gradients(
            teacher_logits[0],
            student_loss,
            lambda weights: labels_loss(weights, labeled_images, labels),
            weights,
            learning_rate=learning_rate,
            counts=[count for count in COUNTS if count <= len(images)],
        )
        for name, student_loss in zip(BATCHES, (on_the_same, on_others), strict=True)
    }


def measure(seed: int, updates: int, learning_rate: float) -> dict[str, dict[int, tuple[float, float]]]:
    """Cosine and ratio of norms of the gradient after K steps to that after one.

    Args:
        seed: of the split, the weights and the batches.
        updates: that the student has made before.
        learning_rate: of those, and of the lookahead.

    Returns:
        `"same"` and `"others"` → K → both.
    """
    generator = np.random.default_rng(seed)
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = generator.permutation(len(images))
    images, labels = images[order] / 16.0, labels[order]
    # As many of each class as of any other, the first ones.
    labeled = np.concatenate(
        [np.flatnonzero(labels == k)[: NUM_LABELED // NUM_CLASSES] for k in range(NUM_CLASSES)]
    )
    labeled_images, labeled_classes = tf.constant(images[labeled]), tf.constant(labels[labeled])
    unlabeled = tf.constant(np.delete(images, labeled, axis=0))
    teacher = train_teacher(initial_weights(generator), labeled_images, labeled_classes)
    teacher_logits = logits_of(teacher, unlabeled)
    student, rate = initial_weights(generator), tf.constant(learning_rate, tf.float64)
    batches = generator.integers(len(unlabeled), size=(updates, NUM_UNLABELED))
    if updates:
        student = train_student(student, unlabeled, teacher_logits, tf.constant(batches), rate)
    ahead = generator.permutation(len(unlabeled))[: max(COUNTS) * NUM_UNLABELED].reshape(max(COUNTS), -1)
    gradients = both_lookaheads(
        student,
        tf.gather(unlabeled, ahead),
        tf.gather(teacher_logits, ahead),
        labeled_images,
        labeled_classes,
        rate,
    )
    return {name: compare({k: g.numpy() for k, g in found.items()}) for name, found in gradients.items()}


def compare(gradients: dict[int, np.ndarray]) -> dict[int, tuple[float, float]]:
    """K → cosine of the gradient to that for K = 1, and the ratio of their norms; but for K = 1."""
    first = gradients[1]
    return {
        count: (cosine(gradient, first), float(np.linalg.norm(gradient) / np.linalg.norm(first)))
        for count, gradient in gradients.items()
        if count > 1
    }


def table(found: dict[tuple[float, int], list[dict]], which: int, digits: int) -> str:
    """A row per learning rate, stage of training and kind of batches, as Markdown.

    Args:
        found: learning rate and updates → what `measure` returned for each seed.
        which: 0 for the cosine, 1 for the ratio.
        digits: after the point.
    """
    rows = []
    for ((rate, updates), runs), batches in itertools.product(found.items(), BATCHES):
        row = {"η": f"{rate:g}", "updates before": str(updates), "further batches": batches}
        for count in COUNTS[1:]:
            values = [run[batches][count][which] for run in runs]
            row[f"K = {count}"] = report.mean_and_deviation(values, digits=digits)
        rows.append(row)
    return report.table(rows)


def main():
    """Measures all settings and prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    found = {
        (rate, updates): [measure(seed, updates, rate) for seed in range(options.seeds)]
        for rate, updates in itertools.product(LEARNING_RATES, UPDATES)
    }
    print(f"Mean ± standard deviation over {options.seeds} seeds. Cosine to the gradient for K = 1:\n")
    print(table(found, 0, 3))
    print("\nIts norm, in those of the gradient for K = 1:\n")
    print(table(found, 1, 2))


if __name__ == "__main__":
    main()
