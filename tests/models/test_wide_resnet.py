"""Wide ResNets against a NumPy forward pass, a count by hand and the statistics of their first weights."""

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models.wide_resnet import wide_resnet
from tests.models.by_hand import convolve, trainable_count

IMAGES = np.random.default_rng(0).uniform(0, 255, (5, 8, 8, 3)).astype("float32")


def count_by_hand(depth, width, classes, channels, stem=16):
    """Weights of a pre-activation wide ResNet: kernels without bias, γ and β, and the dense layer."""
    total, filters_in = 9 * channels * stem, stem
    for filters in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            shortcut = filters_in * filters if filters_in != filters else 0
            total += 2 * filters_in + 9 * filters_in * filters + 2 * filters + 9 * filters**2 + shortcut
            filters_in = filters
    return total + 2 * filters_in + (filters_in + 1) * classes


def forward_in_numpy(model, pixels, epsilon=1e-3, slope=0.2):
    """WRN-10-k in float64, written from the paper and the released code."""
    weights = {
        variable.path: variable.numpy().astype("float64")
        for variable in model.trainable_variables + model.non_trainable_variables
    }

    def normalize(x, name):
        gamma, beta, mean, variance = (
            weights[f"{name}/{role}"] for role in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta

    def activate(x):
        return np.where(x > 0, x, slope * x)

    x = convolve(pixels.astype("float64") / 127.5 - 1, weights["stem_conv/kernel"])
    for group in (1, 2, 3):
        name = f"group{group}_block0"
        stride = 1 if group == 1 else 2
        activated = activate(normalize(x, f"{name}_norm1"))
        changes = f"{name}_shortcut/kernel" in weights
        shortcut = convolve(activated, weights[f"{name}_shortcut/kernel"], stride) if changes else x
        x = convolve(activated, weights[f"{name}_conv1/kernel"], stride)
        x = convolve(activate(normalize(x, f"{name}_norm2")), weights[f"{name}_conv2/kernel"]) + shortcut
    features = activate(normalize(x, "head_norm")).mean(axis=(1, 2))
    return features @ weights["logits/kernel"] + weights["logits/bias"]


def set_random_batch_norm(model):
    """Statistics unlike their start, with variances small enough for ε to show."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean = (rng.normal(size=layer.gamma.shape) for _ in range(3))
            layer.set_weights([gamma, beta, mean, rng.uniform(0.002, 1, layer.gamma.shape)])


@pytest.mark.parametrize("width", [1, 2])
def test_the_forward_pass_is_the_papers(width):
    model = models.build(f"wrn-10-{width}", 4, (8, 8, 3), seed=1)
    set_random_batch_norm(model)
    assert ("group1_block0_shortcut" in [layer.name for layer in model.layers]) == (width == 2)
    expected = forward_in_numpy(model, IMAGES)
    np.testing.assert_allclose(model(IMAGES), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("depth", "width", "classes", "channels"),
    [(10, 1, 4, 1), (16, 2, 10, 3), (28, 2, 10, 3), (22, 1, 100, 3)],
)
def test_the_number_of_weights(depth, width, classes, channels):
    model = models.build(f"wrn-{depth}-{width}", classes, (8, 8, channels))
    assert trainable_count(model) == count_by_hand(depth, width, classes, channels)


def test_the_released_stem_is_an_option():
    model = models.build("wrn-10-2", 10, (8, 8, 3), stem_filters=32)
    assert trainable_count(model) == count_by_hand(10, 2, 10, 3, stem=32)
    assert model.get_layer("group1_block0_add").input[1] is model.get_layer("stem_conv").output


def test_convolutions_start_from_an_untruncated_normal():
    model = models.build("wrn-10-4", 10, (8, 8, 3), seed=1)
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(kernels) == 10
    standardized = [
        kernel.ravel() * np.sqrt(kernel.shape[0] * kernel.shape[1] * kernel.shape[3] / 2)
        for kernel in kernels
    ]
    for values in standardized:
        # Five standard errors of a mean and of a deviation.
        assert abs(values.mean()) < 5 / np.sqrt(values.size)
        assert abs(values.std() - 1) < 5 / np.sqrt(2 * values.size)
    # P(|z| > 3) = 0.0027; Keras' truncated normal ends at 2 / 0.88 = 2.27.
    assert np.mean(np.abs(np.concatenate(standardized)) > 3) == pytest.approx(0.0027, rel=0.2)


def test_logits_start_from_a_uniform_draw_over_the_classes():
    classes = 25
    model = models.build("wrn-10-4", classes, (8, 8, 3), seed=1)
    kernel, bias = (variable.numpy() for variable in model.get_layer("logits").weights)
    limit = 1 / np.sqrt(classes)
    assert 0.98 * limit < np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.03)
    assert not bias.any()


def test_batch_norm_remembers_99_parts_in_100():
    model = models.build("wrn-10-1", 4, (8, 8, 3), seed=1)
    stem = keras.Model(model.input, model.get_layer("stem_conv").output)(IMAGES).numpy()
    model(IMAGES, training=True)
    normalization = model.get_layer("group1_block0_norm1")
    mean = stem.mean(axis=(0, 1, 2), dtype="float64")
    np.testing.assert_allclose(normalization.moving_mean, 0.01 * mean, rtol=1e-4, atol=1e-6)


def test_stochastic_depth_grows_linearly_to_the_last_block():
    model = models.build("wrn-16-1", 4, (8, 8, 3), stochastic_depth=0.3)
    rates = [layer.rate for layer in model.layers if layer.name.endswith("_drop")]
    np.testing.assert_allclose(rates, 0.3 * np.arange(1, 7) / 6)
    for block in ("group1_block0", "group3_block1"):
        drop = model.get_layer(f"{block}_drop")
        assert drop.input is model.get_layer(f"{block}_conv2").output
        assert model.get_layer(f"{block}_add").input[0] is drop.output


def test_stochastic_depth_drops_whole_branches_and_keeps_their_mean():
    model = models.build("wrn-10-1", 4, (8, 8, 3), stochastic_depth=0.4, seed=1)
    branch = np.random.default_rng(2).normal(size=(4000, 2, 2, 3)).astype("float32")
    dropped = model.get_layer("group3_block0_drop")(branch, training=True).numpy()
    survives = dropped.any(axis=(1, 2, 3))
    np.testing.assert_allclose(dropped[survives], branch[survives] / 0.6, rtol=1e-5)
    # Five standard errors of a fraction of 4000.
    assert abs(survives.mean() - 0.6) < 5 * np.sqrt(0.4 * 0.6 / 4000)


def test_without_stochastic_depth_there_is_nothing_to_drop():
    model = models.build("wrn-10-1", 4, (8, 8, 3))
    assert not any(isinstance(layer, keras.layers.Dropout) for layer in model.layers)


@pytest.mark.parametrize(("depth", "nearest"), [(27, (22, 28)), (29, (28, 34)), (4, (10, 16)), (0, (10, 16))])
def test_a_depth_that_is_not_six_n_plus_four_is_refused(depth, nearest):
    message = (
        rf"depth of a wide ResNet is 6n \+ 4 .* got {depth}; take wrn-{nearest[0]}-2 or wrn-{nearest[1]}-2"
    )
    with pytest.raises(ValueError, match=message):
        models.build(f"wrn-{depth}-2", 10, (32, 32, 3))


def test_a_width_of_zero_is_refused():
    with pytest.raises(
        ValueError, match="widening factor must be 1 or more, got 0; take wrn-28-1 or wrn-28-2"
    ):
        models.build("wrn-28-0", 10, (32, 32, 3))


def test_the_function_names_its_model_itself():
    assert wide_resnet(10, 1, 4, (8, 8, 3)).name == "wrn-10-1"
