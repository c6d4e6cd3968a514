"""Images of other sizes: training, servers, devices and prediction bring them to one size in the same way."""

import io
import json
import math
import pathlib
import sys
from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from mpl_tf import export, models
from mpl_tf.data.images import decoding, upright
from mpl_tf.data.images.decoding import Resizing
from mpl_tf.data.images.folders import from_folders
from mpl_tf.export import litert
from mpl_tf.inference import prediction
from tests.export import device_program

SIZE = (4, 6)
NAMES = [f"pixel {index}" for index in range(24)]
EVERY = [Resizing(resize, method) for resize in upright.RESIZES for method in upright.INTERPOLATIONS]
PILLOWS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def files():
    """Noise, which is where filters differ most, of sizes above, below, beside and at the one that is wanted."""
    generator = np.random.default_rng(3)
    sizes = [
        (4, 6),
        (8, 12),
        (9, 5),
        (5, 9),
        (17, 40),
        (40, 17),
        (3, 3),
        (1, 7),
        (7, 1),
        (2, 31),
        (64, 64),
        (40, 20),
    ]
    return [encoded(generator.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


@pytest.mark.parametrize("resizing", EVERY, ids="-".join)
def test_a_server_makes_the_pixels_that_training_made(resizing, files):
    # As a graph, which may round otherwise than single operations; what decodes the files has tests of its own.
    graph = tf.function(
        lambda file: decoding.decode_record(file, (*SIZE, 1), resizing=resizing), autograph=False
    )
    for file in files:
        in_training = decoding.decode_file(file, (*SIZE, 1), resizing).astype(int)
        np.testing.assert_allclose(graph(tf.constant(file)).numpy(), in_training, atol=1)


def test_nearest_pixels_are_those_in_whose_square_the_middle_lies(files):
    for file in files:
        pixels = np.asarray(Image.open(io.BytesIO(file)))
        height, width = pixels.shape
        scale = min(Fraction(height, SIZE[0]), Fraction(width, SIZE[1]))
        parts = {"crop": (scale * SIZE[0], scale * SIZE[1]), "stretch": (Fraction(height), Fraction(width))}
        for resize, part in parts.items():
            rows, columns = (
                [
                    math.floor((side - kept) / 2 + (index + Fraction(1, 2)) * kept / count)
                    for index in range(count)
                ]
                for side, kept, count in zip(pixels.shape, part, SIZE, strict=True)
            )
            found = decoding.decode_file(file, (*SIZE, 1), Resizing(resize, "nearest"))[..., 0]
            np.testing.assert_array_equal(found, pixels[rows][:, columns], err_msg=f"{resize} {pixels.shape}")


@pytest.mark.parametrize("method", PILLOWS)
def test_resizing_is_what_it_is_called(method, files):
    # Against Pillow's own functions for whole images. It rounds in between, in an order of its own.
    allowed = 1 if method == "bilinear" else 48
    for file in files:
        image, size = Image.open(io.BytesIO(file)), SIZE[::-1]
        expected = {
            "crop": ImageOps.fit(image, size, PILLOWS[method]),
            "stretch": image.resize(size, PILLOWS[method]),
        }
        for resize, pixels in expected.items():
            found = decoding.decode_file(file, (*SIZE, 1), Resizing(resize, method))[..., 0].astype(int)
            difference = np.abs(found - np.asarray(pixels).astype(int))
            assert difference.max() <= allowed, (resize, image.size)
            assert difference.mean() <= 6, (resize, image.size)


@pytest.mark.parametrize(
    ("size", "columns", "rows"),
    # Height and width of the file; where in 4×6 the image itself is.
    [
        ((8, 12), (0, 6), (0, 4)),
        ((12, 12), (1, 5), (0, 4)),
        ((4, 12), (0, 6), (1, 3)),
        ((20, 2), (2, 3), (0, 4)),
        ((1, 100), (0, 6), (1, 2)),
    ],
)
def test_padding_is_gray_beside_the_whole_image(size, columns, rows):
    white = encoded(np.full((*size, 3), 255, np.uint8))
    expected = np.full((*SIZE, 3), 128)
    expected[slice(*rows), slice(*columns)] = 255
    for method in upright.INTERPOLATIONS:
        found = decoding.decode_file(white, (*SIZE, 3), Resizing("pad", method))
        np.testing.assert_array_equal(found, expected, err_msg=method)


def test_nothing_is_lost_by_stretching_and_padding():
    marked = np.zeros((8, 40, 3), np.uint8)
    marked[:, :8] = marked[:, -8:] = 255
    file = encoded(marked)
    seen = {mode: decoding.decode_file(file, (8, 8, 3), Resizing(mode)).max() for mode in upright.RESIZES}
    assert seen == {"crop": 0, "stretch": 255, "pad": 255}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(4)
    for name, sizes in {"a": [(9, 5), (30, 40)], "b": [(5, 9), (11, 64), (40, 8)]}.items():
        (root / name).mkdir()
        for number, size in enumerate(sizes):
            (root / name / f"{number}.png").write_bytes(
                encoded(generator.integers(0, 256, size, dtype=np.uint8))
            )
    return root


def network():
    """Names the brightest pixel; a bright one is far from the next in noise."""
    images = keras.Input((*SIZE, 1))
    model = keras.Model(images, keras.layers.Rescaling(1.0)(keras.layers.Flatten()(images)))
    return model


def test_the_network_of_a_folder_sees_the_same_everywhere(folder, tmp_path, monkeypatch, capsys):
    resizing = Resizing("pad", "lanczos")
    source = from_folders(folder, image_size=SIZE, channels=1, **resizing._asdict())
    assert source.resizing == resizing
    trained = models.set_resizing(network(), source.resizing)
    models.save(trained, tmp_path / "network.keras")
    trained = models.to_finetune(models.load(tmp_path / "network.keras"))
    assert models.get_resizing(trained) == resizing
    expected = {
        pathlib.Path(name): pixels.ravel().astype(float)
        for name, pixels in zip(source.train.names, source.train.examples, strict=True)
    }
    paths = list(expected)

    exported = export.saved_model(
        trained, tmp_path / "models", class_names=NAMES, num_checks=1, warm_up=False
    )
    assert f"({resizing.interpolation})" in (exported / "card.md").read_text()
    signature = tf.saved_model.load(str(exported)).signatures["serving_bytes"]
    served = signature(image_bytes=tf.constant([path.read_bytes() for path in paths]))["logits"].numpy()
    for path, logits in zip(paths, served, strict=True):
        np.testing.assert_allclose(logits, expected[path], atol=1.01, err_msg=path.name)

    classifier = export.ExportedClassifier(exported)
    assert classifier.resizing == resizing
    rows = prediction.predict_folder(classifier, folder, tmp_path / "out.csv", verbose=0).rows
    for path in paths:
        row = rows[path.relative_to(folder).as_posix()]
        assert row[1] == NAMES[int(expected[path].argmax())]

    ((_, converted),) = litert.convert(trained, ["float32"], np.zeros((1, *SIZE, 1), np.float32))
    (tmp_path / "model.tflite").write_bytes(converted.content)
    device_program.give_it_what_it_imports(monkeypatch)
    code = device_program.compiled()
    for path in paths:
        arguments = [tmp_path / "model.tflite", path, exported / "assets" / "labels.txt"]
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        exec(code, {})
        assert capsys.readouterr().out.strip() == NAMES[int(expected[path].argmax())]


def test_a_network_that_learned_in_another_way_is_warned_of(tmp_path, warned):
    path = tmp_path / "teacher.keras"
    models.save(models.set_resizing(network(), Resizing("pad", "bicubic")), path)
    with pytest.warns(UserWarning, match=r"teacher.keras learned .* resize='pad' .* by 'crop'"):
        models.load(path, resizing=decoding.CROPPED)
    assert warned() == []
    models.load(path, resizing=Resizing("pad", "bicubic"))
    models.load(path)
    assert warned() == []


def test_files_of_before_are_read(tmp_path):
    models.save(network(), tmp_path / "network.keras")
    old = models.load(tmp_path / "network.keras", resizing=Resizing("pad"))
    assert models.get_resizing(old) == decoding.CROPPED
    version = export.saved_model(old, tmp_path / "models", class_names=NAMES, num_checks=1, warm_up=False)
    noted = version / "assets" / "resizing.json"
    assert json.loads(noted.read_text()) == {"resize": "crop", "interpolation": "bilinear"}
    noted.unlink()
    assert export.ExportedClassifier(version).resizing == decoding.CROPPED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": "cut"}, "resize='cut' is unknown: .*Choose one of 'crop', 'stretch', 'pad'"),
        ({"interpolation": "cubic"}, "interpolation='cubic' is unknown: did you mean 'bicubic'"),
    ],
)
def test_other_words_are_refused(options, message, folder):
    with pytest.raises(ValueError, match=message):
        from_folders(folder, image_size=SIZE, **options)
