"""Photographs with notes of every form: training, servers, devices and prediction see the same image."""

import io
import pathlib
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mpl_tf import export
from mpl_tf.data.images.folders import from_folders
from mpl_tf.export import litert
from mpl_tf.inference import prediction
from tests.data.images.test_upright import TYPES, note, turned, with_note
from tests.export import device_program

SIZE = 16
# How an image has to be stored so that a note of the first number turns it upright.
INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
NAMES = [f"as {tag}" for tag in range(1, 9)]
FORMS = {"jpg": ("JPEG", {"quality": 95}), "png": ("PNG", {}), "webp": ("WEBP", {"lossless": True})}


def image():
    """Four corners of different brightness, so that all eight ways to turn it differ."""
    corners = np.array([[240, 160], [80, 10]], np.uint8)
    return np.repeat(np.kron(corners, np.ones((24, 24), np.uint8))[..., None], 3, axis=-1)


@pytest.fixture(scope="module")
def network():
    """Says which of the eight ways an image is turned in: the correlation with each."""
    images = keras.Input((SIZE, SIZE, 3), name="image")
    dense = keras.layers.Dense(8, use_bias=False)
    model = keras.Model(images, dense(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255, -0.5)(images))))
    ways = np.stack([turned(image()[::3, ::3], tag) for tag in range(1, 9)]).reshape(8, -1) / 255.0
    dense.set_weights([(ways - ways.mean()).T / 100])
    return model


@pytest.fixture(scope="module")
def files():
    """Name → file. All mean the same image, whatever they hold."""
    generator, made = np.random.default_rng(11), {}
    for extension, (form, options) in FORMS.items():
        for tag in (*range(1, 9), 0, 9, 200):
            stored, plain = turned(image(), INVERSE.get(tag, 1)), io.BytesIO()
            Image.fromarray(np.ascontiguousarray(stored)).save(plain, form, **options)
            kind = generator.choice([kind for kind in TYPES if tag < 10 or kind in ("SHORT", "LONG", "BYTE")])
            written = note(
                tag,
                kind=str(kind),
                order=str(generator.choice(["<", ">"])),
                count=int(generator.integers(1, 4)),
                before=int(generator.integers(0, 9)),
            )
            headers = int(generator.integers(extension == "jpg", 4))
            made[f"{tag}-{kind}-{headers}.{extension}"] = with_note(
                plain.getvalue(), written, headers=headers
            )
    return made


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number, (name, content) in enumerate(files.items()):
        path = root / "ab"[number % 2] / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return export.saved_model(network, folder, class_names=NAMES, num_checks=2, warm_up=False)


def test_the_network_tells_the_ways_apart(network):
    images = np.stack([turned(image()[::3, ::3], tag) for tag in range(1, 9)])
    assert network(images.astype("float32")).numpy().argmax(axis=1).tolist() == list(range(8))


@pytest.mark.filterwarnings("ignore:There are")
def test_training_sees_every_photograph_upright(network, files, folder):
    source = from_folders(folder, image_size=SIZE, duplicates="keep")
    assert len(source.train) == len(files)
    seen = network(source.train.examples.astype("float32")).numpy().argmax(axis=1)
    assert {pathlib.Path(n).name: k for n, k in zip(source.train.names, seen, strict=True) if k} == {}


def test_servers_see_every_photograph_upright(files, exported):
    signature = tf.saved_model.load(str(exported)).signatures["serving_bytes"]
    seen = signature(image_bytes=tf.constant(list(files.values())))["classes"].numpy()[:, 0]
    assert {name: k for name, k in zip(files, seen, strict=True) if k != b"as 1"} == {}


def test_prediction_sees_every_photograph_upright(files, folder, exported, tmp_path):
    classifier = export.ExportedClassifier(exported)
    rows = prediction.predict_folder(classifier, folder, tmp_path / "out.csv", verbose=0).rows
    assert len(rows) == len(files)
    assert {name: row for name, row in rows.items() if row[1] != "as 1"} == {}


def test_the_program_for_a_device_sees_every_photograph_upright(
    network, files, folder, tmp_path, monkeypatch, capsys
):
    ((_, converted),) = litert.convert(network, ["float32"], np.zeros((1, SIZE, SIZE, 3), np.float32))
    (tmp_path / "model.tflite").write_bytes(converted.content)
    (tmp_path / "labels.txt").write_text("\n".join(NAMES))
    (tmp_path / "resizing.json").write_text('{"resize": "crop", "interpolation": "bilinear"}')
    device_program.give_it_what_it_imports(monkeypatch)
    code = device_program.compiled()
    for path in sorted(folder.glob("*/*")):
        monkeypatch.setattr(
            sys, "argv", ["program", str(tmp_path / "model.tflite"), str(path), str(tmp_path / "labels.txt")]
        )
        exec(code, {})
        assert capsys.readouterr().out.strip() == "as 1", path.name
