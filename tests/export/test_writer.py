import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import export
from mpl_tf.export import signatures, verification, writer
from mpl_tf.methods.supervised import Supervised
from tests.export.networks import NAMES, network, softmax

# Runs where neither Keras nor this package can be imported.
READER = """
import json, sys
sys.modules["keras"] = sys.modules["mpl_tf"] = None
import numpy as np
import tensorflow as tf
folder, inputs = sys.argv[1:]
images = np.load(inputs)
loaded = tf.saved_model.load(folder)
by_attribute = loaded.serve(tf.constant(images))
by_signature = loaded.signatures["serving_default"](images=tf.constant(images))
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    signature = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def["serving_default"]
    outputs = {key: value.name for key, value in signature.outputs.items()}
    by_session = session.run(outputs, {signature.inputs["images"].name: images})
results = {}
for how, outputs in (("attribute", by_attribute), ("signature", by_signature), ("session", by_session)):
    outputs = {key: np.asarray(value) for key, value in outputs.items()}
    outputs["classes"] = np.char.decode(np.asarray(outputs["classes"]).astype("S"))
    results[how] = {key: [value.dtype.name, value.tolist()] for key, value in outputs.items()}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network of images and the SavedModel of it."""
    model = network()
    return model, export.saved_model(model, tmp_path_factory.mktemp("models"), class_names=NAMES)


def test_a_program_without_keras_reads_the_same_predictions(tmp_path, exported):
    model, folder = exported
    images = np.random.default_rng(0).uniform(0, 255, (7, 6, 5, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    arguments = [sys.executable, "-c", READER, str(folder), str(tmp_path / "images.npy")]
    program = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert program.returncode == 0, program.stderr

    logits = np.asarray(model(images, training=False), "float64")
    results = json.loads(program.stdout.splitlines()[-1])
    assert results.keys() == {"attribute", "signature", "session"}
    for outputs in results.values():
        assert outputs.keys() == {"probabilities", "logits", "classes", "scores"}
        assert outputs["logits"][0] == outputs["probabilities"][0] == outputs["scores"][0] == "float32"
        np.testing.assert_allclose(outputs["logits"][1], logits, atol=1e-4)
        np.testing.assert_allclose(outputs["probabilities"][1], softmax(logits), atol=1e-5)
        order = np.argsort(-logits, axis=-1)
        assert outputs["classes"][1] == [[NAMES[index] for index in row] for row in order]
        np.testing.assert_allclose(outputs["scores"][1], -np.sort(-softmax(logits), axis=-1), atol=1e-5)


def test_versions_count_up_and_leave_the_others_alone(tmp_path):
    directory = tmp_path / "net"
    for name in ("2", "9", "10", "12-old", "notes", ".writing-1-99"):
        (directory / name).mkdir(parents=True)
        (directory / name / "kept").touch()
    folder = export.saved_model(network(shape=(2,)), directory, class_names=NAMES)
    assert folder == directory / "11"
    names = {path.name for path in directory.iterdir()}
    assert names == {".writing-1-99", "2", "9", "10", "11", "12-old", "notes"}
    assert len(list(directory.glob("*/kept"))) == 6
    assert (folder / "assets" / "labels.txt").read_text(encoding="utf-8") == "zero\none\ntwo\n"


def test_the_first_version_is_one_and_takes_points_and_any_names(tmp_path):
    model = network(shape=(2,), num_classes=2)
    folder = export.saved_model(
        model, tmp_path / "new" / "net", class_names=["Käse", "two words"], num_checks=1
    )
    assert folder == tmp_path / "new" / "net" / "1"
    points = tf.constant([[3.0, -1.0], [-2.0, 5.0], [0.0, 0.0]])
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert signature.structured_input_signature[1]["images"].shape.as_list() == [None, 2]
    for rows in (points, points[:1]):
        classes = signature(images=rows)["classes"].numpy()
        expected = [["Käse", "two words"][index] for index in np.argmax(model(rows), axis=-1)]
        assert [names[0].decode() for names in classes] == expected


def test_a_number_that_another_writer_takes_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    write, numbers = writer._write, []

    def write_late(model, class_names, offered, folder):
        write(model, class_names, offered, folder)
        numbers.append(folder.name.rsplit("-", 1)[-1])
        if len(numbers) == 1:
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "theirs").touch()

    monkeypatch.setattr(writer, "_write", write_late)
    assert export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES) == tmp_path / "2"
    assert numbers == ["1", "2"]
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["theirs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_run_exports_once_and_beside_what_others_have(tmp_path, monkeypatch):
    def write_something(model, folder, **options):
        folder.mkdir()
        (folder / "saved_model.pb").touch()

    monkeypatch.setattr(writer, "write_saved_model", write_something)
    model = network()

    def exported_by(run):
        provenance = export.Provenance(role="student", data="pets", run=run)
        return export.saved_model(model, tmp_path, class_names=NAMES, provenance=provenance)

    for left_over in (".writing-ours-1", ".writing-theirs-1"):
        (tmp_path / left_over).mkdir()
    assert exported_by("ours") == tmp_path / "1"
    assert not (tmp_path / ".writing-ours-1").exists()
    assert exported_by("theirs") == tmp_path / "2"
    written = (tmp_path / "1" / "saved_model.pb").stat().st_mtime_ns
    assert exported_by("ours") == tmp_path / "1"
    assert (tmp_path / "1" / "saved_model.pb").stat().st_mtime_ns == written
    # Who does not say what the run is gets a new version each time.
    assert [exported_by(None).name for _ in range(2)] == ["3", "4"]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_exports_float32(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        # Four channels, which no file is decoded to.
        model = network(shape=(6, 5, 4))
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).uniform(0, 255, (4, 6, 5, 4)).astype("float32")
    assert model(images).dtype == policy.removeprefix("mixed_")
    loaded = tf.saved_model.load(str(export.saved_model(model, tmp_path, class_names=NAMES)))
    outputs = loaded.serve(tf.constant(images))
    assert outputs["logits"].dtype == outputs["probabilities"].dtype == tf.float32
    np.testing.assert_allclose(outputs["logits"], tf.cast(model(images), tf.float32), atol=0.02)
    np.testing.assert_allclose(tf.reduce_sum(outputs["probabilities"], axis=-1), 1.0, rtol=1e-6)


def test_a_written_model_that_computes_something_else_gets_no_version(tmp_path, monkeypatch):
    write = writer._write

    def write_another(model, class_names, _, folder):
        other = keras.models.clone_model(model)
        other.set_weights([weight + 1e-3 for weight in model.get_weights()])
        write(other, class_names, signatures.signatures(other, class_names, top_k=3), folder)

    monkeypatch.setattr(writer, "_write", write_another)
    with pytest.raises(
        RuntimeError, match=r"'net' was discarded, because its \w+ on 5 random inputs are .* away"
    ):
        export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES, num_checks=5)
    assert list(tmp_path.iterdir()) == []


def test_each_signature_is_compared_through_each_loader(tmp_path, monkeypatch):
    compare, arguments = writer._compare, []
    monkeypatch.setattr(writer, "_compare", lambda *given: arguments.extend(given))
    export.saved_model(network(), tmp_path, class_names=NAMES, num_checks=2)
    compare(*arguments)
    answers = arguments[-1]
    assert answers.keys() == {"eager", "graph"}
    for loader, results in answers.items():
        assert results.keys() == {
            "serving_default", "serving_uint8", "serving_bytes", "tensorflow/serving/classify"
        }  # fmt: skip
        for signature, outputs in results.items():
            outputs["scores"][1, 2] += 0.001
            with pytest.raises(
                RuntimeError, match=f"in the signature {signature!r} read by the {loader} loader"
            ):
                compare(*arguments)
            outputs["scores"][1, 2] -= 0.001


def test_a_model_that_tensorflow_alone_cannot_read_gets_no_version(tmp_path, monkeypatch):
    write = writer._write

    def write_broken(model, class_names, offered, folder):
        write(model, class_names, offered, folder)
        (folder / "variables" / "variables.index").unlink()

    monkeypatch.setattr(writer, "_write", write_broken)
    with pytest.raises(RuntimeError, match="A program with TensorFlow alone cannot use the SavedModel"):
        export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES, in_new_process=True)
    assert list(tmp_path.iterdir()) == []


def test_a_process_without_keras_answers_as_this_one_does(exported):
    _, folder = exported
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), np.uint8)
    asked = {
        "serving_uint8": images,
        "serving_bytes": np.array([tf.io.encode_png(i).numpy() for i in images], object),
    }
    here, there = verification.read(folder, asked), verification.read_in_new_process(folder, asked)
    tf.nest.map_structure(lambda a, b: np.testing.assert_array_equal(a, b), here, there)
    assert set(there["graph"]) == set(asked)


def test_a_method_stands_for_the_network_that_it_serves_and_a_dictionary_for_its_names(tmp_path):
    method = Supervised(student=network(shape=(2,)), ema_decay=0.9)
    method.student.trainable_variables[-1].assign([5.0, -5.0, 5.0])
    indices = {"two": 2, "zero": 0, "one": 1}
    folder = export.saved_model(method, tmp_path, class_names=indices, num_checks=1, warm_up=False)
    assert (folder / "assets/labels.txt").read_text().split() == NAMES
    points = np.zeros((1, 2), np.float32)
    loaded = tf.saved_model.load(str(folder))
    np.testing.assert_allclose(loaded.serve(points)["logits"], method.inference_model(points), atol=1e-4)


def test_a_diverged_network_gets_no_version(tmp_path):
    model = network(shape=(2,))
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    with pytest.raises(RuntimeError, match=r"'net' was not exported, because its logits .* are not finite"):
        export.saved_model(model, tmp_path, class_names=NAMES)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_to_write_is_not_taken_for_a_race(tmp_path):
    (tmp_path / "net").write_text("a file where the folder should be")
    with pytest.raises(FileExistsError, match="net"):
        export.saved_model(network(), tmp_path / "net", class_names=NAMES)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (["a", "b"], "There are 2 class names, but 'net' has 3 outputs: pass one name for each"),
        (["a", "b", "a"], "The class name 'a' is there more than once"),
        (["a", "b", "c\nd"], r"The class name 'c\\nd' is not one line of text"),
        (["a", "b", ""], "The class name '' is not one line of text"),
        (["a", "b", 3], "The class name 3 is not one line of text"),
        (
            {"a": 1, "b": 2, "c": 3},
            r"The class names have the indices \[1, 2, 3\], and logits are numbered from 0",
        ),
    ],
)
def test_class_names_that_do_not_fit_are_refused(tmp_path, class_names, message):
    with pytest.raises(ValueError, match=message):
        export.saved_model(network(), tmp_path, class_names=class_names)
    assert list(tmp_path.iterdir()) == []


def two_headed():
    images = keras.Input((4,))
    return keras.Model(images, [keras.layers.Dense(3)(images), keras.layers.Dense(3)(images)], name="net")


def dense_map():
    images = keras.Input((8, 8, 3))
    return keras.Model(images, keras.layers.Dense(3)(images), name="net")


def two_inputs():
    images = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(images, keras.layers.Dense(3)(keras.layers.add(images)), name="net")


def of_numbers():
    numbers = keras.Input(())
    return keras.Model(numbers, keras.layers.Dense(3)(keras.layers.Reshape((1,))(numbers)), name="net")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_headed, "'net' has 2 outputs, and a classifier maps one tensor"),
        (dense_map, r"'net' returns the shape \(None, 8, 8, 3\), and a classifier's logits are"),
        (two_inputs, "'net' takes 2 inputs, and a classifier maps one tensor"),
        (of_numbers, r"'net' takes one number for each example, of shape \(None,\), and an export takes"),
        (lambda: network(activation="softmax"), "'net' returns probabilities"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "is not built"),
        (lambda: "net", "is not a keras.Model"),
    ],
)
def test_networks_that_cannot_be_exported_are_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        export.saved_model(make(), tmp_path, class_names=NAMES)


def test_no_checks_and_an_open_scope_are_refused(tmp_path):
    for option in ("num_checks", "top_k"):
        with pytest.raises(ValueError, match=f"{option}=0 is out of range"):
            export.saved_model(network(), tmp_path, class_names=NAMES, **{option: 0})
        with pytest.raises(ValueError, match=f"{option}=1.5 is not a whole number"):
            export.saved_model(network(), tmp_path, class_names=NAMES, **{option: 1.5})
    with (
        tf.distribute.OneDeviceStrategy("CPU:0").scope(),
        pytest.raises(ValueError, match=r"inside strategy.scope\(\) would be read back onto every replica"),
    ):
        export.saved_model(network(), tmp_path, class_names=NAMES)
