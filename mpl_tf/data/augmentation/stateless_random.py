"""Random numbers as a pure function of (seed, stream, position, draw).

`position` counts the examples of the whole training stream. A number that depends on nothing else is the
same whatever the batch size, the number of workers or the step at which a killed run went on.
`tf.random.stateless_*` cannot give that to a batch: it takes one seed per call, so what an example gets depends
on its row and on the batch's shape.

The generator is a tree of SplitMix64 generators (Steele, Lea, Flood: Fast splittable pseudorandom number
generators, OOPSLA 2014): the seed's output number `stream` seeds a generator whose output number `position`
seeds a generator whose output number `draw` is the result. It is integer arithmetic on whole batches, so eager,
graph and XLA agree bit for bit.
"""

import hashlib
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_FIRST_FACTOR, _SECOND_FACTOR = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 2**64


def fold_in(seed: int, name: str) -> int:
    """The seed of one part of a run, such as a stage or a stream, made of the run's seed and the part's name.

    Parts of different names draw independent numbers, and so do runs of different seeds; an offset on the seed would
    give one run's part what another run's part has drawn.

    Args:
        seed: any integer, of the run.
        name: of the part.

    Returns:
        An int in `[0, 2³¹)`: the first bits of the SHA-256 of both.
    """
    word = hashlib.sha256(f"{seed} {name}".encode()).digest()[:4]
    return int.from_bytes(word, "big") >> 1


def bits(seed: int, position: tf.Tensor, draws: int, *, stream: int = 0) -> tf.Tensor:
    """Draws 64 random bits per example and draw.

    Args:
        seed: any integer, taken modulo 2⁶⁴.
        position: int64 `[n]`, of each example in the stream.
        draws: how many independent numbers each example gets.
        stream: numbers of different streams are independent; one constant per use.

    Returns:
        uint64 `[n, draws]`.
    """
    first = _word(_split_mix_of_words(seed, stream) + _GOLDEN_GAMMA)
    steps = np.arange(1, 1 + draws, dtype=np.uint64) * np.uint64(_GOLDEN_GAMMA)
    mixed = _finalizer()
    rows = tf.reshape(tf.cast(position, tf.uint64), [-1, 1])
    return mixed(mixed(rows * _word(_GOLDEN_GAMMA) + first) + steps)


def uniform(seed: int, position: tf.Tensor, draws: int, *, stream: int = 0) -> tf.Tensor:
    """Draws from the uniform distribution over [0, 1), on a grid of 2⁻²⁴.

    Args:
        seed: any integer, taken modulo 2⁶⁴.
        position: int64 `[n]`, of each example in the stream.
        draws: how many independent numbers each example gets.
        stream: numbers of different streams are independent; one constant per use.

    Returns:
        float32 `[n, draws]`.
    """
    upper = tf.bitwise.right_shift(bits(seed, position, draws, stream=stream), _word(40))
    return tf.cast(tf.cast(upper, tf.int32), tf.float32) * 2.0**-24


def from_bits(words: tf.Tensor) -> tf.Tensor:
    """Makes numbers strictly between 0 and 1 of random bits.

    TensorFlow and XLA draw the same bits but make different floats of them.

    Args:
        words: uint32, any shape, as `tf.random.stateless_uniform` draws them for a whole batch.

    Returns:
        float32, multiples of 2⁻²³ plus 2⁻²⁴, the shape of `words`.
    """
    return (tf.cast(tf.bitwise.right_shift(words, 9), tf.float32) + 0.5) / 2.0**23


def normal(seed: int, position: tf.Tensor, draws: int, *, stream: int = 0) -> tf.Tensor:
    """Draws from the standard normal distribution (Box and Muller 1958).

    Args:
        seed: any integer, taken modulo 2⁶⁴.
        position: int64 `[n]`, of each example in the stream.
        draws: how many independent numbers each example gets.
        stream: numbers of different streams are independent; one constant per use.

    Returns:
        float32 `[n, draws]`. At most 5.8 in size, because a uniform number is at least 2⁻²⁴ away from 1.
    """
    radius, angle = tf.split(uniform(seed, position, 2 * draws, stream=stream), 2, axis=1)
    return tf.sqrt(-2.0 * tf.math.log(1.0 - radius)) * tf.cos(2.0 * math.pi * angle)


def integers(uniforms: tf.Tensor, bound: int) -> tf.Tensor:
    """Turns uniform numbers into integers, each below `bound` equally likely.

    Args:
        uniforms: float32, any shape, in [0, 1).
        bound: number of values; below 2²⁰, else the grid of the uniform numbers shows.

    Returns:
        int32 in 0 … bound − 1, the shape of `uniforms`.
    """
    return tf.cast(uniforms * float(bound), tf.int32)


def _word(value: int) -> tf.Tensor:
    return tf.constant(value % _WORD, tf.uint64)


def _split_mix_of_words(state: int, index: int) -> int:
    """Output number `index` (from 0) of the SplitMix64 generator with the given state, of Python's integers."""
    word = (state + (index + 1) * _GOLDEN_GAMMA) % _WORD
    word = (word ^ (word >> 30)) * _FIRST_FACTOR % _WORD
    word = (word ^ (word >> 27)) * _SECOND_FACTOR % _WORD
    return word ^ (word >> 31)


def _finalizer() -> Callable[[tf.Tensor], tf.Tensor]:
    """What makes an output of a state that has been moved on by its multiple of the golden gamma.

    A function that holds its constants: each of its own is an operation that a graph has to be told of.
    """
    shifts = [_word(shift) for shift in (30, 27, 31)]
    factors = [_word(_FIRST_FACTOR), _word(_SECOND_FACTOR)]

    def xor_shift(word, shift):
        return tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, shift))

    def mixed(word):
        for shift, factor in zip(shifts[:2], factors, strict=True):
            word = xor_shift(word, shift) * factor
        return xor_shift(word, shifts[2])

    return mixed
