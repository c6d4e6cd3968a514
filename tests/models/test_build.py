"""The promises that every network keeps, and the bad input that `build` refuses."""

from functools import cache

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import models

NETWORKS = [
    ("convnet", (8, 8, 1)),
    ("hinton_mlp", (4, 4, 1)),
    ("lenet-5", (28, 28, 1)),
    ("lenet-5-half", (32, 32, 1)),
    ("mlp", (2,)),
    ("mlp", (8, 8, 3)),
    ("mlp-16x3", (5,)),
    ("moons_mlp", (2,)),
    ("wrn-10-1", (8, 8, 3)),
]
every_network = pytest.mark.parametrize(("name", "image_shape"), NETWORKS)
CLASSES = 4


def batch(image_shape, size=6):
    scale = 1.0 if len(image_shape) == 1 else 255.0
    return np.random.default_rng(0).uniform(0, scale, (size, *image_shape)).astype("float32")


@cache
def network(name, image_shape):
    """A network for the tests that change nothing in it."""
    return models.build(name, CLASSES, image_shape, dropout=0.2, seed=1)


def weights_equal(first, second):
    return [np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True)]


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


@every_network
def test_pixels_in_float32_logits_out(name, image_shape):
    model = network(name, image_shape)
    logits = model(batch(image_shape))
    assert logits.shape == (6, CLASSES)
    assert logits.dtype == "float32"
    assert model.name == name
    assert model.input.name == "image"
    assert model.get_layer("logits").output is model.output
    assert len(model.get_layer("features").output.shape) == 2


@every_network
def test_layers_come_from_keras_and_are_named_by_hand(name, image_shape):
    model = network(name, image_shape)
    same_again = models.build(name, CLASSES, image_shape, dropout=0.2)
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    assert [layer.name for layer in model.layers] == [layer.name for layer in same_again.layers]


@every_network
def test_one_seed_gives_one_network(name, image_shape):
    model = network(name, image_shape)
    assert all(weights_equal(model, models.build(name, CLASSES, image_shape, dropout=0.2, seed=1)))
    other = models.build(name, CLASSES, image_shape, dropout=0.2, seed=2)
    for before, after in zip(model.trainable_variables, other.trainable_variables, strict=True):
        starts_constant = np.ptp(before.numpy()) == 0
        assert starts_constant or not np.array_equal(before, after), before.path


def test_without_a_seed_two_networks_differ():
    first, second = (models.build("convnet", CLASSES, (8, 8, 1)) for _ in range(2))
    assert not all(weights_equal(first, second))


def test_zero_is_a_seed_too():
    first, second = (models.build("convnet", CLASSES, (8, 8, 1), seed=0) for _ in range(2))
    assert all(weights_equal(first, second))


@every_network
def test_a_saved_network_loads_without_custom_objects(name, image_shape, tmp_path):
    model = network(name, image_shape)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(batch(image_shape)), model(batch(image_shape)))


@every_network
def test_a_clone_computes_the_same(name, image_shape):
    model = network(name, image_shape)
    clone = keras.models.clone_model(model)
    assert all(weights_equal(model, clone))
    assert not {id(variable) for variable in model.variables} & {id(variable) for variable in clone.variables}
    np.testing.assert_array_equal(clone(batch(image_shape)), model(batch(image_shape)))


@every_network
def test_every_weight_receives_a_gradient(name, image_shape):
    model = models.build(name, CLASSES, image_shape, seed=1)
    with tf.GradientTape() as tape:
        logits = model(batch(image_shape, 16), training=True)
        losses = keras.losses.sparse_categorical_crossentropy(
            np.arange(16) % CLASSES, logits, from_logits=True
        )
    gradients = tape.gradient(losses, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.any(gradient), variable.path


@every_network
def test_compiled_equals_eager(name, image_shape):
    model = network(name, image_shape)
    compiled = tf.function(model, jit_compile=True)
    np.testing.assert_allclose(compiled(batch(image_shape)), model(batch(image_shape)), rtol=1e-5, atol=1e-5)


@every_network
def test_mixed_precision_keeps_pixels_and_logits_in_float32(name, image_shape, mixed_bfloat16):
    model = models.build(name, CLASSES, image_shape, seed=1)
    assert model(batch(image_shape)).dtype == "float32"
    assert model.get_layer("features").compute_dtype == "bfloat16"
    if len(image_shape) == 3:
        assert model.get_layer("rescale").output.dtype == "float32"


def test_pixels_are_brought_to_one_and_points_left_alone():
    images = models.build("mlp", CLASSES, (4, 4, 3), seed=1)
    pixels = batch((4, 4, 3))
    rescale = keras.Model(images.input, images.get_layer("rescale").output)
    np.testing.assert_allclose(rescale(pixels), (pixels.astype("float64") - 127.5) / 127.5, atol=1e-6)
    points = models.build("mlp", CLASSES, (2,), seed=1)
    assert "rescale" not in [layer.name for layer in points.layers]


@pytest.mark.parametrize("name", ["convnet", "mlp", "mobilenetv2"])
def test_images_have_their_channels_last_whatever_keras_is_set_to(name):
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(
            ValueError, match="Keras is set to channels_first, and images have their channels last"
        ):
            models.build(name, CLASSES, (32, 32, 3))
        assert models.build("mlp", CLASSES, (2,)).input_shape == (None, 2)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_whole_pixels_may_come_as_bytes():
    model = models.build("convnet", CLASSES, (8, 8, 1), seed=1)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
    np.testing.assert_array_equal(model(pixels), model(pixels.astype("float32")))


@pytest.mark.parametrize(("name", "image_shape"), [("wrn-10-1", (8, 8, 3)), ("mlp", (2,))])
def test_dropout_acts_on_the_features_and_in_training_only(name, image_shape):
    model = models.build(name, CLASSES, image_shape, dropout=0.5, seed=1)
    without = models.build(name, CLASSES, image_shape, seed=1)
    np.testing.assert_array_equal(model(batch(image_shape)), without(batch(image_shape)))
    dropout, features = model.get_layer("dropout"), model.get_layer("features")
    assert dropout.rate == 0.5
    assert dropout.input is features.output
    assert dropout.output is model.get_layer("logits").input
    assert not np.allclose(
        model(batch(image_shape), training=True), without(batch(image_shape), training=True)
    )


def test_dropout_masks_follow_the_seed():
    ones = np.ones((8, 128), "float32")
    first, again, other = (
        models.build("mlp", CLASSES, (2,), dropout=0.5, seed=seed).get_layer("dropout")(ones, training=True)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_synchronized_reaches_every_batch_norm_and_only_those():
    model = models.build("wrn-10-1", CLASSES, (8, 8, 3), synchronized=True, seed=1)
    without = models.build("wrn-10-1", CLASSES, (8, 8, 3), seed=1)
    synchronized = [
        layer.synchronized for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert synchronized == [True] * 7
    assert all(weights_equal(model, without))
    assert not without.get_layer("head_norm").synchronized


def test_every_listed_name_is_known():
    names = models.names()
    assert names == sorted(names)
    assert {"convnet", "wrn-28-2", "resnet-50", "efficientnetv2-l", "moons_mlp"} <= set(names)
    for name in names:
        # A known name passes on to the check of the shape.
        with pytest.raises(ValueError, match=r"image_shape must be \(height, width, channels\)"):
            models.build(name, CLASSES, (8, 8))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("wrn28-2", "wrn-28-2"),
        ("MLP", "mlp"),
        ("EfficientNetB0", "efficientnet-b0"),
        ("resnet50", "resnet-50"),
        ("lenet5", "lenet-5"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(
        ValueError, match=f"No model is called '{name}'; take {nearest}, .*any wrn-DEPTH-WIDTH"
    ):
        models.build(name, CLASSES, (32, 32, 3))


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(
        ValueError, match=f"No model is called '#'; take {', '.join(models.names())}, any wrn"
    ):
        models.build("#", CLASSES, (32, 32, 3))


@pytest.mark.parametrize("image_shape", [(8, 8), (0, 8, 3), (None, None, 3), (8.0, 8.0, 1), ()])
def test_a_shape_that_is_neither_image_nor_point_is_refused(image_shape):
    with pytest.raises(ValueError, match=r"such as \(32, 32, 3\), or \(features,\) for points, .*got \("):
        models.build("mlp", CLASSES, image_shape)


def test_sizes_may_be_numpy_integers():
    assert models.build("mlp", np.int64(3), np.array([2])).output.shape == (None, 3)


@pytest.mark.parametrize("name", ["convnet", "lenet-5", "wrn-10-1", "resnet-50", "efficientnetv2-b0"])
def test_convolutions_refuse_points(name):
    with pytest.raises(ValueError, match=rf"{name} takes images, got points with image_shape=\(2,\); give"):
        models.build(name, CLASSES, (2,))


def test_the_moons_network_refuses_images():
    with pytest.raises(
        ValueError, match=r"moons_mlp takes points, .* got images with image_shape=\(8, 8, 1\)"
    ):
        models.build("moons_mlp", CLASSES, (8, 8, 1))


@pytest.mark.parametrize(
    ("name", "side"),
    [("convnet", 4), ("wrn-10-1", 8), ("lenet-5", 28), ("resnet-50", 32), ("efficientnetv2-s", 32)],
)
def test_too_small_images_are_refused(name, side):
    too_small = (
        rf"{name} takes images of at least {side}×{side} pixels, got image_shape=\({side}, {side - 1}, 3\)"
    )
    with pytest.raises(ValueError, match=too_small):
        models.build(name, CLASSES, (side, side - 1, 3))


@pytest.mark.parametrize(("name", "side"), [("convnet", 4), ("wrn-10-1", 8), ("lenet-5", 28)])
def test_the_smallest_images_are_taken(name, side):
    assert models.build(name, CLASSES, (side, side, 3)).output.shape == (None, CLASSES)


@pytest.mark.parametrize("num_classes", [1, 0, 2.5])
def test_fewer_than_two_classes_are_refused(num_classes):
    with pytest.raises(
        ValueError, match=f"num_classes must be a whole number of 2 or more, got {num_classes}"
    ):
        models.build("convnet", num_classes, (8, 8, 1))


@pytest.mark.parametrize("setting", ["dropout", "stochastic_depth"])
@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_zero_to_one_is_refused(setting, rate):
    with pytest.raises(ValueError, match=rf"{setting} must lie in \[0, 1\), got {rate}"):
        models.build("wrn-10-1", CLASSES, (8, 8, 3), **{setting: rate})


@pytest.mark.parametrize(
    ("name", "image_shape"), [("convnet", (8, 8, 1)), ("resnet-50", (32, 32, 3)), ("mlp", (2,))]
)
def test_stochastic_depth_without_residual_branches_is_refused(name, image_shape):
    with pytest.raises(
        ValueError, match=f"{name} has no stochastic depth, got stochastic_depth=0.2; leave it at 0"
    ):
        models.build(name, CLASSES, image_shape, stochastic_depth=0.2)
