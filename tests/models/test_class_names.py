import keras
import numpy as np
import pytest

from mpl_tf import models
from tests.support import tiny

NAMES = ("cat", "dög", "eel")


def named():
    return models.set_class_names(tiny.network("student"), NAMES)


def test_names_live_on_in_copies_and_files(tmp_path):
    network = named()
    models.save(network, tmp_path / "student.keras")
    loaded = models.load(tmp_path / "student.keras")
    for copy in (loaded, models.clone(network), models.to_finetune(network), models.clone(loaded)):
        assert models.get_class_names(copy) == NAMES
    # Keras reads the file as any other.
    pixels = tiny.examples(4)[0]
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "student.keras")(pixels), network(pixels)
    )


def test_names_do_not_pass_on_to_another_head(tmp_path):
    models.save(named(), tmp_path / "student.keras")
    assert models.get_class_names(models.build(str(tmp_path / "student.keras"), 5, tiny.IMAGE_SHAPE)) is None
    same_number = models.build(str(tmp_path / "student.keras"), 3, tiny.IMAGE_SHAPE, class_names="abc")
    assert models.get_class_names(same_number) == ("a", "b", "c")


def test_a_network_without_names_is_saved_and_passes_the_check(tmp_path):
    models.save(tiny.network("student"), tmp_path / "student.keras")
    loaded = models.load(tmp_path / "student.keras")
    assert models.get_class_names(loaded) is None
    models.check_class_names(loaded, NAMES)


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        (("bird", "cat", "eel"), "the network knows 'dög' and not 'bird'"),
        (("cat", "eel", "dög"), "output 1 is 'dög' for the network and 'eel' for the data"),
        (("cat", "dög"), "has 3 outputs and the data 2 classes"),
        (("Cat", "dög", "eel"), "the network knows 'cat' and not 'Cat'"),
    ],
)
def test_other_classes_are_refused_with_the_difference(class_names, message):
    models.check_class_names(named(), NAMES)
    with pytest.raises(ValueError, match=message):
        models.check_class_names(named(), class_names)


def test_another_number_of_names_is_refused():
    with pytest.raises(ValueError, match="There are 2 class names, but 'student' has 3 outputs"):
        models.set_class_names(tiny.network("student"), ["a", "b"])
