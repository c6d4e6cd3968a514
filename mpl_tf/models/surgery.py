"""One pass over a finished network that edits its layers' settings, whoever wrote the network.

Architectures are written without a word about seeds or replicas, and keras.applications has no arguments for
them. Both live in the layers' configurations, so a copy of the network with edited configurations has them.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import keras

LayerConfig = dict[str, Any]
Edit = Callable[[keras.Layer, LayerConfig], LayerConfig]


def clone_with_edits(model: keras.Model, *edits: Edit) -> keras.Model:
    """Copies a functional model, layer by layer, with edited settings and fresh weights.

    Args:
        model: A functional model without nested models.
        *edits: Functions applied in turn; each takes a layer of `model` and the configuration of its copy so
            far, and returns the configuration to go on with.

    Returns:
        The copy; layer names and model name stay.
    """

    def copy(layer: keras.Layer) -> keras.Layer:
        config = layer.get_config()
        for edit in edits:
            config = edit(layer, config)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=copy)


def seed_from(seed: int) -> Edit:
    """Makes an edit that gives every initializer and every dropout layer a seed of its own.

    A layer's seeds depend on `seed` and the layer's name alone, not on the layers around it. So a network with
    dropout or stochastic depth starts from the same weights as the one without, and ablations compare like
    with like. The layers must be named by hand: automatic names count up in a process.

    Args:
        seed: Any whole number.

    Returns:
        An edit for `clone_with_edits`.
    """

    def edit(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        return {key: _seeded(key, value, f"{seed}/{layer.name}/{key}") for key, value in config.items()}

    return edit


def synchronize_batch_norm(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
    """Edits BatchNormalization to take its statistics over all replicas.

    Args:
        layer: Any layer.
        config: Its configuration.

    Returns:
        The configuration, with `synchronized=True` if the layer is a BatchNormalization.
    """
    return config | {"synchronized": True} if isinstance(layer, keras.layers.BatchNormalization) else config


def in_precision(model: keras.Model, policy: str) -> keras.Model:
    """Copies a finished functional model, to compute in another precision with the same weights.

    Args:
        model: A functional model without nested models.
        policy: A Keras dtype policy, such as "mixed_bfloat16". The last layer computes in float32, as logits should.

    Returns:
        The copy.
    """
    last = model.layers[-1]

    def edit(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        return config | {"dtype": "float32" if layer is last else policy}

    copy = clone_with_edits(model, edit)
    copy.set_weights(model.get_weights())
    return copy


def _seeded(key: str, value: Any, path: str) -> Any:
    if key == "seed":
        return _seed_of(path)
    if isinstance(value, dict) and "seed" in value.get("config", {}):
        return value | {"config": value["config"] | {"seed": _seed_of(path)}}
    return value


def _seed_of(path: str) -> int:
    # A hash, since Python's own differs between processes; 31 bits, which every seed dtype of Keras holds.
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") >> 1
