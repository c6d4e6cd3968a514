"""Collections whose pixels do not use 0…255."""

import numpy as np
import pytest
from PIL import Image

from mpl_tf.data.images.folders import from_folders
from mpl_tf.data.images.load import from_arrays

LABELS = [0, 1, 0, 1]


def write(folder, images, extension=".png"):
    for number, pixels in enumerate(images):
        path = folder / ("ant", "cat")[number % 2] / f"{number}{extension}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.parametrize("extension", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14])
def test_few_bits_in_16_bit_files_are_refused_with_the_remedy(tmp_path, rng, bits, extension):
    images = rng.integers(0, 2**bits, (4, 8, 8), dtype=np.uint16)
    images[0, 0, 0] = 2**bits - 1
    with pytest.raises(
        ValueError,
        match=rf"such as .*{extension}, hold values up to [\d,]+, as if of {bits} bits: .*255 / {2**bits - 1}\)",
    ):
        from_folders(write(tmp_path, images, extension), channels=1)
    # The remedy helps.
    mended = (images * (255 / (2**bits - 1))).round().astype("uint8")
    write(tmp_path, mended, extension)
    assert from_folders(tmp_path, channels=1).train.examples.max() == 255


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_sixteen_bits_are_looked_at_as_a_whole(tmp_path, rng, extension, warned):
    # One of them is dark, as one of many may be.
    images = rng.integers(0, 65536, (4, 8, 8), dtype=np.uint16)
    images[1] //= 256
    source = from_folders(write(tmp_path, images, extension), channels=1)
    np.testing.assert_array_equal(source.train.examples[..., 0], (images >> 8)[[0, 2, 1, 3]])
    assert warned() == []
    write(tmp_path, images // 3, extension)
    with pytest.warns(UserWarning, match=r"16-bit files hold values up to [\d,]+ of 65,535: .* rather dark"):
        from_folders(tmp_path, channels=1)


def test_thirty_two_bits_are_said_to_be_so(tmp_path, rng):
    for images in (
        rng.random((4, 8, 8)).astype(np.float32),
        rng.integers(0, 2**20, (4, 8, 8), dtype=np.int32),
    ):
        with pytest.raises(
            ValueError, match=r"\(it has 32 bits per pixel, with values in .*: save it with 8 bits"
        ):
            from_folders(write(tmp_path, images, ".tif"))


def test_masks_of_zeros_and_ones_are_refused(tmp_path, rng):
    with pytest.raises(
        ValueError, match=r"All pixels of the images, such as .*, are 0 or 1.*multiplied by 255"
    ):
        from_folders(write(tmp_path, rng.integers(0, 2, (4, 8, 8), dtype=np.uint8)))


def test_images_of_one_bit_are_black_and_white(tmp_path, rng):
    for number in range(4):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 2, (8, 8)).astype(bool)).save(path)
    assert set(from_folders(tmp_path).train.examples.ravel()) == {0, 255}


def test_dark_files_are_warned_of(tmp_path, rng):
    images = rng.integers(0, 17, (4, 8, 8), dtype=np.uint8)
    with pytest.warns(
        UserWarning, match=r"No pixel of any image is brighter than 16 of 255, .*multiplied by 15\.9"
    ):
        source = from_folders(write(tmp_path, images))
    assert "brighter than 16" in source.reading.notes[0]


def test_color_files_of_12_bits_are_warned_of(tmp_path, rng):
    import tensorflow as tf

    images = rng.integers(0, 4096, (4, 8, 8, 3), dtype=np.uint16)
    for number, pixels in enumerate(images):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_png(pixels).numpy())
    with pytest.warns(UserWarning, match="No pixel of any image is brighter than 15 of 255"):
        from_folders(tmp_path)


@pytest.mark.parametrize("way", ["RGBA", "LA", "P"])
def test_transparency_that_is_dropped_is_warned_of(tmp_path, rng, way):
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    write(tmp_path, images)
    logo = Image.fromarray(images[0]).convert("RGB")
    options = {"transparency": 3} if way == "P" else {}
    if way == "P":
        logo = logo.quantize(8)
    else:
        logo = logo.convert(way)
        logo.putalpha(128)
    logo.save(tmp_path / "ant/logo.png", **options)
    with pytest.warns(UserWarning, match=r"1 images are transparent in parts, such as .*logo\.png"):
        source = from_folders(tmp_path)
    assert len(source.reading.notes) == 1


def test_opaque_images_with_an_alpha_channel_are_no_matter(tmp_path, rng, warned):
    images = rng.integers(0, 256, (4, 8, 8, 4), dtype=np.uint8)
    images[..., 3] = 255
    from_folders(write(tmp_path, images))
    assert warned() == []


@pytest.fixture
def fractions(rng):
    images = rng.random((4, 6, 6, 1))
    images[0, 0, 0] = 1
    return images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x, r"images are float64 with values in .*: images must be in 0…255, so multiply by 255\."),
        (lambda x: x * 1.02, r"values in .*1\.02.*, so multiply by 255\."),
        (lambda x: x * 1.04 - 0.02, r"values in -0\.0.*, so multiply by 255 and clip them"),
        (lambda x: x.round().astype(np.uint8), r"images are uint8 with values in 0…1: .* multiply by 255"),
        (lambda x: x.round().astype(int), r"values in 0…1: .* multiply by 255"),
        (lambda x: x * 2 - 1, r"values in -.*, so undo what standardized them"),
        (lambda x: (x - 0.5) / 0.2, r"so undo what standardized them"),
        (lambda x: x * 257 - 1, r"values in -0.*…256.*: images must be in 0…255, so clip them"),
        (lambda x: (x * 4095).astype(np.uint16), r"so multiply by 255 / 4095"),
        (lambda x: (x * 65535).astype(np.uint16), r"so multiply by 255 / 65535"),
        (lambda x: x * 16, r"fractions in values up to 16\.0, .* so multiply by 255 / 16"),
    ],
)
def test_arrays_in_other_ranges_are_refused_with_the_remedy(fractions, change, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(change(fractions), LABELS)


def test_whole_numbers_of_few_levels_are_warned_of(fractions):
    with pytest.warns(
        UserWarning, match=r"No pixel of images is brighter than 16 of 255, .* multiply by 255 / 16"
    ):
        source = from_arrays((fractions * 16).round(), LABELS)
    assert source.train.examples.max() == 16


def test_arrays_are_looked_at_as_a_whole(fractions, warned):
    bright, dark = (fractions * 255).round(), (fractions[:1] * 3).round()
    assert from_arrays(bright, LABELS, test=(dark, [0]), unlabeled_images=dark * 0).test.examples.max() == 3
    assert warned() == []
    with pytest.raises(ValueError, match=r"test images are float64 with values in .*, so multiply by 255"):
        from_arrays(bright, LABELS, test=(fractions, LABELS))


def test_black_images_are_black(fractions, warned):
    from_arrays((fractions * 255).round(), LABELS, test=(np.zeros((1, 6, 6, 1)), [0]))
    assert warned() == []
