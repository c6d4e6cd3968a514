import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mpl_tf.data.images import decoding, upright


def triangle_resize(pixels, size):
    """Antialiased bilinear resizing, from its definition: a triangle as wide as the scale around each center."""
    pixels = pixels.astype(np.float64)
    for axis, length in enumerate(size):
        scale = pixels.shape[axis] / length
        centers = (np.arange(length) + 0.5) * scale
        positions = np.arange(pixels.shape[axis]) + 0.5
        weights = np.maximum(0, 1 - np.abs(positions - centers[:, None]) / max(scale, 1))
        weights /= weights.sum(axis=1, keepdims=True)
        pixels = np.moveaxis(np.tensordot(weights, pixels, (1, axis)), 0, axis)
    return pixels


def encode(pixels, form="PNG", mode=None, **options):
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, form, **options)
    return file.getvalue()


def decode_file(encoded, shape):
    return decoding.decode_file(io.BytesIO(encoded), shape)


def decode_record(encoded, shape, *, resizing=decoding.CROPPED):
    return decoding.decode_record(tf.constant(encoded), shape, resizing=resizing).numpy()


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (24, 36, 3), dtype=np.uint8)


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP"])
def test_images_of_the_right_size_keep_every_pixel(pixels, form):
    encoded = encode(pixels, form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(decode_file(encoded, (24, 36, 3)), pixels)
    np.testing.assert_array_equal(decode_record(encoded, (24, 36, 3)), pixels)
    np.testing.assert_array_equal(decode_record(encoded, (24, 36, 3), resizing=None), pixels)


@pytest.mark.parametrize(
    ("shape", "fitted", "middle"),
    [
        ((8, 8, 3), (8, 12), slice(2, 10)),
        ((36, 36, 3), (36, 54), slice(9, 45)),
        ((12, 6, 3), (12, 18), slice(6, 12)),
    ],
)
def test_images_are_fitted_and_keep_their_middle(pixels, shape, fitted, middle):
    expected = triangle_resize(pixels, fitted)[:, middle]
    # Pillow rounds after each of two passes, TensorFlow once.
    np.testing.assert_allclose(decode_file(encode(pixels), shape), expected, atol=1.01)
    np.testing.assert_allclose(decode_record(encode(pixels), shape), expected, atol=0.51)


def test_records_of_an_odd_size_still_fill_the_shape(rng):
    for height, width in [(7, 5), (5, 7), (31, 9), (3, 3)]:
        encoded = encode(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        assert decode_record(encoded, (6, 6, 3)).shape == (6, 6, 3)


def test_gray_images_become_equal_channels_and_colors_become_gray(pixels):
    gray = encode(pixels[..., 0])
    np.testing.assert_array_equal(decode_file(gray, (24, 36, 3)), np.repeat(pixels[..., :1], 3, axis=-1))
    weights = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
    result = decode_file(encode(pixels), (24, 36, 1))
    np.testing.assert_allclose(result[..., 0], pixels @ weights, atol=1)


@pytest.mark.parametrize(("form", "mode"), [("PNG", "RGBA"), ("PNG", "P"), ("GIF", "P"), ("JPEG", "CMYK")])
def test_other_color_models_are_read(form, mode):
    pixels = np.full((8, 8, 3), (204, 51, 102), np.uint8)
    np.testing.assert_allclose(decode_file(encode(pixels, form, mode), (8, 8, 3)), pixels, atol=2)


def test_transparent_palettes_are_read_without_a_warning(warned):
    image = Image.fromarray(np.full((4, 4, 3), (204, 51, 102), np.uint8)).convert("P")
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes([0] * 128 + [255] * 128))
    assert decode_file(file.getvalue(), (4, 4, 3))[0, 0].tolist() == [204, 51, 102]
    assert warned() == []


def test_sixteen_bit_gray_keeps_its_upper_byte():
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    result = decode_file(encode(values), (2, 3, 1))
    assert result[..., 0].tolist() == [[0, 0, 1], [128, 255, 255]]


def test_moving_images_give_their_first_frame():
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert decode_file(file.getvalue(), (4, 4, 3)).max() == 0
    assert decode_record(file.getvalue(), (4, 4, 3)).max() == 0


def test_photographs_are_turned_upright(pixels, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # The camera was turned: the first row is the right-hand side.
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    np.testing.assert_array_equal(decoding.decode_file(path, (36, 24, 3)), np.rot90(pixels, -1))
    assert upright.upright_size(path.read_bytes()) == (36, 24)


def test_large_jpegs_are_read_at_a_fraction_and_look_the_same():
    rows, columns = np.mgrid[:512, :768]
    pixels = np.stack([rows // 2, columns // 3, (rows + columns) // 5], -1).astype(np.uint8)
    encoded = encode(pixels, "JPEG", quality=95)
    expected = triangle_resize(pixels[:, 128:640], (32, 32))
    np.testing.assert_allclose(decode_file(encoded, (32, 32, 3)), expected, atol=4)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_decoding_finds_a_file_that_was_cut_off(rng, tmp_path, form):
    encoded = encode(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8), form)
    path = tmp_path / "image"
    path.write_bytes(encoded)
    assert decoding.decode_file(path, (8, 8, 3)).shape == (8, 8, 3)
    path.write_bytes(encoded[: len(encoded) // 2])
    with pytest.raises(OSError, match="truncated"):
        decoding.decode_file(path, (8, 8, 3))


def test_sizes_are_one_number_or_two():
    assert decoding.checked_image_size(32) == (32, 32)
    assert decoding.checked_image_size((24, 36)) == (24, 36)
    for wrong in (0, -3, 2.5, (1, 2, 3), "32"):
        with pytest.raises(ValueError, match=r"image_size=.* is no size: pass one positive number of pixels"):
            decoding.checked_image_size(wrong)
