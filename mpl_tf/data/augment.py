"""The weak and the strong view of a batch, for pictures and for points.

A view is called as `view(images, seed=…, position=…)` and is a pure function of its arguments, apart from the
strong views that wrap a Keras layer. The strong view takes the weak one's result, as in the released code of
Meta Pseudo Labels:

    weak   = flip, pad by 1/8 with grey, crop
    strong = RandAugment, Cutout, flip, pad by 1/8 with grey, crop   (below 128 pixels: the CIFAR pipeline)
    strong = RandAugment, flip, pad by 1/8 with grey, crop           (from 128 pixels on: the ImageNet pipeline)

The released ImageNet pipeline crops while it decodes; here pictures arrive in their final size, so the padded
crop stays.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from mpl_tf.data import geometry, stateless
from mpl_tf.data.randaugment import LARGE_SIDE, make_policy

WEAK_STREAM = 1
STRONG_STREAM = 2

View = Callable[..., tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Identity:
    """Returns the examples as they are."""

    def __call__(self, images, *, seed: int, position) -> tf.Tensor:
        """Converts a batch [n, ...] to float32; `seed` and `position` are not used."""
        return tf.cast(images, tf.float32)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Moves points by independent normal noise.

    Args:
        stddev: The noise's standard deviation in the points' own unit; 0 or more.

    Raises:
        ValueError: If `stddev` is negative.
    """

    stddev: float

    def __post_init__(self):
        if not self.stddev >= 0:
            raise ValueError(f"stddev of the noise is {self.stddev}; expected 0 or more, such as 0.1.")

    def __call__(self, images, *, seed: int, position) -> tf.Tensor:
        """Adds noise to a batch.

        Args:
            images: Any real type [n, D], the points.
            seed: Any integer.
            position: int64 [n], the place of each point in the stream.

        Returns:
            float32 [n, D].
        """
        noise = stateless.normal(seed, position, images.shape[1], stream=STRONG_STREAM)
        return tf.cast(images, tf.float32) + self.stddev * noise


@dataclasses.dataclass(frozen=True)
class WeakView:
    """Flips half of the pictures left to right, pads with grey and crops back to the old size.

    Args:
        flip: Whether pictures may be mirrored; digits and letters may not.
        padding: Pixels added on each side; by default an eighth of the shorter side.
        fill: Their level.

    Raises:
        ValueError: If `padding` is negative.
    """

    flip: bool = True
    padding: int | None = None
    fill: int = geometry.GREY

    def __post_init__(self):
        if self.padding is not None and self.padding < 0:
            raise ValueError(
                f"padding is {self.padding}; expected 0 or more pixels, or None for 1/8 of the side."
            )

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images, *, seed: int, position) -> tf.Tensor:
        """Makes the weak view of a batch.

        Args:
            images: uint8 or float32 in 0 … 255 [n, H, W, C], static H, W and C.
            seed: Any integer.
            position: int64 [n], the place of each picture in the stream.

        Returns:
            float32 [n, H, W, C] in 0 … 255.
        """
        images = tf.convert_to_tensor(images)
        uniforms = stateless.uniform(seed, position, 3, stream=WEAK_STREAM)
        return tf.cast(_flip_and_crop(images, uniforms, self.flip, self.padding, self.fill), tf.float32)


@dataclasses.dataclass(frozen=True)
class StrongView:
    """Distorts weak pictures by RandAugment, then Cutout, flip and padded crop.

    Args:
        num_operations: RandAugment's operations per picture, 0 or more.
        magnitude: RandAugment's strength, 0 … 30.
        cutout: Half the side of the grey square as a share of the shorter side, 0 for none. By default 1/4 (8 of 32
            pixels) below 128 pixels and 0 from there on.
        flip: Whether pictures may be mirrored; digits and letters may not.
        policy: "paper", "keras_cv" or "keras"; the last two draw from a random state of their own, so runs that use
            them resume, but not bit for bit.
        static_shapes: Whether the view is to be made inside of a training step, see `RandAugment`.

    Raises:
        ValueError: If a number is out of range, or there is no such policy.
    """

    num_operations: int = 2
    magnitude: float = 16
    cutout: float | None = None
    flip: bool = True
    policy: str = "paper"
    static_shapes: bool = False
    _distort: View = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.cutout is not None and not 0 <= self.cutout <= 1:
            raise ValueError(
                f"cutout is {self.cutout}; expected a share of the shorter side in 0 … 1, such as 0.25."
            )
        policy = make_policy(
            self.policy, self.num_operations, self.magnitude, static_shapes=self.static_shapes
        )
        object.__setattr__(self, "_distort", policy)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images, *, seed: int, position) -> tf.Tensor:
        """Makes the strong view of a batch.

        Args:
            images: uint8 or float32 in 0 … 255 [n, H, W, C], static H, W and C: the weak view. Levels are rounded.
            seed: Any integer.
            position: int64 [n], the place of each picture in the stream.

        Returns:
            float32 [n, H, W, C] in 0 … 255, whole numbers.
        """
        images = tf.convert_to_tensor(images)
        height, width = images.shape[1:3]
        if images.dtype != tf.uint8:
            images = tf.cast(tf.clip_by_value(images, 0.0, 255.0) + 0.5, tf.uint8)
        images = self._distort(images, seed=seed, position=position)
        uniforms = stateless.uniform(seed, position, 5, stream=STRONG_STREAM)
        half_size = int(self._cutout_share(min(height, width)) * min(height, width))
        if half_size:
            row = stateless.integers(uniforms[:, 3], height)
            column = stateless.integers(uniforms[:, 4], width)
            images = geometry.cutout(images, row, column, half_size)
        return tf.cast(_flip_and_crop(images, uniforms, self.flip, None, geometry.GREY), tf.float32)

    def _cutout_share(self, shorter_side: int) -> float:
        if self.cutout is not None:
            return self.cutout
        return 0.0 if shorter_side >= LARGE_SIDE else 0.25


@dataclasses.dataclass(frozen=True)
class Chain:
    """One view of another: labeled pictures, for example, that are distorted as strongly as unlabeled ones.

    Args:
        first: the view that sees the picture.
        second: the view that sees what the first made of it.
    """

    first: View
    second: View

    def __call__(self, images, *, seed: int, position) -> tf.Tensor:
        """Applies both to a batch [n, ...]; returns float32."""
        weakly = self.first(images, seed=seed, position=position)
        return self.second(weakly, seed=seed, position=position)


def make_views(
    image_shape,
    *,
    flip: bool = True,
    num_operations: int = 2,
    magnitude: float = 16,
    policy: str = "paper",
    noise: float = 0.1,
    static_shapes: bool = False,
) -> tuple[View, View]:
    """Chooses the weak and the strong view that suit the examples.

    Args:
        image_shape: (H, W, 1), (H, W, 3) with sides of at least 3 pixels, or (D,) for points.
        flip: Whether pictures may be mirrored left to right.
        num_operations: RandAugment's operations per picture, 0 or more.
        magnitude: RandAugment's strength, 0 … 30.
        policy: "paper", "keras_cv" or "keras".
        noise: Standard deviation of the noise on points, in their own unit.
        static_shapes: Whether the views are to be made inside of a training step, see `RandAugment`.

    Returns:
        (weak, strong): for pictures a `WeakView` and a `StrongView`, for points an `Identity` and a `GaussianNoise`.

    Raises:
        ValueError: If the shape is none of these, a number is out of range, or there is no such policy.
    """
    shape = tuple(image_shape)
    if len(shape) == 1:
        return Identity(), GaussianNoise(noise)
    if len(shape) == 3 and None not in shape and min(shape[:2]) >= 3 and shape[2] in (1, 3):
        strong = StrongView(
            num_operations=num_operations,
            magnitude=magnitude,
            flip=flip,
            policy=policy,
            static_shapes=static_shapes,
        )
        return WeakView(flip=flip), strong
    raise ValueError(
        f"Examples have shape {shape}; expected (height, width, 1 or 3) with sides of at least 3 pixels, or "
        "(features,); convert or resize them first."
    )


def _flip_and_crop(images, uniforms, flip: bool, padding: int | None, fill: int) -> tf.Tensor:
    """Draws flip and crop from the first three of `uniforms` [n, ≥ 3] and applies them."""
    if padding is None:
        padding = min(images.shape[1:3]) // 8
    flipped = (uniforms[:, 0] < 0.5) & flip
    top, left = (stateless.integers(uniforms[:, draw], 2 * padding + 1) for draw in (1, 2))
    return geometry.flip_and_crop(images, flipped, top, left, padding=padding, fill=fill)
