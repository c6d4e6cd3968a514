"""What people really send, through every signature that takes files and through prediction; the table of the page."""

import io
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mpl_tf import export
from mpl_tf.data.images import decoding
from mpl_tf.export import signatures
from mpl_tf.inference import prediction
from tests.data.images.test_upright import note, with_note
from tests.export.networks import NAMES, network

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"
SHAPE = (6, 5, 3)


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def images():
    """Name in the page's table → files, by their extensions."""
    blocks = np.random.default_rng(0).integers(0, 256, (3, 4, 3))
    image = Image.fromarray(np.kron(blocks, np.ones((20, 20, 1))).astype(np.uint8))
    jpeg = encoded(image, "JPEG", quality=95)
    deep = np.asarray(image).astype(np.uint16) * 257
    huge = image.resize((5184, 3888))
    moving = encoded(image, "WEBP", save_all=True, append_images=[image.rotate(180)])
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "a JPEG that was cut off": {"jpg": jpeg[: len(jpeg) // 2]},
        "a PNG that was cut off": {"png": encoded(image)[:-60]},
        "a text that is called an image": {"jpg": b"This is no image.\n"},
        "an empty file": {"jpg": b"", "png": b""},
        "1 × 1 pixel": {"png": encoded(image.resize((1, 1))), "jpg": encoded(image.resize((1, 1)), "JPEG")},
        "1 × 500 pixels": {"png": encoded(image.resize((1, 500)))},
        "gray": {"png": encoded(image.convert("L")), "jpg": encoded(image.convert("L"), "JPEG", quality=95)},
        "a transparent PNG (RGBA)": {"png": encoded(image.convert("RGBA"))},
        "a CMYK JPEG": {"jpg": encoded(image.convert("CMYK"), "JPEG", quality=95)},
        "a 16-bit PNG": {
            "png": tf.io.encode_png(deep).numpy(),
            "gray.png": tf.io.encode_png(deep[..., :1]).numpy(),
        },
        "20 megapixels": {"jpg": encoded(huge, "JPEG"), "png": encoded(huge, compress_level=1)},
        "turned by its EXIF orientation": {
            "jpg": encoded(image, "JPEG", exif=turned, quality=95),
            "png": encoded(image, exif=turned),
            "webp": encoded(image, "WEBP", exif=turned, lossless=True),
        },
        "turned by a note that is damaged or unusual": {
            "jpg": with_note(jpeg, note(6, kind="BYTE"), headers=2),
            "png": with_note(encoded(image), note(6, kind="LONG"), headers=1),
            "webp": with_note(encoded(image, "WEBP", lossless=True), note(6, order=">")),
        },
        "TIFF or AVIF": {"tif": encoded(image, "TIFF"), "avif": encoded(image, "AVIF")},
        "a moving GIF": {"gif": encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)])},
        # Its header says whether it has transparency; the encoder decides.
        "a moving WebP without transparency": {
            "webp": moving[:20] + bytes([moving[20] & ~0x10]) + moving[21:]
        },
        "a BMP with a palette": {"bmp": encoded(image.quantize(20), "BMP")},
    }


def table():
    """Name → what the page says about serving and about recipes.predict."""
    section = PAGE.read_text(encoding="utf-8").partition("## Images that are not as they should be")[2]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section.partition("\n## ")[0], re.MULTILINE)
    return {name: (served, predicted) for name, served, predicted in rows[1:]}


@pytest.fixture(scope="module")
def files():
    return images()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return export.saved_model(network(SHAPE), folder, class_names=NAMES, num_checks=2, warm_up=False)


@pytest.fixture(scope="module")
def serve(exported):
    """Asks a signature for what it says about encoded images."""
    loaded = tf.saved_model.load(str(exported))

    def ask(name, values):
        signature = loaded.signatures[name]
        (argument,) = signature.structured_input_signature[1]
        return {key: value.numpy() for key, value in signature(**{argument: tf.constant(values)}).items()}

    return ask


def example(content):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
    features = tf.train.Features(feature={signatures.ENCODED_FEATURE: feature})
    return tf.train.Example(features=features).SerializeToString()


def test_the_page_has_every_image(files):
    assert list(table()) == list(files)


def test_signatures_answer_or_refuse_as_the_page_says(files, serve):
    for name, (says, _) in table().items():
        for content in files[name].values():
            if says.startswith("refused"):
                for signature, value in (("serving_bytes", content), (signatures.CLASSIFY, example(content))):
                    with pytest.raises(tf.errors.InvalidArgumentError):
                        serve(signature, [value])
                continue
            assert says.startswith("answered")
            expected = decoding.decode_file(io.BytesIO(content), SHAPE).astype(float)
            pixels = signatures.decode(tf.constant([content]), SHAPE).numpy()
            assert abs(pixels[0] - expected).mean() < 3, name
            answer = serve("serving_uint8", pixels)
            assert np.isfinite(answer["logits"]).all()
            for signature, value in (("serving_bytes", content), (signatures.CLASSIFY, example(content))):
                for output, values in serve(signature, [value]).items():
                    np.testing.assert_array_equal(values, answer[output])


def test_predict_names_or_classifies_them_as_the_page_says(files, exported, tmp_path):
    for number, versions in enumerate(files.values()):
        for extension, content in versions.items():
            path = tmp_path / "images" / f"{number:02d}" / f"image.{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    classifier = export.ExportedClassifier(exported)
    rows = prediction.predict_folder(classifier, tmp_path / "images", tmp_path / "out.csv", verbose=0).rows
    for number, (name, (_, says)) in enumerate(table().items()):
        assert says.startswith(("a class", "a reason")), name
        for extension in files[name]:
            _, label, confidence, error = rows[f"{number:02d}/image.{extension}"]
            assert bool(label) == bool(confidence) == says.startswith("a class"), (name, error)
            assert bool(error) == says.startswith("a reason"), name


def test_one_bad_image_refuses_the_whole_request(files, serve):
    bad, good = files["a text that is called an image"]["jpg"], files["gray"]["png"]
    assert len(serve("serving_bytes", [good, good])["classes"]) == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="Unknown image file format"):
        serve("serving_bytes", [good, bad, good])


@pytest.mark.parametrize(("signature", "dtype"), [("serving_default", "float32"), ("serving_uint8", "uint8")])
def test_pixels_of_another_shape_are_refused(serve, signature, dtype):
    height, width, channels = SHAPE
    for shape in [(1, height + 1, width, channels), (1, height, width, 4), (height, width, channels)]:
        with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
            serve(signature, np.zeros(shape, dtype))
