"""Whether the pixels of a collection use 0…255: images of 12 bits, masks of 0 and 1 and fractions do not."""

import warnings

import numpy as np

# Below a quarter of 255 the brightest pixel of a whole collection is nearly black.
_DARK = 64


def check_range_of_files(maximum: int, deep_maximum: int, example: str) -> str | None:
    """Looks at the largest values of all files together.

    Args:
        maximum: of the 8-bit pixels of all images.
        deep_maximum: of the values in gray files of 16 bits; -1 where there are none.
        example: path of one of these, or of any image.

    Returns:
        A sentence where the images are dark; None where they are not.

    Raises:
        ValueError: where 16-bit files hold fewer bits, and where all pixels are 0 or 1.
    """
    if 0 <= deep_maximum < 2**14:
        bits = max(8, int(deep_maximum).bit_length())
        raise ValueError(
            f"The 16-bit files, such as {example}, hold values up to {deep_maximum:,}, as if of {bits} bits: of 16 "
            f"bits the upper 8 are read, which would be at most {deep_maximum >> 8} of 255. Save them with 8 bits, "
            f"as (values * (255 / {2**bits - 1})).round().astype('uint8'), and send such files to a server too."
        )
    if maximum == 1:
        raise ValueError(
            f"All pixels of the images, such as {example}, are 0 or 1, of 255: save them multiplied by 255."
        )
    if 0 <= deep_maximum < 2**15:
        return (
            f"16-bit files hold values up to {deep_maximum:,} of 65,535: they are read as rather dark images"
        )
    if 1 < maximum < _DARK:
        return (
            f"no pixel of any image is brighter than {maximum} of 255, which is nearly black: if the files hold "
            f"numbers in another range, save them multiplied by {255 / maximum:.3g}"
        )
    return None


def to_bytes(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rounds the pixels of a whole collection to uint8.

    Args:
        parts: what each is called → numbers `[N, H, W, C]`.

    Returns:
        The same as uint8.

    Raises:
        ValueError: for values outside 0…255, and where rounding would leave little of them.
    """
    ranges = {what: (examples.min(), examples.max()) for what, examples in parts.items()}
    for what, (low, high) in ranges.items():
        if low < 0 or high > 255:
            raise ValueError(
                f"{what} have values in {low}…{high}: images must be in 0…255, so {_remedy(low, high)}."
            )
    brightest = max(high for _, high in ranges.values())
    for what, (low, high) in ranges.items():
        dark = high <= 1 or (high < 2 and parts[what].dtype.kind == "f")
        # Black is black in any range; an image that is dark may be one of a few.
        if high > 0 and dark and (brightest < _DARK or len(parts[what]) > 1):
            raise ValueError(
                f"{what} are {parts[what].dtype} with values in {low}…{high}: images must be in 0…255, so multiply "
                "by 255."
            )
    if 0 < brightest < _DARK:
        if any(_has_fractions(examples) for examples in parts.values()):
            raise ValueError(
                f"{next(iter(parts))} have fractions in values up to {brightest}, which rounding to whole numbers "
                f"would take away: images must be in 0…255, so multiply by 255 / {brightest:g}."
            )
        warnings.warn(
            f"No pixel of {' and '.join(parts)} is brighter than {brightest:g} of 255, which is nearly black: if "
            f"they have another range, multiply by 255 / {brightest:g}.",
            stacklevel=4,
        )
    return {
        what: examples if examples.dtype == np.uint8 else np.rint(examples).astype(np.uint8)
        for what, examples in parts.items()
    }


def _has_fractions(examples: np.ndarray) -> bool:
    sample = examples.reshape(-1)[:: max(1, examples.size // 100_000)]
    return bool((sample != np.rint(sample)).any())


def _remedy(low, high) -> str:
    # Interpolation overshoots a little.
    if low >= -0.2 and high <= 1.2:
        return "multiply by 255 and clip them"
    if low >= -32 and 128 <= high <= 287:
        return "clip them"
    if low < 0:
        return "undo what standardized them"
    # The largest value of the number of bits that it takes: 4095 for 3,000.
    return f"multiply by 255 / {2 ** int(high).bit_length() - 1}"
