"""TensorFlow's decoding of whatever people send, against Pillow's."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mpl_tf.data.images import decoding, formats

SIZE = (24, 36)


def encode(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.fixture
def image(rng):
    """Blocks of colors, which lossy formats keep."""
    blocks = np.kron(rng.integers(0, 256, (3, 3, 3)), np.ones((8, 12, 1)))
    return Image.fromarray(blocks.astype(np.uint8))


def transparent(image):
    image = image.convert("RGBA")
    image.putalpha(image.convert("L").point(lambda value: 255 - value // 2))
    return image


LOSSLESS = {
    "gray PNG": lambda image: encode(image.convert("L"), "PNG"),
    "gray PNG with transparency": lambda image: encode(image.convert("LA"), "PNG"),
    "PNG of two colors": lambda image: encode(image.convert("1"), "PNG"),
    "PNG with a palette": lambda image: encode(image.quantize(20), "PNG"),
    "PNG": lambda image: encode(image, "PNG"),
    "transparent PNG": lambda image: encode(transparent(image), "PNG"),
    "GIF": lambda image: encode(image.quantize(20), "GIF"),
    "moving GIF": lambda image: encode(
        image.quantize(20), "GIF", save_all=True, append_images=[image.rotate(180).quantize(20)]
    ),
    "BMP": lambda image: encode(image, "BMP"),
    "gray BMP": lambda image: encode(image.convert("L"), "BMP"),
    "BMP with a palette": lambda image: encode(image.quantize(20), "BMP"),
    "transparent BMP": lambda image: encode(transparent(image), "BMP"),
    "WebP": lambda image: encode(image, "WEBP", lossless=True),
    "transparent WebP": lambda image: encode(transparent(image), "WEBP", lossless=True, exact=True),
    "WebP with a note": lambda image: encode(image, "WEBP", lossless=True, exif=b"Exif\0\0"),
    "transparent moving WebP": lambda image: encode(
        transparent(image),
        "WEBP",
        lossless=True,
        exact=True,
        save_all=True,
        append_images=[image.rotate(180)],
    ),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_images_are_decoded_as_pillow_decodes_them(image, kind, channels):
    encoded = LOSSLESS[kind](image)
    expected = decoding.decode_file(io.BytesIO(encoded), (*SIZE, channels))
    found = decoding.decode_as_file(tf.constant(encoded), (*SIZE, channels))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_decoded_as_pillow_decodes_them(image, mode, progressive, channels):
    encoded = encode(image.convert(mode), "JPEG", quality=95, progressive=progressive)
    expected = decoding.decode_file(io.BytesIO(encoded), (*SIZE, channels)).astype(float)
    found = decoding.decode_as_file(tf.constant(encoded), (*SIZE, channels)).numpy().astype(float)
    assert abs(found - expected).mean() < 3


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_keep_their_upper_byte(image, channels):
    pixels = np.asarray(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])).reshape(*SIZE, channels)
    # The lower byte is noise.
    deep = pixels.astype(np.uint16) * 256 + np.arange(SIZE[1], dtype=np.uint16)[:, None] * 7
    encoded = tf.io.encode_png(deep).numpy()
    for shape in ((*SIZE, 1), (*SIZE, 3)):
        found = decoding.decode_as_file(tf.constant(encoded), shape)
        np.testing.assert_array_equal(found, decoding.decode_file(io.BytesIO(encoded), shape))
    np.testing.assert_array_equal(found, pixels[..., :3] if channels > 1 else np.repeat(pixels, 3, axis=-1))


def test_gray_is_pillows_to_the_bit(rng):
    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_array_equal(formats.to_gray(tf.constant(pixels))[..., 0], expected)
