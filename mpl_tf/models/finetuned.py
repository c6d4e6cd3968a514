"""A copy of a finished network to fine-tune: at another resolution, with its shallow layers frozen."""

from collections.abc import Sequence

import keras

from mpl_tf.utils.validation import check_range


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
    if image_shape is None or tuple(image_shape) == tuple(network.input_shape[1:]):
        copy = keras.models.clone_model(network)
    else:
        images = keras.Input(tuple(image_shape), dtype="float32", name="image")
        copy = keras.models.clone_model(network, input_tensors=images)
    before, after = ([weight.shape for weight in model.weights] for model in (network, copy))
    if before != after:
        raise ValueError(
            f"{network.name!r} takes images of shape {network.input_shape[1:]}, and its weights would have other "
            f"shapes for {tuple(image_shape)}: take a network that averages over positions before its last layer."
        )
    copy.set_weights(network.get_weights())
    layers = [layer for layer in copy.layers if layer.weights]
    for layer in layers[: int(frozen_fraction * len(layers))]:
        layer.trainable = False
    return copy
