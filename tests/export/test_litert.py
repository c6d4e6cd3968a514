import pathlib
import re
import sys
import types

import keras
import numpy as np
import pytest
from PIL import Image

from mpl_tf import export
from mpl_tf.data.images import upright
from mpl_tf.export import litert
from mpl_tf.export.interpreter import interpreter_class
from tests.export.networks import NAMES, network, softmax


@pytest.fixture(scope="module")
def model():
    return network((6, 5, 3))


@pytest.fixture(scope="module")
def examples():
    return np.random.default_rng(0).integers(0, 256, (70, 6, 5, 3)).astype("float32")


@pytest.fixture(scope="module")
def logits(model, examples):
    return np.asarray(model(examples), "float64")


@pytest.fixture(scope="module")
def converted(model, examples):
    return dict(litert.convert(model, litert.KINDS, examples))


# 2⁻¹¹ is half a unit in the last place of a float16 weight; 1/256 is the grain of 8-bit probabilities.
@pytest.mark.parametrize(
    ("kind", "bound"), [("float32", 1e-5), ("float16", 2e-3), ("int8", 0.02), ("int8_full", 0.03)]
)
def test_every_kind_computes_what_the_network_does(converted, examples, logits, kind, bound):
    assert converted[kind].builtin
    interpreter = litert.Interpreter(converted[kind])
    for count in (1, 70, 3):
        found = interpreter(examples[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, softmax(logits)[:count], atol=bound)


def test_kinds_differ_in_their_types(converted):
    types = {kind: litert.Interpreter(value) for kind, value in converted.items()}
    assert {kind: value.input["dtype"] for kind, value in types.items()} == {
        "float32": np.float32, "float16": np.float32, "int8": np.float32, "int8_full": np.uint8
    }  # fmt: skip
    assert types["int8_full"].output["dtype"] == np.uint8
    # A pixel is its own 8-bit code, up to rounding, so that a device passes camera bytes through.
    scale, zero = types["int8_full"].input["quantization"]
    assert zero == 0
    assert scale == pytest.approx(1.0, abs=0.01)


def test_points_keep_their_signs():
    model = network((2,))
    points = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
    ((_, converted),) = litert.convert(model, ["int8_full"], points)
    found = litert.Interpreter(converted)(points)
    np.testing.assert_allclose(found, softmax(np.asarray(model(points), "float64")), atol=0.03)


def write_variants(network, folder, examples, **options):
    """Measured on the images that the quantization sees too."""
    return litert.write_variants(
        network, folder, name="net", representative=examples, images=examples, **options
    )


def test_variants_are_measured_against_the_network(tmp_path, model, examples, logits):
    labels = logits.argmax(axis=-1)
    labels[:7] = (labels[:7] + 1) % 3  # A tenth of the images is classified wrongly.
    measured = write_variants(
        model, tmp_path, examples, kinds=["float32", "int8"], labels=labels, max_accuracy_drop=0.2
    )
    assert [found.kind for found in measured] == ["keras", "float32", "int8"]
    reference, exact, _ = measured
    assert reference.accuracy == exact.accuracy == pytest.approx(0.9)
    assert reference.agreement == exact.agreement == 1.0
    for found in measured:
        assert 0 < found.latency < 1
        assert found.row()["accuracy %"]
    for found in measured[1:]:
        assert found.size == (tmp_path / f"net_{found.kind}.tflite").stat().st_size


def test_a_variant_that_loses_too_much_accuracy_fails_the_export(
    tmp_path, monkeypatch, model, examples, logits
):
    def always_zero(self, images):
        return np.eye(3, dtype=np.float32)[np.zeros(len(images), int)]

    monkeypatch.setattr(litert.Interpreter, "__call__", always_zero)
    labels = np.ones(70, int)
    always_one = keras.models.clone_model(model)
    *body, kernel, _ = model.get_weights()
    always_one.set_weights([*body, 0 * kernel, np.array([0.0, 9.0, 0.0])])

    def write(folder):
        folder.mkdir()
        (folder / "saved_model.pb").touch()  # As if the network had been written before.
        write_variants(always_one, folder, examples, kinds=["float32"], labels=labels, max_accuracy_drop=0.01)

    message = (
        r"'float32' has an accuracy of 0.00% on 70 .* the network 100.00%: .*=0.01 below, .* less than one"
    )
    with pytest.raises(ValueError, match=message):
        export.new_version(tmp_path, write)
    assert list(tmp_path.iterdir()) == []


def test_a_variant_that_loses_too_much_accuracy_is_left_out_beside_one_that_does_not(
    tmp_path, monkeypatch, model, examples, logits
):
    convert = litert.convert

    def with_a_bad_int8(network, kinds, representative):
        other = keras.models.clone_model(network)
        other.set_weights([-weight for weight in network.get_weights()])
        for kind in kinds:
            yield from convert(other if kind == "int8" else network, [kind], representative)

    monkeypatch.setattr(litert, "convert", with_a_bad_int8)
    labels = logits.argmax(axis=-1)
    with pytest.warns(UserWarning, match=r"'int8' has an accuracy of .*, so that it is left out"):
        measured = write_variants(model, tmp_path, examples, kinds=["int8", "float32"], labels=labels)
    assert [found.kind for found in measured] == ["keras", "float32"]
    assert [path.name for path in tmp_path.iterdir()] == ["net_float32.tflite"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kinds": ["int4"]}, "kind='int4' is unknown: did you mean 'int8'"),
        ({"max_accuracy_drop": 2}, "max_accuracy_drop=2 is out of range"),
        ({"images": np.zeros((0, 6, 5, 3)), "labels": []}, "There are no validation images"),
        ({"representative": np.zeros((0, 6, 5, 3))}, "There are no representative images"),
    ],
)
def test_what_cannot_be_measured_is_refused(tmp_path, model, examples, change, message):
    arguments = {
        "kinds": ["int8"],
        "representative": examples,
        "images": examples,
        "labels": [0] * 70,
    } | change
    with pytest.raises(ValueError, match=message):
        litert.write_variants(model, tmp_path, name="net", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["float32", "int8_full"])
def test_the_program_for_a_device_in_the_documentation(tmp_path, monkeypatch, capsys, converted, model, kind):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (program,) = (
        code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "ai_edge_litert" in code
    )
    assert len([line for line in program.splitlines() if line]) == 20
    # The page says that this file is to be copied beside the program.
    monkeypatch.syspath_prepend(pathlib.Path(upright.__file__).parent)
    module = types.ModuleType("interpreter")
    real = interpreter_class(builtin=True)
    module.Interpreter = lambda path: real(model_path=path)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    pixels = np.random.default_rng(5).integers(0, 256, (6, 5, 3), np.uint8)
    files = [tmp_path / name for name in ("model.tflite", "image.png", "labels.txt")]
    files[0].write_bytes(converted[kind].content)
    Image.fromarray(pixels).save(files[1])
    files[2].write_text("\n".join(NAMES))
    (tmp_path / "resizing.json").write_text('{"resize": "crop", "interpolation": "bilinear"}')
    monkeypatch.setattr(sys, "argv", ["program", *map(str, files)])
    exec(program, {})
    assert capsys.readouterr().out.strip() == NAMES[int(np.argmax(model(pixels[None].astype("float32"))))]
