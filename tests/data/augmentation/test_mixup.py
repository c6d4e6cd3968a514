import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from mpl_tf.data.augmentation import mixup


def drawn(step, *, alpha=0.6, rows=7, seed=3):
    return mixup.draw(mixup.beta_quantiles(alpha), rows=rows, seed=seed, step=tf.constant(step, tf.int64))


def test_rows_are_mixed_as_in_numpy():
    rows = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    mix = mixup.Mixing(tf.constant(0.3), tf.constant([2, 0, 3, 1]))
    expected = 0.3 * rows.astype(np.float64) + 0.7 * rows.astype(np.float64)[[2, 0, 3, 1]]
    assert np.allclose(mix(tf.constant(rows)), expected, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_fractions_follow_the_beta_distribution(alpha):
    quantiles = mixup.beta_quantiles(alpha)
    fraction = tf.function(lambda step: mixup.draw(quantiles, rows=2, seed=0, step=step).fraction)
    fractions = [float(fraction(tf.constant(step, tf.int64))) for step in range(1500)]
    # Not folded to its upper half, as MixMatch does: neither mixup nor Arazo et al. do.
    assert min(fractions) < 0.3
    assert scipy.stats.kstest(fractions, scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_partners_are_permutations_and_all_of_them_come():
    permutation = tf.function(
        lambda step: mixup.draw(mixup.beta_quantiles(1.0), rows=3, seed=0, step=step).partners
    )
    seen = [tuple(permutation(tf.constant(step, tf.int64)).numpy()) for step in range(300)]
    assert {tuple(sorted(one)) for one in seen} == {(0, 1, 2)}
    counts = [seen.count(one) for one in sorted(set(seen))]
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_a_draw_is_a_function_of_seed_and_step():
    one, again, later, other = drawn(5), drawn(5), drawn(6), drawn(5, seed=4)
    assert float(one.fraction) == float(again.fraction)
    assert np.array_equal(one.partners, again.partners)
    assert len({float(each.fraction) for each in (one, later, other)}) == 3
    assert len({tuple(each.partners.numpy()) for each in (one, later, other)}) == 3


def test_xla_draws_the_same():
    quantiles = mixup.beta_quantiles(0.6)

    @tf.function(jit_compile=True)
    def compiled(step):
        mix = mixup.draw(quantiles, rows=7, seed=3, step=step)
        return mix.fraction, mix.partners

    fraction, partners = compiled(tf.constant(5, tf.int64))
    assert float(fraction) == pytest.approx(float(drawn(5).fraction), rel=1e-6)
    assert np.array_equal(partners, drawn(5).partners)
