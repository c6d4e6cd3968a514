"""What an exported network answers: functions of pixels, of encoded files and of tf.Examples, with named outputs."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from mpl_tf.data.images import decoding
from mpl_tf.models.resizing import get_resizing

# The first endpoint of an ExportArchive is also the signature that servers fall back to.
PIXELS, DEFAULT = "serve", tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
BYTES = "serving_bytes"
UINT8 = "serving_uint8"
# The name of the Classify API's method, which TensorFlow Serving looks for, and of its signature.
CLASSIFY = tf.saved_model.CLASSIFY_METHOD_NAME
# Features of the tf.Examples: the usual name of an encoded image, or else the numbers, flattened.
ENCODED_FEATURE = "image/encoded"
VALUES_FEATURE = "values"
# Among the assets: what a program that decodes files by itself has to do with them.
RESIZING_FILE = "resizing.json"


class Signature(NamedTuple):
    """A function to export.

    Attributes:
        function: of one tensor, to a dict of tensors whose first dimension is the batch.
        spec: of that tensor; its name is the input's.
    """

    function: Callable[[tf.Tensor], dict]
    spec: tf.TensorSpec


def classifier(
    network: keras.Model, class_names: Sequence[str], *, top_k: int = 5
) -> Callable[[tf.Tensor], dict]:
    """The function that all signatures end in.

    Args:
        network: `keras.Model` from images or points to logits `[n, K]` of any float type.
        class_names: K names, in the order of the logits.
        top_k: how many classes are named; all where there are fewer.

    Returns:
        A function of `images` `[n, *input_shape]`, uint8 or float, that returns the dict of `probabilities` and
        `logits`, float32 `[n, K]` in the order of the classes, and of the likeliest classes, most likely first:
        their names `classes`, string `[n, k]`, and their probabilities `scores`, float32 `[n, k]`.
    """
    names = tf.constant(class_names)
    count = min(top_k, len(class_names))
    # Also of a network that was built for batches of one size.
    any_number = (None, *network.input_shape[1:])

    # A function of its own, so that the network is traced, written and read once and not for each signature.
    @tf.function(input_signature=[tf.TensorSpec(any_number, tf.float32)])
    def network_logits(images):
        return tf.cast(network(images, training=False), tf.float32)

    def classify(images):
        # Servers do not check it, and a convolution may take another number of channels for groups.
        images = tf.ensure_shape(images, any_number)
        logits = network_logits(tf.cast(images, tf.float32))
        probabilities = tf.nn.softmax(logits)
        scores, indices = tf.math.top_k(probabilities, count)
        return {
            "probabilities": probabilities,
            "logits": logits,
            "classes": tf.gather(names, indices),
            "scores": scores,
        }

    return classify


def signatures(network: keras.Model, class_names: Sequence[str], *, top_k: int) -> dict[str, Signature]:
    """The signatures that suit a network's input. Files are resized as the network's training images were.

    | signature | input | for |
    |---|---|---|
    | `serve`, `serving_default` | `images`, float32 `[n, *input_shape]` | all networks |
    | `serving_uint8` | `images`, uint8 | images |
    | `serving_bytes` | `image_bytes`, string `[n]`: JPEG, PNG, … of any size | gray or RGB images of one size |
    | `tensorflow/serving/classify` | `inputs`, string `[n]`: tf.Examples | inputs of one shape |

    The tf.Examples hold an encoded image as `image/encoded` or, where files cannot be decoded to the input's shape,
    its numbers, flattened, as `values`.

    Args:
        network: as for `classifier`.
        class_names: as for `classifier`.
        top_k: as for `classifier`.

    Returns:
        Name → `Signature`. All return what `classifier` does, Classify the `classes` and `scores` alone.
    """
    classify = classifier(network, class_names, top_k=top_k)
    shape, resizing = tuple(network.input_shape[1:]), decoding.Resizing(*get_resizing(network))
    found = {PIXELS: Signature(classify, tf.TensorSpec([None, *shape], tf.float32, "images"))}
    if len(shape) == 3:
        found[UINT8] = Signature(classify, tf.TensorSpec([None, *shape], tf.uint8, "images"))
    if takes_files(shape):
        found[BYTES] = Signature(
            lambda image_bytes: classify(decode(image_bytes, shape, resizing)),
            tf.TensorSpec([None], tf.string, "image_bytes"),
        )
    if None not in shape:
        found[CLASSIFY] = Signature(
            _classify_examples(classify, shape, resizing), tf.TensorSpec([None], tf.string, "inputs")
        )
    return found


def takes_files(shape: tuple[int | None, ...]) -> bool:
    """Whether inputs of this shape `(H, W, C)` can be decoded from encoded images of any size."""
    return len(shape) == 3 and None not in shape and shape[-1] in (1, 3)


def decode(
    encoded: tf.Tensor, shape: tuple[int, int, int], resizing: decoding.Resizing = decoding.CROPPED
) -> tf.Tensor:
    """Decodes images, turns them upright and resizes them as training on folders does.

    Args:
        encoded: string `[n]`.
        shape: `(H, W, C)` of the result.
        resizing: of images of other sizes.

    Returns:
        uint8 `[n, H, W, C]`.
    """
    return _decoder(tuple(shape), resizing)(encoded)


@functools.cache
def _decoder(shape, resizing):
    """`decode` for images of one shape, traced once for all signatures."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def decoded(encoded):
        return tf.map_fn(
            lambda file: decoding.decode_as_file(file, shape, resizing),
            encoded,
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )

    return decoded


def _classify_examples(classify, shape, resizing):
    def classify_examples(inputs):
        if takes_files(shape):
            features = {ENCODED_FEATURE: tf.io.FixedLenFeature([], tf.string)}
            images = decode(tf.io.parse_example(inputs, features)[ENCODED_FEATURE], shape, resizing)
        else:
            features = {VALUES_FEATURE: tf.io.FixedLenFeature(shape, tf.float32)}
            images = tf.io.parse_example(inputs, features)[VALUES_FEATURE]
        outputs = classify(images)
        return {name: outputs[name] for name in ("classes", "scores")}

    return classify_examples
