"""Random numbers as a pure function of (seed, stream, position, draw).

`position` is the place of an example in the whole training stream. A number that depends on nothing else is the
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
        seed: Any integer, taken modulo 2⁶⁴.
        position: int64 [n], the place of each example in the stream.
        draws: How many independent numbers each example gets.
        stream: Numbers of different streams are independent; one constant per use.

    Returns:
        uint64 [n, draws].
    """
    stream_seed = _word(_split_mix_of_words(seed, stream))
    position_seed = _split_mix(stream_seed, tf.cast(position, tf.uint64))
    return _split_mix(position_seed[:, tf.newaxis], tf.cast(tf.range(draws), tf.uint64))


def uniform(seed: int, position: tf.Tensor, draws: int, *, stream: int = 0) -> tf.Tensor:
    """Draws from the uniform distribution over [0, 1), on a grid of 2⁻²⁴.

    Args:
        seed: Any integer, taken modulo 2⁶⁴.
        position: int64 [n], the place of each example in the stream.
        draws: How many independent numbers each example gets.
        stream: Numbers of different streams are independent; one constant per use.

    Returns:
        float32 [n, draws].
    """
    upper = tf.bitwise.right_shift(bits(seed, position, draws, stream=stream), _word(40))
    return tf.cast(tf.cast(upper, tf.int32), tf.float32) * 2.0**-24


def normal(seed: int, position: tf.Tensor, draws: int, *, stream: int = 0) -> tf.Tensor:
    """Draws from the standard normal distribution (Box and Muller 1958).

    Args:
        seed: Any integer, taken modulo 2⁶⁴.
        position: int64 [n], the place of each example in the stream.
        draws: How many independent numbers each example gets.
        stream: Numbers of different streams are independent; one constant per use.

    Returns:
        float32 [n, draws]. At most 5.8 in size, because a uniform number is at least 2⁻²⁴ away from 1.
    """
    radius, angle = tf.split(uniform(seed, position, 2 * draws, stream=stream), 2, axis=1)
    return tf.sqrt(-2.0 * tf.math.log(1.0 - radius)) * tf.cos(2.0 * math.pi * angle)


def integers(uniforms: tf.Tensor, bound: int) -> tf.Tensor:
    """Turns uniform numbers into integers, each below `bound` equally likely.

    Args:
        uniforms: float32, any shape, in [0, 1).
        bound: Number of values; below 2²⁰, else the grid of the uniform numbers shows.

    Returns:
        int32 in 0 … bound − 1, the shape of `uniforms`.
    """
    return tf.cast(uniforms * tf.cast(bound, tf.float32), tf.int32)


def _word(value: int) -> tf.Tensor:
    return tf.constant(value % _WORD, tf.uint64)


def _split_mix_of_words(state: int, index: int) -> int:
    """The same as `_split_mix`, of numbers that are known before the graph is."""
    word = (state + (index + 1) * _GOLDEN_GAMMA) % _WORD
    word = (word ^ (word >> 30)) * _FIRST_FACTOR % _WORD
    word = (word ^ (word >> 27)) * _SECOND_FACTOR % _WORD
    return word ^ (word >> 31)


def _split_mix(state, index) -> tf.Tensor:
    """Output number `index` (from 0) of the SplitMix64 generator with the given state."""
    word = state + (index + _word(1)) * _word(_GOLDEN_GAMMA)
    word = _xor_shift(word, 30) * _word(_FIRST_FACTOR)
    word = _xor_shift(word, 27) * _word(_SECOND_FACTOR)
    return _xor_shift(word, 31)


def _xor_shift(word, shift: int) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(word, tf.bitwise.right_shift(word, _word(shift)))
