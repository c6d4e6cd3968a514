"""Surgery on networks: copies with edited settings, other inputs and new heads, whoever wrote them.

Architectures are written without a word about seeds or replicas, and keras.applications has no arguments for
them. Both live in the layers' configurations, so a copy of the network with edited configurations has them.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from mpl_tf.models.class_names import copy_class_names
from mpl_tf.models.resizing import copy_resizing
from mpl_tf.utils.validation import check_range

_AUTOMATIC_NAME = re.compile(r"(?P<kind>[a-z][a-z0-9_]*?)(_\d+)?")

LayerConfig = dict[str, Any]
Edit = Callable[[keras.Layer, LayerConfig], LayerConfig | keras.Layer]


def clone_with_edits(
    network: keras.Model,
    *edits: Edit,
    inputs: keras.KerasTensor | None = None,
    front: keras.KerasTensor | None = None,
    without: Sequence[keras.Layer] = (),
    keep_weights: Callable[[keras.Layer], bool] | None = None,
) -> keras.Model:
    """Copies a network, layer by layer, with edited settings and fresh weights.

    Args:
        network: functional or sequential; networks nested in it are copied in the same way.
        *edits: functions applied in turn; each takes a layer of `network` and the configuration of its copy so
            far, and returns the configuration to go on with, or a layer that takes the copy's place.
        inputs: input of the copy, such as one of another resolution; None for one like the network's own.
        front: tensor computed from `inputs` that the network's first layers take in their stead.
        without: layers with one input that are left out.
        keep_weights: whether the copy of a layer gets that layer's weights, and not fresh ones; None for no layer.

    Returns:
        The copy. Its name, its class names, the layers' names and which of them learn are those of the network.

    Raises:
        ValueError: for a network that is neither functional nor sequential, a class whose own call the copy would not
            have, a layer that its configuration does not make, or weights of other shapes.
    """
    pairs, omitted = [], {id(layer) for layer in without}

    def copy(layer):
        made = edited_copy(layer, *edits)
        pairs.append((layer, made))
        if id(layer) in omitted:
            omitted.add(id(made))
        return made

    def call(layer, *arguments, **options):
        if front is not None:
            arguments = tuple(front if argument is inputs else argument for argument in arguments)
        return arguments[0] if id(layer) in omitted else layer(*arguments, **options)

    copied = keras.models.clone_model(
        _of_layers(network),
        input_tensors=inputs,
        clone_function=copy,
        call_function=call,
        recursive=True,
    )
    # Keras copies the layers alone, unless a class is made of inputs and outputs.
    calls = {type(model).call for model in _models(copied)}
    for model in _models(network):
        if _has_own_call(model) and type(model).call not in calls:
            raise _own_call_error(model)
    for layer, made in pairs:
        kept = isinstance(layer, keras.Layer) and id(layer) not in omitted
        if kept and keep_weights is not None and keep_weights(layer):
            _copy_weights(network, layer, made, copied.input_shape[1:])
    copy_class_names(network, copied)
    copy_resizing(network, copied)
    return copied


def edited_copy(layer: keras.Layer, *edits: Edit) -> keras.Layer:
    """Copies one layer with edited settings, not built yet.

    Args:
        layer: a layer.
        *edits: as in `clone_with_edits`.

    Returns:
        The copy, or what an edit has put in its place.

    Raises:
        ValueError: for a layer that its configuration does not make.
    """
    kind, config = type(layer), layer.get_config()
    for edit in edits:
        edited = edit(layer, config)
        if isinstance(edited, keras.Layer):
            kind, config = type(edited), edited.get_config()
        else:
            config = edited
    if type(layer) is kind is keras.layers.Lambda:
        # Keras would look for its function by name, and takes one without a name for code from a file.
        given = {"function": layer.function, "mask": layer.mask, "arguments": layer.arguments}
        if not isinstance(config.get("output_shape", ()), list | tuple):
            # A function too.
            given["output_shape"] = layer.compute_output_shape
        return kind(**config | given)
    try:
        return kind.from_config(config)
    except TypeError as error:
        raise ValueError(
            f"The layer {layer.name!r} cannot be copied, because {kind.__name__} is not made by what its get_config "
            "returns: give the class a get_config with all its arguments and an __init__ that takes **kwargs, and "
            "register functions of your own by keras.saving.register_keras_serializable."
        ) from error


def clone(network: keras.Model, *edits: Edit, image_shape: Sequence[int] | None = None) -> keras.Model:
    """Copies a network with its weights.

    Args:
        network: functional or sequential, from images to logits.
        *edits: as in `clone_with_edits`.
        image_shape: `(height, width, channels)` that the copy takes; None for the network's own.

    Returns:
        The copy; the network stays as it is.

    Raises:
        ValueError: for a network whose weights depend on the resolution.
    """
    inputs = None
    if image_shape is not None and tuple(image_shape) != tuple(network.input_shape[1:]):
        inputs = keras.Input(tuple(image_shape), dtype="float32", name="image")
    return clone_with_edits(network, *edits, inputs=inputs, keep_weights=lambda layer: True)


def to_finetune(
    network: keras.Model, image_shape: Sequence[int] | None = None, *, frozen_fraction: float = 0.0
) -> keras.Model:
    """Copies a network with its weights.

    FixRes (Touvron et al. 2019, arXiv 1906.06423), the end of Noisy Student's training, is a larger `image_shape`
    with most layers frozen, on images that are not augmented.

    Args:
        network: functional model from images to logits.
        image_shape: `(height, width, channels)` that the copy takes; None for the network's own.
        frozen_fraction: fraction of the layers with weights, from the input on, that do not learn, in [0, 1). Frozen
            BatchNormalization uses its moving statistics.

    Returns:
        The copy; the network stays as it is.

    Raises:
        ValueError: for a fraction out of range, or a network whose weights depend on the resolution.
    """
    check_range("frozen_fraction", frozen_fraction, low=0.0, high=0.99)
    copy = clone(network, image_shape=image_shape)
    layers = [layer for layer in copy.layers if layer.weights]
    for layer in layers[: int(frozen_fraction * len(layers))]:
        layer.trainable = False
    return copy


def as_functional(network: keras.Model) -> keras.Model:
    """Takes a sequential network as a functional one of the same layers.

    Args:
        network: functional or sequential.

    Returns:
        The network itself where it is functional.

    Raises:
        ValueError: for a subclassed model, one whose class has a call of its own, or one that is not built.
    """
    functional = _of_layers(network)
    if _has_own_call(functional):
        raise _own_call_error(functional)
    return functional


def _of_layers(network):
    if (
        isinstance(network, keras.Sequential)
        and network.built
        and type(network).call is keras.Sequential.call
    ):
        return keras.Model(network.inputs[0], network.outputs[0], name=network.name)
    if isinstance(network, keras.Sequential) or not hasattr(network, "output_shape"):
        raise ValueError(
            f"{network.name!r} is a model whose layers cannot be copied one by one: build it as keras.Model(inputs, "
            "outputs), or as keras.Sequential that begins with keras.Input."
        )
    return network


def _models(network):
    yield network
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _models(layer)


def _has_own_call(model):
    return not type(model).call.__module__.startswith("keras.")


def _own_call_error(model):
    return ValueError(
        f"{model.name!r} is a {type(model).__name__}, whose class has a call of its own: build it as "
        "keras.Model(inputs, outputs) of layers that compute the same."
    )


def leaf_layers(network: keras.Model) -> Iterator[keras.Layer]:
    """Walks over a network's layers from the input on, and over those of the networks nested in it.

    Args:
        network: any.

    Yields:
        Layers that are not networks themselves.
    """
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def regularized_parts(network: keras.Model) -> list[str]:
    """The weights that learn, by path, and the layers, by name, that have a regularizer.

    Args:
        network: any.
    """
    weights = [variable.path for variable in network.trainable_variables if variable.regularizer is not None]
    layers = [layer.name for layer in leaf_layers(network) if getattr(layer, "activity_regularizer", None)]
    return [*weights, *layers]


def finalize_normalization(layer: keras.Layer) -> None:
    """Makes a `Normalization` layer compute with weights that have been set; other layers do so anyway.

    It computes with constants that it derives from its weights when it is adapted or loaded.
    """
    if isinstance(layer, keras.layers.Normalization) and layer.weights:
        layer.finalize_state()


def seed_from(seed: int) -> Edit:
    """Makes an edit that gives every initializer and every dropout layer a seed of its own.

    A layer's seeds depend on `seed` and the layer's name alone, not on the layers around it. So a network with
    dropout or stochastic depth starts from the same weights as the one without, and ablations compare like
    with like. The layers must be named by hand: automatic names count up in a process.

    Args:
        seed: any whole number.

    Returns:
        An edit for `clone_with_edits`.
    """

    def edit(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        return {key: _seeded(key, value, f"{seed}/{config['name']}/{key}") for key, value in config.items()}

    return edit


def synchronize_batch_norm(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
    """Edits BatchNormalization to take its statistics over all replicas.

    Args:
        layer: any layer.
        config: its configuration.

    Returns:
        The configuration, with `synchronized=True` if the layer is a BatchNormalization.
    """
    return config | {"synchronized": True} if isinstance(layer, keras.layers.BatchNormalization) else config


def named_by_position(*, except_for: Sequence[str] = ()) -> Edit:
    """Makes an edit that renumbers the layers that Keras named, such as `conv2d_17`.

    Keras counts such names up in a process. Counted anew in one network, they are the same in every process, so that
    what depends on them, a layer's seed or `--trainable=LAYER`, is too.

    Args:
        except_for: names that look like Keras' and are not.

    Returns:
        An edit for one call of `clone_with_edits`.
    """
    counts: dict[str, int] = {}

    def edit(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        automatic = _AUTOMATIC_NAME.fullmatch(layer.name)
        kind = automatic["kind"] if automatic else ""
        if kind.replace("_", "") != type(layer).__name__.lower() or layer.name in except_for:
            return config
        counts[kind] = counts.get(kind, 0) + 1
        return config | {"name": f"{kind}_{counts[kind]}"}

    return edit


def in_precision(network: keras.Model, policy: str) -> keras.Model:
    """Copies a finished functional network, to compute in another precision with the same weights.

    Args:
        network: functional.
        policy: a Keras dtype policy, such as "mixed_bfloat16". The last layer computes in float32, as logits should.

    Returns:
        The copy.
    """
    last = network.layers[-1]

    def edit(layer: keras.Layer, config: LayerConfig) -> LayerConfig:
        return config | {"dtype": "float32" if layer is last else policy}

    return clone(network, edit)


def _copy_weights(network, layer, made, shape):
    if [weight.shape for weight in layer.weights] != [weight.shape for weight in made.weights]:
        raise ValueError(
            f"{network.name!r} takes images of shape {tuple(network.input_shape[1:])}, and its weights would have "
            f"other shapes for {tuple(shape)}: take a network that averages over positions before its last layer."
        )
    if layer.weights:
        made.set_weights(layer.get_weights())
    finalize_normalization(made)


def _seeded(key: str, value: Any, path: str) -> Any:
    if key == "seed":
        return _seed_of(path)
    if isinstance(value, dict) and "seed" in value.get("config", {}):
        return value | {"config": value["config"] | {"seed": _seed_of(path)}}
    return value


def _seed_of(path: str) -> int:
    # A hash, since Python's own differs between processes; 31 bits, which every seed dtype of Keras holds.
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") >> 1
