import keras
import numpy as np
import pytest
from PIL import Image

from mpl_tf import data, evaluation

CLASSES = ("ant", "bee", "cat", "dog", "eel")


def write(folder, levels):
    """An image of one level for each."""
    folder.mkdir(parents=True)
    for number, level in enumerate(levels):
        Image.fromarray(np.full((9, 12, 3), level, np.uint8)).save(folder / f"{number}.png")


def network():
    """Class by level: "eel" above all of them, then the nearest of 0, 60, 120 and 180."""
    inputs = keras.Input((6, 6, 3))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(5)
    model = keras.Model(inputs, dense(mean))
    centers = np.array([0.0, 60.0, 120.0, 180.0])
    # −(x − c)² without x²: x (2c) − c², over three equal channels.
    kernel = np.append(2 * centers, 0.0) / 3
    dense.set_weights([np.tile(kernel, (3, 1)), np.append(-(centers**2), 1e6)])
    return model


def test_accuracy_is_among_the_classes_of_the_folder(tmp_path):
    write(tmp_path / "dog", [170, 190, 80])
    write(tmp_path / "bee", [50, 110])
    images, classes = evaluation.load_subset(tmp_path, CLASSES, (6, 6, 3))
    assert classes == [1, 3]
    assert images.image_shape == (6, 6, 3)
    found = evaluation.evaluate(network(), data.evaluation_batches(images), classes=classes)
    # 110 is nearer to 60 than to 180, 80 too; "cat" and "eel", which are not in the folder, do not count.
    assert found["accuracy"] == pytest.approx(4 / 5)
    assert found["confusion"] == [[2, 0], [1, 2]]
    everything = np.argmax(network().predict_on_batch(np.full((1, 6, 6, 3), 50.0)), axis=-1)
    assert everything == 4


def test_an_unknown_class_is_refused_with_the_nearest(tmp_path):
    write(tmp_path / "bee", [1])
    write(tmp_path / "cats", [2])
    with pytest.raises(
        ValueError, match=r"class folder 'cats', and the network has no such class: .* such as 'cat'"
    ):
        evaluation.load_subset(tmp_path, CLASSES, (6, 6, 3))


def test_points_are_refused(tmp_path):
    with pytest.raises(ValueError, match="The network takes points of shape"):
        evaluation.load_subset(tmp_path, CLASSES, (2,))
