import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mpl_tf.data.images import decoding, exif


def encode(pixels, tag=None, *, form="JPEG", byte_order=None, **options):
    exif = Image.Exif()
    if byte_order is not None:
        exif.endian = byte_order
    exif[0x010F] = "a maker's name"
    if tag is not None:
        exif[exif.TAG] = tag
    exif[0x0131] = "a program's name"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, exif=exif, quality=100, **options)
    return file.getvalue()


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_images_are_turned_as_pillow_turns_them(rng, tag, byte_order):
    # Nothing but JPEG's own loss may be between the two: both decode the same file.
    encoded = encode(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8), tag, byte_order=byte_order)
    assert exif.read_tag(tf.constant(encoded)) == tag
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    image = tf.io.decode_jpeg(encoded, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)
    turned = exif.turned_upright(image, exif.read_tag(tf.constant(encoded)))
    np.testing.assert_allclose(turned, expected.astype(float), atol=1)


def test_both_decoders_turn_a_photograph_the_same_way(rng):
    pixels = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    encoded = encode(pixels, 6)
    expected = decoding.decode_file(io.BytesIO(encoded), (16, 12, 3)).astype(float)

    upright = decoding.decode_as_file(tf.constant(encoded), (16, 12, 3)).numpy().astype(float)
    ignored = decoding.decode_record(tf.constant(encoded), (16, 12, 3), resize=True).numpy().astype(float)
    # The two JPEG decoders spread the colors of so coarse an image a little differently.
    assert abs(upright - expected).mean() < 4
    assert abs(ignored - expected).mean() > 20


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_other_formats_have_their_tag_in_a_chunk(rng, tag, form):
    encoded = encode(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8), tag, form=form, lossless=True)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
    shape = expected.shape
    np.testing.assert_array_equal(decoding.decode_as_file(tf.constant(encoded), shape), expected)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_chunks_are_found_behind_the_image_and_with_a_header_of_jpeg(rng, form):
    whole = encode(rng.integers(0, 256, (5, 8, 3), dtype=np.uint8), 6, form=form, lossless=True)
    name = {"PNG": b"eXIf", "WEBP": b"EXIF"}[form]
    at = whole.index(name)
    if form == "PNG":
        # In this format the length comes first, and a checksum, which nobody checks here, last.
        length = int.from_bytes(whole[at - 4 : at], "big")
        chunk, rest = whole[at - 4 : at + 8 + length], whole[: at - 4] + whole[at + 8 + length :]
        moved = rest + chunk
        note = b"Exif\0\0" + chunk[8:-4]
        headed = rest + len(note).to_bytes(4, "big") + name + note + chunk[-4:]
    else:
        length = int.from_bytes(whole[at + 4 : at + 8], "little")
        moved = whole
        note = b"Exif\0\0" + whole[at + 8 : at + 8 + length]
        headed = whole[: at + 4] + len(note).to_bytes(4, "little") + note
    for encoded in (moved, headed):
        assert exif.read_tag(tf.constant(encoded)) == 6
    for size in range(0, len(whole), 7):
        # However a file is cut off, and however long a chunk claims to be.
        assert exif.read_tag(tf.constant(whole[:size])) in (1, 6)
    claims = (
        whole[: at - 4] + b"\xff\xff\xff\xff" + whole[at:] if form == "PNG" else whole[: at + 4] + b"\xff" * 4
    )
    assert exif.read_tag(tf.constant(claims)) in (1, 6)


def test_files_that_do_not_say_are_upright(rng):
    pixels = rng.integers(0, 256, (5, 8, 3), dtype=np.uint8)
    plain = io.BytesIO()
    Image.fromarray(pixels).save(plain, "PNG")
    whole = encode(pixels, 6)
    cut_off = whole[: whole.index(b"Exif") + 16]
    for encoded in (
        plain.getvalue(),
        encode(pixels),
        encode(pixels, 0),
        encode(pixels, 9),
        cut_off,
        b"",
        b"Exif\0\0",
    ):
        assert exif.read_tag(tf.constant(encoded)) == 1
