"""Image files to upright pixels of one size, with Pillow and NumPy alone: for training, and to be copied to devices.

Cameras save an image as the sensor saw it and note how the camera was held (EXIF 3.0, section 4.6.5.1.6).
`orientation` reads the note from the bytes of a file. It is written in plain integer arithmetic, with a choice
and a loop that are passed in, so that Python runs it while training reads files, and the very same lines make the
graph of an exported model (`formats.read_orientation`), which is small, as it is traced, written, read back and
prepared by servers. A program on a device that copies this file does what training did.

Read are the note of JPEG (its first APP1 segment that begins with "Exif"), of PNG (`eXIf`), of WebP (`EXIF`)
and of TIFF (the file itself), with JPEG's header repeated or missing, in both byte orders and with every type
that the value may have. What only some programs write or read is not: XMP and ImageMagick's text chunks.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# What becomes of images of another aspect ratio, and how pixels are interpolated.
RESIZES = ("crop", "stretch", "pad")
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
# The gray level of what `"pad"` adds, that of the views too.
PADDING = 128
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MODES = {1: "L", 3: "RGB"}
# The tag and the names of a JPEG's segment, and of a PNG's and a WebP's chunk, in the upper four of six bytes.
_TAG = 0x0112
_EXIF_HEADER, _PNG_CHUNK, _WEBP_CHUNK = 0x457869660000, 0x655849660000, 0x455849460000
# What is looked at: enough for 64 MiB of PNG in chunks of the usual 8 KiB, and an end for files made to have
# none.
_MAX_SEGMENTS, _MAX_ENTRIES = 2**13, 512
# Bytes of a number by TIFF's type, 0 to 13, as hexadecimal digits from the right.
_WIDTHS = 0x48484211842110


class Resizing(NamedTuple):
    """How images of other sizes are brought to one.

    Attributes:
        resize: `"crop"` fits the shorter side and keeps the middle, `"stretch"` fits both sides, `"pad"` fits the
            longer side and adds gray (128) beside the shorter one.
        interpolation: `"bilinear"`, `"bicubic"`, `"lanczos"` (three lobes) or `"nearest"`. All but the last look at
            every pixel (antialiased).
    """

    resize: str = "crop"
    interpolation: str = "bilinear"


class Decoded(NamedTuple):
    """A decoded image and what its file was like.

    Attributes:
        pixels: uint8 `[H, W, C]`.
        deep_maximum: largest value of a gray file of 16 bits; -1 for others.
        transparent: whether the file has pixels that are not opaque. They are taken as if they were.
    """

    pixels: np.ndarray
    deep_maximum: int
    transparent: bool


def decode(
    encoded: bytes, image_shape: tuple[int, ...], resize: str = "crop", interpolation: str = "bilinear"
) -> Decoded:
    """Decodes an image, turns it upright and brings it to a size.

    Args:
        encoded: a whole file in any format that Pillow reads. Of a moving image, the first frame. JPEG files
            are decoded at the fraction of their size that is needed.
        image_shape: `(H, W, C)`, C of 1 (gray) or 3 (RGB). Transparency is dropped.
        resize: of `RESIZES`, see `Resizing`.
        interpolation: of `INTERPOLATIONS`.

    Returns:
        A `Decoded`.

    Raises:
        Exception: of whatever type Pillow raises for a broken file; there are many.
    """
    height, width, channels = image_shape
    mode = _MODES[channels]
    # JPEGs may be decoded at 1/2, 1/4 or 1/8 of their size; twice what is wanted leaves the filter its work.
    draft = None if interpolation == "nearest" else (mode, 2 * max(height, width))
    image = open_upright(encoded, draft=draft)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    transparent = image.mode in ("RGBA", "LA", "PA") and np.asarray(image.getchannel("A")).min() < 255
    image, deep_maximum = _eight_bits(image)
    resized = _resized(image.convert(mode), (width, height), resize, interpolation)
    return Decoded(np.asarray(resized).reshape(image_shape), deep_maximum, transparent)


def _resized(image: Image.Image, size: tuple[int, int], resize: str, interpolation: str) -> Image.Image:
    if resize == "crop" and interpolation == "bilinear":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if resize != "pad":
        return _interpolated(image, size, interpolation, cropped=resize == "crop")
    (width, height), inner = size, inner_size(image.size, size)
    padded = Image.new(image.mode, size, (PADDING,) * len(image.getbands()))
    middle = (width - inner[0]) // 2, (height - inner[1]) // 2
    padded.paste(_interpolated(image, inner, interpolation, cropped=False), middle)
    return padded


def _interpolated(image, size, interpolation, *, cropped):
    if interpolation == "nearest":
        parts = middle_part(image.size, size) if cropped else [(side, 1) for side in image.size]
        columns, rows = (
            nearest_index(side, part, count, np.arange(count))
            for side, part, count in zip(image.size, parts, size, strict=True)
        )
        return Image.fromarray(np.asarray(image)[rows][:, columns])
    method = _FILTERS[interpolation]
    # Rows first: which of both Pillow itself begins with, and then rounds, depends on the sizes and its version.
    left, top, right, bottom = _middle(image.size, size) if cropped else (0, 0, *image.size)
    rows = image.resize((size[0], image.height), method, box=(left, 0, right, image.height))
    return rows.resize(size, method, box=(0, top, size[0], bottom))


def _middle(sides, size):
    """The box in the middle of an image that has the aspect ratio of a size, both as width and height."""
    (width, height), ratio = sides, size[0] / size[1]
    inner = (ratio * height, height) if width / height >= ratio else (width, width / ratio)
    left, top = (width - inner[0]) * 0.5, (height - inner[1]) * 0.5
    return left, top, left + inner[0], top + inner[1]


def middle_part(sides: Sequence[int], size: Sequence[int]) -> list[tuple[int, int]]:
    """Width and height, as fractions (p, q), of the middle of an image that has the aspect ratio of a size."""
    if sides[0] * size[1] >= sides[1] * size[0]:
        return [(size[0] * sides[1], size[1]), (sides[1], 1)]
    return [(sides[0], 1), (size[1] * sides[0], size[0])]


def nearest_index(side: Any, part: tuple[Any, Any], count: Any, index: Any) -> Any:
    """The pixels in the middle of which, or beginning there, those of a smaller or larger image have their middle.

    In whole numbers, since a middle may lie on the edge between two pixels.

    Args:
        side: number of pixels.
        part: how many of them, in the middle, are resized, as (p, q) for p / q.
        count: number of pixels that they become.
        index: of these, int64 `[count]`, from 0.
    """
    p, q = part
    return ((side * q - p) * count + (2 * index + 1) * p) // (2 * count * q)


def inner_size(sides: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The two sides of an image whose longer one, relative to a size, fits it; in whole pixels, at least one."""

    def fitted(index):
        # As if the other side fitted; rounded, with halves up, in whole numbers.
        other = sides[1 - index]
        return max(1, min(size[index], (2 * sides[index] * size[1 - index] + other) // (2 * other)))

    return fitted(0), fitted(1)


def orientation(encoded: bytes) -> int:
    """Finds how an image has to be turned.

    Args:
        encoded: a whole file, or an EXIF note on its own.

    Returns:
        1 to 8; 1, upright, where the file does not say, or says nonsense.
    """
    return find_orientation(_reader(encoded), len(encoded), where=_where, repeat=_repeat)


def open_upright(encoded: bytes, draft: tuple[str, int] | None = None) -> Image.Image:
    """Decodes an image with Pillow and turns it as it was meant to be seen.

    `PIL.ImageOps.exif_transpose` does so too for most files. It also writes the note anew, which fails for
    notes that cameras and phones really leave, and obeys notes that nothing else reads.

    Args:
        encoded: a whole file in any format that Pillow reads. Of a moving image, the first frame is taken.
        draft: for JPEG files, a mode and the number of pixels that the shorter side may be scaled down to
            while it is decoded; None for all pixels.

    Returns:
        `PIL.Image.Image`, in the mode of the file.
    """
    image, found = _opened(encoded)
    if draft is not None:
        image.draft(draft[0], (draft[1], draft[1]))
    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }.get(found)
    image.load()
    return image if method is None else image.transpose(method)


def upright_size(encoded: bytes) -> tuple[int, int]:
    """The height and width that `open_upright` would give, from the header alone."""
    image, found = _opened(encoded)
    width, height = image.size
    return (width, height) if found >= 5 else (height, width)


def _opened(encoded: bytes):
    if encoded[:4] in (b"II*\0", b"MM\0*"):
        # Pillow would turn TIFF files itself, by rules of its own.
        return _open(_without_tag(encoded)), orientation(encoded)
    image = _open(encoded)
    # Pillow hands on the rotation that AVIF's and HEIF's containers note as if it were EXIF.
    container = image.format in ("AVIF", "HEIF")
    return image, orientation((image.info.get("exif") or b"") if container else encoded)


def _open(encoded: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded))
    except UnidentifiedImageError:
        # Pillow's message has the address of the bytes, which differs from run to run.
        raise UnidentifiedImageError("cannot identify image file") from None


def find_orientation(read: Callable, size: Any, *, where: Callable, repeat: Callable) -> Any:
    """`orientation` for whatever can be read from: bytes in Python, tensors in a graph.

    Args:
        read: maps a position, a count of bytes (6 at most) and, where they may be little-endian, whether they are, to
            the number there; bytes behind the end of the file count as zeros.
        size: of the file in bytes.
        where: maps a condition and two numbers to one of them, as `tf.where` does.
        repeat: maps a condition, a function of some numbers to their next values, and a tuple of the first ones to
            the first values for which the condition does not hold, as `tf.while_loop` does.

    Returns:
        1 to 8.
    """
    start = _note_position(read, size, where, repeat)
    entry, little = _entry_position(read, start, where, repeat)
    value = _value(read, start, entry, little, where)
    return where((entry < 0) | (value < 1) | (value > 8), 1, value)


def _note_position(read, size, where, repeat):
    """Where the TIFF structure that holds the note begins; behind the end of the file where there is none."""
    start = read(0, 4)
    jpeg, png, webp = start // 65536 == 0xFFD8, start == 0x89504E47, start == 0x52494646

    def of_format(in_jpeg, in_png, in_webp):
        return where(jpeg, in_jpeg, where(png, in_png, in_webp))

    wanted = of_format(_EXIF_HEADER, _PNG_CHUNK, _WEBP_CHUNK)

    def next_segment(position, length, steps):
        position = position + length
        # JPEG: marker, length, contents. PNG: length, name, contents, checksum; the note may come last.
        # WebP: name, length, contents, and a byte where their length is odd.
        name = read(position + of_format(4, 4, 0), 6)
        number = read(position + of_format(0, 0, 4), 4, webp)
        marker = number // 65536
        holds_note = (name - where(jpeg, 0, name % 65536) == wanted) & (where(jpeg, marker, 0xFFE1) == 0xFFE1)
        # Behind these markers comes the image itself, or the file is broken.
        last = (marker < 0xFF00) | (marker == 0xFFDA) | (marker == 0xFFD9)
        # Fill bytes may stand before a marker.
        segment = where(marker == 0xFFFF, 1, where(last, size, 2 + number % 65536))
        length = of_format(segment, 12 + number, 8 + number + number % 2)
        return position, where(holds_note, 0, length), steps + 1

    position, length, _ = repeat(
        lambda position, length, steps: (length > 0) & (position + length < size) & (steps < _MAX_SEGMENTS),
        next_segment,
        (0, where(jpeg | png | webp, of_format(2, 8, 12), 0), 0),
    )
    behind_name = where(jpeg, 4, where(png | webp, 8, 0))
    position = where(length > 0, size, position + behind_name)
    # Some programs write JPEG's header again, or into other formats.
    end = position + 6 * _MAX_SEGMENTS
    (position,) = repeat(
        lambda position: (position < end) & (read(position, 6) == _EXIF_HEADER),
        lambda position: (position + 6,),
        (position,),
    )
    return position


def _entry_position(read, start, where, repeat):
    """Where the tag's entry in the first directory is, -1 where it is not, and whether numbers are little-endian."""
    order = read(start, 2)
    little = order == 0x4949
    directory = start + read(start + 4, 4, little)
    count = where(little | (order == 0x4D4D), read(directory, 2, little), 0)
    first = directory + 2
    end = first + 12 * where(count > _MAX_ENTRIES, _MAX_ENTRIES, count)
    (entry,) = repeat(
        lambda entry: (entry < end) & (read(entry, 2, little) != _TAG),
        lambda entry: (entry + 12,),
        (first,),
    )
    return where(entry < end, entry, -1), little


def _value(read, start, entry, little, where):
    """The first number of an entry, of whatever type; 0 where it is none, or not a whole number."""
    kind = read(entry + 2, 2, little)
    count = read(entry + 4, 4, little)
    width = _WIDTHS // 16 ** (kind % 16) % 16
    # Four bytes fit into the entry; what is longer is somewhere else.
    position = where(width * count > 4, start + read(entry + 8, 4, little), entry + 8)
    first, second = read(position, 4, little), read(position + 4, 4, little)
    # The upper half of DOUBLE comes last where numbers are little-endian.
    upper = where(little & (kind == 12), second, first)
    divisor = where(second > 0, second, 1)
    ratio = where((second > 0) & (first % divisor == 0), first // divisor, 0)
    value = where(
        (kind == 11) | (kind == 12),  # FLOAT and DOUBLE
        _whole_number(upper, where(kind == 11, 127, 1023), where(kind == 11, 2**23, 2**20), where),
        where(width == 8, ratio, first),  # RATIONAL and SRATIONAL
    )
    value = where(width == 2, read(position, 2, little), value)
    value = where(
        width == 1, read(position, 1) - where(kind == 2, 48, 0), value
    )  # ASCII's digits begin at 48
    return where((width == 0) | (count < 1) | (kind > 13), 0, value)


def _whole_number(bits, bias, unit, where):
    """What the upper 32 bits of a floating-point number from 1 to 15 stand for; 0 for others and for fractions."""
    exponent = bits // unit - bias
    known = (exponent >= 0) & (exponent <= 3)
    scaled = (unit + bits % unit) * 2 ** where(known, exponent, 0)
    return where(known & (scaled % unit == 0), scaled // unit, 0)


def _reader(encoded: bytes):
    def read(position, count, little=False):
        return int.from_bytes(
            encoded[position : position + count].ljust(count, b"\0"), "little" if little else "big"
        )

    return read


def _where(condition, if_true, if_false):
    return if_true if condition else if_false


def _repeat(condition, advance, numbers):
    while condition(*numbers):
        numbers = advance(*numbers)
    return numbers


def _without_tag(tiff: bytes) -> bytes:
    """A TIFF file whose orientation tags have the number of no tag."""
    while (entry := _entry_position(_reader(tiff), 0, _where, _repeat)[0]) >= 0 and entry + 2 <= len(tiff):
        tiff = tiff[:entry] + b"\xff\xff" + tiff[entry + 2 :]
    return tiff


def _eight_bits(image: Image.Image) -> tuple[Image.Image, int]:
    """The image with 8 bits per channel, and the largest value where it had 16 or more.

    Pillow itself would clip such values at 255.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image, -1
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F" or low < 0 or high > 65535:
        raise ValueError(
            f"it has 32 bits per pixel, with values in {low}…{high}: save it with 8 bits, in 0…255"
        )
    # The upper byte is the 8-bit image.
    return Image.fromarray((values >> 8).astype(np.uint8)), int(high)
