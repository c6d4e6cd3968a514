import csv
import itertools

import keras
import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from mpl_tf import report

HISTORY = """epoch,step,loss,mask_rate,agreement,flux,\
val_accuracy,val_teacher_accuracy,val_loss,student_gradient_norm,feedback
0,100,2.0,0.1,0.2,7,,,,3.5,0.01
1,200,1.5,,,8,0.5,0.6,1.75,NA,-0.01
2,300,1.0,0.5,0.4,9,,,,nan,inf
3,400,0.5,0.75,,,0.875,0.75,0.25,4.5
"""


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY)
    return path


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were written, in order."""
    figures, save = [], Figure.savefig

    def remember(figure, *args, **kwargs):
        figures.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def line_data(axes):
    return [np.stack(line.get_data(), axis=-1).tolist() for line in axes.lines]


def test_curves_shows_every_column_and_skips_missing_cells(history, tmp_path, drawn):
    report.curves(history, tmp_path / "curves.png", title="A run")
    shown = panels(drawn[0])
    assert list(shown) == [
        "Accuracy",
        "Student's loss (nats)",
        "Pictures the teacher is sure of",
        "Feedback to the teacher",
        "Student and teacher agree",
        "Student's gradient norm",
        "Flux",
    ]
    assert line_data(shown["Accuracy"]) == [[[200, 0.5], [400, 0.875]], [[200, 0.6], [400, 0.75]]]
    assert line_data(shown["Student's loss (nats)"]) == [
        [[100, 2.0], [200, 1.5], [300, 1.0], [400, 0.5]],
        [[200, 1.75], [400, 0.25]],
    ]
    assert line_data(shown["Pictures the teacher is sure of"]) == [[[100, 0.1], [300, 0.5], [400, 0.75]]]
    assert line_data(shown["Feedback to the teacher"]) == [[[100, 0.01], [200, -0.01]]]
    assert line_data(shown["Student's gradient norm"]) == [[[100, 3.5], [400, 4.5]]]
    assert line_data(shown["Student and teacher agree"]) == [[[100, 0.2], [300, 0.4]]]
    assert line_data(shown["Flux"]) == [[[100, 7], [200, 8], [300, 9]]]


def test_lines_are_named_at_their_ends_in_their_colors(history, tmp_path, drawn):
    report.curves(history, tmp_path / "curves.png")
    accuracy = panels(drawn[0])["Accuracy"]
    colors = {line.get_color() for line in accuracy.lines}
    assert {text.get_text(): text.get_color() for text in accuracy.texts}.keys() == {
        "student, validation 87.5%",
        "teacher, validation 75.0%",
    }
    assert {text.get_color() for text in accuracy.texts} == colors
    assert len(colors) == 2
    loss = panels(drawn[0])["Student's loss (nats)"]
    assert [text.get_text() for text in loss.texts] == ["validation", "training"]  # from below
    teacher = next(text.get_color() for text in accuracy.texts if "teacher" in text.get_text())
    assert panels(drawn[0])["Pictures the teacher is sure of"].lines[0].get_color() == teacher
    for of_neither in ("Flux", "Student and teacher agree"):
        assert panels(drawn[0])[of_neither].lines[0].get_color() not in colors


def test_curves_is_a_legible_picture_with_the_accuracies_largest(history, tmp_path, drawn):
    assert report.curves(history, tmp_path / "deep" / "curves.png") == tmp_path / "deep" / "curves.png"
    picture = pixels(tmp_path / "deep" / "curves.png")
    assert picture.shape[1] == 1200
    assert 700 < picture.shape[0] < 1200
    assert 0.005 < (picture.min(axis=-1) < 128).mean() < 0.2
    boxes = {title: axes.get_window_extent() for title, axes in panels(drawn[0]).items()}
    accuracy = boxes.pop("Accuracy")
    assert all(
        accuracy.width > 2 * box.width and accuracy.height > 1.3 * box.height for box in boxes.values()
    )
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    texts = [text for text in drawn[0].findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 8
    for text in texts:
        if any(letter.isalpha() for letter in text.get_text()):
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0
            assert box.x1 <= 1200


@pytest.mark.parametrize("ends", [(1.0, 1.0, 1.0), (0.1, 0.1, 0.9), (0.0, 0.0, 0.01)])
def test_labels_of_lines_that_end_together_do_not_overlap(tmp_path, drawn, ends):
    path = tmp_path / "history.csv"
    path.write_text(
        "step,val_accuracy,val_teacher_accuracy,val_generator_accuracy\n0,0,0.5,1\n10,{},{},{}\n".format(
            *ends
        )
    )
    report.curves(path, tmp_path / "curves.png")
    axes = drawn[0].axes[0]
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    boxes = sorted((text.get_window_extent(renderer) for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 3
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
    assert all(0.0 <= text.get_position()[1] <= 1.0 for text in axes.texts)


def test_a_keras_history_without_steps_is_drawn_over_epochs(tmp_path, drawn):
    path = tmp_path / "history.csv"
    path.write_text("epoch,loss\n0,2\n1,1\n")
    report.curves(path, tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    assert axes.get_xlabel() == "epoch"
    assert line_data(axes) == [[[0, 2], [1, 1]]]


def test_one_row_only_and_a_long_name_with_dollars_are_drawn(tmp_path, drawn):
    path = tmp_path / "history.csv"
    with path.open("w", newline="") as stream:
        name = "a_quantity_whose_$name$_is_far_too_long_for_one_line_above_its_panel"
        csv.writer(stream).writerows([["step", name, "b", "c"], [1, 5, 1, 1]])
    report.curves(path, tmp_path / "curves.png", title="$5 \\alpha")
    title = drawn[0].axes[0].get_title(loc="left")
    assert title.replace("\n", " ") == name.replace("_", " ").capitalize()
    assert max(map(len, title.split("\n"))) < 40
    assert not any(text.get_parse_math() for text in drawn[0].findobj(Text) if text.get_text())
    assert (pixels(tmp_path / "curves.png").min(axis=-1) < 128).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows yet: draw it after the first epoch"),
        ("epoch,loss\n", "has no rows yet: draw it after the first epoch"),
        ("time,loss\n1,2\n", "has the columns time, loss, but neither 'step' nor 'epoch'"),
        ("step,loss\n1,NA\n", "has no numbers besides 'step': there is nothing to draw"),
    ],
)
def test_a_history_without_anything_to_draw_is_refused(tmp_path, content, message):
    path = tmp_path / "history.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        report.curves(path, tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_missing_history_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no history at .*none.csv': pass the history.csv"):
        report.curves(tmp_path / "none.csv", tmp_path / "curves.png")


def test_pictures_replace_older_ones_and_failures_leave_them(history, tmp_path, monkeypatch):
    destination = tmp_path / "curves.png"
    destination.write_text("old")
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **kwargs: path.write_text("half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.curves(history, destination)
    assert destination.read_text() == "old"
    monkeypatch.undo()
    report.curves(history, destination)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "history.csv"]
    assert Image.open(destination).format == "PNG"


def test_drawing_leaves_matplotlib_as_it_was(history, tmp_path):
    pyplot.close("all")
    with matplotlib.rc_context({"font.size": 17, "axes.spines.top": True}):
        before = dict(matplotlib.rcParams)
        report.curves(history, tmp_path / "curves.png")
        assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def regions(axes):
    """Predicted class and place of every cell that was drawn."""
    (image,) = axes.images
    assert image.origin == "lower"
    left, right, bottom, top = image.get_extent()
    classes = np.asarray(image.get_array())
    rows, columns = classes.shape
    x = left + (np.arange(columns) + 0.5) / columns * (right - left)
    y = bottom + (np.arange(rows) + 0.5) / rows * (top - bottom)
    return classes, *np.meshgrid(x, y)


def test_decision_boundaries_are_where_the_networks_have_them(tmp_path, drawn):
    points = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [1.0, 2.0]])
    networks = {
        "right of 1": lambda x: np.stack([np.ones(len(x)), x[:, 0]], axis=-1),
        "above 0.5": lambda x: np.stack([0.5 - x[:, 1], 0 * x[:, 1], x[:, 1] - 0.5], axis=-1),
    }
    path = report.decision_boundaries(tmp_path / "regions.png", points, [1, -1, 0, -1], networks)
    shown = panels(drawn[0])
    assert list(shown) == ["right of 1", "above 0.5"]
    classes, x, _ = regions(shown["right of 1"])
    np.testing.assert_array_equal(classes[abs(x - 1) > 0.02], (x > 1)[abs(x - 1) > 0.02])
    classes, _, y = regions(shown["above 0.5"])
    np.testing.assert_array_equal(classes[abs(y - 0.5) > 0.02], 2 * (y > 0.5)[abs(y - 0.5) > 0.02])
    for axes in shown.values():
        dots, stars = axes.collections
        assert dots.get_offsets().tolist() == [[4, 0], [1, 2]]
        assert stars.get_offsets().tolist() == [[0, 0], [4, 2]]
        assert stars.get_sizes()[0] > 10 * dots.get_sizes()[0]
        assert len({to_hex(color) for color in stars.get_facecolors()}) == 2
    assert len(np.unique(pixels(path) @ [1, 256, 65536])) > 20


def test_decision_boundaries_takes_a_keras_network_and_more_panels_than_a_row_holds(tmp_path, drawn):
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(12)])
    points = np.random.default_rng(0).normal(size=(20, 2))
    labels = np.r_[[11, 0], np.full(18, -1)]
    report.decision_boundaries(
        tmp_path / "a.png", points, labels, {f"{index}": network for index in range(6)}
    )
    assert len({(round(axes.get_position().y0, 3)) for axes in drawn[0].axes}) == 2
    assert len({(round(axes.get_position().x0, 3)) for axes in drawn[0].axes}) == 4


@pytest.mark.parametrize(
    ("points", "labels", "networks", "message"),
    [
        (np.zeros((3, 5)), np.zeros(3), {"a": None}, r"Points of shape \(3, 5\) and labels of shape \(3,\)"),
        (np.zeros((3, 2)), np.zeros(4), {"a": None}, r"Points of shape \(3, 2\) and labels of shape \(4,\)"),
        (np.zeros((0, 2)), np.zeros(0), {"a": None}, r"Points of shape \(0, 2\)"),
        (np.zeros((3, 2)), np.zeros(3), {}, "There is no network to draw"),
    ],
)
def test_points_that_cannot_be_drawn_are_refused(tmp_path, points, labels, networks, message):
    with pytest.raises(ValueError, match=message):
        report.decision_boundaries(tmp_path / "regions.png", points, labels, networks)


def test_grid_enlarges_pictures_without_blurring_them(tmp_path):
    generator = np.random.default_rng(0)
    gray = generator.integers(0, 256, (5, 8, 8, 1)).astype("float32")
    color = generator.integers(0, 256, (3, 16, 32, 3), dtype=np.uint8)
    canvas = pixels(report.grid(tmp_path / "grid.png", {"weak": gray, "strong": color}))
    assert (canvas[:, -1] == 255).all()
    for pictures, factor in ((gray, 12), (color, 3)):
        for picture in pictures:
            enlarged = np.kron(picture, np.ones((factor, factor, 1))).repeat(3 // picture.shape[-1], axis=-1)
            assert contains(canvas, enlarged.astype(int))


def contains(canvas, patch):
    height, width = patch.shape[:2]
    corners = np.argwhere((canvas[: 1 - height, : 1 - width] == patch[0, 0]).all(axis=-1))
    return any((canvas[y : y + height, x : x + width] == patch).all() for y, x in corners)


def test_grid_clips_values_outside_of_pixels_and_rounds(tmp_path):
    canvas = pixels(report.grid(tmp_path / "grid.png", {"": np.full((1, 96, 96, 1), 300.0)}))
    assert contains(canvas, np.full((96, 96, 3), 255))
    canvas = pixels(report.grid(tmp_path / "grid.png", {"": np.full((1, 96, 96, 3), 9.6)}))
    assert contains(canvas, np.full((96, 96, 3), 10))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "There are no pictures to draw"),
        (
            {"weak": np.zeros((2, 8, 8))},
            r"The row 'weak' has the shape \(2, 8, 8\): pass pictures \[N, H, W, C\]",
        ),
        ({"weak": np.zeros((2, 8, 8, 2))}, r"The row 'weak' has the shape \(2, 8, 8, 2\)"),
        ({"weak": np.zeros((0, 8, 8, 1))}, r"The row 'weak' has the shape \(0, 8, 8, 1\)"),
    ],
)
def test_rows_that_are_not_pictures_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        report.grid(tmp_path / "grid.png", rows)


def test_table_aligns_text_left_and_numbers_right():
    text = report.table(
        [
            {"method": "Meta Pseudo Labels", "seed": 1, "accuracy": np.float32(0.9625), "note": None},
            {"method": "UDA", "seed": 12, "accuracy": "97.1 ± 0.2", "time": "fast"},
        ]
    )
    assert text.split("\n") == [
        "| method             | seed |   accuracy | note | time |",
        "| ------------------ | ---: | ---------: | ---: | ---- |",
        "| Meta Pseudo Labels |    1 |     0.9625 |      |      |",
        "| UDA                |   12 | 97.1 ± 0.2 |      | fast |",
    ]


def test_table_keeps_markdown_whole():
    lines = report.table([{"a|b": "x | y\nz", "c": 1 / 3}]).split("\n")
    assert lines[0].startswith("| a\\|b ")
    assert lines[2].startswith("| x \\| y z | 0.3333 |")
    assert len({len(line) for line in lines}) == 1


def test_table_without_rows_is_empty():
    assert report.table([]) == ""
