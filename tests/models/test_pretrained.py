"""A user's own network gets a new head and nothing else; frozen layers stay frozen through everything."""

import pathlib

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from mpl_tf.models.probe import feature_model
from tests.support import tiny

LITE0 = pathlib.Path(__file__).parents[2].parent / "shared/data/weights/efficientnet-lite0-imagenet.keras"
needs_real_weights = pytest.mark.skipif(
    not LITE0.exists(), reason=f"{LITE0.name} is not in ../shared/data/weights"
)


def own_network(*, head="dense", shape=(8, 8, 3), name="own"):
    """A user's network, as users end them."""
    images = keras.Input(shape)
    normalization = keras.layers.Normalization(name="own_normalization")
    normalization.adapt(np.random.default_rng(5).uniform(0, 255, (16, 8, 8, shape[-1])).astype("float32"))
    x = keras.layers.Conv2D(6, 3, name="logits", activation="relu")(normalization(images))
    x = keras.layers.BatchNormalization(name="norm")(x)
    maps = keras.layers.Conv2D(7, 3, name="maps")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(maps)
    if head == "dense":
        x = keras.layers.Dense(11, activation="softmax", name="out")(keras.layers.Dropout(0.5)(x))
    elif head == "activation":
        x = keras.layers.Softmax()(keras.layers.Dense(11, name="out")(x))
    elif head == "none":
        x = maps
    return keras.Model(images, x, name=name)


def images(count=4, shape=(8, 8, 3)):
    return np.random.default_rng(0).uniform(0, 255, (count, *shape)).astype("float32")


def output_of(network, layer):
    return keras.Model(network.input, network.get_layer(layer).output)


@pytest.fixture
def saved(tmp_path):
    def save(network):
        network.save(tmp_path / "own.keras")
        return str(tmp_path / "own.keras")

    return save


@pytest.mark.parametrize("head", ["dense", "activation", "none"])
def test_the_features_and_the_preprocessing_are_kept(head, saved):
    own = own_network(head=head)
    network = models.build(saved(own), 4, (8, 8, 3), seed=0, dropout=0.3)
    expected = output_of(own, "maps")(images()).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(output_of(network, "features")(images()), expected, rtol=1e-5, atol=1e-5)
    kernel, bias = network.get_layer("logits").get_weights()
    np.testing.assert_allclose(network(images()), expected @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert kernel.shape == (7, 4)
    assert network.get_layer("dropout").rate == 0.3
    assert network.name == "own"
    # Adapted constants of a preprocessing are no weights to Keras, and copies keep them all the same.
    np.testing.assert_allclose(models.clone(own)(images()), own(images()), rtol=1e-5, atol=1e-6)


def test_features_of_another_layer_are_averaged_over_positions(saved):
    own = own_network()
    network = models.build(saved(own), 4, (8, 8, 3), features="norm")
    expected = output_of(own, "norm")(images()).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(output_of(network, "features")(images()), expected, rtol=1e-5, atol=1e-5)
    assert "maps" not in [layer.name for layer in network.layers]


def test_a_sequential_network_is_taken_too(saved):
    own = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(5), keras.layers.ReLU()]
    )
    network = models.build(saved(own), 3, (8, 8, 3))
    assert network.get_layer("features").output.shape == (None, 5)


def test_the_head_of_a_network_that_is_nested_as_the_last_layer_is_left_out(saved):
    inner = own_network(name="inner")
    own = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(0.5), inner], name="outer")
    expected = output_of(inner, "maps")(0.5 * images()).numpy().mean(axis=(1, 2))
    network = models.build(saved(own), 4, (8, 8, 3), seed=0)
    np.testing.assert_allclose(output_of(network, "features")(images()), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(feature_model(own)(images()), expected, rtol=1e-5, atol=1e-5)


def test_another_size_and_gray_images_are_taken(saved):
    own = own_network()
    path = saved(own)
    gray = models.build(path, 4, (10, 12, 1), seed=0)
    color = models.build(path, 4, (10, 12, 3), seed=0)
    pixels = images(shape=(10, 12, 1))
    np.testing.assert_allclose(gray(pixels), color(pixels.repeat(3, axis=-1)), rtol=1e-5, atol=1e-6)


def test_the_seed_is_that_of_the_head_alone(saved):
    path = saved(own_network())
    one, again, other = (models.build(path, 4, (8, 8, 3), seed=seed) for seed in (0, 0, 1))
    for a, b, c in zip(one.weights, again.weights, other.weights, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c) == ("logits/kernel" not in a.path or "before" in a.path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": "mpas"}, "'own' has no layer 'mpas' to take features from: choose one such as maps"),
        (
            {"weights": "imagenet"},
            r"own\.keras comes with its own weights, got weights='imagenet': leave them out",
        ),
        ({"stochastic_depth": 0.1}, "has no stochastic depth"),
        (
            {"trainable": "mpas"},
            "trainable='mpas' is no layer of 'own': pass all, head, or a layer such as maps",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, saved):
    with pytest.raises(ValueError, match=message):
        models.build(saved(own_network()), 4, (8, 8, 3), **arguments)


def test_other_channels_are_refused(saved):
    path = saved(own_network(shape=(8, 8, 1)))
    with pytest.raises(ValueError, match=r"'own' takes images of 1 channels, got image_shape=\(8, 8, 3\)"):
        models.build(path, 4, (8, 8, 3))


def test_features_of_a_named_network_are_not_a_thing():
    with pytest.raises(
        ValueError, match=r"features='x' names a layer of a \.keras file, and convnet is none"
    ):
        models.build("convnet", 4, (8, 8, 3), features="x")


def test_a_preset_of_keras_hub_needs_keras_hub(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"hub:resnet_18 needs the package keras-hub, .*mpl_tf\[hub\]"):
        models.build("hub:resnet_18", 4, (32, 32, 3))


def test_a_preset_of_keras_hub_keeps_its_features_and_its_rescaling(tmp_path):
    """The folder of a preset, as `save_to_preset` writes it, is what keras-hub downloads for a name."""
    keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is not installed")
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    pixels = {"scale": [1 / 58.0, 1 / 57.0, 1 / 57.5], "offset": [-2.1, -2.0, -1.8]}
    preset = str(tmp_path / "preset")
    backbone.save_to_preset(preset)
    keras_hub.layers.ResNetImageConverter(image_size=(24, 24), **pixels).save_to_preset(preset)

    network = models.build(f"hub:{preset}", 4, (16, 16, 3))
    rescaled = keras_hub.layers.ResNetImageConverter(**pixels)(images(shape=(16, 16, 3)))
    expected = np.mean(backbone(rescaled), axis=(1, 2))
    np.testing.assert_allclose(
        output_of(network, "features")(images(shape=(16, 16, 3))), expected, rtol=1e-5, atol=1e-5
    )
    assert network.output_shape == (None, 4)


# --- which layers learn ---------------------------------------------------------------------------------


def learning(network):
    return [layer.name for layer in network.layers if layer.trainable_variables]


def test_batch_norm_is_frozen_under_weights_from_elsewhere_and_only_there(saved):
    network = models.build(saved(own_network()), 4, (8, 8, 3))
    assert learning(network) == ["logits_before", "maps", "logits"]
    thawed = models.build(saved(own_network()), 4, (8, 8, 3), freeze_batch_norm=False)
    assert "norm" in learning(thawed)
    assert "norm1" in learning(models.build("convnet", 4, (8, 8, 3)))
    assert "norm1" not in learning(models.build("convnet", 4, (8, 8, 3), freeze_batch_norm=True))


@pytest.mark.parametrize(("trainable", "expected"), [("head", ["logits"]), ("maps", ["maps", "logits"])])
def test_the_layers_before_the_first_that_learns_do_not(trainable, expected, saved):
    assert learning(models.build(saved(own_network()), 4, (8, 8, 3), trainable=trainable)) == expected


def test_batch_norm_in_a_nested_network_is_frozen_too(saved):
    inner = own_network(head="none", name="inner")
    pixels = keras.Input((8, 8, 3))
    outer = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(inner(pixels)), name="outer")
    network = models.build(saved(outer), 4, (8, 8, 3))
    frozen = network.get_layer("inner").get_layer("norm")
    assert not frozen.trainable_variables
    np.testing.assert_allclose(
        output_of(network, "features")(images()), outer(images()), rtol=1e-5, atol=1e-5
    )


def frozen_network(seed):
    """A tiny network whose BatchNorm has statistics of its own and is frozen."""
    network = tiny.network("student", seed=seed)
    norm = next(layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization))
    norm.set_weights([weight + 0.3 + 0.1 * seed for weight in norm.get_weights()])
    models.set_trainable(network, freeze_batch_norm=True)
    return network


def norm_weights(network):
    return [
        weight.copy()
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.get_weights()
    ]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_batch_norm_stays_frozen_in_copies_and_files(tmp_path):
    network = frozen_network(0)
    models.save(network, tmp_path / "network.keras")
    for copy in (models.clone(network), models.load(tmp_path / "network.keras"), models.to_finetune(network)):
        norm = next(layer for layer in copy.layers if isinstance(layer, keras.layers.BatchNormalization))
        assert not norm.trainable
        assert not norm.trainable_variables
        np.testing.assert_array_equal(copy(tiny.examples(4)[0], training=False), network(tiny.examples(4)[0]))


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_supervised_training_leaves_frozen_batch_norm_alone(ema_decay):
    network = frozen_network(0)
    before = norm_weights(network)
    method = Supervised(student=network, ema_decay=ema_decay)
    method.compile(keras.optimizers.SGD(0.1))
    method.fit(tiny.dataset(), verbose=0)
    assert_same(norm_weights(method.student), before)
    assert_same(norm_weights(method.inference_model), before)


def test_the_three_passes_of_meta_pseudo_labels_leave_frozen_batch_norm_alone():
    teacher, student = frozen_network(0), frozen_network(1)
    before = norm_weights(teacher), norm_weights(student)
    method = MetaPseudoLabels(teacher=teacher, student=student, ema_decay=0.9)
    method.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
    method.fit(tiny.dataset(), verbose=0)
    assert_same(norm_weights(teacher), before[0])
    assert_same(norm_weights(student), before[1])
    assert_same(norm_weights(method.inference_model), before[1])


# --- a real network -------------------------------------------------------------------------------------


@needs_real_weights
def test_a_real_network_keeps_its_features_at_a_small_size():
    own = keras.saving.load_model(LITE0, compile=False)
    network = models.build(str(LITE0), 5, (40, 40, 3), seed=0)
    pixels = images(2, (40, 40, 3))
    expected = output_of(own, "features")(pixels)
    np.testing.assert_allclose(output_of(network, "features")(pixels), expected, rtol=1e-4, atol=1e-5)
    assert not any(layer.trainable for layer in network.layers if layer.name.endswith("_bn"))
