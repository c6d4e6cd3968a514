"""Losses as pure functions: one value per example, so that the caller chooses the mean.

Every function takes logits, never probabilities, computes in the dtype of its inputs (the methods hand
in float32 also under mixed precision) and returns a tensor of shape `[B]` unless it says otherwise.
"""

import math

import tensorflow as tf


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor, *, label_smoothing: float = 0.0) -> tf.Tensor:
    """Cross-entropy between integer labels and logits.

    Args:
        labels: int `[B]`, classes in 0…K-1.
        logits: float `[B, K]`.
        label_smoothing: the fraction ε of the target that is spread evenly over all K classes
            (Szegedy et al. 2016, arXiv 1512.00567, section 7).

    Returns:
        float `[B]`, in nats.
    """
    targets = smoothed_one_hot(labels, logits.shape[-1], label_smoothing=label_smoothing, dtype=logits.dtype)
    return soft_cross_entropy(targets, logits)


def weighted_mean(losses: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Mean of the losses of a batch, each times its example's weight: 1/B Σ w_i L_i.

    It divides by B and not by the sum of the weights, whose mean over all labeled images is 1
    (`mpl_tf.data.class_weights`): so batches, and replicas, average to the loss over all images.

    Args:
        losses: float `[B]`.
        weights: float `[B]`; None weighs all alike.

    Returns:
        A scalar.
    """
    return tf.reduce_mean(losses if weights is None else tf.cast(weights, losses.dtype) * losses)


def accuracy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Fraction of the images whose largest logit is that of their label.

    Args:
        labels: int `[B]`, of any whole type.
        logits: float `[B, K]`.

    Returns:
        A float32 scalar.
    """
    hits = tf.equal(tf.argmax(logits, axis=-1), tf.cast(labels, tf.int64))
    return tf.reduce_mean(tf.cast(hits, tf.float32))


def smoothed_one_hot(
    labels: tf.Tensor, num_classes: int, *, label_smoothing: float = 0.0, dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """The target distributions of `cross_entropy`: (1 - ε) one-hot + ε / K.

    Args:
        labels: int `[B]`, classes in 0…K-1.
        num_classes: K.
        label_smoothing: ε.
        dtype: of the result.

    Returns:
        `[B, K]`, rows that sum to 1; of a label that is no class, nan.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.size < 4:  # of which `tf.one_hot` knows only some
        labels = tf.cast(labels, tf.int32)
    targets = tf.one_hot(labels, num_classes, dtype=dtype)
    # Zeros stand for what is no class, as -1, and would be learned from without a word: 0 / 0.
    targets /= tf.reduce_sum(targets, axis=-1, keepdims=True)
    return (1.0 - label_smoothing) * targets + label_smoothing / num_classes


def soft_cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Cross-entropy between a distribution and logits: -Σ_k targets_k log softmax(logits)_k.

    Args:
        targets: float `[B, K]`, non-negative rows that sum to 1. Gradients flow into them too.
        logits: float `[B, K]`.

    Returns:
        float `[B]`, in nats.
    """
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)


def kl_divergence(target_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Kullback-Leibler divergence KL(softmax(target_logits) ‖ softmax(logits)).

    Args:
        target_logits: float `[B, K]`, the logits of the distribution that the expectation is over.
        logits: float `[B, K]`.

    Returns:
        float `[B]`, in nats, zero exactly where the two distributions agree.
    """
    log_targets = tf.nn.log_softmax(target_logits)
    return tf.reduce_sum(tf.exp(log_targets) * (log_targets - tf.nn.log_softmax(logits)), axis=-1)


def entropy(logits: tf.Tensor) -> tf.Tensor:
    """Entropy of softmax(logits).

    Args:
        logits: float `[B, K]`.

    Returns:
        float `[B]`, in nats, between 0 and log K.
    """
    return soft_cross_entropy(tf.nn.softmax(logits), logits)


def prior_divergence(mean_probabilities: tf.Tensor) -> tf.Tensor:
    """KL(uniform ‖ mean prediction): keeps the predictions of a batch from gathering in few classes.

    Args:
        mean_probabilities: float `[K]`, the mean of softmax(logits) over the *global* batch.

    Returns:
        float scalar, in nats: R_A of Arazo et al. 2020 (arXiv 1908.02983) with the uniform prior.
    """
    # Below any mean that float32 predictions of a trained network have; keeps a class at 0 finite.
    logs = tf.math.log(tf.maximum(mean_probabilities, 1e-30))
    return -tf.reduce_mean(logs) - math.log(mean_probabilities.shape[-1])


def distillation(teacher_logits: tf.Tensor, logits: tf.Tensor, *, temperature: float) -> tf.Tensor:
    """T² KL(softmax(teacher_logits / T) ‖ softmax(logits / T)), whose gradient has the size it has at T = 1.

    Args:
        teacher_logits: float `[B, K]`; no gradient reaches them.
        logits: float `[B, K]`, the student's.
        temperature: T, above 0.

    Returns:
        float `[B]`, in nats times T² (Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2).
    """
    targets = tf.stop_gradient(teacher_logits / temperature)
    return temperature**2 * kl_divergence(targets, logits / temperature)


def confidence_mask(logits: tf.Tensor, threshold: float | tf.Tensor) -> tf.Tensor:
    """Marks the examples on which the untempered prediction is confident.

    Args:
        logits: float `[B, K]`, not divided by a temperature: the threshold is on softmax(logits).
        threshold: probability in 0…1 that the most likely class must reach, one for all or `[B]`; 0 keeps every
            example.

    Returns:
        `[B]` of the logits' dtype, 1 where confident and 0 elsewhere.
    """
    confidence = tf.reduce_max(tf.nn.softmax(logits), axis=-1)
    return tf.cast(confidence >= threshold, logits.dtype)


def consistency(
    logits_on_weak: tf.Tensor, logits_on_strong: tf.Tensor, *, temperature: float, mask: tf.Tensor
) -> tf.Tensor:
    """UDA's consistency loss, KL(sharpened weak ‖ strong): the strong view is to be predicted as the weak one is.

    The target carries no gradient. A mean over the result divides by *all* examples, not by the kept
    ones, as UDA and the released Meta Pseudo Labels code do: few confident examples weigh little.

    Args:
        logits_on_weak: float `[B, K]`, predictions on the weakly augmented images.
        logits_on_strong: float `[B, K]`, predictions on the strongly augmented ones.
        temperature: sharpens the target to softmax(logits_on_weak / temperature), above 0 (section 3.2).
        mask: float `[B]`, see `confidence_mask`.

    Returns:
        float `[B]`, in nats, zero where masked (Xie et al. 2019, arXiv 1904.12848, equation 1).
    """
    target_logits = tf.stop_gradient(logits_on_weak / temperature)
    return kl_divergence(target_logits, logits_on_strong) * tf.stop_gradient(mask)


def pseudo_label_consistency(
    logits_on_weak: tf.Tensor, logits_on_strong: tf.Tensor, *, temperature: float, mask: tf.Tensor
) -> tf.Tensor:
    """FixMatch's loss on unlabeled images: cross-entropy of the weak view's pseudo label with the strong view.

    The pseudo label carries no gradient. A mean over the result divides by *all* examples, as the paper's 1/μB does.

    Args:
        logits_on_weak: float `[B, K]`, predictions on the weakly augmented images.
        logits_on_strong: float `[B, K]`, predictions on the strongly augmented ones.
        temperature: 0 takes the most likely class for the pseudo label; above 0 the pseudo label is the distribution
            softmax(logits_on_weak / temperature), which tends to that as the temperature tends to 0.
        mask: float `[B]`, see `confidence_mask`.

    Returns:
        float `[B]`, in nats, zero where masked (Sohn et al. 2020, arXiv 2001.07685, equation 4).
    """
    if temperature:
        pseudo_labels = tf.nn.softmax(logits_on_weak / temperature)
    else:
        most_likely = tf.argmax(logits_on_weak, axis=-1)
        pseudo_labels = tf.one_hot(most_likely, logits_on_weak.shape[-1], dtype=logits_on_weak.dtype)
    losses = soft_cross_entropy(tf.stop_gradient(pseudo_labels), logits_on_strong)
    return losses * tf.stop_gradient(mask)


def self_adaptive_fairness(
    mean_prediction: tf.Tensor,
    label_histogram: tf.Tensor,
    mean_prediction_on_strong: tf.Tensor,
    label_histogram_on_strong: tf.Tensor,
) -> tf.Tensor:
    """FreeMatch's class fairness, -H(SumNorm(p̃ / h̃), SumNorm(p̄ / h̄)).

    Gradients flow into p̄ alone. Classes that no confident prediction on the strong view has, whose p̄ / h̄ is 0 / 0,
    are left out of the sum, as in the released code up to a constant; with none at all the loss is 0.

    Args:
        mean_prediction: float `[K]`, p̃, the running mean of the predictions on weak views.
        label_histogram: float `[K]`, h̃, the running fraction of each class among their most likely classes.
        mean_prediction_on_strong: float `[K]`, p̄, the sum or mean of the confident predictions on strong views.
        label_histogram_on_strong: float `[K]`, h̄, the number or fraction of each class among them.

    Returns:
        float scalar, in nats, 0 or below (Wang et al. 2023, arXiv 2205.07246, equation 11).
    """
    present = label_histogram_on_strong > 0.0
    targets = _sum_norm(tf.math.divide_no_nan(mean_prediction, label_histogram))
    ratios = tf.math.divide_no_nan(mean_prediction_on_strong, label_histogram_on_strong)
    # The logarithm sees 1 where a class is absent: its gradient would be nan even where `where` drops its value.
    logs = tf.math.log(tf.where(present, _sum_norm(ratios), tf.ones_like(ratios)))
    return tf.reduce_sum(tf.stop_gradient(targets) * logs)


def _sum_norm(values: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(values, tf.reduce_sum(values))
