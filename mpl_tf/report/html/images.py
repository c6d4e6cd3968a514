"""Images inside a page, as data URIs."""

import base64
import io
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

# Larger images are scaled down to this height or width; those up to the second size keep every pixel.
LARGEST, PIXELATED = 96, 48


class InlineImage(NamedTuple):
    """What an `<img>` element needs: its address, its size in pixels, and whether its pixels are to stay sharp."""

    source: str
    width: int
    height: int
    pixelated: bool = False


def inline_image(image: np.ndarray) -> InlineImage:
    """An image, uint8 `[H, W, C]`: PNG where it is small, JPEG where it had to be scaled."""
    image = np.asarray(image)
    drawn = PIL.Image.fromarray(image[..., :3] if image.shape[-1] >= 3 else image[..., 0])
    small = max(image.shape[:2]) <= PIXELATED
    drawn.thumbnail((LARGEST, LARGEST))
    stream = io.BytesIO()
    options: dict[str, Any] = (
        {"format": "PNG", "optimize": True} if small else {"format": "JPEG", "quality": 88}
    )
    drawn.save(stream, **options)
    return InlineImage(_data_uri(stream.getvalue(), "png" if small else "jpeg"), *drawn.size, small)


def inline_png(png: bytes) -> InlineImage:
    """A finished PNG file."""
    return InlineImage(_data_uri(png, "png"), *PIL.Image.open(io.BytesIO(png)).size)


def _data_uri(content, kind):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
