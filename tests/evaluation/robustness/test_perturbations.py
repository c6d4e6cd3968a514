import numpy as np
import pytest

from mpl_tf.evaluation.robustness import perturbations
from mpl_tf.evaluation.robustness.effects import weather
from tests.evaluation.robustness.scenes import digits, doubled, halved, scenes


def sequences(images, name, **options):
    index = options.pop("index", np.arange(len(images)))
    return perturbations.perturb(images, name, index=index, **options)


@pytest.mark.parametrize("name", perturbations.NAMES)
@pytest.mark.parametrize("images", [digits(2), scenes(2, 32), scenes(2, 20, 28, channels=1)])
def test_sequences_of_any_size_depend_on_image_seed_and_number_alone(name, images):
    result = sequences(images, name)
    frames = {"translate": 16, "motion_blur": 21}.get(name, 31)
    assert result.shape == (2, frames, *images.shape[1:])
    assert result.dtype == np.uint8
    assert (result[:, 0] != result[:, -1]).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(sequences(images[1:], name, index=[1])[0], result[1])
    random = name in ("gaussian_noise", "shot_noise", "snow")
    assert (sequences(images[:1], name, seed=1)[0] != result[0]).any() == random


def test_large_images_have_the_frames_of_imagenet_p():
    image = scenes(1, 90)
    assert sequences(image, "translate").shape[1] == 41
    assert sequences(image, "motion_blur").shape[1] == 31


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("gaussian_noise", 0),
        ("shot_noise", 0),
        ("zoom_blur", 0),
        ("brightness", 15),
        ("translate", 7),
        ("rotate", 15),
        ("tilt", 15),
        ("scale", 15),
    ],
)
def test_one_frame_is_the_image_itself(name, frame):
    images = scenes(2, 32)
    result = sequences(images, name)
    np.testing.assert_array_equal(result[:, frame], images)
    others = np.delete(result, frame, axis=1)
    assert (others != images[:, np.newaxis]).any(axis=(2, 3, 4)).all()


def test_translation_moves_by_a_pixel_per_frame_and_leaves_black_behind():
    image = scenes(1, 32)
    result = sequences(image, "translate")[0]
    for frame, offset in enumerate(range(-7, 9)):
        expected = np.zeros_like(image[0])
        left, right = max(0, offset), 32 + min(0, offset)
        expected[:, left:right] = image[0][:, left - offset : right - offset]
        np.testing.assert_array_equal(result[frame], expected)


def middle_of_light(frame):
    """Row and column from the middle of the image."""
    light = frame[..., 0].astype(float)
    side = np.arange(len(light)) - (len(light) - 1) / 2
    return np.array([light.sum(axis=1) @ side, light.sum(axis=0) @ side]) / light.sum()


def turned(frame):
    """A degree per frame, clockwise."""
    angle = np.deg2rad(frame - 15)
    return 8.0 * np.sin(angle), 8.0 * np.cos(angle)


def tilted(frame):
    """Three quarters of a degree about the vertical axis, then about the horizontal one, before a pinhole camera."""
    angle, focal = np.deg2rad(0.75 * (frame - 15)), np.hypot(33, 33)
    column, depth = 8.0 * np.cos(angle), 8.0 * np.sin(angle)
    row, depth = -depth * np.sin(angle), depth * np.cos(angle)
    return focal * row / (depth + focal), focal * column / (depth + focal)


def enlarged(frame):
    """From 0.7 on, by 0.02 per frame."""
    return 0.0, 8.0 * (0.7 + 0.02 * frame)


@pytest.mark.parametrize(("name", "position"), [("rotate", turned), ("tilt", tilted), ("scale", enlarged)])
def test_a_spot_is_where_each_frame_moves_it(name, position):
    rows, columns = np.mgrid[-16:17, -16:17]
    spot = 200.0 * np.exp(-(rows**2 + (columns - 8) ** 2) / (2 * 1.5**2))
    frames = sequences(spot[np.newaxis, ..., np.newaxis], name)[0].astype(float)
    for number, frame in enumerate(frames):
        np.testing.assert_allclose(middle_of_light(frame), position(number), atol=0.1)


def test_each_frame_is_brighter_than_the_one_before():
    gray = np.full((1, 4, 4, 1), 100.0)
    # 0.015 of 255 levels per frame.
    expected = 100.0 + 255 * 0.015 * (np.arange(31) - 15)
    np.testing.assert_allclose(sequences(gray, "brightness")[0, :, 0, 0, 0], expected, atol=0.51)


@pytest.mark.parametrize(
    ("name", "std"), [("gaussian_noise", 0.02), ("shot_noise", np.sqrt(0.4 * 700) / 700)]
)
def test_noise_is_as_strong_as_is_published_for_small_images(name, std):
    frames = sequences(np.full((1, 32, 32, 1), 0.4 * 255), name)[0, 1:] / 255
    assert frames.std() == pytest.approx(std, rel=0.05)


def test_the_camera_comes_nearer_by_the_same_step_in_each_frame():
    ramp = np.broadcast_to(8.0 * np.arange(32)[:, np.newaxis], (1, 32, 32, 1))
    frames = sequences(ramp, "zoom_blur")[0, :, 16, :, 0].astype(float)
    # An enlargement divides the slope; each frame is the mean of all up to its own.
    slopes = [np.mean(1.0 / (1.0 + 0.004 * np.arange(1 + number))) for number in range(31)]
    np.testing.assert_allclose(frames[:, 28] - frames[:, 4], 24 * 8 * np.array(slopes), atol=1.01)


def test_the_wind_turns_snow_from_the_left_to_the_right_while_it_falls(monkeypatch):
    flake = np.zeros((32, 32))
    flake[9, 9] = 1.0
    monkeypatch.setattr(weather, "snowflakes", lambda *_: flake)
    frames = sequences(np.zeros((1, 32, 32, 1)), "snow")[0, ..., 0].astype(float)
    # Without the flake's twin, which rises, and without what whitens all.
    light = (frames - frames[:, :1, -1:])[:, :18, :18]
    total, side = light.sum(axis=(1, 2)), np.arange(18) - 9
    down, right = (np.einsum(axes, light, side) / total for axes in ("nrc,r->n", "nrc,c->n"))
    degrees = np.rad2deg(np.arctan2(-down, right))
    np.testing.assert_allclose(degrees, 4.0 * np.arange(31) - 150.0, atol=3.0)


@pytest.mark.parametrize("name", ["motion_blur", "zoom_blur"])
def test_blurs_leave_an_even_image_as_it_is(name):
    assert (sequences(np.full((1, 9, 9, 1), 100.0), name) == 100).all()


def test_the_blur_is_twice_as_long_in_an_image_of_twice_the_size():
    image = scenes(1, 32, channels=1)
    small, large = (sequences(each, "motion_blur") for each in (image, doubled(image)))
    apart, moved = np.abs(halved(large) - small).mean(), np.abs(small - image.astype(float)).mean()
    assert apart < 0.2 * moved


@pytest.mark.parametrize("name", sorted({*perturbations.NAMES} - {*perturbations.NOISES}))
def test_frames_resemble_the_frame_before_more_than_the_first(name):
    frames = sequences(scenes(4, 32), name).astype(float)
    neighbors = np.abs(np.diff(frames, axis=1)).mean()
    assert neighbors < 0.5 * np.abs(frames[:, -1] - frames[:, 0]).mean()


def test_the_blur_turns_into_the_one_to_the_right():
    image = np.zeros((1, 32, 32, 1))
    image[0, 16, 16] = 255.0
    frames = sequences(image, "motion_blur")[0, :, :, :, 0]
    # −180°, …, −90°, …, 0°: to the left, down, to the right.
    for frame, rows, columns in (
        (0, {16}, range(9, 17)),
        (10, range(16, 24), {16}),
        (20, {16}, range(16, 24)),
    ):
        lit = np.argwhere(frames[frame] > 0)
        assert set(lit[:, 0]) <= set(rows)
        assert set(lit[:, 1]) <= set(columns)
        assert len(lit) >= 5


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="did you mean 'translate'"):
        sequences(digits(1), "translation")
