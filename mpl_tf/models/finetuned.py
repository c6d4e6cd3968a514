"""A copy of a finished network to fine-tune: at another resolution, with its shallow layers frozen."""

from collections.abc import Sequence

import keras

from mpl_tf.models.surgery import clone
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
    copy = clone(network, image_shape=image_shape)
    layers = [layer for layer in copy.layers if layer.weights]
    for layer in layers[: int(frozen_fraction * len(layers))]:
        layer.trainable = False
    return copy
