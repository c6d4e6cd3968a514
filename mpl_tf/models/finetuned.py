"""A copy of a finished network to fine-tune: at another resolution, with its shallow layers frozen."""

from collections.abc import Sequence

import keras

from mpl_tf import checks
from mpl_tf.models.rebuilding import clone


def to_finetune(
    network: keras.Model, image_shape: Sequence[int] | None = None, *, frozen_share: float = 0.0
) -> keras.Model:
    """Copies a network with its weights.

    FixRes (Touvron et al. 2019, arXiv 1906.06423), the end of Noisy Student's training, is a larger `image_shape`
    with most layers frozen, on pictures that are not augmented.

    Args:
        network: functional model from pictures to logits.
        image_shape: `(height, width, channels)` that the copy takes; None for the network's own.
        frozen_share: share of the layers with weights, from the input on, that do not learn, in [0, 1). Frozen
            BatchNormalization uses its moving statistics.

    Returns:
        The copy; the network stays as it is.

    Raises:
        ValueError: for a share out of range, or a network whose weights depend on the resolution.
    """
    checks.within("frozen_share", frozen_share, low=0.0, high=0.99)
    copy = clone(network, image_shape=image_shape)
    layers = [layer for layer in copy.layers if layer.weights]
    for layer in layers[: int(frozen_share * len(layers))]:
        layer.trainable = False
    return copy
