"""From noise to images: the generator of data-free learning, and the noise that it is measured against.

Chen et al., *Data-Free Learning of Student Networks*, arXiv 1904.01186. The layers are those of the code released
with it (`DAFL-train.py` of huawei-noah): a dense layer, two nearest-neighbor doublings, three 3×3 convolutions, and
BatchNorm with an ε of 0.8 after the first two of them.

The released generator ends in tanh and a BatchNorm without scale and offset, so its images have mean 0 and
variance 1 per channel: the unit of the *standardized* images that the released teachers take. The networks here
take pixels in 0…255 and bring them to −1…1 themselves. So here one more step turns the standardized image x into
the pixels `pixel_mean + pixel_std · x` and cuts them off at 0 and 255, which no image exceeds.

With the default moments, 127.5 and 127.5, a network's own rescaling undoes the step, and it sees mean 0 and variance
1 but for the cut. With the mean and the standard deviation of the images that the teacher was trained on, its
generated images get the moments that the released code gives them: two numbers about the data, which a released
teacher's standardization tells and a network here does not.
"""

from collections.abc import Sequence
from numbers import Integral

import keras
from keras import layers

from mpl_tf.models.surgery import Edit, clone_with_edits, seed_from, synchronize_batch_norm
from mpl_tf.utils.validation import check_integer, check_range


def build_generator(
    image_shape: Sequence[int],
    *,
    latent_dim: int = 100,
    width: int = 128,
    pixel_mean: float = 127.5,
    pixel_std: float = 127.5,
    synchronized: bool = False,
    seed: int | None = None,
    name: str = "generator",
) -> keras.Model:
    """Builds the generator of data-free learning with fresh weights.

    Args:
        image_shape: `(height, width, channels)` of the images; both sides divisible by 4.
        latent_dim: length of the noise; 100 on MNIST and 1000 on CIFAR in the released code.
        width: filters of the dense layer and the first convolution; the second has half of them.
        pixel_mean: mean of the pixels that a batch of generated images has before they are cut off, in 0…255.
        pixel_std: their standard deviation.
        synchronized: whether BatchNormalization takes its statistics over all replicas.
        seed: of the initial weights; without one Keras' global generator draws them.
        name: name of the model.

    Returns:
        A functional model from noise, float32 `[B, latent_dim]`, to pixels, float32 `[B, *image_shape]` in 0…255. It
        saves, loads and clones without custom objects.

    Raises:
        ValueError: if a side is not divisible by 4, or a number is out of range.
    """
    check_integer("latent_dim", latent_dim, low=1)
    check_integer("width", width, low=2)
    height, breadth, channels = _image(image_shape)
    if height % 4 or breadth % 4:
        raise ValueError(
            f"image_shape={tuple(image_shape)} has a side that is not divisible by 4, and the generator doubles a "
            "quarter of each twice: resize or pad the images, for example to 28×28 or 32×32."
        )
    inputs = keras.Input((latent_dim,), dtype="float32", name="noise")
    x = layers.Dense(width * height * breadth // 16, name="dense")(inputs)
    x = layers.Reshape((height // 4, breadth // 4, width), name="reshape")(x)
    x = _normalization(1e-5, name="norm0")(x)
    for index, filters in enumerate((width, width // 2), start=1):
        x = layers.UpSampling2D(2, name=f"double{index}")(x)
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv{index}")(x)
        x = _normalization(0.8, name=f"norm{index}")(x)
        x = layers.LeakyReLU(negative_slope=0.2, name=f"leaky{index}")(x)
    x = layers.Conv2D(channels, 3, padding="same", name="conv3")(x)
    # From here on in float32 under a mixed policy: bfloat16 has eight significant bits, too few for pixels.
    x = layers.Activation("tanh", dtype="float32", name="tanh")(x)
    x = _normalization(1e-5, scale=False, center=False, dtype="float32", name="standardize")(x)
    model = keras.Model(inputs, _pixels(x, pixel_mean, pixel_std), name=name)
    edits: list[Edit] = [synchronize_batch_norm] if synchronized else []
    if seed is not None:
        edits.append(seed_from(seed))
    return clone_with_edits(model, *edits) if edits else model


def pixel_noise(
    image_shape: Sequence[int],
    *,
    pixel_mean: float = 127.5,
    pixel_std: float = 127.5,
    name: str = "noise",
) -> keras.Model:
    """Builds what stands in for a generator where a student is to learn from noise: every pixel by itself.

    Args:
        image_shape: `(height, width, channels)` of the images.
        pixel_mean: mean of the pixels before they are cut off, in 0…255.
        pixel_std: their standard deviation.
        name: name of the model.

    Returns:
        A functional model without weights from standard normal noise, float32 `[B, height · width · channels]`, to
        pixels, float32 `[B, *image_shape]` in 0…255.

    Raises:
        ValueError: if the shape is not that of an image, or a number is out of range.
    """
    height, breadth, channels = _image(image_shape)
    inputs = keras.Input((height * breadth * channels,), dtype="float32", name="noise")
    x = layers.Reshape((height, breadth, channels), dtype="float32", name="reshape")(inputs)
    return keras.Model(inputs, _pixels(x, pixel_mean, pixel_std), name=name)


def _normalization(epsilon: float, **options) -> keras.Layer:
    return layers.BatchNormalization(momentum=0.9, epsilon=epsilon, **options)


def _pixels(standardized: keras.KerasTensor, mean: float, deviation: float) -> keras.KerasTensor:
    check_range("pixel_mean", mean, low=0.0, high=255.0)
    check_range("pixel_std", deviation, low=1e-3)
    x = layers.Rescaling(deviation, offset=mean, dtype="float32", name="pixels")(standardized)
    return layers.ReLU(max_value=255.0, dtype="float32", name="cut")(x)


def _image(image_shape: Sequence[int]) -> tuple[int, int, int]:
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(size, Integral) and size > 0 for size in shape):
        raise ValueError(
            f"image_shape={shape} is not that of an image: pass (height, width, channels), such as (32, 32, 3)."
        )
    height, width, channels = map(int, shape)
    return height, width, channels
