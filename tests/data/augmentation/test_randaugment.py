import importlib
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from mpl_tf.data.augmentation import color, geometry, randaugment, stateless_random
from mpl_tf.data.augmentation.randaugment import DRAWN_OPERATIONS, OPERATIONS, RandAugment, make_policy

GRAY = {"L": 128, "RGB": (128, 128, 128)}
SHAPES = [(8, 8, 3), (8, 8, 1), (32, 32, 3), (32, 32, 1), (24, 40, 3)]
MAGNITUDES = [1, 5, 10, 16, 17, 30]
MOVES = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def random_images(height, width, channels):
    """Noise, a gradient, few levels, a narrow range, one level, and mostly one level: uint8 [6, H, W, C]."""
    random = np.random.default_rng(height * width * channels)
    shape = (height, width, channels)
    noise = random.integers(0, 256, shape)
    gradient = np.broadcast_to(np.linspace(0, 255, height * width).reshape(height, width, 1), shape)
    few = random.choice([3, 100, 200], shape)
    narrow = random.integers(90, 140, shape)
    single = np.full(shape, 77)
    mostly = np.where(random.random(shape) < 0.05, noise, 250)
    return np.stack([noise, gradient, few, narrow, single, mostly]).astype(np.uint8)


def to_pillow(pixels):
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def to_array(image):
    array = np.asarray(image)
    return array[..., np.newaxis] if array.ndim == 2 else array


def affine(name, magnitude, sign, height, width):
    """(a0, a1, a2, b0, b1, b2): pixel (x, y) comes from column a0 x + a1 y + a2 and row b0 x + b1 y + b2."""
    pixels = sign * math.floor(magnitude / 10 * min(height, width) / 8 + 0.5)
    slope = sign * magnitude / 10 * 0.3
    sine, cosine = math.sin(math.radians(sign * 3 * magnitude)), math.cos(math.radians(sign * 3 * magnitude))
    x, y = (width - 1) / 2, (height - 1) / 2
    return {
        "Rotate": (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y),
        "ShearX": (1, slope, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, slope, 1, 0),
        "TranslateX": (1, 0, pixels, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, pixels),
    }[name]


def pillow_affine(image, a0, a1, a2, b0, b1, b2):
    """Pillow's pixel centers are at halves instead of whole numbers."""
    moved = (a0, a1, a2 - a0 / 2 - a1 / 2 + 0.5, b0, b1, b2 - b0 / 2 - b1 / 2 + 0.5)
    fill = GRAY[image.mode]
    return image.transform(
        image.size, Image.Transform.AFFINE, moved, Image.Resampling.NEAREST, fillcolor=fill
    )


def is_tie(a0, a1, a2, b0, b1, b2, height, width):
    """Where two source pixels are nearest, up to Pillow's fixed-point arithmetic: bool [H, W, 1]."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    ties = [np.abs(place % 1 - 0.5) < 2e-3 for place in (a0 * x + a1 * y + a2, b0 * x + b1 * y + b2)]
    return np.logical_or(*ties)[..., np.newaxis]


def painted(pixels, row, column, half_size):
    result = pixels.copy()
    rows = slice(max(row - half_size, 0), max(row + half_size, 0))
    result[rows, max(column - half_size, 0) : max(column + half_size, 0)] = 128
    return result


def pillow_operation(name, pixels, magnitude, uniforms):
    """One operation of the released code on one uint8 [H, W, C] pixels, by Pillow or NumPy, with its arguments."""
    image, height, width = to_pillow(pixels), *pixels.shape[:2]
    sign = -1 if uniforms[0] < 0.5 else 1
    match name:
        case "AutoContrast":
            return to_array(ImageOps.autocontrast(image))
        case "Equalize":
            return to_array(ImageOps.equalize(image))
        case "Invert":
            return to_array(ImageOps.invert(image))
        case "Posterize":
            return to_array(ImageOps.posterize(image, min(max(magnitude * 4 // 10, 1), 8)))
        case "Solarize":
            return to_array(ImageOps.solarize(image, magnitude * 256 // 10 % 256))
        case "SolarizeAdd":
            added = np.minimum(pixels.astype(int) + magnitude * 11, 255)
            return np.where(pixels < 128, added, pixels).astype(np.uint8)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return to_array(getattr(ImageEnhance, name)(image).enhance(magnitude / 10 * 1.8 + 0.1))
        case "Rotate":
            degrees = sign * 3 * magnitude
            return to_array(image.rotate(degrees, Image.Resampling.NEAREST, fillcolor=GRAY[image.mode]))
        case "ShearX" | "ShearY" | "TranslateX" | "TranslateY":
            return to_array(pillow_affine(image, *affine(name, magnitude, sign, height, width)))
        case "Cutout":
            half_size = magnitude * (min(height, width) / 8) // 10
            return painted(pixels, int(uniforms[1] * height), int(uniforms[2] * width), int(half_size))


def test_the_released_operations_are_drawn():
    assert len(DRAWN_OPERATIONS) == len(set(DRAWN_OPERATIONS)) == 15
    assert set(OPERATIONS) - set(DRAWN_OPERATIONS) == {"SolarizeAdd"}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_pillows(name, shape):
    images = random_images(*shape)
    for magnitude in MAGNITUDES:
        uniforms = np.random.default_rng(magnitude).random((len(images), 3)).astype(np.float32)
        ours = np.asarray(RandAugment(magnitude=magnitude).apply(name, images, uniforms))
        for pixels, draws, distorted in zip(images, uniforms, ours, strict=True):
            expected = pillow_operation(name, pixels, magnitude, draws)
            if name in MOVES:
                tie = is_tie(*affine(name, magnitude, -1 if draws[0] < 0.5 else 1, *shape[:2]), *shape[:2])
                assert tie.mean() < 0.15
                expected = np.where(tie, distorted, expected)
            assert distorted.dtype == np.uint8
            np.testing.assert_array_equal(distorted, expected, f"{name} at magnitude {magnitude}")


@pytest.mark.parametrize("magnitude", [16, 17])
def test_large_images_take_the_imagenet_constants(magnitude):
    images = random_images(224, 224, 3)[:1]
    policy = RandAugment(magnitude=magnitude)
    uniforms = np.array([[0.7, 0.5, 0.5]], np.float32)
    moved = policy.apply("TranslateX", images, uniforms).numpy()
    pixels = magnitude * 10
    np.testing.assert_array_equal(moved[:, :, : 224 - pixels], images[:, :, pixels:])
    assert np.all(moved[:, :, 224 - pixels :] == 128)
    holed = policy.apply("Cutout", images, uniforms).numpy()
    np.testing.assert_array_equal(holed[0], painted(images[0], 112, 112, magnitude * 4))


def test_own_ratios_replace_the_released_ones():
    images = random_images(32, 32, 1)
    policy = RandAugment(magnitude=10, translate_ratio=0.25, cutout_ratio=0.5)
    uniforms = np.full((len(images), 3), 0.5, np.float32)
    moved = policy.apply("TranslateY", images, uniforms).numpy()
    np.testing.assert_array_equal(moved[:, :24], images[:, 8:])
    assert np.all(policy.apply("Cutout", images, uniforms).numpy() == 128)


@pytest.mark.parametrize("magnitude", range(31))
def test_integer_arguments_at_every_magnitude(magnitude):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    uniforms = np.full((1, 3), 0.5, np.float32)
    for name in ("Posterize", "Solarize", "SolarizeAdd"):
        ours = RandAugment(magnitude=magnitude).apply(name, levels, uniforms).numpy()[0]
        np.testing.assert_array_equal(ours, pillow_operation(name, levels[0], magnitude, uniforms[0]), name)


def draw_operations(seed, positions, num_operations):
    """Per pixels a list of (operation or None, its uniforms [3]) from U(.2, .8) and the slots' draws in order."""
    drawn = []
    uniforms = stateless_random.uniform(
        seed, positions, 1 + 5 * num_operations, stream=randaugment.RANDAUGMENT_STREAM
    )
    for probability, *slots in uniforms.numpy():
        slots = np.reshape(slots, (num_operations, 5))
        names = [
            DRAWN_OPERATIONS[int(slot[1] * 15)] if slot[0] < 0.2 + 0.6 * probability else None
            for slot in slots
        ]
        drawn.append(list(zip(names, slots[:, 2:], strict=True)))
    return drawn


@pytest.mark.parametrize("num_operations", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)], ids=str)
def test_a_batch_is_each_image_distorted_by_its_own_operations(shape, num_operations):
    images = np.tile(random_images(*shape), (50, 1, 1, 1))
    positions = 1000 + np.arange(len(images))
    drawn = draw_operations(3, positions, num_operations)
    # A magnitude at which no source pixel of a shear or a rotation is a tie.
    magnitude = 17
    expected = []
    for pixels, slots in zip(images, drawn, strict=True):
        for name, uniforms in slots:
            if name is not None:
                pixels = pillow_operation(name, pixels, magnitude, uniforms)
        expected.append(pixels)
    ours = RandAugment(num_operations, magnitude)(images, seed=3, position=positions)
    np.testing.assert_array_equal(ours, np.stack(expected))
    names = {name for slots in drawn for name, _ in slots}
    assert num_operations < 2 or names == {None, *DRAWN_OPERATIONS}


def test_operations_are_equally_likely_and_half_of_them_applied():
    count = 10_000
    drawn = draw_operations(0, np.arange(count), 2)
    names = [[name for name, _ in slots] for slots in drawn]
    applied = np.array([[name is not None for name in slots] for slots in names])
    # E[p] = 1/2; both slots share p, so that E[p²] = 1/4 + .6²/12.
    assert abs(applied.mean() - 0.5) < 4 * 0.5 / math.sqrt(2 * count)
    assert abs(applied.all(axis=1).mean() - 0.28) < 4 * 0.45 / math.sqrt(count)
    counts = [sum(slots.count(name) for slots in names) for name in DRAWN_OPERATIONS]
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_an_image_does_not_depend_on_its_batch():
    images, positions = np.tile(random_images(32, 32, 3), (5, 1, 1, 1)), np.arange(30) * 7
    policy = RandAugment()
    whole = policy(images, seed=8, position=positions).numpy()
    parts = [policy(images[part], seed=8, position=positions[part]) for part in (slice(11), slice(11, 30))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    backwards = policy(images[::-1], seed=8, position=positions[::-1])
    np.testing.assert_array_equal(backwards[::-1], whole)
    assert np.any(policy(images, seed=9, position=positions).numpy() != whole)
    assert np.any(policy(images, seed=8, position=positions + 1).numpy() != whole)


def test_a_graph_with_a_dynamic_batch_agrees_with_eager():
    images, positions = np.tile(random_images(32, 32, 3), (5, 1, 1, 1)), np.arange(30)
    policy = RandAugment()
    dataset = tf.data.Dataset.from_tensor_slices((images, positions)).batch(8)
    dataset = dataset.map(lambda images, positions: policy(images, seed=4, position=positions))
    assert dataset.element_spec.shape.as_list() == [None, 32, 32, 3]
    expected = policy(images, seed=4, position=positions)
    np.testing.assert_array_equal(np.concatenate(list(dataset.as_numpy_iterator())), expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_take_an_empty_batch(name):
    empty = RandAugment().apply(name, tf.zeros([0, 32, 32, 3], tf.uint8), tf.zeros([0, 3]))
    assert empty.shape == (0, 32, 32, 3)


def test_moves_follow_the_nearest_pixel_in_float64():
    images = np.random.default_rng(1).integers(0, 256, (3, 9, 13, 3), np.uint8)
    degrees = np.array([-33.0, 7.5, 48.0], np.float32)
    y, x = np.mgrid[:9, :13].astype(np.float64)
    for pixels, angle, ours in zip(images, degrees, geometry.rotate(images, degrees).numpy(), strict=True):
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        columns = np.floor(6 + cosine * (x - 6) - sine * (y - 4) + 0.5).astype(int)
        rows = np.floor(4 + sine * (x - 6) + cosine * (y - 4) + 0.5).astype(int)
        inside = (rows >= 0) & (rows < 9) & (columns >= 0) & (columns < 13)
        expected = np.where(inside[..., np.newaxis], pixels[rows.clip(0, 8), columns.clip(0, 12)], 128)
        np.testing.assert_array_equal(ours, expected)


def test_blending_cuts_off_instead_of_wrapping():
    images = np.full((1, 3, 3, 1), 200, np.uint8)
    assert np.all(color.brightness(images, 2.98).numpy() == 255)
    assert np.all(color.blend(255.0, images, 9.0).numpy() == 0)


@pytest.mark.parametrize("policy", ["keras_cv", "keras"])
def test_keras_layers_run_in_a_pipeline_behind_the_same_call(policy):
    images = random_images(16, 16, 1)[[0, 3] * 4]
    layer = make_policy(policy, 2, 16)
    dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(8))).batch(4)
    dataset = dataset.map(lambda images, positions: layer(images, seed=0, position=positions)).repeat(4)
    distorted = list(dataset.as_numpy_iterator())
    assert all(batch.shape == (4, 16, 16, 1) and batch.dtype == np.uint8 for batch in distorted)
    assert any(np.any(batch != images[:4]) for batch in distorted)


@pytest.mark.parametrize(
    ("policy", "number", "strength"),
    [("keras_cv", "augmentations_per_image", "magnitude"), ("keras", "num_ops", "factor")],
)
def test_keras_layers_are_as_many_and_as_strong_as_asked_for(policy, number, strength, monkeypatch):
    layers = importlib.import_module(f"{policy}.layers")
    made, kind = [], layers.RandAugment
    monkeypatch.setattr(layers, "RandAugment", lambda *a, **k: made.append(kind(*a, **k)) or made[-1])
    make_policy(policy, 3, 12)
    config = made[0].get_config()
    assert tuple(config["value_range"]) == (0, 255)
    assert config[number] == 3
    # 12 of 30.
    assert np.max(config[strength]) == pytest.approx(0.4)


@pytest.mark.parametrize("policy", ["keras_cv", "keras"])
def test_keras_layers_stay_in_float32_under_mixed_precision(policy):
    images = random_images(16, 16, 3)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        distorted = make_policy(policy, 1, 16)(images, seed=0, position=np.arange(6))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert distorted.shape == images.shape
    assert distorted.dtype == tf.uint8


@pytest.mark.parametrize("policy", ["paper", "keras_cv", "keras"])
@pytest.mark.parametrize("magnitude", [0, 30])
def test_policies_accept_the_ends_of_the_scale(policy, magnitude):
    images = random_images(16, 16, 3)
    distorted = make_policy(policy, 1, magnitude)(images, seed=0, position=np.arange(6))
    assert distorted.shape == images.shape


def test_refusals_name_the_value_and_what_was_expected():
    with pytest.raises(ValueError, match=r"num_operations is -1; expected 0 \(no RandAugment\) or more"):
        RandAugment(num_operations=-1)
    with pytest.raises(ValueError, match="magnitude is 31; expected 0 … 30"):
        RandAugment(magnitude=31)
    with pytest.raises(ValueError, match=r"magnitude is -0\.5; expected 0 … 30"):
        make_policy("keras_cv", 2, -0.5)
    with pytest.raises(ValueError, match="magnitude is nan; expected 0 … 30"):
        make_policy("keras", 2, math.nan)
    with pytest.raises(ValueError, match=r"policy='kerascv' is unknown: did you mean 'keras_cv'\?"):
        make_policy("kerascv", 2, 16)
    with pytest.raises(
        ValueError, match="policy='zzz' is unknown: Choose one of 'paper', 'keras_cv', 'keras'"
    ):
        make_policy("zzz", 2, 16)


def test_a_graph_has_one_trace_for_all_slots(monkeypatch):
    names, apply = [], randaugment.RandAugment.apply

    def counted(self, name, images, uniforms):
        names.append(name)
        return apply(self, name, images, uniforms)

    monkeypatch.setattr(randaugment.RandAugment, "apply", counted)
    images, position = tf.zeros([2, 8, 8, 1], tf.uint8), tf.range(2, dtype=tf.int64)
    policy = randaugment.RandAugment(num_operations=3)
    tf.function(lambda images: policy(images, seed=0, position=position)).get_concrete_function(images)
    assert names == list(randaugment.DRAWN_OPERATIONS)
