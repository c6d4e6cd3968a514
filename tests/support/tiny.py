"""Networks, batches and replays small enough that a whole training step takes milliseconds."""

import math

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import models
from mpl_tf.data import pipeline
from tests.support import seeds

IMAGE_SHAPE = (4, 4, 1)
NUM_CLASSES = 3


def network(
    name: str,
    *,
    seed: int = 0,
    batch_norm: bool = True,
    synchronized: bool = False,
    dropout: float = 0.2,
    num_classes: int = NUM_CLASSES,
) -> keras.Model:
    """Images in 0…255 → logits, smooth everywhere, with its own weights and random state for every seed."""
    seeds.set_random_seed(seed)
    inputs = keras.Input(IMAGE_SHAPE)
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(4, 3, use_bias=not batch_norm)(x)
    if batch_norm:
        x = keras.layers.BatchNormalization(momentum=0.9, synchronized=synchronized)(x)
    x = keras.layers.Activation("tanh")(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    features = keras.layers.Flatten(name="features")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(features), name=name)


def plain_network(name: str, **options) -> keras.Model:
    """The same without BatchNorm and dropout: a function of its weights and the images alone."""
    return network(name, batch_norm=False, dropout=0.0, **options)


def synchronized_network(name: str, **options) -> keras.Model:
    """With BatchNorm over all replicas and without dropout: the same on one replica and on several."""
    return network(name, synchronized=True, dropout=0.0, **options)


def generator(builder=plain_network, *, noise: int = 5, seed: int = 2) -> keras.Model:
    """Noise → images in 0…255, through a network that `builder` makes: with BatchNorm and dropout as that has."""
    pixels = math.prod(IMAGE_SHAPE)
    body = builder("body", seed=seed, num_classes=pixels)
    inputs = keras.Input((noise,))
    x = keras.layers.Dense(pixels, activation="sigmoid")(inputs)
    x = body(keras.layers.Reshape(IMAGE_SHAPE)(keras.layers.Rescaling(255.0)(x)))
    x = keras.layers.Activation("sigmoid")(x)
    x = keras.layers.Reshape(IMAGE_SHAPE)(keras.layers.Rescaling(255.0)(x))
    return keras.Model(inputs, x, name="generator")


def calibrator(*, seed: int = 0) -> keras.Model:
    """Reduced Meta Pseudo Labels' small network, moved off the identity that it starts as."""
    network = models.build_calibrator(NUM_CLASSES, width=5, seed=seed)
    generator = np.random.default_rng(seed)
    for weight in network.weights:
        weight.assign(generator.normal(0, 0.5, weight.shape))
    return network


def logits_of(images):
    """TensorFlow's version of `oracles.TinyStudent.logits`: weights → logits on these inputs."""

    def logits(weights):
        kernel, bias, output_kernel, output_bias = weights
        return tf.tanh(images @ kernel + bias) @ output_kernel + output_bias

    return logits


def images(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.uniform(0, 255, (count, *IMAGE_SHAPE)).astype(np.float32)


def batch(*, seed: int = 0, labeled: int = 4, unlabeled: int = 6) -> dict:
    """One batch as the data pipeline makes it, in NumPy."""
    generator = np.random.default_rng(seed)
    labels = np.arange(labeled, dtype=np.int32) % NUM_CLASSES
    weak = images(generator, unlabeled)
    strong = np.clip(weak + generator.normal(0, 40, weak.shape), 0, 255).astype(np.float32)
    data = {
        "labeled": {"image": images(generator, labeled), "label": labels},
        "unlabeled": {"weak": weak, "strong": strong, "index": np.arange(unlabeled)},
    }
    # A teacher's stored labels, for the methods that read them.
    for stream, count in (("labeled", labeled), ("unlabeled", unlabeled)):
        data[stream]["probabilities"] = generator.dirichlet(np.ones(NUM_CLASSES), count).astype(np.float32)
    return data


def examples(count: int, *, seed: int = 100) -> tuple:
    """Images and their labels, for evaluation."""
    return images(np.random.default_rng(seed), count), np.arange(count, dtype=np.int32) % NUM_CLASSES


def evaluation_batch() -> tf.data.Dataset:
    """Eight of them in one batch, for `evaluate` and `predict`: arrays cost Keras five times as much."""
    return tf.data.Dataset.from_tensors(examples(8))


def unlabeled_images(count: int, *, seed: int = 7) -> tf.data.Dataset:
    """Images 0…count-1 of a source, each once, as evaluation batches are."""
    images, labels = examples(count, seed=seed)
    batches = {"image": images, "label": labels, "index": np.arange(count)}
    return tf.data.Dataset.from_tensor_slices(batches).batch(4)


def tensors(data: dict) -> dict:
    return tf.nest.map_structure(tf.constant, data)


def dataset(*, batches: int = 3, **sizes) -> tf.data.Dataset:
    """A few different batches in a fixed order and of static shape."""
    stacked = [batch(seed=seed, **sizes) for seed in range(batches)]
    stacked = tf.nest.map_structure(lambda *arrays: np.stack(arrays), *stacked)
    return tf.data.Dataset.from_tensor_slices(stacked)


def weighted_dataset(**options) -> tf.data.Dataset:
    """The same with a weight for each labeled image."""

    def weigh(batch):
        weight = tf.gather([0.5, 2.0, 0.75], batch["labeled"]["label"])
        return batch | {"labeled": batch["labeled"] | {"weight": weight}}

    return dataset(**options).map(weigh)


def trusted_dataset(**options) -> tf.data.Dataset:
    """The same, of which some labels are trusted: more of those of a batch's first half."""

    def trust(batch):
        count = tf.shape(batch["labeled"]["label"])[0]
        trusted = tf.range(count) % 4 < 3
        return batch | {"labeled": batch["labeled"] | {"trusted": trusted}}

    return weighted_dataset(**options).map(trust)


def numbers(*, batches: int = 3) -> tf.data.Dataset:
    """As many batches for a method that makes its images itself, six to a batch."""
    return pipeline.index_batches(6).take(batches)


def values(variables) -> list:
    """Copies of variables as NumPy arrays."""
    return [variable.numpy() for variable in variables]


def changes(model: keras.Model, step) -> list:
    """What calling `step` adds to each trainable weight of the model."""
    old = values(model.trainable_variables)
    step()
    return [new - before for new, before in zip(values(model.trainable_variables), old, strict=True)]
