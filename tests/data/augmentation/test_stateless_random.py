import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from mpl_tf.data.augmentation import stateless_random

POSITIONS = np.arange(20_000)


def split_mix(state: int, index: int) -> int:
    """Output number `index` of SplitMix64, stepped as published, in Python's integers."""
    mask = 2**64 - 1
    for _ in range(index + 1):
        state = (state + 0x9E3779B97F4A7C15) & mask
    word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
    return word ^ (word >> 31)


def test_oracle_gives_the_published_sequence():
    # Rosetta Code, Pseudo-random numbers/Splitmix64, seed 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [split_mix(1234567, index) for index in range(4)] == published


@pytest.mark.parametrize("seed", [0, 1, 1234567, 2**64 - 1, -1, 2**70 + 3])
def test_bits_are_a_tree_of_split_mix_generators(seed):
    positions, draws, stream = [0, 1, 5, 40], 3, 2
    expected = [
        [split_mix(split_mix(split_mix(seed % 2**64, stream), position), draw) for draw in range(draws)]
        for position in positions
    ]
    assert stateless_random.bits(seed, positions, draws, stream=stream).numpy().tolist() == expected


def test_uniform_is_the_upper_24_bits():
    expected = (stateless_random.bits(7, POSITIONS, 2).numpy() >> np.uint64(40)).astype(np.float64) / 2**24
    uniform = stateless_random.uniform(7, POSITIONS, 2).numpy()
    np.testing.assert_array_equal(uniform, expected)
    assert uniform.dtype == np.float32
    assert uniform.min() >= 0
    assert uniform.max() < 1


@pytest.mark.parametrize("seed", [0, 1, 2026])
@pytest.mark.parametrize("first", [0, 10**12])
def test_uniform_numbers_are_uniform(seed, first):
    uniform = stateless_random.uniform(seed, first + POSITIONS, 4, stream=1).numpy().ravel()
    counts = np.histogram(uniform, bins=100, range=(0, 1))[0]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    count = uniform.size
    assert abs(uniform.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / count)
    assert abs(uniform.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / count)


def test_lowest_bits_of_neighboring_positions_are_balanced():
    words = stateless_random.bits(3, POSITIONS, 1).numpy()[:, 0]
    ones = np.array([int(((words >> np.uint64(bit)) & np.uint64(1)).sum()) for bit in range(64)])
    assert np.all(np.abs(ones - POSITIONS.size / 2) < 4.5 * np.sqrt(POSITIONS.size) / 2)


def uniform_numbers(seed=5, first=0, stream=0, draw=0):
    return stateless_random.uniform(seed, first + POSITIONS, 3, stream=stream).numpy()[:, draw]


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 6},
        {"first": 1},
        {"stream": 1},
        {"draw": 1},
        {"seed": 6, "stream": 1},
        {"first": 1, "draw": 1},
    ],
)
def test_neighbors_in_seed_position_stream_and_draw_are_independent(other):
    one, two = uniform_numbers(), uniform_numbers(**other)
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(POSITIONS.size)
    table = np.histogram2d(one, two, bins=10, range=((0, 1), (0, 1)))[0]
    assert scipy.stats.chisquare(table.ravel()).pvalue > 1e-3


def test_numbers_do_not_depend_on_the_batch():
    whole = stateless_random.uniform(11, POSITIONS[:100], 4).numpy()
    halves = [stateless_random.uniform(11, part, 4).numpy() for part in (POSITIONS[:37], POSITIONS[37:100])]
    np.testing.assert_array_equal(np.concatenate(halves), whole)
    np.testing.assert_array_equal(stateless_random.uniform(11, POSITIONS[99::-1], 4).numpy(), whole[::-1])
    np.testing.assert_array_equal(stateless_random.uniform(11, POSITIONS[:100], 2).numpy(), whole[:, :2])


def test_eager_graph_compiled_and_pipeline_agree_bit_for_bit():
    def draw(position):
        return stateless_random.uniform(-9, position, 5, stream=4)

    eager = draw(tf.constant(POSITIONS)).numpy()
    graph = tf.function(draw, input_signature=[tf.TensorSpec([None], tf.int64)])
    np.testing.assert_array_equal(graph(POSITIONS), eager)
    np.testing.assert_array_equal(tf.function(draw, jit_compile=True)(tf.constant(POSITIONS)), eager)
    pipeline = tf.data.Dataset.range(1000).batch(64).map(draw, num_parallel_calls=2)
    np.testing.assert_array_equal(np.concatenate(list(pipeline.as_numpy_iterator())), eager[:1000])


def test_normal_follows_box_and_muller_and_is_normal():
    normal = stateless_random.normal(1, POSITIONS, 2, stream=3).numpy()
    uniform = stateless_random.uniform(1, POSITIONS, 4, stream=3).numpy().astype(np.float64)
    expected = np.sqrt(-2 * np.log(1 - uniform[:, :2])) * np.cos(2 * np.pi * uniform[:, 2:])
    np.testing.assert_allclose(normal, expected, atol=2e-6)
    assert scipy.stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(normal.T)[0, 1]) < 4 / np.sqrt(POSITIONS.size)


def test_normal_agrees_compiled():
    def draw(position):
        return stateless_random.normal(1, position, 3)

    compiled = tf.function(draw, jit_compile=True)(tf.constant(POSITIONS))
    np.testing.assert_allclose(compiled, draw(POSITIONS), atol=2e-6)


@pytest.mark.parametrize("bound", [1, 2, 5, 9, 15, 32, 224])
def test_integers_are_uniform_and_below_the_bound(bound):
    integers = stateless_random.integers(stateless_random.uniform(2, POSITIONS, 1), bound).numpy()
    counts = np.bincount(integers.ravel(), minlength=bound)
    assert counts.size == bound
    assert bound == 1 or scipy.stats.chisquare(counts).pvalue > 1e-3
    assert int(stateless_random.integers(tf.constant(1 - 2.0**-24), bound)) == bound - 1


def test_the_parts_of_a_run_have_seeds_of_their_own():
    names = ["labeled", "unlabeled", "finetune", "teacher", *(f"round_{number}" for number in range(20))]
    seeds = {stateless_random.fold_in(seed, name) for seed in range(50) for name in names}
    assert len(seeds) == 50 * len(names)
    assert min(seeds) >= 0
    assert 0.99 * 2**31 < max(seeds) < 2**31
    # SHA-256 of "3 labeled", computed by `printf '3 labeled' | sha256sum`.
    assert stateless_random.fold_in(3, "labeled") == 0x352E3A25 >> 1
    assert stateless_random.fold_in(np.int64(3), "labeled") == stateless_random.fold_in(3, "labeled")
