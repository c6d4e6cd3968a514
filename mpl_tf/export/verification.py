"""Reading a SavedModel back as its users will: by TensorFlow alone, with its two loaders.

Imports nothing but TensorFlow and NumPy. Run as a program it makes sure that Keras cannot be imported:

    python verification.py <folder> <file of requests> <file of results>
"""

import base64
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

Arrays = dict[str, np.ndarray]


def read(folder: pathlib.Path, requests: Arrays) -> dict[str, dict[str, Arrays]]:
    """Asks a SavedModel through both loaders, on the CPU.

    Args:
        folder: of the SavedModel.
        requests: signature's name → its only input.

    Returns:
        Loader (`"eager"`: `tf.saved_model.load`; `"graph"`: the one for sessions, which TensorFlow Serving uses) →
        signature → output → value.
    """
    return {"eager": _read_eagerly(folder, requests), "graph": _read_in_session(folder, requests)}


def read_in_new_process(folder: pathlib.Path, requests: Arrays) -> dict[str, dict[str, Arrays]]:
    """The same in a process that has only TensorFlow.

    Raises:
        RuntimeError: when that process fails, with what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        asked, answered = pathlib.Path(scratch, "requests.json"), pathlib.Path(scratch, "results.json")
        _save(asked, requests)
        # -P keeps the folder of this file, with its modules, off the path.
        command = [sys.executable, "-P", __file__, str(folder), str(asked), str(answered)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise RuntimeError(
                f"A program with TensorFlow alone cannot use the SavedModel in {folder}:\n{finished.stderr[-2000:]}"
            )
        return _load(answered)


def _read_eagerly(folder, requests):
    with tf.device("CPU:0"):
        loaded = tf.saved_model.load(str(folder))
        results = {}
        for name, values in requests.items():
            signature = loaded.signatures[name]
            (argument,) = signature.structured_input_signature[1]
            outputs = signature(**{argument: tf.constant(values)})
            results[name] = {key: value.numpy() for key, value in outputs.items()}
    return results


def _read_in_session(folder, requests):
    options = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
    results = {}
    with tf.Graph().as_default(), tf.compat.v1.Session(config=options) as session:
        loaded = _load_quietly(session, folder)
        for name, values in requests.items():
            signature = loaded.signature_def[name]
            (argument,) = signature.inputs.values()
            outputs = {key: value.name for key, value in signature.outputs.items()}
            results[name] = session.run(outputs, {argument.name: values})
    return results


def _load_quietly(session, folder):
    # TensorFlow calls this loader deprecated, for programs; it is the one that servers have.
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        return tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
    finally:
        logger.setLevel(level)


def _save(path, nested):
    """Writes nested dicts of arrays as JSON; NumPy's own format would need pickle for strings."""

    def encoded(value):
        if isinstance(value, dict):
            return {key: encoded(entry) for key, entry in value.items()}
        tensor = tf.constant(value)
        data = base64.b64encode(tf.io.serialize_tensor(tensor).numpy()).decode()
        return [tensor.dtype.name, data]

    path.write_text(json.dumps(encoded(nested)))


def _load(path):
    def decoded(value):
        if isinstance(value, dict):
            return {key: decoded(entry) for key, entry in value.items()}
        dtype, data = value
        return tf.io.parse_tensor(base64.b64decode(data), tf.as_dtype(dtype)).numpy()

    return decoded(json.loads(path.read_text()))


if __name__ == "__main__":
    sys.modules.update(dict.fromkeys(("keras", "mpl_tf")))  # type: ignore[arg-type]  # None forbids an import
    _folder, _asked, _answered = map(pathlib.Path, sys.argv[1:])
    _save(_answered, read(_folder, _load(_asked)))
