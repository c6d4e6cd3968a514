"""The networks of keras.applications against keras.applications itself."""

import contextlib
import io
import urllib.error
import warnings

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models import backbones

SIDE = 32
PIXELS = np.random.default_rng(0).uniform(0, 255, (2, SIDE, SIDE, 3)).astype("float32")

# The module of each network's preprocess_input in Keras, and whether that does anything.
MODULES = {
    "resnet-50": "resnet",
    "resnetv2-50": "resnet_v2",
    "densenet-121": "densenet",
    "vgg-16": "vgg16",
    "mobilenet": "mobilenet",
    "mobilenetv2": "mobilenet_v2",
    "xception": "xception",
    "inceptionv3": "inception_v3",
    "inception-resnetv2": "inception_resnet_v2",
    "nasnet-mobile": "nasnet",
}
# Families whose preprocessing is part of Keras' model: what it computes from pixels before its first convolution.
INSIDE = {
    "mobilenetv3-small": ("MobileNetV3Small", "conv"),
    "efficientnetv2-b0": ("EfficientNetV2B0", "stem_conv"),
    "convnext-tiny": ("ConvNeXtTiny", "convnext_tiny_stem"),
}


def preprocessing(pixels):
    """The layer that a network of ours begins with, on pixels."""
    images = keras.Input((SIDE, SIDE, 3))
    return keras.Model(images, backbones.preprocessed(images, pixels))


def keras_model(name, **options):
    description = backbones.APPLICATIONS[name]
    build = getattr(keras.applications, description.keras_name)
    shape = (max(SIDE, description.smallest_side),) * 2 + (3,)
    return build(include_top=False, input_shape=shape, **{"weights": None, "pooling": "avg"} | options)


def branch_drop_rates(network):
    return {
        layer.name: layer.rate
        for layer in network.layers
        if isinstance(layer, keras.layers.Dropout) and layer.noise_shape is not None
    }


def features_of(network):
    return keras.Model(network.input, network.get_layer("features").output)


@pytest.fixture(scope="module")
def efficientnet():
    return models.build("efficientnetv2-b0", 3, (SIDE, SIDE, 3), dropout=0.25, synchronized=True, seed=1)


def test_every_application_of_keras_has_a_name():
    known = {description.keras_name for description in backbones.APPLICATIONS.values()}
    theirs = {name for name in dir(keras.applications) if name[0].isupper()}
    assert known == theirs
    assert set(models.pretrained_names()) == set(backbones.APPLICATIONS) <= set(models.names())


@pytest.mark.parametrize("name", MODULES)
def test_preprocessing_is_that_of_keras(name):
    pixels = backbones.APPLICATIONS[name].pixels
    expected = getattr(keras.applications, MODULES[name]).preprocess_input(PIXELS.copy())
    if pixels.reverses_channels:
        expected = expected[..., ::-1]
    np.testing.assert_allclose(preprocessing(pixels)(PIXELS), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", INSIDE)
def test_preprocessing_is_that_inside_of_keras_model(name):
    keras_name, first = INSIDE[name]
    build = getattr(keras.applications, keras_name)
    original = build(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    before_first = keras.Model(original.input, original.get_layer(first).input)
    ours = preprocessing(backbones.APPLICATIONS[name].pixels)(PIXELS)
    np.testing.assert_allclose(ours, before_first(PIXELS), atol=1e-4)


@pytest.mark.slow
def test_the_larger_efficientnets_v2_divide_by_128():
    original = keras.applications.EfficientNetV2S(
        include_top=False, weights=None, input_shape=(SIDE, SIDE, 3)
    )
    rescaling = original.layers[1]
    for size in "sml":
        ours = preprocessing(backbones.APPLICATIONS[f"efficientnetv2-{size}"].pixels)(PIXELS)
        np.testing.assert_allclose(ours, rescaling(PIXELS), atol=1e-6)


@pytest.mark.parametrize(
    "name", ["vgg-16", *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnet-50", "mobilenetv2"))]
)
def test_a_file_of_weights_gives_the_features_that_keras_gives(name, tmp_path):
    original = keras_model(name)
    original.save_weights(tmp_path / "original.weights.h5")
    network = models.build(name, 3, (SIDE, SIDE, 3), weights=str(tmp_path / "original.weights.h5"), seed=0)
    prepared = getattr(keras.applications, MODULES[name]).preprocess_input(PIXELS.copy())
    np.testing.assert_allclose(features_of(network)(PIXELS), original(prepared), rtol=1e-3, atol=1e-4)


def test_constants_of_a_preprocessing_in_front_come_from_its_weights():
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Normalization(name="own")(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Rescaling([2.0, 3.0, 4.0], offset=0.5)(x)
    original = keras.Model(images, keras.layers.Conv2D(1, 1)(x))
    original.get_layer("own").set_weights([np.array([0.3, 0.4, 0.5]), np.array([0.2, 0.3, 0.1]), np.int32(0)])
    own, pixels = backbones._own_preprocessing(original, None, pretrained=True)
    assert own == original.layers[1:4]
    expected = (PIXELS / 255 - [0.3, 0.4, 0.5]) / np.sqrt([0.2, 0.3, 0.1]) * [2.0, 3.0, 4.0] + 0.5
    np.testing.assert_allclose(preprocessing(pixels)(PIXELS), expected, atol=1e-4)


@pytest.mark.slow
def test_efficientnet_takes_the_constants_of_its_preprocessing_from_the_file(tmp_path):
    original = keras_model("efficientnet-b0")
    normalization = next(x for x in original.layers if isinstance(x, keras.layers.Normalization))
    normalization.set_weights([np.array([0.3, 0.4, 0.5]), np.array([0.2, 0.3, 0.1]), np.int32(0)])
    original.save_weights(tmp_path / "original.weights.h5")
    original.load_weights(tmp_path / "original.weights.h5")
    weights = str(tmp_path / "original.weights.h5")
    network = models.build("efficientnet-b0", 3, (SIDE, SIDE, 3), weights=weights)
    assert not [x for x in network.layers if isinstance(x, keras.layers.Normalization)]
    np.testing.assert_allclose(features_of(network)(PIXELS), original(PIXELS), rtol=1e-3, atol=1e-5)


def test_efficientnet_without_weights_standardizes_as_the_imagenet_ones_do():
    # What Keras makes of pixels with ImageNet's weights: mean and, as its own comment says, deviation twice.
    expected = PIXELS.astype(np.float64) / 255 - [0.485, 0.456, 0.406]
    expected /= np.sqrt([0.229, 0.224, 0.225]) * np.sqrt([0.229, 0.224, 0.225])
    ours = preprocessing(backbones.APPLICATIONS["efficientnet-b0"].pixels)(PIXELS)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_gray_images_are_repeated():
    images = keras.Input((SIDE, SIDE, 1))
    repeated = keras.Model(images, backbones.three_channels(images))
    np.testing.assert_array_equal(repeated(PIXELS[..., :1]), PIXELS[..., :1].repeat(3, axis=-1))
    color = keras.Input((SIDE, SIDE, 3))
    assert backbones.three_channels(color) is color


def test_other_channels_are_refused():
    with pytest.raises(
        ValueError, match=r"mobilenetv2 takes images of 3 channels, or gray ones of 1, got .*4\)"
    ):
        models.build("mobilenetv2", 3, (SIDE, SIDE, 4))


@pytest.mark.slow
def test_the_head_starts_anew_and_the_rest_does_not(tmp_path):
    original = keras_model("mobilenet")
    original.save_weights(tmp_path / "original.weights.h5")
    options = {"weights": str(tmp_path / "original.weights.h5"), "synchronized": True}
    one, other = (models.build("mobilenet", 3, (SIDE, SIDE, 3), seed=seed, **options) for seed in (0, 1))
    same = [np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)]
    assert same == [True] * (len(same) - 2) + [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3-small", "xception"])
def test_layers_have_the_same_names_in_every_process(name):
    side = backbones.APPLICATIONS[name].smallest_side
    first, second = (models.build(name, 3, (side, side, 3)) for _ in range(2))
    assert [x.name for x in first.operations] == [x.name for x in second.operations]


def test_convnext_drops_branches_by_example(tmp_path):
    network = models.build("convnext-tiny", 3, (SIDE, SIDE, 3), stochastic_depth=0.3, seed=1)
    rates = list(branch_drop_rates(network).values())
    np.testing.assert_allclose(rates, np.linspace(0, 0.3, 18))
    network.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(loaded(PIXELS), network(PIXELS))
    assert list(branch_drop_rates(loaded).values()) == rates


def no_network(*_, **__):
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet", "mobilenet_1_0_224_tf_no_top.h5"),
        ("vgg-16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        pytest.param("nasnet-mobile", "nasnet_mobile_no_top.h5", marks=pytest.mark.slow),
    ],
)
def test_without_a_network_connection_the_file_and_its_folder_are_named(name, file, monkeypatch, tmp_path):
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    message = (
        rf"weights of {name} could not be downloaded .*put the file {file} from https?://\S+ into {tmp_path}"
    )
    with contextlib.redirect_stdout(io.StringIO()), pytest.raises(ValueError, match=message):
        models.build(name, 3, (SIDE, SIDE, 3), weights="imagenet")


def test_the_file_that_is_named_is_the_one_that_keras_takes(monkeypatch, tmp_path):
    """What the message says to do does help, but for the checksum, which is Keras' own."""
    original = keras_model("mobilenet", pooling=None)
    (tmp_path / "models").mkdir()
    original.save_weights(tmp_path / "weights.weights.h5")
    (tmp_path / "weights.weights.h5").rename(tmp_path / "models" / "mobilenet_1_0_224_tf_no_top.h5")
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    monkeypatch.setattr(keras.Model, "load_weights", lambda self, path: loaded.append(path))
    loaded = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.build("mobilenet", 3, (48, SIDE, 3), weights="imagenet")
    assert [str(path) for path in loaded] == [str(tmp_path / "models" / "mobilenet_1_0_224_tf_no_top.h5")]


def test_weights_that_are_neither_are_refused(tmp_path):
    with pytest.raises(ValueError, match="weights='imagnet' is neither imagenet nor none, and no file"):
        models.build("mobilenet", 3, (SIDE, SIDE, 3), weights="imagnet")
    (tmp_path / "other.weights.h5").write_bytes(b"no weights")
    with pytest.raises(
        ValueError, match=r"do not fit mobilenet .*keras\.applications\.MobileNet\(include_top=False"
    ):
        models.build("mobilenet", 3, (SIDE, SIDE, 3), weights=str(tmp_path / "other.weights.h5"))
    with pytest.raises(
        ValueError, match="There are no weights='imagenet' for convnet: pass weights='none', or"
    ):
        models.build("convnet", 3, (SIDE, SIDE, 3), weights="imagenet")


def test_efficientnet_drops_no_branch_unless_asked(efficientnet):
    rates = branch_drop_rates(efficientnet)
    assert len(rates) > 10
    assert set(rates.values()) == {0.0}
    assert efficientnet.get_layer("dropout").rate == 0.25
    assert efficientnet.get_layer("features").output.shape == (None, 1280)
    assert efficientnet.output.dtype == "float32"


@pytest.mark.slow
def test_efficientnets_stochastic_depth_is_scaled_from_that_of_keras():
    rates = branch_drop_rates(keras_model("efficientnetv2-b0"))
    assert max(rates.values()) > 0.15
    network = models.build("efficientnetv2-b0", 3, (SIDE, SIDE, 1), stochastic_depth=0.3)
    assert branch_drop_rates(network) == pytest.approx(
        {name: rate * 0.3 / 0.2 for name, rate in rates.items()}
    )


def test_efficientnet_takes_seed_and_synchronization(efficientnet):
    norms = [layer for layer in efficientnet.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert all(layer.synchronized for layer in norms)
    seeds = {
        layer.get_config()["kernel_initializer"]["config"]["seed"]
        for layer in efficientnet.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    assert None not in seeds
    assert len(seeds) > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", backbones.APPLICATIONS)
def test_every_application_builds_and_keeps_keras_weights(name):
    side = max(SIDE, backbones.APPLICATIONS[name].smallest_side)
    network = models.build(name, 3, (side, side, 3), seed=0)
    own = sorted(tuple(w.shape) for w in network.weights[:-2])
    theirs = [
        layer for layer in keras_model(name).layers if not isinstance(layer, keras.layers.Normalization)
    ]
    assert own == sorted(tuple(w.shape) for layer in theirs for w in layer.weights)
    depthwise = keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D
    by_channel = [isinstance(layer, depthwise) or getattr(layer, "groups", 1) > 1 for layer in theirs]
    assert any(by_channel) == models.convolves_depthwise(name)
    assert network.get_layer("features").output.shape[-1] == network.get_layer("logits").kernel.shape[0]
    assert network.output.dtype == "float32"
