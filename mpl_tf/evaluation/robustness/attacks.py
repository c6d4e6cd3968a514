"""The fast gradient sign method: the worst small change of every pixel, to first order.

Goodfellow, Shlens, Szegedy 2015, *Explaining and Harnessing Adversarial Examples*, arXiv 1412.6572, section 4.
"""

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import check_evaluation_batch
from mpl_tf.distribute import replicas
from mpl_tf.utils.progress import no_progress
from mpl_tf.utils.validation import check_range


def fgsm(
    network: keras.Model,
    batches: tf.data.Dataset,
    epsilons: Sequence[float],
    *,
    advance: Callable[[int], None] = no_progress,
) -> dict:
    """The accuracy on images x + ε sign(∇_x loss(x, label)), for several ε.

    Args:
        network: `keras.Model` from images in 0…255 to logits.
        batches: finite dataset of `{"image": float32 [B, …], "label": int32 [B]}`.
        epsilons: ε in levels of 0…255, each at least 0; 0 is the clean accuracy.
        advance: is told how many more images are done, `Progress.update`.

    Returns:
        A dict of lists, one entry per ε: `epsilon`, `accuracy` and `standard_error`; and of `count` and
        `without_gradient`, the fraction of images whose gradient is 0 in float32, on which there is no attack: where
        it is large, a high accuracy says nothing.

    Raises:
        ValueError: for a dataset without batches, or an ε below 0.
    """
    epsilons = list(epsilons)
    for epsilon in epsilons:
        check_range("epsilon", epsilon, low=0.0)
    find_signs = gradient_signs(network)
    correct, without_gradient, count = np.zeros(len(epsilons)), 0, 0
    for batch in batches:
        images, labels = check_evaluation_batch(batch)
        images, labels = tf.cast(images, tf.float32), tf.cast(labels, tf.int32)
        signs = find_signs(images, labels)
        without_gradient += np.sum(~np.any(signs, axis=tuple(range(1, len(signs.shape)))))
        count += len(labels)
        for row, epsilon in enumerate(epsilons):
            logits = replicas.predict(network, step(images, signs, epsilon))
            correct[row] += np.sum(np.argmax(logits, axis=-1) == labels)
        advance(len(labels))
    if not count:
        raise ValueError("The dataset to attack is empty: pass at least one batch.")
    accuracy = (correct / count).tolist()
    return {
        "epsilon": epsilons,
        "accuracy": accuracy,
        "standard_error": [math.sqrt(fraction * (1.0 - fraction) / count) for fraction in accuracy],
        "without_gradient": float(without_gradient / count),
        "count": count,
    }


def gradient_signs(network: keras.Model) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Makes the compiled function that attacks share: the sign of each pixel's derivative of the loss.

    Args:
        network: as for `fgsm`, run in inference mode.

    Returns:
        A function of images, float32 `[B, …]`, and labels, int32 `[B]`, that returns −1, 0 or 1, float32 `[B, …]`.
    """
    image_spec = tf.TensorSpec([None, *network.input_shape[1:]], tf.float32)

    @tf.function(input_signature=[image_spec, tf.TensorSpec([None], tf.int32)])
    def signs(images, labels):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = tf.cast(network(images, training=False), tf.float32)
            # A sum, so that no image's gradient depends on the size of its batch.
            loss = tf.reduce_sum(losses.cross_entropy(labels, logits))
        return tf.sign(tape.gradient(loss, images))

    return signs


def step(images: tf.Tensor, signs: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Moves every pixel by ε along its sign, within 0…255.

    Args:
        images: float32 `[B, …]` in 0…255.
        signs: float32 `[B, …]`, see `gradient_signs`.
        epsilon: ε in levels.

    Returns:
        float32 `[B, …]`; whole levels where the images and ε are.
    """
    return tf.clip_by_value(images + epsilon * signs, 0.0, 255.0)
