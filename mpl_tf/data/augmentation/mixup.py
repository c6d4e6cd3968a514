"""Mixup (Zhang, Cissé, Dauphin, Lopez-Paz 2018, arXiv 1710.09412): training on what lies between two images.

    x = δ x_p + (1 - δ) x_q,   y = δ y_p + (1 - δ) y_q,   δ ~ Beta(α, α)

One δ for the whole batch, as in the released code of the paper and of Arazo et al. 2020. What is drawn is a
function of (seed, step), made of operations that XLA compiles; TensorFlow's Beta distributions are not.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from scipy import special

from mpl_tf.data.augmentation import stateless_random

# Between two of so many quantiles a straight line is as good as the distribution.
_QUANTILES = 4097


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How the rows of one batch are mixed.

    Args:
        fraction: δ, float32 scalar.
        partners: int `[N]`, a permutation: row p is mixed with row `partners[p]`.
    """

    fraction: tf.Tensor
    partners: tf.Tensor

    def __call__(self, rows: tf.Tensor) -> tf.Tensor:
        """δ x_p + (1 - δ) x_q for float rows `[N, …]`: images, or the targets that belong to them."""
        fraction = tf.cast(self.fraction, rows.dtype)
        return fraction * rows + (1.0 - fraction) * tf.gather(rows, self.partners)


def unmixed(rows: tf.Tensor) -> tf.Tensor:
    """The rows as they are: what stands for a `Mixing` where there is no mixup."""
    return rows


def beta_quantiles(alpha: float) -> np.ndarray:
    """The quantiles of Beta(α, α) at evenly spaced probabilities from 0 to 1.

    Args:
        alpha: α, above 0; 1 is the uniform distribution.

    Returns:
        float32 `[n]`, rising from 0 to 1.
    """
    return special.betaincinv(alpha, alpha, np.linspace(0.0, 1.0, _QUANTILES)).astype(np.float32)


def draw(quantiles: np.ndarray, *, rows: int | tf.Tensor, seed: int, step: tf.Tensor) -> Mixing:
    """Draws δ and the partners of one step.

    Args:
        quantiles: what `beta_quantiles` returned.
        rows: N. A replica mixes its own part of a batch, with the δ of all.
        seed: of the run.
        step: int64 scalar.

    Returns:
        A `Mixing`.
    """
    seeds = tf.random.split(tf.stack([tf.constant(seed, tf.int64), step]), num=2, alg="philox")
    bits = tf.random.stateless_uniform([], seeds[0], None, None, dtype=tf.uint32, alg="philox")
    index = stateless_random.from_bits(bits) * (len(quantiles) - 1)
    below = tf.cast(index, tf.int32)
    low, high = tf.gather(quantiles, below), tf.gather(quantiles, below + 1)
    fraction = low + (high - low) * (index - tf.cast(below, tf.float32))
    # tf.random.experimental.stateless_shuffle is not compiled by XLA; the order of random numbers is.
    order = tf.random.stateless_uniform([rows], seeds[1], None, None, dtype=tf.int32, alg="philox")
    partners = tf.argsort(order, stable=True)
    return Mixing(fraction, partners)
