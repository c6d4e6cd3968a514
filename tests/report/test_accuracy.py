import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba

from mpl_tf.report import plots
from mpl_tf.report.plots import style


def cells(axes):
    """(column, row) → the color that lies on top there."""
    (tiles,) = axes.collections
    middles = [tuple(path.get_extents().get_points().mean(axis=0).round(6)) for path in tiles.get_paths()]
    return dict(zip(middles, map(tuple, tiles.get_facecolors()), strict=True))


def test_a_confusion_has_true_classes_in_rows_and_is_as_opaque_as_its_fraction_of_the_row():
    counts = np.array([[3, 1, 0], [0, 0, 0], [4, 4, 8]])
    (axes,) = plots.confusion(counts, ["cat", "a very long name", "bird"], title="78.0% right").axes
    assert axes.get_title(loc="left") == "78.0% right"
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    texts = {text.get_position(): text.get_text() for text in axes.texts}
    # (column, row) → count; cells without one stay empty.
    assert texts == {
        (0, 0): "3", (1, 0): "1", (0, 2): "4", (1, 2): "4", (2, 2): "8",
    }  # fmt: skip
    right, mistaken = style.CLASS_COLORS[:2]
    colors = cells(axes)
    assert len(colors) == 9
    assert colors[0, 0] == to_rgba(right, 0.75)
    assert colors[1, 0] == to_rgba(mistaken, 0.25)
    assert colors[2, 2] == to_rgba(right, 0.5)
    assert {colors[column, 1] for column in range(3)} == {to_rgba(style.PANEL)}
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["cat", "a very long…", "bird"]


@pytest.mark.parametrize(
    ("num_classes", "counted", "named"), [(20, True, True), (30, False, True), (60, False, False)]
)
def test_a_confusion_of_many_classes_is_drawn_without_counts_and_then_without_names(
    num_classes, counted, named
):
    names = [f"class {label}" for label in range(num_classes)]
    figure = plots.confusion(np.eye(num_classes, dtype=int), names)
    (axes,) = figure.axes
    assert bool(axes.texts) == counted
    assert ("class 7" in {label.get_text() for label in axes.get_yticklabels()}) == named
    assert max(figure.get_size_inches()) < 8
    assert (plots.to_pixels(figure).min(axis=-1) < 128).any()


def test_intervals_are_drawn_from_end_to_end_in_the_colors_of_the_roles():
    networks = {"supervised": ("supervised baseline", 0.5, 0.4, 0.6), "student": ("student", 0.8, 0.7, 0.9)}
    figure = plots.accuracy_intervals(networks, split="test")
    (axes,) = figure.axes
    lines = [(list(line.get_xdata()), set(line.get_ydata()), line.get_color()) for line in axes.lines]
    assert lines == [
        ([0.4, 0.6], {0}, style.ROLE_COLORS["supervised"]),
        ([0.5], {0}, style.ROLE_COLORS["supervised"]),
        ([0.7, 0.9], {1}, style.ROLE_COLORS["student"]),
        ([0.8], {1}, style.ROLE_COLORS["student"]),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["supervised baseline", "student"]
    assert "student 80.0%, 70.0% to 90.0%" in figure.get_label()


def test_a_reliability_diagram_has_a_bar_per_bin_with_images_pale_where_they_are_few():
    bins = [
        {"low": 0.0, "high": 0.5, "count": 0, "confidence": None, "accuracy": None},
        {"low": 0.5, "high": 1.0, "count": 9, "confidence": 0.75, "accuracy": 0.5},
    ]
    above, axes = plots.reliability(bins).axes
    assert [bar.get_height() for bar in above.patches] == [9]
    (bar,) = axes.patches
    assert (bar.get_height(), bar.get_x() + bar.get_width() / 2) == (0.5, 0.75)
    assert bar.get_alpha() < 1
    (bar,) = plots.reliability([bins[0], bins[1] | {"count": 10}]).axes[1].patches
    assert bar.get_alpha() == 1


def test_the_rarest_of_many_classes_are_one_band():
    fractions = np.array([[0.02] * 4 + [0.08] * 4 + [0.15] * 4, [0.03] * 4 + [0.07] * 4 + [0.15] * 4])
    rows = [
        {"step": step, "images": 9} | {str(label): value for label, value in enumerate(row)}
        for step, row in enumerate(fractions)
    ]
    (axes,) = plots.class_fractions(rows, [f"class {label}" for label in range(12)]).axes
    assert len(axes.collections) == 10
    names = [text.get_text() for text in axes.texts]
    assert names == ["class 0", *(f"class {label}" for label in range(4, 12)), "3 others"]
    top = max(point[1] for band in axes.collections for path in band.get_paths() for point in path.vertices)
    assert top == pytest.approx(1.0)


def test_a_strip_has_rows_of_twelve_and_red_captions_where_wrong():
    images = np.arange(14, dtype=np.uint8)[:, None, None, None] * np.ones((14, 4, 6, 1), np.uint8)
    wrong = np.arange(14) % 5 == 0
    captions = [f"text {number}" for number in range(14)]
    (axes,) = plots.image_strip(images, captions, wrong, title="Most confident").axes
    for number, (image, text) in enumerate(zip(axes.images, axes.texts, strict=True)):
        assert (np.asarray(image.get_array()) == number).all()
        left, _, bottom, top = image.get_extent()
        assert int(left) == number % 12
        assert (text.get_text(), text.get_position()[0]) == (f"text {number}", number % 12 + 0.5)
        assert text.get_position()[1] > bottom > top
        assert (to_hex(text.get_color()) == style.WRONG) == wrong[number]
