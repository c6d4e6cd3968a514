"""The format of an image file by its first bytes, whatever its name says."""

import functools
import importlib.util

HEIF, HEIF_REASON = "HEIF", "HEIC, which needs `pip install mpl_tf[heic]`"
HEAD_BYTES = 64
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def format_of(head: bytes) -> str | None:
    """The format of an image file.

    Args:
        head: its first bytes, 64 of them where it has so many.

    Returns:
        As Pillow names it; None for what is no image that could be read.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    # Two letters are few: texts begin with them too.
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _format_of_brands(head)
    return None


@functools.cache
def can_read_heif() -> bool:
    """Whether the package that reads HEIC files is installed; if so, it is told to Pillow."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


def _format_of_brands(head: bytes) -> str | None:
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[at : at + 4] for at in (8, *range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
        return HEIF
    return None
