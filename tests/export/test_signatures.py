import io
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn import datasets

from mpl_tf import export
from mpl_tf.data.images import decoding
from mpl_tf.export import example_requests, signatures
from tests.export.networks import NAMES, network, softmax

PHOTOGRAPHS = sorted(pathlib.Path(datasets.__file__).parent.glob("images/*.jpg"))


def loaded(model, folder, **options):
    return tf.saved_model.load(
        str(export.saved_model(model, folder, class_names=NAMES, **options))
    ).signatures


def ask(signature, values):
    (argument,) = signature.structured_input_signature[1]
    return {name: value.numpy() for name, value in signature(**{argument: tf.constant(values)}).items()}


@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 40, 1), (96, 64, 3)])
@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
def test_photographs_are_decoded_as_in_training(path, shape):
    # Pillow reads a JPEG at an eighth of its size before it resizes, and rounds twice; TensorFlow resizes all of it.
    encoded = path.read_bytes()
    served = signatures.decode(tf.constant([encoded, encoded]), shape).numpy().astype(float)
    in_training = decoding.decode_file(io.BytesIO(encoded), shape).astype(float)
    for image in served:
        assert abs(image - in_training).mean() < 2.5
        assert np.quantile(abs(image - in_training), 0.99) < 16.0


def test_a_photograph_taken_sideways_is_served_upright():
    upright = Image.open(PHOTOGRAPHS[0])
    sideways, straight = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned by 90 degrees clockwise.
    upright.transpose(Image.Transpose.ROTATE_90).save(sideways, "JPEG", exif=exif, quality=95)
    upright.save(straight, "JPEG", quality=95)
    files = tf.constant([sideways.getvalue(), straight.getvalue()])
    turned, expected = signatures.decode(files, (32, 32, 3)).numpy().astype(float)
    assert abs(turned - expected).mean() < 1.0


def test_bytes_of_any_size_are_answered_as_the_pixels_that_they_decode_to(tmp_path):
    model = network()
    found = loaded(model, tmp_path)
    images = [Image.open(path) for path in PHOTOGRAPHS]
    files = [io.BytesIO() for _ in images]
    images[0].save(files[0], "PNG")
    images[1].convert("L").resize((9, 31)).save(files[1], "JPEG")
    encoded = [file.getvalue() for file in files]
    pixels = signatures.decode(tf.constant(encoded), (6, 5, 3))
    by_bytes = ask(found["serving_bytes"], encoded)
    by_pixels = ask(found["serving_uint8"], pixels)
    for output, values in by_pixels.items():
        np.testing.assert_array_equal(by_bytes[output], values)
    np.testing.assert_allclose(by_bytes["logits"], model(tf.cast(pixels, tf.float32)), atol=1e-4)


@pytest.mark.parametrize(("top_k", "named"), [(1, 1), (2, 2), (9, 3)])
def test_scores_are_sorted_and_as_many_as_asked_for(tmp_path, top_k, named):
    model = network((2,))
    points = np.random.default_rng(0).normal(size=(20, 2)).astype("float32")
    outputs = ask(loaded(model, tmp_path, top_k=top_k)["serving_default"], points)
    probabilities = softmax(np.asarray(model(points), "float64"))
    order = np.argsort(-probabilities, axis=-1)[:, :named]
    np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(
        outputs["scores"], np.take_along_axis(probabilities, order, axis=-1), atol=1e-5
    )
    assert outputs["classes"].tolist() == [[NAMES[index].encode() for index in row] for row in order]


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((2,), {"serving_default", "serve", "tensorflow/serving/classify"}),
        (
            (6, 6, 1),
            {"serving_default", "serve", "serving_uint8", "serving_bytes", "tensorflow/serving/classify"},
        ),
        ((6, 6, 4), {"serving_default", "serve", "serving_uint8", "tensorflow/serving/classify"}),
        ((None, None, 3), {"serving_default", "serve", "serving_uint8"}),
    ],
)
def test_each_kind_of_input_gets_the_signatures_that_suit_it(tmp_path, shape, names):
    model = network(shape)
    found = loaded(model, tmp_path, num_checks=2)
    assert set(found) == names
    if "tensorflow/serving/classify" in names:
        values = example_requests.random_inputs(shape, 3)
        outputs = ask(
            found["tensorflow/serving/classify"],
            [example_requests.example(row).SerializeToString() for row in values],
        )
        scores = -np.sort(-softmax(np.asarray(model(values.astype("float32")), "float64")), axis=-1)
        assert outputs.keys() == {"classes", "scores"}
        np.testing.assert_allclose(outputs["scores"], scores, atol=1e-5)


def test_a_network_for_batches_of_one_size_is_served_in_any():
    images = keras.Input(batch_shape=(4, 5, 5, 1))
    network = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))
    function = signatures.classifier(network, list("abc"))
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 5, 1), np.uint8)
    answered = tf.function(function)(pixels)
    np.testing.assert_allclose(answered["logits"], network(pixels), rtol=1e-5)
    assert answered["classes"].shape == (7, 3)
