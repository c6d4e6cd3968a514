"""RandAugment (Cubuk et al., arXiv 1909.13719) of whole batches, as in the released Meta Pseudo Labels.

Each image draws a probability p ~ U(.2, .8). In each of N slots it then draws one of 15 operations and
applies it with probability p. All strengths follow from one magnitude M, where 10 was meant as the top of the
scale (level = M / 10) and the paper uses 16 and 17:

| operation | argument | at M = 16 |
|---|---|---|
| AutoContrast, Equalize, Invert | – | – |
| Color, Contrast, Brightness, Sharpness | factor .1 + 1.8 level | 2.98 |
| Posterize | 4 level bits stay, so that a larger M does less | 6 bits |
| Solarize | threshold 256 level, modulo 256 (the released code wraps it as uint8) | 153 |
| Rotate | ±30 level degrees | 48° |
| ShearX, ShearY | ±.3 level | .48 |
| TranslateX, TranslateY | ±level · translate_ratio of the shorter side | 6 of 32 pixels |
| Cutout | half-size level · cutout_ratio of the shorter side | 6 of 32 pixels |
| SolarizeAdd (defined there, never drawn) | add 110 level below 128 | 176 |

Where the released code's arithmetic goes wrong (`color.blend`, `color.contrast`), this one follows Pillow.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable

import keras
import tensorflow as tf

from mpl_tf.data.augmentation import color, geometry, stateless_random
from mpl_tf.utils.validation import check_choice

MAX_MAGNITUDE = 30
RANDAUGMENT_STREAM = 3
# From this shorter side on, the constants of the released ImageNet pipeline hold (Translate 100, Cutout 40 of 224
# pixels), below it those of the CIFAR one (an eighth of the side).
LARGE_SIDE = 128
# The order is part of what a seed means.
DRAWN_OPERATIONS = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "Color", "Contrast"),
    *("Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout"),
)
OPERATIONS = (*DRAWN_OPERATIONS, "SolarizeAdd")
_DRAWS_PER_SLOT = 5


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Distorts each image by operations of its own, a pure function of (seed, position).

    Args:
        num_operations: slots per image, the paper's N; 0 or more.
        magnitude: strength of all operations, the paper's M; 0 … 30.
        translate_ratio: pixels that TranslateX and TranslateY move at level 1, as a fraction of the shorter side. By
            default 100 / 224 from 128 pixels on and 1/8 below, as in the released ImageNet and CIFAR pipelines.
        cutout_ratio: Cutout's half-size at level 1, likewise; by default 40 / 224 and 1/8.
        static_shapes: whether all shapes are to be known beforehand, as XLA wants it: every operation is then made of
            every image, and one is kept. For accelerators; on a CPU many times slower.
        fill: the level, 0…255, of Cutout's square and of what moves in from outside, one for all channels or one for
            each.

    Raises:
        ValueError: if `num_operations`, `magnitude` or `fill` is out of range.
    """

    num_operations: int = 2
    magnitude: float = 16
    translate_ratio: float | None = None
    cutout_ratio: float | None = None
    static_shapes: bool = False
    fill: geometry.Fill = geometry.GRAY

    def __post_init__(self):
        _check_strength(self.num_operations, self.magnitude)
        object.__setattr__(self, "fill", geometry.checked_fill(self.fill))

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Distorts a batch.

        Args:
            images: uint8 `[n, H, W, C]`, C of 1 or 3, static H, W and C.
            seed: any integer.
            position: int64 `[n]`, of each image in the stream.

        Returns:
            uint8 `[n, H, W, C]`.
        """
        images = tf.convert_to_tensor(images)
        if not self.num_operations:
            return images
        draws = 1 + _DRAWS_PER_SLOT * self.num_operations
        uniforms = stateless_random.uniform(seed, position, draws, stream=RANDAUGMENT_STREAM)
        first, *slots = tf.split(uniforms, [1] + [_DRAWS_PER_SLOT] * self.num_operations, axis=1)
        probability = 0.2 + 0.6 * first
        apply = self._apply_slot
        if not tf.executing_eagerly():
            # The slots differ in their numbers alone, so that one is traced and then called for each.
            apply = tf.function(apply, autograph=False)
        for slot in slots:
            images = apply(images, probability, slot)
        return images

    @tf.autograph.experimental.do_not_convert
    def apply(self, name: str, images: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Applies one operation to every image of a batch.

        Args:
            name: one of `OPERATIONS`.
            images: uint8 `[n, H, W, C]`, C of 1 or 3, static H, W and C.
            uniforms: float32 `[n, 3]` in [0, 1): the sign (below .5 is minus), then Cutout's row and column.

        Returns:
            uint8 `[n, H, W, C]`.
        """
        height, width = images.shape[1:3]
        side = min(height, width)
        factor = 0.1 + self._scaled(1.8)
        # Pillow keeps 1 … 8 bits; with 0, to which M below 3 would lead, every image were black.
        bits = min(max(int(self._scaled(4)), 1), 8)
        # Whole pixels: the nearest one would be taken anyway, though at a half not evenly to both sides.
        pixels = math.floor(self._scaled(side * self._ratio(self.translate_ratio, 100 / 224, side)) + 0.5)
        half_size = int(self._scaled(side * self._ratio(self.cutout_ratio, 40 / 224, side)))

        # As functions, so that the graph of an operation holds only what that operation needs.
        def sign():
            return tf.where(tf.unstack(uniforms, axis=1)[0] < 0.5, -1.0, 1.0)

        def cut_out():
            _, row, column = tf.unstack(uniforms, axis=1)
            row, column = stateless_random.integers(row, height), stateless_random.integers(column, width)
            return geometry.cutout(images, row, column, half_size, fill=self.fill)

        operations: dict[str, Callable[[], tf.Tensor]] = {
            "AutoContrast": lambda: color.autocontrast(images),
            "Equalize": lambda: color.equalize(images),
            "Invert": lambda: color.invert(images),
            "Rotate": lambda: geometry.rotate(images, self._scaled(30.0) * sign(), fill=self.fill),
            "Posterize": lambda: color.posterize(images, bits),
            "Solarize": lambda: color.solarize(images, int(self._scaled(256)) % 256),
            "Color": lambda: color.saturate(images, factor),
            "Contrast": lambda: color.contrast(images, factor),
            "Brightness": lambda: color.brightness(images, factor),
            "Sharpness": lambda: color.sharpness(images, factor),
            "ShearX": lambda: geometry.shear_x(images, self._scaled(0.3) * sign(), fill=self.fill),
            "ShearY": lambda: geometry.shear_y(images, self._scaled(0.3) * sign(), fill=self.fill),
            "TranslateX": lambda: geometry.translate_x(images, pixels * sign(), fill=self.fill),
            "TranslateY": lambda: geometry.translate_y(images, pixels * sign(), fill=self.fill),
            "Cutout": cut_out,
            "SolarizeAdd": lambda: color.solarize_add(images, int(self._scaled(110))),
        }
        return operations[name]()

    def _apply_slot(self, images, probability, uniforms) -> tf.Tensor:
        """Applies to each image the operation that it draws in one slot, or none.

        Args:
            images: uint8 `[n, H, W, C]`.
            probability: float32 `[n, 1]`, of any operation.
            uniforms: float32 `[n, 5]` in [0, 1): whether, which, and what `apply` takes.
        """
        drawn, kind, arguments = tf.split(uniforms, [1, 1, _DRAWS_PER_SLOT - 2], axis=1)
        applied = tf.cast(drawn < probability, tf.int32)
        operation = applied * (1 + stateless_random.integers(kind, len(DRAWN_OPERATIONS)))
        apply = self._apply_all if self.static_shapes else self._apply_each
        return apply(images, tf.squeeze(operation, 1), arguments)

    def _apply_each(self, images, operation, uniforms) -> tf.Tensor:
        """Applies to each image the operation of its number, 0 for none: an image pays for its own one alone."""
        rows = tf.dynamic_partition(tf.range(tf.size(operation)), operation, 1 + len(DRAWN_OPERATIONS))
        parts = [tf.gather(images, rows[0])]
        for name, chosen in zip(DRAWN_OPERATIONS, rows[1:], strict=True):
            parts.append(self.apply(name, tf.gather(images, chosen), tf.gather(uniforms, chosen)))
        return tf.ensure_shape(tf.dynamic_stitch(rows, parts), images.shape)

    def _apply_all(self, images, operation, uniforms) -> tf.Tensor:
        """The same result from pieces of known size: each operation of all images, of which one is kept."""
        kept = images
        for number, name in enumerate(DRAWN_OPERATIONS, start=1):
            chosen = (operation == number)[:, tf.newaxis, tf.newaxis, tf.newaxis]
            kept = tf.where(chosen, self.apply(name, images, uniforms), kept)
        return tf.ensure_shape(kept, images.shape)

    def _scaled(self, top: float) -> float:
        """The strength when magnitude 10 stands for `top`."""
        return self.magnitude * top / 10

    @staticmethod
    def _ratio(given: float | None, of_large_images: float, side: int) -> float:
        if given is not None:
            return given
        return of_large_images if side >= LARGE_SIDE else 1 / 8


class LayerPolicy:
    """A Keras layer behind the same call.

    The layer draws from a random state of its own: a run that uses it resumes, but not bit for bit.

    Args:
        layer: takes and returns float images `[n, H, W, 3]` in 0 … 255.
    """

    def __init__(self, layer: keras.layers.Layer):
        # A function of its own, because keras_cv's layers need AutoGraph, whoever calls them.
        self._layer = tf.function(lambda images: layer(images, training=True), reduce_retracing=True)

    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Distorts a batch, uint8 `[n, H, W, C]` → uint8 `[n, H, W, C]`; `seed` and `position` are not used."""
        channels = images.shape[-1]
        colored = tf.repeat(images, 3 // channels, axis=-1)
        distorted = tf.cast(self._layer(colored), tf.float32)[..., :channels]
        return tf.cast(tf.clip_by_value(distorted, 0.0, 255.0) + 0.5, tf.uint8)


def _keras_cv_policy(num_operations: int, magnitude: float) -> LayerPolicy:
    """Ten operations per image and slot, without Invert, Posterize, Rotate and Cutout."""
    import keras_cv  # Here, because importing it takes seconds that no other policy should cost.

    with _float32_layers():
        return LayerPolicy(keras_cv.layers.RandAugment((0, 255), num_operations, magnitude / MAX_MAGNITUDE))


def _keras_policy(num_operations: int, magnitude: float) -> LayerPolicy:
    """Eleven operations; one set for the whole batch, without Invert and Cutout."""
    with _float32_layers():
        return LayerPolicy(keras.layers.RandAugment((0, 255), num_operations, magnitude / MAX_MAGNITUDE))


@contextlib.contextmanager
def _float32_layers():
    """Layers made inside compute in float32: mixed precision would round levels, and keras_cv's fail with it."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


_LAYER_POLICIES: dict[str, Callable[[int, float], LayerPolicy]] = {
    "keras_cv": _keras_cv_policy,
    "keras": _keras_policy,
}


def make_policy(
    name: str,
    num_operations: int,
    magnitude: float,
    *,
    static_shapes: bool = False,
    fill: geometry.Fill = geometry.GRAY,
) -> Callable[..., tf.Tensor]:
    """Builds a RandAugment policy by name.

    Args:
        name: "paper" for `RandAugment`; "keras_cv" or "keras" for `keras_cv.layers.RandAugment` or
            `keras.layers.RandAugment`, whose strength 0 … 1 stands for 0 … 30 and which draw from a random state
            of their own, so that a run resumes, but not bit for bit.
        num_operations: operations per image, 0 or more.
        magnitude: strength, 0 … 30.
        static_shapes: as in `RandAugment`; the other policies cannot.
        fill: as in `RandAugment`; the other policies have a gray of their own.

    Returns:
        A callable (images uint8 `[n, H, W, C]`, *, seed, position) → uint8 `[n, H, W, C]`.

    Raises:
        ValueError: if there is no such policy, or a number is out of range.
    """
    check_choice("policy", name, ("paper", *_LAYER_POLICIES))
    _check_strength(num_operations, magnitude)
    if name == "paper":
        return RandAugment(num_operations, magnitude, static_shapes=static_shapes, fill=fill)
    if geometry.checked_fill(fill) != geometry.GRAY:
        raise ValueError(
            f"RandAugment policy {name!r} fills with a gray of its own, and fill is {fill!r}: choose 'paper', or "
            f"leave the fill at {geometry.GRAY}."
        )
    if static_shapes:
        raise ValueError(
            f"RandAugment policy {name!r} cannot run inside of a training step: choose 'paper', or let the input "
            "pipeline augment."
        )
    return _LAYER_POLICIES[name](num_operations, magnitude)


def _check_strength(num_operations: int, magnitude: float) -> None:
    if num_operations < 0:
        raise ValueError(
            f"num_operations is {num_operations}; expected 0 (no RandAugment) or more, such as 2."
        )
    if not 0 <= magnitude <= MAX_MAGNITUDE:
        raise ValueError(f"magnitude is {magnitude}; expected 0 … {MAX_MAGNITUDE}, such as the paper's 16.")
