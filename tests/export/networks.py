"""Networks small enough to be exported in a second."""

import keras
import numpy as np

from tests.support import seeds

NAMES = ["zero", "one", "two"]


def network(shape=(6, 5, 3), num_classes=3, **kwargs):
    seeds.set_random_seed(1)
    images = keras.Input(shape, name="image")
    hidden = images
    if len(shape) == 3:
        hidden = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32")(hidden)
        hidden = keras.layers.Conv2D(4, 3, activation="relu")(hidden)
        hidden = keras.layers.BatchNormalization()(hidden)
        hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    hidden = keras.layers.Dropout(0.5)(hidden)
    return keras.Model(images, keras.layers.Dense(num_classes, **kwargs)(hidden), name="net")


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
