"""How files are turned, against what was written into them: notes of every form, in every container."""

import functools
import io
import itertools
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mpl_tf.data.images import decoding, formats, upright

# TIFF's types (TIFF 6.0, section 2, and its Technical Note 1): number → the format of its values.
TYPES = {
    "BYTE": (1, "B"),
    "ASCII": (2, None),
    "SHORT": (3, "H"),
    "LONG": (4, "I"),
    "RATIONAL": (5, "II"),
    "SBYTE": (6, "b"),
    "UNDEFINED": (7, "B"),
    "SSHORT": (8, "h"),
    "SLONG": (9, "i"),
    "SRATIONAL": (10, "ii"),
    "FLOAT": (11, "f"),
    "DOUBLE": (12, "d"),
    "IFD": (13, "I"),
}


def note(value, *, kind="SHORT", order="<", count=1, tag=0x0112, before=2):
    """A TIFF structure with the tag between others, one of which no program could write again."""
    number, form = TYPES[kind]
    if form is None:
        data = f"{value}\0".encode()
        count = len(data)
    elif len(form) == 2:
        data = struct.pack(order + form, 3 * value, 3) * count
    else:
        data = struct.pack(order + form, value) * count
    others = [struct.pack(order + "HHI", 0x011A + i, 2, 4) + b"72\0\0" for i in range(before)]
    behind = 8 + 2 + 12 * (before + 1) + 4
    field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(order + "I", behind)
    entries = [*others, struct.pack(order + "HHI", tag, number, count) + field]
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, len(entries))
    return start + b"".join(entries) + bytes(4) + (data if len(data) > 4 else b"")


def encoded(pixels, form="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def with_note(plain, written, *, headers=1, segments=()):
    """Writes a note into a file that has none: as an APP1 segment, a chunk `eXIf`, or a chunk `EXIF`."""
    body = b"Exif\0\0" * headers + written
    if plain.startswith(b"\xff\xd8"):
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        return plain[:2] + b"".join(segments) + segment + plain[2:]
    if plain.startswith(b"\x89PNG"):
        end = plain.index(b"IEND") - 4
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body
        return plain[:end] + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + body)) + plain[end:]
    assert plain[12:16] in (b"VP8L", b"VP8 ")
    width, height = Image.open(io.BytesIO(plain)).size
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0])
    extended += struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunks = extended + plain[12:] + b"EXIF" + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def turned(pixels, tag):
    """The image that is meant by stored pixels, from the table of EXIF: where row 0 and column 0 are seen."""
    rows, columns = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[tag]  # fmt: skip
    if rows in ("left", "right"):
        pixels, rows, columns = pixels.swapaxes(0, 1), columns, rows
    pixels = pixels[::-1] if rows == "bottom" else pixels
    return pixels[:, ::-1] if columns == "right" else pixels


@pytest.fixture(scope="module")
def pixels():
    blocks = np.random.default_rng(3).integers(0, 256, (3, 4, 3))
    return np.kron(blocks, np.ones((4, 4, 1))).astype(np.uint8)


@functools.cache
def graph_that_decodes(shape):
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(
        lambda file: decoding.decode_as_file(file, shape), input_signature=signature, autograph=False
    )


FORMS = {"JPEG": {"quality": 95, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}}


def everywhere(file):
    """What Python reads from a file, and the graph."""
    return upright.orientation(file), int(formats.read_orientation(tf.constant(file)))


@pytest.mark.parametrize("kind", TYPES)
def test_the_value_may_have_every_type(pixels, kind):
    plain = encoded(pixels)
    for order, value, count in itertools.product("<>", range(10), (1, 2, 5)):
        expected = value if 1 <= value <= 8 else 1
        file = with_note(plain, note(value, kind=kind, order=order, count=count))
        assert upright.orientation(file) == expected
        if value in (6, 9) and count != 2:
            assert formats.read_orientation(tf.constant(file)) == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("headers", [0, 1, 2, 4])
def test_headers_may_be_missing_or_repeated(pixels, form, headers):
    if form == "JPEG" and headers == 0:
        return  # Without one, nothing tells it from other segments.
    file = with_note(encoded(pixels, form, **FORMS[form]), note(6), headers=headers)
    assert everywhere(file) == (6, 6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tag", range(1, 9))
def test_both_decoders_show_what_is_meant(pixels, form, tag):
    file = with_note(encoded(pixels, form, **FORMS[form]), note(tag, order="<>"[tag % 2]))
    expected = turned(pixels, tag)
    in_python = decoding.decode_file(file, expected.shape)
    in_graph = graph_that_decodes(expected.shape)(tf.constant(file)).numpy()
    tolerance = 0 if form != "JPEG" else 6
    for found in (in_python, in_graph):
        assert abs(found.astype(int) - expected).mean() <= tolerance
    assert upright.upright_size(file) == expected.shape[:2]


@pytest.mark.parametrize("kind", ["SHORT", "BYTE", "LONG"])
@pytest.mark.parametrize("tag", [1, 2, 6, 7])
def test_tiff_files_are_notes_themselves(pixels, kind, tag):
    plain = encoded(pixels, "TIFF")
    order = {b"II": "<", b"MM": ">"}[plain[:2]]
    (directory,) = struct.unpack(order + "I", plain[4:8])
    (count,) = struct.unpack(order + "H", plain[directory : directory + 2])
    entries = plain[directory + 2 : directory + 2 + 12 * count]
    number, form = TYPES[kind]
    own = struct.pack(order + "HHI", 0x0112, number, 1) + struct.pack(order + form, tag).ljust(4, b"\0")
    # The directory is written anew behind the image, with its tags in rising order.
    rows = sorted([entries[at : at + 12] for at in range(0, len(entries), 12)] + [own], key=lambda row: (
        struct.unpack(order + "H", row[:2])
    ))  # fmt: skip
    moved = plain + bytes(len(plain) % 2)
    file = moved[:4] + struct.pack(order + "I", len(moved)) + moved[8:]
    file += struct.pack(order + "H", len(rows)) + b"".join(rows) + bytes(4)
    expected = turned(pixels, tag)
    np.testing.assert_array_equal(decoding.decode_file(file, expected.shape), expected)


@pytest.mark.parametrize("tag", range(1, 9))
def test_avif_files_are_turned_once(pixels, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    large = np.kron(pixels, np.ones((4, 4, 1), np.uint8))
    expected = turned(large, tag)
    found = decoding.decode_file(encoded(large, "AVIF", exif=exif, quality=95), expected.shape)
    assert abs(found.astype(int) - expected).mean() < 8


def test_notes_that_nothing_can_write_again_are_no_trouble(pixels):
    # `note` has a resolution that is a text, which Pillow reads and does not write.
    file = with_note(encoded(pixels), note(6))
    np.testing.assert_array_equal(
        decoding.decode_file(file, (16, 12, 3)),
        turned(np.asarray(Image.open(io.BytesIO(file))), 6),
    )


def test_the_first_note_counts_and_other_segments_do_not(pixels):
    plain = encoded(pixels)
    first = with_note(plain, note(8))
    app1 = b"\xff\xe1" + struct.pack(">H", 40) + b"http://ns.adobe.com/xap/1.0/\0".ljust(38, b"x")
    app0_with_the_words = b"\xff\xe0" + struct.pack(">H", 16) + b"Exif\0\0MM\0*".ljust(14, b"\0")
    assert everywhere(with_note(first, note(3))) == (3, 3)
    assert everywhere(with_note(plain, note(6), segments=[app1])) == (6, 6)
    assert everywhere(with_note(plain, note(6), segments=[app0_with_the_words])) == (6, 6)
    assert everywhere(with_note(plain, note(6), segments=[b"\xff\xff\xff"])) == (6, 6)
    # Behind this marker is the image itself, whatever it looks like.
    of_image = b"\xff\xda" + struct.pack(">H", 60) + (b"Exif\0\0" + note(3)).ljust(58, b"\0")
    assert everywhere(with_note(plain, note(6), segments=[of_image])) == (1, 1)


def test_what_other_programs_do_not_read_is_not_obeyed(pixels):
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for file in (
        encoded(pixels, "JPEG", xmp=xmp),
        encoded(pixels, "PNG", pnginfo=_text("XML:com.adobe.xmp", xmp.decode())),
        encoded(pixels, "PNG", pnginfo=_text("Raw profile type exif", "\nexif\n8\n" + note(6).hex())),
        with_note(encoded(pixels), note(6, tag=0x0113)),
    ):
        assert everywhere(file) == (1, 1)
        assert decoding.decode_file(file, (12, 16, 3)).shape == (12, 16, 3)
        assert upright.upright_size(file) == (12, 16)


def _text(key, value):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(key, value)
    return info


@pytest.mark.parametrize("form", FORMS)
def test_however_a_file_is_cut_off_there_is_an_answer(pixels, form):
    whole = with_note(encoded(pixels, form, **FORMS[form]), note(6, kind="LONG", count=2))
    for size in range(len(whole)):
        assert upright.orientation(whole[:size]) in (1, 6)
    for size in [*range(0, 60, 13), *range(60, len(whole), 97), len(whole) - 3]:
        in_python, in_graph = everywhere(whole[:size])
        assert in_python == in_graph


def test_broken_notes_end(pixels):
    plain = encoded(pixels)
    circle = b"II*\0" + struct.pack("<I", 0) + b"\xff" * 40
    many = b"II*\0" + struct.pack("<IH", 8, 65535) + struct.pack("<HHII", 0x0100, 3, 1, 1) * 600
    for broken in (circle, many, b"II*\0\xff\xff\xff\xff", b"XX*\0", b""):
        assert everywhere(with_note(plain, broken)) == (1, 1)
    # As many headers, fill bytes and chunks as anybody likes to send.
    assert upright.orientation(b"Exif\0\0" * 20_000 + note(6)) == 1
    assert upright.orientation(b"\xff\xd8" + b"\xff" * 20_000 + with_note(plain, note(6))[2:]) == 1
    assert everywhere(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0IDATcrc." * 20_000) == (1, 1)
