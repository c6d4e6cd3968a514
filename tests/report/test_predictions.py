import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from mpl_tf.report import figures, predictions


def draw(tmp_path, counts, names):
    path = predictions.confusion(tmp_path / "confusion.png", np.array(counts), names, title="78.0% right")
    assert path.stat().st_size > 0


def test_a_confusion_has_true_classes_in_rows_and_is_as_dark_as_its_share_of_the_row(tmp_path, drawn):
    draw(tmp_path, [[3, 1, 0], [0, 0, 0], [4, 4, 8]], ["cat", "a very long name", "bird"])
    (axes,) = drawn[0].axes
    assert axes.get_title(loc="left") == "78.0% right"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    counts = {text.get_position(): text.get_text() for text in axes.texts}
    # (column, row) → count; cells without one stay empty.
    assert counts == {
        (0, 0): "3", (1, 0): "1", (0, 2): "4", (1, 2): "4", (2, 2): "8",
    }  # fmt: skip
    right, mistaken = (np.array(to_rgb(color)) for color in figures.CLASS_COLORS[:2])
    colors = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(colors[0, 0], 1 - 0.75 * (1 - right))
    np.testing.assert_allclose(colors[0, 1], 1 - 0.25 * (1 - mistaken))
    np.testing.assert_allclose(colors[2, 2], 1 - 0.5 * (1 - right))
    assert (colors[1] == 1.0).all()
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["cat", "a very long…", "bird"]


@pytest.mark.parametrize(
    ("num_classes", "counted", "named"), [(20, True, True), (30, False, True), (60, False, False)]
)
def test_a_confusion_of_many_classes_is_drawn_without_counts_and_then_without_names(
    tmp_path, drawn, num_classes, counted, named
):
    draw(tmp_path, np.eye(num_classes, dtype=int), [f"class {label}" for label in range(num_classes)])
    (axes,) = drawn[0].axes
    assert bool(axes.texts) == counted
    assert ("class 7" in {label.get_text() for label in axes.get_yticklabels()}) == named
    assert max(drawn[0].get_size_inches()) < 8


def test_a_strip_has_rows_of_twelve_and_red_captions_where_wrong(tmp_path, drawn):
    images = np.arange(14, dtype=np.uint8)[:, None, None, None] * np.ones((14, 4, 6, 1), np.uint8)
    wrong = np.arange(14) % 5 == 0
    captions = [f"text {number}" for number in range(14)]
    predictions.strip(tmp_path / "strip.png", title="Surest", images=images, captions=captions, wrong=wrong)
    (axes,) = drawn[0].axes
    for number, (image, text) in enumerate(zip(axes.images, axes.texts, strict=True)):
        assert (np.asarray(image.get_array()) == number).all()
        left, _, bottom, top = image.get_extent()
        assert int(left) == number % 12
        assert (text.get_text(), text.get_position()[0]) == (f"text {number}", number % 12 + 0.5)
        assert text.get_position()[1] > bottom > top
        assert (to_hex(text.get_color()) == predictions.WRONG) == wrong[number]
