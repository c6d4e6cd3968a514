"""Clients of TensorFlow Serving against what is exported.

CONTRACT TEST: with `contract` the server is tests/export/contract_server.py, which speaks the protocol and is not
TensorFlow Serving. The same clients meet a real tensorflow_model_server where one is on PATH.
"""

import base64
import contextlib
import json
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import export
from tests.export.networks import NAMES, network, softmax

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tests.export import contract_server

SERVER = shutil.which("tensorflow_model_server")
SHAPE = (6, 5, 3)


@contextlib.contextmanager
def real_server(name, directory):
    ports = [free_port(), free_port()]
    options = [f"--port={ports[0]}", f"--rest_api_port={ports[1]}", "--file_system_poll_wait_seconds=1"]
    process = subprocess.Popen([SERVER, f"--model_name={name}", f"--model_base_path={directory}", *options])
    rest = f"http://localhost:{ports[1]}"
    try:
        wait_until(lambda: available_versions(rest) == ["1"])
        yield f"localhost:{ports[0]}", rest
    finally:
        process.terminate()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def wait_until(holds, *, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if holds():
                return
        time.sleep(0.2)
    raise AssertionError("the server did not get there in time")


@pytest.fixture(scope="module")
def model():
    return network(SHAPE)


@pytest.fixture(
    scope="module",
    params=[
        "contract",
        pytest.param(
            "tensorflow_model_server",
            marks=pytest.mark.skipif(SERVER is None, reason="no tensorflow_model_server on PATH"),
        ),
    ],
)
def server(request, model, tmp_path_factory):
    """Addresses (gRPC, REST) of a server of version 1, and the folder that it watches."""
    directory = tmp_path_factory.mktemp("models") / "pets"
    export.saved_model(model, directory, class_names=NAMES, top_k=2)
    start = contract_server.serving if request.param == "contract" else real_server
    with start("pets", directory) as addresses:
        yield *addresses, directory


@pytest.fixture(scope="module")
def raw_images():
    return np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def expected(model, raw_images):
    """Probabilities, and names and scores of the two likeliest classes."""
    probabilities = softmax(np.asarray(model(raw_images.astype("float32")), "float64"))
    order = np.argsort(-probabilities, axis=-1)[:, :2]
    names = [[NAMES[index] for index in row] for row in order]
    return probabilities, names, np.take_along_axis(probabilities, order, axis=-1)


def png(image):
    return tf.io.encode_png(image).numpy()


def example(image):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(image)]))
    return tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))


def stub(address):
    return prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))


def predict_request(values, *, argument="images", signature="", version=None):
    request = predict_pb2.PredictRequest(inputs={argument: tf.make_tensor_proto(values)})
    request.model_spec.name, request.model_spec.signature_name = "pets", signature
    if version:
        request.model_spec.version.value = version
    return request


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def get(url):
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


def available_versions(rest):
    status = get(f"{rest}/v1/models/pets")["model_version_status"]
    return [entry["version"] for entry in status if entry["state"] == "AVAILABLE"]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("signature", "argument", "encode"),
    [
        ("", "images", lambda images: images.astype("float32")),
        ("serving_default", "images", lambda images: images.astype("float32")),
        ("serving_uint8", "images", lambda images: images),
        ("serving_bytes", "image_bytes", lambda images: [png(image) for image in images]),
    ],
)
def test_grpc_predict(server, raw_images, expected, signature, argument, encode, count):
    request = predict_request(encode(raw_images[:count]), argument=argument, signature=signature)
    response = stub(server[0]).Predict(request, timeout=60)
    outputs = {name: tf.make_ndarray(value) for name, value in response.outputs.items()}
    probabilities, names, scores = (values[:count] for values in expected)
    assert outputs.keys() == {"probabilities", "logits", "classes", "scores"}
    np.testing.assert_allclose(outputs["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(softmax(outputs["logits"]), probabilities, atol=1e-5)
    np.testing.assert_allclose(outputs["scores"], scores, atol=1e-5)
    assert [[name.decode() for name in row] for row in outputs["classes"]] == names
    assert response.model_spec.version.value >= 1


def test_grpc_classify(server, raw_images, expected):
    request = classification_pb2.ClassificationRequest()
    request.model_spec.name = "pets"
    request.model_spec.signature_name = "tensorflow/serving/classify"
    request.input.example_list.examples.extend(example(image) for image in raw_images)
    results = stub(server[0]).Classify(request, timeout=60).result.classifications
    assert [[entry.label for entry in row.classes] for row in results] == expected[1]
    scores = [[entry.score for entry in row.classes] for row in results]
    np.testing.assert_allclose(scores, expected[2], atol=1e-5)


def test_grpc_metadata(server):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "pets"
    response = stub(server[0]).GetModelMetadata(request, timeout=60)
    found = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(found)
    predict, classify = "tensorflow/serving/predict", "tensorflow/serving/classify"
    methods = {
        name: value.method_name for name, value in found.signature_def.items() if not name.startswith("__")
    }
    assert methods == {
        "serve": predict,
        "serving_default": predict,
        "serving_uint8": predict,
        "serving_bytes": predict,
        classify: classify,
    }
    images = found.signature_def["serving_default"].inputs["images"]
    assert images.dtype == tf.float32.as_datatype_enum
    assert [side.size for side in images.tensor_shape.dim] == [-1, *SHAPE]


def test_grpc_errors(server, raw_images):
    for request, code in [
        (predict_request(raw_images), grpc.StatusCode.INVALID_ARGUMENT),
        (predict_request(raw_images, argument="x"), grpc.StatusCode.INVALID_ARGUMENT),
        (
            predict_request([b"no image"], argument="image_bytes", signature="serving_bytes"),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (predict_request(raw_images.astype("float32"), version=7), grpc.StatusCode.NOT_FOUND),
    ]:
        with pytest.raises(grpc.RpcError) as error:
            stub(server[0]).Predict(request, timeout=60)
        assert error.value.code() == code


def test_rest_predict(server, raw_images, expected):
    url = f"{server[1]}/v1/models/pets:predict"
    encoded = [{"b64": base64.b64encode(png(image)).decode()} for image in raw_images]
    for body in (
        {"instances": raw_images.tolist()},
        {"signature_name": "serving_uint8", "instances": raw_images.tolist()},
        {"signature_name": "serving_bytes", "instances": encoded},
    ):
        predictions = post(url, body)["predictions"]
        assert [prediction["classes"] for prediction in predictions] == expected[1]
        for output, values in (("probabilities", expected[0]), ("scores", expected[2])):
            np.testing.assert_allclose([row[output] for row in predictions], values, atol=1e-5)


def test_rest_classify(server, raw_images, expected):
    examples = [{"image/encoded": {"b64": base64.b64encode(png(image)).decode()}} for image in raw_images]
    body = {"signature_name": "tensorflow/serving/classify", "examples": examples}
    results = post(f"{server[1]}/v1/models/pets:classify", body)["results"]
    assert [[label for label, _ in row] for row in results] == expected[1]
    np.testing.assert_allclose([[score for _, score in row] for row in results], expected[2], atol=1e-5)


@pytest.mark.parametrize("client", ["import grpc", "urllib.request"])
def test_the_clients_in_the_documentation(
    server, raw_images, expected, client, tmp_path, monkeypatch, capsys
):
    page = (pathlib.Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (program,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if client in code)
    program = program.replace("localhost:8500", server[0]).replace("http://localhost:8501", server[1])
    (tmp_path / "photo.jpg").write_bytes(png(raw_images[1]))
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    name, score = capsys.readouterr().out.split()
    assert name == expected[1][1][0]
    assert float(score) == pytest.approx(expected[2][1][0], abs=1e-5)


def test_rest_metadata_and_errors(server, raw_images):
    metadata = get(f"{server[1]}/v1/models/pets/metadata")
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_bytes"]["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    with pytest.raises(urllib.error.HTTPError) as error:
        post(f"{server[1]}/v1/models/pets/versions/7:predict", {"instances": raw_images.tolist()})
    assert error.value.code == 404


def test_a_new_version_appears_and_the_old_one_can_be_asked_for(server, raw_images, expected):
    grpc_address, rest, directory = server
    assert available_versions(rest) == ["1"]
    images = raw_images.astype("float32")
    other = network(SHAPE)
    *body, kernel, bias = other.get_weights()
    other.set_weights([*body, -kernel, bias])
    export.saved_model(other, directory, class_names=NAMES, top_k=2)
    wait_until(lambda: "2" in available_versions(rest))
    newest = stub(grpc_address).Predict(predict_request(images), timeout=60)
    assert newest.model_spec.version.value == 2
    found = tf.make_ndarray(newest.outputs["probabilities"])
    np.testing.assert_allclose(found, softmax(np.asarray(other(images), "float64")), atol=1e-5)
    assert abs(found - expected[0]).max() > 0.01
    if available_versions(rest) == ["2"]:
        return  # A real server's default policy keeps the newest version only.
    older = stub(grpc_address).Predict(predict_request(images, version=1), timeout=60)
    np.testing.assert_allclose(tf.make_ndarray(older.outputs["probabilities"]), expected[0], atol=1e-5)
    by_path = post(f"{rest}/v1/models/pets/versions/1:predict", {"instances": images.tolist()})
    found = [row["probabilities"] for row in by_path["predictions"]]
    np.testing.assert_allclose(found, expected[0], atol=1e-5)


def test_the_warm_up_requests_are_answered_by_the_signatures_that_they_name(server):
    from tensorflow_serving.apis import prediction_log_pb2

    path = server[2] / "1" / "assets.extra" / "tf_serving_warmup_requests"
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    asked = set()
    for log in logs:
        if log.HasField("classify_log"):
            request, answer = log.classify_log.request, stub(server[0]).Classify
        else:
            request, answer = log.predict_log.request, stub(server[0]).Predict
        assert request.model_spec.name == "pets"
        assert answer(request, timeout=60).model_spec.name == "pets"
        asked.add(request.model_spec.signature_name)
    assert asked == {"serving_default", "serving_uint8", "serving_bytes", "tensorflow/serving/classify"}
    assert len(logs) == 8
