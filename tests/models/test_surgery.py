"""Seeds and settings reach every layer, and nothing else changes."""

import hashlib

import keras
import numpy as np
import pytest

from mpl_tf import models
from mpl_tf.models.surgery import clone, clone_with_edits, in_precision, seed_from, synchronize_batch_norm


def seeds_of(model):
    """Every seed in the configurations of a model's layers."""
    seeds = {}
    for layer in model.layers:
        for key, value in layer.get_config().items():
            if key == "seed":
                seeds[layer.name, key] = value
            elif isinstance(value, dict) and "seed" in value.get("config", {}):
                seeds[layer.name, key] = value["config"]["seed"]
    return seeds


def test_every_random_part_gets_a_seed_of_its_own():
    model = models.build("wrn-16-1", 4, (8, 8, 3), dropout=0.1, stochastic_depth=0.2, seed=1)
    seeds = seeds_of(model)
    # 15 convolutions (stem, 6 blocks of 2, 2 shortcuts), 1 dense kernel, 6 branch drops, 1 dropout.
    assert len(seeds) == 15 + 1 + 6 + 1
    assert None not in seeds.values()
    assert len(set(seeds.values())) == len(seeds)
    assert not set(seeds.values()) & set(seeds_of(clone_with_edits(model, seed_from(2))).values())


def test_kernel_and_bias_of_one_layer_differ():
    model = models.build("moons_mlp", 8, (8,), seed=1)
    kernel, bias = (variable.numpy() for variable in model.get_layer("hidden1").weights)
    assert not np.array_equal(kernel[0], bias)


def test_a_seed_depends_on_number_and_names_alone():
    seed = seeds_of(models.build("mlp", 3, (2,), seed=7))["logits", "kernel_initializer"]
    digest = hashlib.sha256(b"7/logits/kernel_initializer").digest()
    assert seed == int.from_bytes(digest[:4], "big") // 2


def test_dropout_and_stochastic_depth_leave_the_first_weights_alone():
    plain = models.build("wrn-10-1", 4, (8, 8, 3), seed=1)
    noisy = models.build("wrn-10-1", 4, (8, 8, 3), dropout=0.3, stochastic_depth=0.2, seed=1)
    for first, second in zip(plain.get_weights(), noisy.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_original_keeps_its_settings_and_weights():
    model = models.build("convnet", 4, (8, 8, 1))
    before = model.get_weights()
    copy = clone_with_edits(model, synchronize_batch_norm, seed_from(1))
    assert copy.name == model.name
    assert set(seeds_of(model).values()) == {None}
    assert not model.get_layer("norm1").synchronized
    assert copy.get_layer("norm1").synchronized
    for first, second in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_only_seeds_change():
    model = models.build("convnet", 4, (8, 8, 1), dropout=0.1)
    for layer, seeded in zip(model.layers, clone_with_edits(model, seed_from(1)).layers, strict=True):
        before, after = layer.get_config(), seeded.get_config()
        for key, value in before.items():
            if key == "seed" or (isinstance(value, dict) and "seed" in value.get("config", {})):
                assert after[key] != value
            else:
                assert after[key] == value, (layer.name, key)


def test_rebuild_hands_the_edit_each_layer_with_its_configuration():
    model = models.build("mlp-4x2", 3, (2,))

    def widen(layer, config):
        return config | {"units": 5} if layer.name == "hidden1" else config

    copy = clone_with_edits(model, widen)
    assert isinstance(copy, keras.Model)
    assert [layer.units for layer in copy.layers[1:]] == [5, 4, 3]


def test_another_precision_keeps_the_weights_and_returns_float32():
    model = models.build("convnet", 4, (8, 8, 1), dropout=0.1, seed=1)
    images = np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 1)).astype(np.float32)
    copy = in_precision(model, "mixed_bfloat16")
    assert {layer.compute_dtype for layer in copy.layers[1:-1]} == {"bfloat16"}
    for one, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    exact, rough = model(images).numpy(), copy(images).numpy()
    assert rough.dtype == np.float32
    assert 1e-5 < abs(exact - rough).max() < 0.05 * abs(exact).max()
    np.testing.assert_array_equal(in_precision(copy, "float32")(images), exact)


def test_a_sequential_network_with_a_call_of_its_own_has_no_copy():
    class Doubled(keras.Sequential):
        def call(self, images, training=False, mask=None):
            return 2.0 * super().call(images, training=training)

    layers = keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)
    with pytest.raises(ValueError, match="whose layers cannot be copied one by one"):
        clone(Doubled(layers))
    assert clone(keras.Sequential(layers)).output_shape == (None, 3)


def _with_a_call_of_its_own():
    class Doubled(keras.Model):
        def __init__(self):
            inputs = keras.Input((4,))
            super().__init__(inputs=inputs, outputs=keras.layers.Dense(3)(inputs))

        def call(self, inputs, training=False, mask=None):
            return 2.0 * super().call(inputs, training=training)

    return Doubled()


@pytest.mark.parametrize("nested", [False, True])
def test_a_functional_network_with_a_call_of_its_own_has_no_copy(nested):
    network = _with_a_call_of_its_own()
    if nested:
        inputs = keras.Input((4,))
        network = keras.Model(inputs, network(inputs))
    with pytest.raises(ValueError, match=r"has a call of its own: build it as keras\.Model"):
        clone(network)


def test_a_class_with_nothing_but_a_call_keeps_it_where_it_is_nested():
    class Doubled(keras.Model):
        def call(self, inputs, training=False, mask=None):
            return 2.0 * super().call(inputs, training=training)

    inputs, points = keras.Input((4,)), np.ones((2, 4), np.float32)
    network = keras.Model(inputs, Doubled(inputs, keras.layers.Dense(3)(inputs))(inputs))
    np.testing.assert_array_equal(clone(network)(points), network(points))


FACTOR = 3.0


def _tripled(values):
    return FACTOR * values


@pytest.mark.parametrize("function", [_tripled, lambda values: FACTOR * values], ids=["named", "nameless"])
@pytest.mark.parametrize("shape", [None, (4,), lambda shape: shape], ids=["no shape", "shape", "function"])
def test_a_lambda_layer_keeps_its_function(function, shape):
    inputs, points = keras.Input((4,)), np.ones((2, 4), np.float32)
    tripled = keras.layers.Lambda(function, output_shape=shape, name="tripled", dtype="float64")
    network = keras.Model(inputs, keras.layers.Dense(3)(tripled(inputs)))
    copy = clone(network)
    np.testing.assert_array_equal(copy(points), network(points))
    configs = [layer.get_config() for layer in (copy.get_layer("tripled"), tripled)]
    if callable(shape):
        assert copy.get_layer("tripled").compute_output_shape((2, 4)) == (2, 4)
        configs = [{**config, "output_shape": None} for config in configs]
    assert configs[0] == configs[1]


def test_a_layer_that_its_configuration_does_not_make():
    class Times(keras.layers.Layer):
        def __init__(self, factor):
            super().__init__(name="times")
            self.factor = factor

        def call(self, values):
            return self.factor * values

    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match=r"The layer 'times' cannot be copied.*Times.*get_config"):
        clone(keras.Model(inputs, keras.layers.Dense(3)(Times(2.0)(inputs))))
