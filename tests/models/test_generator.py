import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import models


def noise(count, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((count, columns), np.float32)


@pytest.mark.parametrize("image_shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (8, 16, 2)])
def test_noise_becomes_pixels(image_shape):
    generator = models.build_generator(image_shape, latent_dim=6, width=8)
    for training in (False, True):
        images = np.array(generator(100.0 * noise(4, 6), training=training))
        assert images.shape == (4, *image_shape)
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 255
        assert images.std() > 10


def test_as_many_weights_as_the_released_generator():
    generator = models.build_generator((32, 32, 3), latent_dim=1000)
    dense, convolutions = 1001 * 128 * 8 * 8, 9 * (128 * 128 + 128 * 64 + 64 * 3) + 128 + 64 + 3
    trainable = sum(np.prod(weight.shape) for weight in generator.trainable_weights)
    assert trainable == dense + convolutions + 2 * (128 + 128 + 64)
    # The last normalization has moving statistics and nothing to learn.
    assert len(generator.get_layer("standardize").weights) == 2
    assert [generator.get_layer(f"norm{index}").epsilon for index in range(3)] == [1e-5, 0.8, 0.8]


def test_a_batch_has_the_moments_that_were_asked_for():
    # So small a deviation that nothing is cut off.
    generator = models.build_generator((8, 8, 2), latent_dim=6, width=8, pixel_mean=100.0, pixel_std=5.0)
    images = np.array(generator(noise(64, 6), training=True), np.float64)
    assert images.mean(axis=(0, 1, 2)) == pytest.approx([100.0, 100.0], abs=1e-2)
    assert images.std(axis=(0, 1, 2)) == pytest.approx([5.0, 5.0], abs=1e-2)


def test_a_network_sees_the_standardized_image_by_default():
    # The rescaling that every network of models.build begins with undoes the generator's last step.
    generator = models.build_generator((8, 8, 1), latent_dim=6, width=8, seed=0)
    rescale = models.build("convnet", 3, (8, 8, 1)).get_layer("rescale")
    seen = np.array(rescale(generator(noise(64, 6), training=False)))
    standardized = keras.Model(generator.inputs, generator.get_layer("standardize").output)
    expected = np.clip(standardized(noise(64, 6), training=False), -1, 1)
    assert np.allclose(seen, expected, atol=1e-6)
    assert np.abs(expected).max() > 0.1


def test_a_seed_fixes_the_weights_and_leaves_the_global_one_alone():
    one, same, other = (
        models.build_generator((8, 8, 1), latent_dim=6, width=8, seed=seed) for seed in (1, 1, 2)
    )
    kernels = [[w.numpy() for w in model.weights if w.name == "kernel"] for model in (one, same, other)]
    assert len(kernels[0]) == 4
    assert all(map(np.array_equal, kernels[0], kernels[1]))
    assert not any(map(np.array_equal, kernels[0], kernels[2]))


@pytest.mark.parametrize("synchronized", [False, True])
def test_batch_norm_over_replicas_is_optional(synchronized):
    generator = models.build_generator((8, 8, 1), latent_dim=6, width=8, synchronized=synchronized)
    norms = [layer for layer in generator.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert [layer.synchronized for layer in norms] == [synchronized] * 4


def test_saved_equals_loaded_in_safe_mode(tmp_path):
    for model in (models.build_generator((8, 8, 1), latent_dim=6, width=8), models.pixel_noise((8, 8, 1))):
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
        inputs = noise(3, model.input_shape[-1])
        assert np.array_equal(model(inputs, training=False), loaded(inputs, training=False))


def test_pixels_are_float32_under_a_mixed_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        generator = models.build_generator((8, 8, 1), latent_dim=6, width=8)
    finally:
        keras.config.set_dtype_policy("float32")
    assert generator.get_layer("conv1").compute_dtype == "bfloat16"
    images = np.array(generator(noise(16, 6), training=True))
    assert images.dtype == np.float32
    # bfloat16 has no more than 256 different numbers between two powers of 2.
    assert not np.array_equal(images, np.array(tf.cast(tf.cast(images, tf.bfloat16), tf.float32)))


def test_pixel_noise_is_the_noise_itself_cut_off():
    model = models.pixel_noise((6, 5, 3), pixel_mean=40.0, pixel_std=60.0)
    inputs = noise(50, 6 * 5 * 3)
    assert model.weights == []
    expected = np.clip(40.0 + 60.0 * inputs.astype(np.float64), 0, 255).reshape(50, 6, 5, 3)
    assert (expected == 0).mean() > 0.1
    assert np.allclose(model(inputs), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("image_shape", "settings", "message"),
    [
        ((30, 30, 3), {}, r"image_shape=\(30, 30, 3\) has a side that is not divisible by 4.*resize or pad"),
        ((28, 30, 1), {}, r"image_shape=\(28, 30, 1\) has a side that is not divisible by 4"),
        ((2,), {}, r"image_shape=\(2,\) is not that of an image: pass \(height, width, channels\)"),
        ((8, 8, 0), {}, r"image_shape=\(8, 8, 0\) is not that of an image"),
        ((8, 8, 1), {"latent_dim": 0}, "latent_dim=0 is out of range"),
        ((8, 8, 1), {"width": 1}, "width=1 is out of range"),
        ((8, 8, 1), {"width": 8.5}, "width=8.5 is not a whole number"),
        ((8, 8, 1), {"pixel_mean": -1.0}, "pixel_mean=-1.0 is out of range"),
        ((8, 8, 1), {"pixel_std": 0.0}, "pixel_std=0.0 is out of range"),
    ],
)
def test_validation(image_shape, settings, message):
    with pytest.raises(ValueError, match=message):
        models.build_generator(image_shape, **settings)
    if not {"latent_dim", "width"} & set(settings) and "divisible" not in message:
        with pytest.raises(ValueError, match=message):
            models.pixel_noise(image_shape, **settings)
