"""RandAugment in the form that a training step on an accelerator can make."""

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.augmentation.randaugment import RandAugment, make_policy
from tests.data.augmentation.test_randaugment import random_images


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_known_shapes_change_nothing(shape):
    images = np.tile(random_images(*shape), (20, 1, 1, 1))
    position = tf.range(len(images), dtype=tf.int64)
    plain, static = RandAugment(3, 17), RandAugment(3, 17, static_shapes=True)
    expected = plain(images, seed=5, position=position)
    assert np.array_equal(static(images, seed=5, position=position), expected)


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_xla_compiles_the_form_with_known_shapes(shape):
    images = tf.constant(np.tile(random_images(*shape), (20, 1, 1, 1)))
    position = tf.range(len(images), dtype=tf.int64)
    static = RandAugment(1, 17, static_shapes=True)
    compiled = tf.function(static, jit_compile=True)(images, seed=5, position=position).numpy()
    apart = np.abs(compiled.astype(int) - static(images, seed=5, position=position).numpy())
    # XLA rounds otherwise: a level is cut off to its neighbor, and of two equally near pixels the other one taken.
    assert (apart > 0).mean() < 0.05
    assert (apart > 1).mean() < 1e-3


def test_a_layer_with_a_random_state_is_refused_inside_of_a_step():
    with pytest.raises(
        ValueError, match="policy 'keras_cv' cannot run inside of a training step: choose 'paper'"
    ):
        make_policy("keras_cv", 2, 10, static_shapes=True)
