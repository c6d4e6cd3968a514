"""The weak and the strong view of a batch, for images and for points.

A view is called as `view(images, seed=…, position=…)` and is a pure function of its arguments, apart from the
strong views that wrap a Keras layer. The strong view takes the weak one's result, as in the released code of
Meta Pseudo Labels:

    weak   = flip, pad by 1/8, crop                   crop="padded", below 64 pixels: the CIFAR pipeline
    strong = RandAugment, Cutout, flip, pad by 1/8, crop

    weak   = resized crop, flip                       crop="resized", from 64 pixels on: the ImageNet pipeline
    strong = RandAugment, Cutout, flip                (Cutout below 128 pixels only)

The released ImageNet pipeline crops while it decodes, and RandAugment sees what the crop left. Here images arrive in
their final size, and a resized crop enlarges a part of them.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from mpl_tf.data.augmentation import geometry, stateless_random
from mpl_tf.data.augmentation.randaugment import LARGE_SIDE, make_policy

WEAK_STREAM = 1
STRONG_STREAM = 2
CROPS = ("auto", "resized", "padded", "none")
# From this shorter side on, `crop="auto"` resizes crops.
RESIZED_SIDE = 64
# How far a resized crop stretches an image: the Inception crop's aspect ratios, relative to the image's own.
ASPECT = (3 / 4, 4 / 3)
# Images whose borders `border_color` looks at.
_BORDER_SAMPLE = 256

View = Callable[..., tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Identity:
    """Returns the examples as they are."""

    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Converts a batch [n, ...] to float32; `seed` and `position` are not used."""
        return tf.cast(images, tf.float32)


@dataclasses.dataclass(frozen=True)
class GaussianNoise:
    """Moves points by independent normal noise.

    Args:
        stddev: the noise's standard deviation in the points' own unit; 0 or more.

    Raises:
        ValueError: if `stddev` is negative.
    """

    stddev: float

    def __post_init__(self):
        if not self.stddev >= 0:
            raise ValueError(f"stddev of the noise is {self.stddev}; expected 0 or more, such as 0.1.")

    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Adds noise to a batch.

        Args:
            images: any real type `[n, D]`, the points.
            seed: any integer.
            position: int64 `[n]`, of each point in the stream.

        Returns:
            float32 `[n, D]`.
        """
        noise = stateless_random.normal(seed, position, images.shape[1], stream=STRONG_STREAM)
        return tf.cast(images, tf.float32) + self.stddev * noise


@dataclasses.dataclass(frozen=True)
class WeakView:
    """Flips half of the images left to right, pads them and crops back to the old size.

    Args:
        flip: whether images may be mirrored; digits and letters may not.
        padding: pixels added on each side; by default an eighth of the shorter side. 0 leaves the image where it is.
        fill: their level, 0…255, one for all channels or one for each.

    Raises:
        ValueError: if `padding` is negative, or `fill` is no color.
    """

    flip: bool = True
    padding: int | None = None
    fill: geometry.Fill = geometry.GRAY

    def __post_init__(self):
        _check_padding(self.padding)
        object.__setattr__(self, "fill", geometry.checked_fill(self.fill))

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Makes the weak view of a batch.

        Args:
            images: uint8 or float32 `[n, H, W, C]` in 0 … 255, static H, W and C.
            seed: any integer.
            position: int64 `[n]`, of each image in the stream.

        Returns:
            float32 `[n, H, W, C]` in 0 … 255.
        """
        images = tf.convert_to_tensor(images)
        uniforms = tf.unstack(stateless_random.uniform(seed, position, 3, stream=WEAK_STREAM), axis=1)
        return tf.cast(_flip_and_crop(images, uniforms, self.flip, self.padding, self.fill), tf.float32)


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Enlarges a random part of each image to the image's size, and flips half of them left to right.

    The Inception crop (Szegedy et al., arXiv 1409.4842, section 6), for whole batches and without rejections: a
    part gets its area from U(`area`, 1) and then its stretch, log-uniform among those of `ASPECT` with which it
    fits into the image. Both are relative to the image's own, so that a 96×72 image is not stretched more than a
    square one. The Inception crop goes down to an area of 0.08; as a teacher has to recognize what is left in
    order to label it, the default is gentler.

    Args:
        flip: whether images may be mirrored; digits and letters may not.
        area: the smallest part, as a fraction of the image, in `(0, 1]`; 1 never crops.

    Raises:
        ValueError: if `area` is out of range.
    """

    flip: bool = True
    area: float = 0.35

    def __post_init__(self):
        number = isinstance(self.area, numbers.Real) and not isinstance(self.area, bool)
        if not number or not 0 < self.area <= 1:
            raise ValueError(
                f"area is {self.area!r}; expected the smallest part of an image that a crop leaves, a fraction above "
                "0 and up to 1, such as 0.35."
            )

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Makes the weak view of a batch.

        Args:
            images: uint8 or float32 in 0…255 `[n, H, W, C]`, static H, W and C.
            seed: any integer.
            position: int64 `[n]`, the index of each image in the stream.

        Returns:
            float32 `[n, H, W, C]` in 0…255.
        """
        images = tf.convert_to_tensor(images)
        height, width = images.shape[1:3]
        flip, area, stretch, top, left = tf.unstack(
            stateless_random.uniform(seed, position, 5, stream=WEAK_STREAM), axis=1
        )
        area = self.area + (1.0 - self.area) * area
        # A part that is s times as wide as its area alone would make it fits in where area ≤ s ≤ 1 / area.
        low = tf.maximum(math.log(ASPECT[0]), tf.math.log(area))
        high = tf.minimum(math.log(ASPECT[1]), -tf.math.log(area))
        stretch = tf.exp(low + (high - low) * stretch)
        rows = height * tf.minimum(tf.sqrt(area / stretch), 1.0)
        columns = width * tf.minimum(tf.sqrt(area * stretch), 1.0)
        return geometry.resized_crop(
            images,
            (flip < 0.5) & self.flip,
            (height - rows) * top,
            (width - columns) * left,
            rows,
            columns,
        )


@dataclasses.dataclass(frozen=True)
class StrongView:
    """Distorts weak images by RandAugment, then Cutout, flip and padded crop.

    Args:
        num_operations: RandAugment's operations per image, 0 or more.
        magnitude: RandAugment's strength, 0 … 30.
        cutout: half the side of the square as a fraction of the shorter side, 0 for none. By default 1/4 (8 of 32
            pixels) below 128 pixels and 0 from there on.
        flip: whether images may be mirrored; digits and letters may not.
        policy: "paper", "keras_cv" or "keras"; the last two draw from a random state of their own, so runs that use
            them resume, but not bit for bit.
        static_shapes: whether the view is to be made inside of a training step, see `RandAugment`.
        padding: as in `WeakView`.
        fill: the level, 0…255, of what Cutout, the crop and RandAugment leave empty, one for all channels or one for
            each.

    Raises:
        ValueError: if a number is out of range, or there is no such policy.
    """

    num_operations: int = 2
    magnitude: float = 16
    cutout: float | None = None
    flip: bool = True
    policy: str = "paper"
    static_shapes: bool = False
    padding: int | None = None
    fill: geometry.Fill = geometry.GRAY
    _distort: View = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.cutout is not None and not 0 <= self.cutout <= 1:
            raise ValueError(
                f"cutout is {self.cutout}; expected a fraction of the shorter side in 0 … 1, such as 0.25."
            )
        _check_padding(self.padding)
        object.__setattr__(self, "fill", geometry.checked_fill(self.fill))
        policy = make_policy(
            self.policy,
            self.num_operations,
            self.magnitude,
            static_shapes=self.static_shapes,
            fill=self.fill,
        )
        object.__setattr__(self, "_distort", policy)

    @tf.autograph.experimental.do_not_convert
    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Makes the strong view of a batch.

        Args:
            images: uint8 or float32 `[n, H, W, C]` in 0 … 255, static H, W and C: the weak view. Levels are rounded.
            seed: any integer.
            position: int64 `[n]`, of each image in the stream.

        Returns:
            float32 `[n, H, W, C]` in 0 … 255, whole numbers.
        """
        images = tf.convert_to_tensor(images)
        height, width = images.shape[1:3]
        if images.dtype != tf.uint8:
            images = tf.cast(tf.clip_by_value(images, 0.0, 255.0) + 0.5, tf.uint8)
        images = self._distort(images, seed=seed, position=position)
        uniforms = stateless_random.uniform(seed, position, 5, stream=STRONG_STREAM)
        *crop, row, column = tf.unstack(uniforms, axis=1)
        half_size = int(self._cutout_fraction(min(height, width)) * min(height, width))
        if half_size:
            row, column = stateless_random.integers(row, height), stateless_random.integers(column, width)
            images = geometry.cutout(images, row, column, half_size, fill=self.fill)
        return tf.cast(_flip_and_crop(images, crop, self.flip, self.padding, self.fill), tf.float32)

    def _cutout_fraction(self, shorter_side: int) -> float:
        if self.cutout is not None:
            return self.cutout
        return 0.0 if shorter_side >= LARGE_SIDE else 0.25


@dataclasses.dataclass(frozen=True)
class Chain:
    """One view of another: labeled images, for example, that are distorted as strongly as unlabeled ones.

    Args:
        first: the view that sees the image.
        second: the view that sees what the first made of it.
    """

    first: View
    second: View

    def __call__(self, images: tf.Tensor, *, seed: int, position: tf.Tensor) -> tf.Tensor:
        """Applies both to a batch [n, ...]; returns float32."""
        weakly = self.first(images, seed=seed, position=position)
        return self.second(weakly, seed=seed, position=position)


def make_views(
    image_shape: Sequence[int],
    *,
    flip: bool = True,
    crop: str = "auto",
    crop_area: float = RandomResizedCrop.area,
    fill: geometry.Fill = geometry.GRAY,
    num_operations: int = 2,
    magnitude: float = 16,
    policy: str = "paper",
    noise: float = 0.1,
    static_shapes: bool = False,
) -> tuple[View, View]:
    """Chooses the weak and the strong view that suit the examples.

    Args:
        image_shape: (H, W, 1), (H, W, 3) with sides of at least 3 pixels, or (D,) for points.
        flip: whether images may be mirrored left to right.
        crop: "resized" for a `RandomResizedCrop`, "padded" for the crop out of the padded image in both views, "none"
            for neither; "auto" resizes where both sides have at least 64 pixels, and pads below.
        crop_area: the smallest part of an image that a resized crop leaves, a fraction in `(0, 1]`.
        fill: the level, 0…255, of pixels from outside and of Cutout's square, one for all channels or one for each;
            `border_color` finds one that suits.
        num_operations: RandAugment's operations per image, 0 or more.
        magnitude: RandAugment's strength, 0…30.
        policy: "paper", "keras_cv" or "keras".
        noise: standard deviation of the noise on points, in their own unit.
        static_shapes: whether the views are to be made inside of a training step, see `RandAugment`.

    Returns:
        (weak, strong): for images a `RandomResizedCrop` or a `WeakView`, and a `StrongView`; for points an `Identity`
        and a `GaussianNoise`.

    Raises:
        ValueError: if the shape is none of these, a number is out of range, or there is no such policy or crop.
    """
    shape = tuple(image_shape)
    if crop not in CROPS:
        raise ValueError(f"crop is {crop!r}; expected one of {', '.join(map(repr, CROPS))}.")
    if len(shape) == 1:
        return Identity(), GaussianNoise(noise)
    if len(shape) != 3 or None in shape or min(shape[:2]) < 3 or shape[2] not in (1, 3):
        raise ValueError(
            f"Examples have shape {shape}; expected (height, width, 1 or 3) with sides of at least 3 pixels, or "
            "(features,); convert or resize them first."
        )
    fill = geometry.checked_fill(fill, shape[2])
    if crop == "auto":
        crop = "resized" if min(shape[:2]) >= RESIZED_SIDE else "padded"
    resized = RandomResizedCrop(flip=flip, area=crop_area)
    padding = None if crop == "padded" else 0
    strong = StrongView(
        num_operations=num_operations,
        magnitude=magnitude,
        flip=flip,
        policy=policy,
        static_shapes=static_shapes,
        padding=padding,
        fill=fill,
    )
    return resized if crop == "resized" else WeakView(flip=flip, padding=padding, fill=fill), strong


def border_color(images: Any) -> geometry.Fill:
    """The color that the images have at their borders: the median of their outermost pixels.

    Cutouts and cropped edges of this color stand out least where images share a ground, as scans and drawings do.

    Args:
        images: an image collection, such as `source.train`; up to 256 of it are looked at, evenly spaced.

    Returns:
        A level in 0…255, or a tuple of three; gray 128 for points.
    """
    if len(images.image_shape) != 3:
        return geometry.GRAY
    step = math.ceil(len(images) / _BORDER_SAMPLE)
    sample = np.asarray(images.fetch(tf.range(0, len(images), step, dtype=tf.int64)))
    inside = sample[:, 1:-1, [0, -1]]
    edges = (sample[:, [0, -1]], inside)
    pixels = np.concatenate([edge.reshape(-1, sample.shape[-1]) for edge in edges])
    return geometry.checked_fill(tuple(int(level) for level in np.median(pixels, axis=0)))


def _check_padding(padding: int | None) -> None:
    if padding is not None and padding < 0:
        raise ValueError(f"padding is {padding}; expected 0 or more pixels, or None for 1/8 of the side.")


def _flip_and_crop(images, uniforms, flip: bool, padding: int | None, fill) -> tf.Tensor:
    """Draws flip and crop from three uniform numbers per image, each [n], and applies them."""
    if padding is None:
        padding = min(images.shape[1:3]) // 8
    flipped, top, left = uniforms
    flipped = (flipped < 0.5) & flip
    top, left = (stateless_random.integers(edge, 2 * padding + 1) for edge in (top, left))
    return geometry.flip_and_crop(images, flipped, top, left, padding=padding, fill=fill)
