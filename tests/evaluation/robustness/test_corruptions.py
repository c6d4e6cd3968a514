import numpy as np
import pytest
import tensorflow as tf
from matplotlib import colors
from scipy import ndimage

from mpl_tf.evaluation.robustness import corruptions
from mpl_tf.evaluation.robustness.effects import blur, digital, noise, warp, weather
from tests.evaluation.robustness.scenes import digits, doubled, halved, scenes

RANDOM = {
    "gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur", "snow", "frost", "fog",
    "elastic_transform",
}  # fmt: skip


def corrupted(images, name, severity, **options):
    index = options.pop("index", np.arange(len(images)))
    return corruptions.corrupt(images, name, severity, index=index, **options)


def generator():
    return np.random.default_rng(5)


def distance(image, other):
    return np.abs(np.asarray(image, float) - other).mean()


def test_the_15_of_the_paper_with_5_severities_at_both_published_sides():
    for parameters in corruptions.PARAMETERS.values():
        assert tuple(parameters) == corruptions.NAMES
        assert [len(levels) for levels in parameters.values()] == [5] * 15


@pytest.mark.parametrize("name", corruptions.NAMES)
@pytest.mark.parametrize(
    "images",
    [digits(4), scenes(3, 32), scenes(3, 32, channels=1), scenes(2, 24, 40), scenes(2, 45, 20, channels=1)],
    ids=lambda images: "×".join(map(str, images.shape[1:])),
)
def test_any_size_becomes_other_levels_that_depend_on_image_seed_and_number_alone(name, images):
    for severity in (1, 5):
        result = corrupted(images, name, severity)
        assert result.shape == images.shape
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(corrupted(images.astype("float32"), name, severity), result)
        np.testing.assert_array_equal(corrupted(images[1:2], name, severity, index=[1])[0], result[1])
    assert (result != images).any(axis=(1, 2, 3)).all()
    twins = np.repeat(images[:1], 2, axis=0)
    first, second = corrupted(twins, name, 5)
    assert (first != second).any() == (name in RANDOM)
    assert (corrupted(twins[:1], name, 5, seed=1)[0] != first).any() == (name in RANDOM)


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_large_images(name):
    image = scenes(1, 224)
    result = corrupted(image, name, 3)
    assert result.shape == image.shape
    assert 1.0 < distance(result, image) < 128.0


# Glass blur, frost and the elastic transform are not here: their published parameters do not move away from the
# image step by step (the last smooths what it scatters, darkens what it covers, and shifts less as it bends more).
# What does increase is below.
@pytest.mark.parametrize("name", sorted({*corruptions.NAMES} - {"glass_blur", "frost", "elastic_transform"}))
def test_a_higher_severity_is_further_from_the_image(name):
    images = scenes(12, 32)
    distances = [distance(corrupted(images, name, severity), images) for severity in range(1, 6)]
    if name == "motion_blur":
        # Severities 3 and 4 differ by the line's length alone, of which the last two pixels weigh next to nothing.
        assert distances[3] == pytest.approx(distances[2], rel=0.01)
        del distances[3]
    assert (np.diff(distances) > 0).all(), distances


def test_ice_glass_and_rubber_do_more_as_each_parameter_grows():
    image = scenes(1, 32)[0] / 255.0

    def increase(effect, values):
        distances = [distance(effect(value), image) for value in values]
        return (np.diff(distances) > 0).all()

    assert increase(lambda ice: weather.frost(image, generator(), 1.0, ice), (0.1, 0.2, 0.4))
    assert increase(lambda reach: blur.glass(image, generator(), 0.2, reach, 1), (0.5, 1, 2, 4))
    assert increase(lambda rounds: blur.glass(image, generator(), 0.2, 1, rounds), (1, 2, 4))
    assert increase(lambda strength: digital.elastic(image, generator(), strength, 1.5, 0), (0, 2, 4, 8))
    assert increase(lambda jitter: digital.elastic(image, generator(), 0, 1, jitter), (0, 1, 2, 4))


def test_the_nearer_published_side_is_taken_and_lengths_are_scaled():
    assert [corruptions.published_side(side) for side in (8, 84, 85, 500)] == [32, 32, 224, 224]
    # A disk of radius 1.5 · 64/32 = 3.
    image = np.zeros((1, 64, 64, 1))
    image[0, 32, 32] = 255.0
    rows, columns = np.mgrid[-32:32, -32:32]
    spread = corrupted(image, "defocus_blur", 5)[0, :, :, 0]
    assert (spread[rows**2 + columns**2 > 4.5**2] == 0).all()
    assert spread[32, 32] == pytest.approx(255 / (np.pi * 3**2), abs=1.5)
    assert np.sum(spread * rows**2.0) / spread.sum() == pytest.approx(3**2 / 4, rel=0.15)


def test_the_shorter_side_is_what_lengths_are_scaled_to():
    square = np.zeros((1, 32, 32, 1))
    square[0, 16, 16] = 255.0
    wide = np.pad(square, ((0, 0), (0, 0), (24, 24), (0, 0)))
    spread = corrupted(wide, "defocus_blur", 5)[:, :, 24:-24]
    np.testing.assert_array_equal(spread, corrupted(square, "defocus_blur", 5))


# Those with lengths that draw as many numbers for either. An elastic transform of severity 1 has no field.
@pytest.mark.parametrize(("name", "severity"), [("motion_blur", 5), ("snow", 5), ("elastic_transform", 1)])
def test_an_image_of_twice_the_size_is_corrupted_alike(name, severity):
    images = scenes(2, 32)
    small, large = (corrupted(each, name, severity) for each in (images, doubled(images)))
    assert distance(halved(large), small) < 0.15 * distance(small, images)


def test_glass_reaches_twice_as_far_in_an_image_of_twice_the_size():
    ramp = np.broadcast_to(4.0 * np.arange(64)[:, np.newaxis], (1, 64, 64, 1))
    moves = (corrupted(ramp, "glass_blur", 4) - ramp)[0, 8:-8, 8:-8] / 4.0
    # Two rounds of up to a pixel of 32 each, and some of it smoothed away.
    assert -4 <= moves.min() < -2.6


# --- noise ---------------------------------------------------------------------------------------------


def test_noise_has_the_distribution_that_it_is_named_after():
    gray = np.full((100, 100, 3), 0.4)
    added = noise.gaussian(gray, generator(), 0.1) - gray
    assert added.mean() == pytest.approx(0.0, abs=0.002)
    assert added.std() == pytest.approx(0.1, rel=0.02)
    counts = noise.shot(gray, generator(), 50) * 50
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-9)
    assert counts.mean() == pytest.approx(20.0, rel=0.01)
    assert counts.var() == pytest.approx(20.0, rel=0.05)
    hit = noise.impulse(gray, generator(), 0.2)
    assert np.mean(hit == 0.0) == pytest.approx(0.1, abs=0.005)
    assert np.mean(hit == 1.0) == pytest.approx(0.1, abs=0.005)
    assert np.mean(hit == gray) == pytest.approx(0.8, abs=0.01)


def test_the_last_severity_does_to_small_images_what_is_published_for_it():
    # CIFAR-10-C's parameters of severity 5, on an even gray of 0.4.
    gray = np.full((6, 32, 32, 3), 102.0)
    result = {
        name: corrupted(gray, name, 5).astype(float) / 255
        for name in ("gaussian_noise", "shot_noise", "impulse_noise", "brightness", "frost", "fog")
    }
    assert result["gaussian_noise"].std() == pytest.approx(0.10, rel=0.03)
    # Of 20 photons on average where white has 50.
    assert result["shot_noise"].std() == pytest.approx(np.sqrt(20) / 50, rel=0.03)
    assert (result["impulse_noise"] != 0.4).mean() == pytest.approx(0.07, abs=0.01)
    np.testing.assert_allclose(result["brightness"], 0.4 + 0.3, atol=1 / 255)
    # Ice of up to 0.45 over what is left of the image, 0.75 of it.
    assert result["frost"].min() == pytest.approx(0.75 * 0.4, abs=0.01)
    assert 0.75 * 0.4 + 0.3 < result["frost"].max() <= 0.75 * 0.4 + 0.45 + 1 / 255
    # Clouds of 0 to 1.5, and the sum darkened to the image's brightest value.
    assert result["fog"].min() == pytest.approx(0.4 * 0.4 / 1.9, abs=1 / 255)
    assert result["fog"].max() == pytest.approx(0.4, abs=1 / 255)


def test_the_last_severity_blurs_small_images_as_is_published_for_it():
    # Enlargements in steps of 0.01 up to 1.25, which divide the slope of a ramp, and the image itself.
    ramp = np.broadcast_to(8.0 * np.arange(32)[:, np.newaxis], (1, 32, 32, 1))
    zoomed = corrupted(ramp, "zoom_blur", 5).astype(float)
    slope = np.mean([1.0, *(1.0 / (1.0 + 0.01 * np.arange(26)))])
    assert zoomed[0, 16, 28, 0] - zoomed[0, 16, 4, 0] == pytest.approx(24 * 8 * slope, abs=1.01)
    # 0.65 of the columns.
    assert len(np.unique(corrupted(ramp, "pixelate", 5)[0, 0])) == int(0.65 * 32)
    # Half a normal distribution of 2.5 pixels over 18 of them, to the right, up to 45° up or down.
    images = np.zeros((40, 32, 32, 1))
    images[:, 15:18, 15:18] = 255.0
    light = corrupted(images, "motion_blur", 5)[..., 0].astype(float)
    total, side = light.sum(axis=(1, 2)), np.arange(32) - 16
    down, right = (np.einsum(axes, light, side) / total for axes in ("nrc,r->n", "nrc,c->n"))
    steps = np.arange(19)
    expected = np.average(steps, weights=np.exp(-(steps**2) / (2 * 2.5**2)))
    np.testing.assert_allclose(np.hypot(down, right), expected, atol=0.15)
    degrees = np.rad2deg(np.arctan2(-down, right))
    assert -46 < degrees.min() < -30
    assert 30 < degrees.max() < 46


# --- blur ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", ["defocus", "motion", "zoom", "glass", "elastic"])
def test_what_only_moves_light_leaves_an_even_image_as_it_is(effect):
    even = np.full((9, 14, 3), 0.3)
    result = {
        "defocus": lambda: blur.defocus(even, 2.5),
        "motion": lambda: blur.motion(even, 6, 2.0, 30.0),
        "zoom": lambda: blur.zoom(even, [1.0, 1.2]),
        "glass": lambda: blur.glass(even, generator(), 1.0, 2, 2),
        "elastic": lambda: digital.elastic(even, generator(), 4.0, 1.0, 3.0),
    }[effect]()
    np.testing.assert_allclose(result, even, atol=1e-12)


@pytest.mark.parametrize(("degrees", "axis", "sign"), [(0, 1, 1), (90, 0, -1), (180, 1, -1)])
def test_motion_blur_is_half_a_normal_distribution_along_a_line(degrees, axis, sign):
    image = generator().random((12, 15, 3))
    weights = np.exp(-(np.arange(9) ** 2) / (2 * 1.5**2))
    both_sides = np.zeros(17)
    both_sides[8:] = weights / weights.sum()
    expected = ndimage.convolve1d(image, both_sides[::sign], axis=axis, mode="nearest")
    np.testing.assert_allclose(blur.motion(image, 4, 1.5, degrees), expected, atol=1e-9)


def test_zoom_blur_is_the_mean_of_the_image_and_its_enlargements():
    # On a ramp an enlargement about the middle divides the slope.
    ramp = np.tile(np.arange(11.0)[:, np.newaxis, np.newaxis], (1, 7, 1))
    slope = np.mean([1.0, 1.0, 1 / 1.25, 1 / 1.5])
    expected = 5.0 + slope * (ramp - 5.0)
    np.testing.assert_allclose(blur.zoom(ramp, [1.0, 1.25, 1.5]), expected, atol=1e-9)


def test_glass_takes_every_pixel_from_nearby():
    rows, columns = np.mgrid[:20, :30].astype(float)
    image = np.stack([rows, columns], axis=-1)
    for reach, rounds, low, high in ((1, 1, -1, 0), (3, 1, -3, 2), (2, 2, -4, 2)):
        moves = blur.glass(image, generator(), 1e-6, reach, rounds) - image
        assert moves[6:-6, 6:-6].min() == low
        assert moves[6:-6, 6:-6].max() == high
    moved = (blur.glass(image, generator(), 1e-6, 0.25, 1) != image).any(axis=-1)
    # A quarter of the pixels draw a move; one of four moves is none.
    assert moved.mean() == pytest.approx(0.25 * 0.75, abs=0.04)


# --- weather -------------------------------------------------------------------------------------------


def test_brightness_is_that_of_hsv():
    image = scenes(1, 16)[0] / 255.0
    image[0, 0] = 0.0
    for change in (-0.2, 0.1, 0.5):
        hsv = colors.rgb_to_hsv(image)
        hsv[..., 2] = np.clip(hsv[..., 2] + change, 0, 1)
        np.testing.assert_allclose(weather.brightness(image, change), colors.hsv_to_rgb(hsv), atol=1e-9)
    gray = image[..., :1]
    np.testing.assert_allclose(weather.brightness(gray, 0.3), np.minimum(gray + 0.3, 1.0), atol=1e-12)


def test_fog_lifts_the_dark_and_keeps_the_brightest_value():
    image = 0.8 * scenes(1, 32)[0] / 255.0
    result = weather.fog(image, generator(), 1.5, 1.75)
    assert result.max() <= image.max() + 1e-12
    dark = image < 0.15
    assert result[dark].mean() > 2 * image[dark].mean()
    clouds = weather.clouds((32, 32), generator(), 1.75)[..., np.newaxis]
    expected = (image + 1.5 * clouds) * image.max() / (image.max() + 1.5)
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_clouds_span_the_range_and_are_smoother_where_they_decay_faster():
    rough, smooth = (weather.clouds((40, 64), generator(), decay) for decay in (1.2, 3.0))
    for clouds in (rough, smooth):
        assert clouds.shape == (40, 64)
        assert (clouds.min(), clouds.max()) == (0.0, 1.0)
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.5 * np.abs(np.diff(rough, axis=0)).mean()


def test_snow_falls_and_whitens():
    image = scenes(1, 32)[0] / 255.0
    still = weather.snow(image, np.zeros((32, 32)), 4, 2, -90.0, 0.8)
    gray = image @ [0.299, 0.587, 0.114]
    expected = 0.8 * image + 0.2 * np.maximum(image, 1.5 * gray[..., np.newaxis] + 0.5)
    np.testing.assert_allclose(still, expected, atol=1e-12)
    flakes = np.zeros((32, 32))
    flakes[10, 20] = 1.0
    fallen = (weather.snow(image, flakes, 4, 2, -90.0, 0.8) - still)[..., 0]
    rows, columns = np.nonzero(fallen > 1e-6)
    # The flake falls from row 10, and its twin, turned by half a turn, from row 21 upwards.
    assert set(columns) == {20, 11}
    assert set(rows[columns == 20]) == set(range(10, 19))
    assert set(rows[columns == 11]) == set(range(13, 22))


def test_flakes_are_above_the_threshold_or_not_there():
    flakes = weather.snowflakes((50, 60), generator(), 0.2, 0.3, 2.0, 0.5)
    assert flakes.shape == (50, 60)
    assert set(np.unique(flakes[flakes < 0.5])) == {0.0}
    assert 0.02 < np.mean(flakes > 0) < 0.3
    assert flakes.max() <= 1.0


def test_frost_adds_ice_that_is_blue_on_color_images():
    image = scenes(1, 32)[0] / 255.0
    ice = weather.frost(image, generator(), 0.7, 1.0) - 0.7 * image
    assert ice.min() >= 0.0
    assert ice.max() <= 1.0
    assert 0.2 < ice.mean() < 0.6
    red, green, blue = ice.mean(axis=(0, 1))
    assert red < green < blue
    np.testing.assert_allclose(
        weather.frost(image[..., :1], generator(), 0.7, 1.0) - 0.7 * image[..., :1],
        ice[..., 2:],
        atol=1e-9,
    )


# --- digital -------------------------------------------------------------------------------------------


def test_contrast_moves_each_channel_towards_its_mean():
    image = scenes(1, 10)[0]
    result = corrupted(image[np.newaxis], "contrast", 4)[0]
    for channel in range(3):
        mean = sum(map(float, image[..., channel].ravel())) / 100
        for row in range(10):
            for column in range(10):
                expected = (image[row, column, channel] - mean) * 0.3 + mean
                assert abs(result[row, column, channel] - expected) <= 0.5 + 1e-9


def test_pixelate_repeats_the_means_of_boxes():
    image = scenes(1, 8)[0] / 255.0
    result = digital.pixelate(image, 0.25)
    for row in range(8):
        for column in range(8):
            top, left = row // 4 * 4, column // 4 * 4
            box = image[top : top + 4, left : left + 4].reshape(16, 3).mean(axis=0)
            np.testing.assert_allclose(result[row, column], box, atol=1 / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_another_encoder_makes_of_it(channels):
    image = scenes(1, 64, channels=channels)[0]
    result = corrupted(image[np.newaxis], "jpeg_compression", 5)[0]
    stream = tf.io.encode_jpeg(image, quality=40)
    expected = tf.io.decode_jpeg(stream, dct_method="INTEGER_ACCURATE").numpy().astype(float)
    assert distance(result, expected) < 0.1 * distance(image, expected)


def test_the_elastic_transform_without_a_field_is_affine():
    # An image whose values are its places: an affine map of it has no second differences.
    rows, columns = np.mgrid[:40, :40].astype(float)
    result = digital.elastic(np.stack([rows, columns], axis=-1), generator(), 0.0, 1.0, 3.0)[10:-10, 10:-10]
    np.testing.assert_allclose(np.diff(result, 2, axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.diff(result, 2, axis=1), 0.0, atol=1e-9)
    moved = result - np.stack([rows, columns], axis=-1)[10:-10, 10:-10]
    assert 0.3 < np.abs(moved).max() < 10.0
    # And it takes the three points that it is defined by back to where they were.
    jitter = generator().uniform(-3.0, 3.0, (3, 2))
    corners = 20 + 13 * np.array([[1, 1], [1, -1], [-1, -1]])
    whole = digital.elastic(np.stack([rows, columns], axis=-1), generator(), 0.0, 1.0, 3.0)
    for corner, change in zip(corners, jitter, strict=True):
        place = corner + change
        found = [
            ndimage.map_coordinates(whole[..., axis], place[:, np.newaxis], order=1)[0] for axis in (0, 1)
        ]
        np.testing.assert_allclose(found, corner, atol=0.05)


def test_the_field_of_the_elastic_transform_is_smoothed_noise():
    places = np.stack(np.mgrid[:64, :64].astype(float), axis=-1)
    moves = digital.elastic(places, generator(), 10.0, 2.0, 0.0)[8:-8, 8:-8] - places[8:-8, 8:-8]
    # Uniform noise has the variance 1/3, and a normal distribution of two dimensions makes 1/(4πσ²) of it.
    assert moves.std() == pytest.approx(10.0 * np.sqrt(1 / 3 / (4 * np.pi * 2.0**2)), rel=0.2)


# --- warps ---------------------------------------------------------------------------------------------


def test_projections_move_turn_and_enlarge():
    image = generator().random((9, 9, 3))
    right = np.zeros_like(image)
    right[:, 2:] = image[:, :-2]
    np.testing.assert_allclose(warp.project(image, warp.translation(2)), right, atol=1e-12)
    turned = warp.project(image, warp.rotation(90))
    np.testing.assert_allclose(turned, np.rot90(image, -1), atol=1e-9)
    half = warp.project(image, warp.scaling(0.5))
    np.testing.assert_allclose(half[2:7, 2:7], image[::2, ::2], atol=1e-12)
    assert (half[0] == 0).all()


def test_tilt_is_what_a_pinhole_camera_sees():
    for degrees in (-12.0, 7.0):
        angle, focal = np.deg2rad(degrees), 50.0
        for row, column in ((3.0, -4.0), (-6.0, 1.5)):
            # The point turns about the vertical axis, then about the horizontal one.
            x, z = column * np.cos(angle), column * np.sin(angle)
            y, z = row * np.cos(angle) - z * np.sin(angle), row * np.sin(angle) + z * np.cos(angle)
            seen = np.array([focal * y / (z + focal), focal * x / (z + focal), 1.0])
            back = warp.tilt(degrees, focal) @ seen
            np.testing.assert_allclose(back[:2] / back[2], [row, column], atol=1e-9)


# --- validation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "name", "severity", "message"),
    [
        (digits(1), "gausian_noise", 1, "did you mean 'gaussian_noise'"),
        (digits(1), "fog", 6, "severity=6 is unknown: pass one of 1, 2, 3, 4, 5"),
        (digits(1)[..., [0, 0]], "fog", 1, "C of 1 or 3"),
        (np.zeros((1, 2)), "fog", 1, "C of 1 or 3"),
        (digits(1) * 2.0, "fog", 1, r"values in 0…478: pass raw pixels in 0…255"),
        (digits(1) - 1.0, "fog", 1, "pass raw pixels in 0…255"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(images, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corrupted(images, name, severity)


def test_images_without_a_number_each_are_refused():
    with pytest.raises(ValueError, match=r"with \(2,\) numbers"):
        corrupted(digits(1), "fog", 1, index=[0, 1])
