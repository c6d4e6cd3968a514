import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image

from mpl_tf.data.augmentation import randaugment, stateless_random, views
from mpl_tf.data.augmentation.views import (
    GaussianNoise,
    Identity,
    RandomResizedCrop,
    StrongView,
    WeakView,
    make_views,
)
from mpl_tf.data.images.images import ArrayImages

SHAPES = [(8, 8, 1), (32, 32, 3), (20, 33, 3)]


def random_images(shape, count=12):
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def flipped_and_cropped(image, draws, *, flip, padding, fill=128):
    """Mirror, pad, cut out, in the released code's order, on one [H, W, C] image."""
    height, width = image.shape[:2]
    if flip and draws[0] < 0.5:
        image = image[:, ::-1]
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), constant_values=fill)
    top, left = int(draws[1] * (2 * padding + 1)), int(draws[2] * (2 * padding + 1))
    return padded[top : top + height, left : left + width]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weak_view_is_flip_pad_and_crop(shape, flip, dtype):
    images, positions = random_images(shape).astype(dtype), 5 + np.arange(12)
    if dtype == np.float32:
        images += 0.25
    draws = stateless_random.uniform(2, positions, 3, stream=views.WEAK_STREAM).numpy()
    padding = min(shape[:2]) // 8
    expected = [
        flipped_and_cropped(image, numbers, flip=flip, padding=padding)
        for image, numbers in zip(images, draws, strict=True)
    ]
    weak = WeakView(flip=flip)(images, seed=2, position=positions)
    assert weak.dtype == tf.float32
    np.testing.assert_array_equal(weak, np.stack(expected).astype(np.float32))


def test_weak_view_takes_padding_and_fill():
    images, positions = random_images((8, 8, 3)), np.arange(12)
    draws = stateless_random.uniform(0, positions, 3, stream=views.WEAK_STREAM).numpy()
    expected = [
        flipped_and_cropped(image, numbers, flip=True, padding=3, fill=7)
        for image, numbers in zip(images, draws, strict=True)
    ]
    weak = WeakView(padding=3, fill=7)(images, seed=0, position=positions)
    np.testing.assert_array_equal(weak, np.stack(expected))
    untouched = WeakView(flip=False, padding=0)(images, seed=0, position=positions)
    np.testing.assert_array_equal(untouched, images)


def test_weak_view_flips_half_and_crops_everywhere_alike():
    count, positions = 9000, np.arange(9000)
    # Every level tells its own place, so that a pixel of the result tells flip and crop.
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    weak = WeakView()(np.tile(image, (count, 1, 1, 1)), seed=6, position=positions).numpy()[..., 0]
    flips = weak[:, 3, 3] > weak[:, 3, 4]
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / np.sqrt(count)
    rows = weak[:, 3, 3] // 8 - 3
    columns = np.where(flips, 7 - weak[:, 3, 3] % 8, weak[:, 3, 3] % 8) - 3
    counts = [np.sum((rows == row) & (columns == column)) for row in (-1, 0, 1) for column in (-1, 0, 1)]
    assert sum(counts) == count
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def painted(image, row, column, half_size):
    result = image.copy()
    rows = slice(max(row - half_size, 0), max(row + half_size, 0))
    result[rows, max(column - half_size, 0) : max(column + half_size, 0)] = 128
    return result


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(
    ("shape", "cutout", "half_size"),
    [
        ((32, 32, 3), None, 8),
        ((8, 8, 1), None, 2),
        ((20, 33, 3), None, 5),
        ((32, 32, 3), 0.0, 0),
        ((32, 32, 3), 0.125, 4),
        ((128, 136, 1), None, 0),
    ],
    ids=str,
)
def test_strong_view_is_randaugment_cutout_flip_and_crop(shape, cutout, half_size, flip):
    images, positions = random_images(shape), 70 + np.arange(12)
    distorted = randaugment.RandAugment(3, 12)(images, seed=9, position=positions).numpy()
    draws = stateless_random.uniform(9, positions, 5, stream=views.STRONG_STREAM).numpy()
    expected = []
    for image, numbers in zip(distorted, draws, strict=True):
        image = painted(image, int(numbers[3] * shape[0]), int(numbers[4] * shape[1]), half_size)
        expected.append(flipped_and_cropped(image, numbers, flip=flip, padding=min(shape[:2]) // 8))
    view = StrongView(num_operations=3, magnitude=12, cutout=cutout, flip=flip)
    strong = view(images.astype(np.float32), seed=9, position=positions)
    assert strong.dtype == tf.float32
    np.testing.assert_array_equal(strong, np.stack(expected))
    np.testing.assert_array_equal(view(images, seed=9, position=positions), strong)


def test_strong_view_rounds_levels_to_the_nearest():
    images = np.tile(np.array([[[[-3.0], [0.4], [99.6], [300.0]]]], np.float32), (1, 4, 1, 1))
    strong = StrongView(num_operations=0, cutout=0.0, flip=False)(images, seed=0, position=[0])
    np.testing.assert_array_equal(strong[0, :, :, 0], np.tile([0.0, 0.0, 100.0, 255.0], (4, 1)))


def test_weak_and_strong_views_draw_from_different_streams():
    positions = np.arange(4000)
    weak = stateless_random.uniform(1, positions, 3, stream=views.WEAK_STREAM).numpy()
    strong = stateless_random.uniform(1, positions, 3, stream=views.STRONG_STREAM).numpy()
    policy = stateless_random.uniform(1, positions, 3, stream=randaugment.RANDAUGMENT_STREAM).numpy()
    correlation = np.corrcoef(np.concatenate([weak, strong, policy], axis=1).T)
    assert np.all(np.abs(correlation - np.eye(9)) < 4.5 / np.sqrt(4000))


@pytest.mark.parametrize(
    ("view", "drop_remainder"),
    [
        (WeakView(), True),
        (WeakView(), False),
        (StrongView(), True),
        (StrongView(), False),
        (StrongView(num_operations=0, fill=(1, 2, 3)), False),
        (RandomResizedCrop(), True),
        (RandomResizedCrop(), False),
        (StrongView(policy="keras_cv"), False),
        (StrongView(policy="keras"), True),
        (Identity(), False),
    ],
    ids=repr,
)
def test_image_views_run_in_a_pipeline(view, drop_remainder):
    images = random_images((16, 16, 3))
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(12))).batch(4, drop_remainder)
    dataset = dataset.map(lambda images, positions: view(images, seed=3, position=positions))
    expected_shape = [4 if drop_remainder else None, 16, 16, 3]
    assert dataset.element_spec == tf.TensorSpec(expected_shape, tf.float32)
    viewed = np.concatenate(list(dataset.as_numpy_iterator()))
    assert viewed.min() >= 0
    assert viewed.max() <= 255


@pytest.mark.parametrize(
    "view",
    [WeakView(), StrongView(), RandomResizedCrop(), StrongView(num_operations=0, fill=(1, 2, 3))],
    ids=repr,
)
def test_a_view_depends_on_seed_and_position_alone(view):
    images, positions = random_images((32, 32, 3)), np.arange(12)
    whole = view(images, seed=3, position=positions).numpy()
    parts = [view(images[part], seed=3, position=positions[part]) for part in (slice(5), slice(5, 12))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    dataset = tf.data.Dataset.from_tensor_slices((images, positions)).batch(7)
    dataset = dataset.map(tf.function(lambda images, positions: view(images, seed=3, position=positions)))
    np.testing.assert_array_equal(np.concatenate(list(dataset.as_numpy_iterator())), whole)
    assert np.any(view(images, seed=4, position=positions).numpy() != whole)
    assert np.any(view(images, seed=3, position=positions + 12).numpy() != whole)


def test_noise_on_points_is_normal_with_the_given_deviation():
    points = np.random.default_rng(0).normal(size=(20_000, 2))
    positions = np.arange(len(points))
    noise = GaussianNoise(0.3)(points, seed=1, position=positions).numpy() - points.astype(np.float32)
    expected = 0.3 * stateless_random.normal(1, positions, 2, stream=views.STRONG_STREAM).numpy()
    np.testing.assert_allclose(noise, expected, atol=1e-6)
    assert scipy.stats.kstest(noise.ravel() / 0.3, "norm").pvalue > 1e-3


def test_views_are_chosen_by_the_shape_of_an_example():
    weak, strong = make_views((2,), noise=0.2)
    assert (weak, strong) == (Identity(), GaussianNoise(0.2))
    weak, strong = make_views((28, 28, 1), flip=False, num_operations=1, magnitude=9, policy="paper")
    assert weak == WeakView(flip=False)
    assert strong == StrongView(num_operations=1, magnitude=9, flip=False, policy="paper")


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((32, 32), {}, r"shape \(32, 32\); expected \(height, width, 1 or 3\)"),
        ((32, 32, 4), {}, r"shape \(32, 32, 4\); expected .*convert or resize them first"),
        ((2, 32, 3), {}, "sides of at least 3 pixels"),
        ((None, None, 3), {}, r"shape \(None, None, 3\)"),
        ((), {}, r"shape \(\); expected"),
        ((8, 8, 1), {"num_operations": -2}, "num_operations is -2; expected 0"),
        ((8, 8, 1), {"magnitude": 40}, "magnitude is 40; expected 0 … 30"),
        ((8, 8, 1), {"policy": "papper"}, "policy='papper' is unknown: did you mean 'paper'"),
        ((2,), {"noise": -0.1}, r"stddev of the noise is -0\.1; expected 0 or more"),
    ],
)
def test_bad_settings_are_refused_with_a_sentence(shape, settings, message):
    with pytest.raises(ValueError, match=message):
        make_views(shape, **settings)


def test_bad_paddings_and_squares_are_refused():
    with pytest.raises(ValueError, match="padding is -1; expected 0 or more pixels"):
        WeakView(padding=-1)
    with pytest.raises(ValueError, match=r"cutout is 1\.5; expected a fraction of the shorter side in 0 … 1"):
        StrongView(cutout=1.5)


def test_a_chain_shows_the_second_view_what_the_first_one_made():
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)), tf.uint8)
    position = tf.range(4, dtype=tf.int64)
    weak, strong = views.WeakView(), views.StrongView(magnitude=9)
    weakly = weak(images, seed=3, position=position)
    chained = views.Chain(weak, strong)(images, seed=3, position=position)
    assert np.array_equal(chained, strong(weakly, seed=3, position=position))
    assert not np.array_equal(chained, weakly)


def resized(image, top, left, height, width):
    """Bilinear samples of a box of one [H, W, C] image, in float64, pixel by pixel."""
    rows, columns = image.shape[:2]
    result = np.empty(image.shape)
    for row in range(rows):
        for column in range(columns):
            y = np.clip(top + (row + 0.5) * height / rows - 0.5, 0, rows - 1)
            x = np.clip(left + (column + 0.5) * width / columns - 0.5, 0, columns - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            upper = (1 - (x - x0)) * image[y0, x0] + (x - x0) * image[y0, x1]
            lower = (1 - (x - x0)) * image[y1, x0] + (x - x0) * image[y1, x1]
            result[row, column] = (1 - (y - y0)) * upper + (y - y0) * lower
    return result


def resized_crop_box(draws, area, height, width):
    """(flipped, top, left, height, width) of the box that five numbers stand for, by the definition in float64."""
    flip, u_area, u_stretch, u_top, u_left = np.asarray(draws, np.float64)
    fraction = area + (1 - area) * u_area
    low, high = max(np.log(3 / 4), np.log(fraction)), min(np.log(4 / 3), -np.log(fraction))
    stretch = np.exp(low + (high - low) * u_stretch)
    rows, columns = height * np.sqrt(fraction / stretch), width * np.sqrt(fraction * stretch)
    return flip < 0.5, (height - rows) * u_top, (width - columns) * u_left, rows, columns


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shape", [(8, 8, 1), (20, 33, 3)], ids=str)
def test_resized_crop_is_a_stretched_part_of_the_image(shape, flip, dtype):
    images, positions = random_images(shape).astype(dtype), 40 + np.arange(12)
    draws = stateless_random.uniform(2, positions, 5, stream=views.WEAK_STREAM).numpy()
    crop = RandomResizedCrop(flip=flip, area=0.1)(images, seed=2, position=positions)
    assert crop.dtype == tf.float32
    for image, numbers, found in zip(images, draws, crop.numpy(), strict=True):
        mirrored, *box = resized_crop_box(numbers, 0.1, *shape[:2])
        expected = resized(image.astype(np.float64), *box)
        expected = expected[:, ::-1] if mirrored and flip else expected
        np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("shape", [(64, 64, 3), (64, 80, 1)], ids=str)
def test_resized_crop_is_pillows_resize_of_a_box(shape):
    height, width = shape[:2]
    images, positions = random_images(shape), np.arange(12)
    draws = stateless_random.uniform(0, positions, 5, stream=views.WEAK_STREAM).numpy()
    crop = RandomResizedCrop(flip=False)(images, seed=0, position=positions).numpy()
    for image, numbers, found in zip(images, draws, crop, strict=True):
        _, top, left, rows, columns = resized_crop_box(numbers, 0.35, height, width)
        pillow = Image.fromarray(image if shape[2] == 3 else image[..., 0])
        box = (left, top, left + columns, top + rows)
        expected = np.asarray(pillow.resize((width, height), Image.Resampling.BILINEAR, box=box), np.float64)
        # Pillow rounds to whole levels after each direction.
        np.testing.assert_allclose(found, expected.reshape(shape), atol=1.01)


def test_resized_crops_have_the_areas_stretches_and_places_of_the_definition():
    count, side = 1500, 48
    # Red tells the row and green the column, so that a crop's gradients tell its size and its middle the place.
    image = np.zeros((side, side, 3), np.float32)
    image[..., 0], image[..., 1] = np.arange(side)[:, None], np.arange(side)
    crops = RandomResizedCrop(flip=False, area=0.25)(
        np.broadcast_to(image, (count, side, side, 3)), seed=5, position=np.arange(count)
    ).numpy()
    rows, columns = (
        (crops[:, 32, 32, channel] - crops[:, 16, 16, channel]) * side / 16 for channel in (0, 1)
    )
    area, stretch = rows * columns / side**2, columns / rows
    assert scipy.stats.kstest(area, scipy.stats.uniform(0.25, 0.75).cdf).pvalue > 1e-3
    assert abs(area.min() - 0.25) < 0.01
    assert stretch.min() > 0.749
    assert stretch.max() < 1.335
    # Where the image does not limit it, the stretch is log-uniform.
    free = np.log(stretch[area < 0.7])
    assert scipy.stats.kstest(free, scipy.stats.uniform(np.log(0.75), np.log(16 / 9)).cdf).pvalue > 1e-3
    for size, channel in ((rows, 0), (columns, 1)):
        middle = (crops[:, 23, 23, channel] + crops[:, 24, 24, channel]) / 2 + 0.5
        positions = (middle - size / 2)[size < 44] / (side - size)[size < 44]
        assert scipy.stats.kstest(positions, "uniform").pvalue > 1e-3


def test_an_area_of_one_leaves_the_image_and_a_mirrored_one_mirrors_it():
    images, positions = random_images((9, 13, 3)), np.arange(12)
    whole = RandomResizedCrop(flip=False, area=1)(images, seed=1, position=positions)
    np.testing.assert_allclose(whole, images, atol=1e-3)
    flipped = RandomResizedCrop(area=1)(images, seed=1, position=positions).numpy()
    mirrored = stateless_random.uniform(1, positions, 1, stream=views.WEAK_STREAM).numpy()[:, 0] < 0.5
    assert 0 < mirrored.sum() < 12
    expected = np.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
    np.testing.assert_allclose(flipped, expected, atol=1e-3)


def test_xla_crops_as_the_pipeline_does():
    images, position = random_images((20, 33, 3)), tf.range(12, dtype=tf.int64)
    crop = RandomResizedCrop(area=0.1)
    compiled = tf.function(crop, jit_compile=True)(tf.constant(images), seed=3, position=position)
    np.testing.assert_allclose(compiled, crop(images, seed=3, position=position), atol=0.02)


FILLS = [0, 255, (10, 200, 30)]


@pytest.mark.parametrize("fill", FILLS, ids=str)
def test_every_part_of_the_views_fills_with_the_color_asked_for(fill):
    # What was gray 128 is now the color, and all else is as it was: images have no pixel of a gray near 128.
    images, positions = np.full((300, 16, 16, 3), 128, np.uint8), np.arange(300)
    images[:, 4:12, 4:12] = (3, 5, 250)
    color = np.asarray(fill, np.uint8)
    operations = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout")
    draws = stateless_random.uniform(0, positions, 3).numpy()
    own = np.where((images == 128).all(-1, keepdims=True), color, images).astype(np.uint8)
    for name in operations:
        gray = randaugment.RandAugment().apply(name, images, draws).numpy()
        filled = randaugment.RandAugment(fill=fill).apply(name, own, draws).numpy()
        np.testing.assert_array_equal(filled, np.where((gray == 128).all(-1, keepdims=True), color, gray))
    for kind in (np.uint8, np.float32):
        gray = WeakView()(images.astype(kind), seed=1, position=positions).numpy()
        filled = WeakView(fill=fill)(own.astype(kind), seed=1, position=positions).numpy()
        np.testing.assert_array_equal(filled, np.where((gray == 128).all(-1, keepdims=True), color, gray))
    gray = StrongView(num_operations=0)(images, seed=1, position=positions).numpy()
    filled = StrongView(num_operations=0, fill=fill)(own, seed=1, position=positions).numpy()
    np.testing.assert_array_equal(filled, np.where((gray == 128).all(-1, keepdims=True), color, gray))


def test_three_equal_levels_are_one():
    images, positions = random_images((16, 16, 3)), np.arange(12)
    assert StrongView(fill=(9, 9, 9)) == StrongView(fill=9)
    one, other = (
        StrongView(fill=fill)(images, seed=4, position=positions).numpy() for fill in (9, [9, 9, 9])
    )
    np.testing.assert_array_equal(one, other)


def test_crops_are_chosen_by_the_size_of_an_image():
    small, large = make_views((63, 96, 3), fill=7), make_views((64, 96, 3), crop_area=0.2, fill=7)
    assert small == (WeakView(fill=7), StrongView(fill=7))
    assert large == (RandomResizedCrop(area=0.2), StrongView(padding=0, fill=7))
    assert make_views((64, 64, 3), crop="padded") == (WeakView(), StrongView())
    assert make_views((8, 8, 1), crop="resized", flip=False) == (
        RandomResizedCrop(flip=False),
        StrongView(flip=False, padding=0),
    )
    weak, strong = make_views((8, 8, 1), crop="none", flip=False, num_operations=0)
    images, positions = random_images((8, 8, 1)), np.arange(12)
    np.testing.assert_array_equal(weak(images, seed=0, position=positions), images)
    unmoved = strong(images, seed=0, position=positions).numpy()
    assert ((unmoved == images) | (unmoved == 128)).all()


def test_the_border_color_is_the_median_of_the_outermost_pixels():
    images = np.random.default_rng(1).integers(0, 256, (300, 6, 7, 3), np.uint8)
    images[:, 0] = images[:, -1] = images[:, :, 0] = images[:, :, -1] = (200, 10, 60)
    images[::3, 0] = 0
    images[:, :, 0, 0] = 90
    edge = np.ones((6, 7), bool)
    edge[1:-1, 1:-1] = False
    # Every second one: 300 are more than the 256 that are looked at.
    expected = np.median(images[::2][:, edge].reshape(-1, 3), axis=0)
    assert views.border_color(ArrayImages(images, np.zeros(300))) == tuple(expected.astype(int))
    black = ArrayImages(np.zeros((5, 4, 4, 1), np.uint8), np.zeros(5))
    assert views.border_color(black) == 0
    assert views.border_color(ArrayImages(np.zeros((5, 2), np.float32), np.zeros(5))) == 128


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_views((8, 8, 1), crop="middle"), "crop is 'middle'; expected one of 'auto', 'resized'"),
        (lambda: make_views((8, 8, 1), crop_area=0), "area is 0; expected the smallest part"),
        (lambda: RandomResizedCrop(area=1.01), r"area is 1\.01; .* above 0 and up to 1"),
        (lambda: make_views((8, 8, 3), fill=256), "fill is 256; expected a level in 0…255"),
        (lambda: make_views((8, 8, 3), fill=0.5), r"fill is 0\.5; expected a level"),
        (lambda: make_views((8, 8, 3), fill="black"), "fill is 'black'; expected a level"),
        (lambda: WeakView(fill=(1, -2, 3)), r"fill is \(1, -2, 3\); expected a level"),
        (lambda: make_views((8, 8, 1), fill=(1, 2, 3)), "3 levels for images of 1 channel"),
        (lambda: StrongView(padding=-1), "padding is -1; expected 0 or more pixels"),
        (lambda: StrongView(policy="keras", fill=0), "'keras' fills with a gray of its own, and fill is 0"),
    ],
)
def test_crops_and_fills_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
