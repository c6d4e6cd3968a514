import csv
import io
import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from mpl_tf.report import plots

HISTORY = """epoch,step,loss,mask_rate,agreement,flux,\
val_accuracy,val_teacher_accuracy,val_loss,student_gradient_norm,feedback
0,100,2.0,0.1,0.2,7,,,,3.5,0.01
1,200,1.5,,,8,0.5,0.6,1.75,NA,-0.01
2,300,1.0,0.5,0.4,9,,,,nan,inf
3,400,0.5,0.75,,,0.875,0.75,0.25,4.5
"""


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def history():
    return rows(HISTORY)


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def line_data(axes):
    return [np.stack(line.get_data(), axis=-1).tolist() for line in axes.lines]


def test_curves_shows_every_column_and_skips_missing_cells(history):
    shown = panels(plots.curves(history, title="A run"))
    assert list(shown) == [
        "Accuracy on the validation split",
        "Student's loss (nats)",
        "Mask rate: unlabeled images that count",
        "Feedback to the teacher",
        "Student and teacher agree",
        "Student's gradient norm",
        "Flux",
    ]
    assert line_data(shown["Accuracy on the validation split"]) == [
        [[200, 0.5], [400, 0.875]],
        [[200, 0.6], [400, 0.75]],
    ]
    assert line_data(shown["Student's loss (nats)"]) == [
        [[100, 2.0], [200, 1.5], [300, 1.0], [400, 0.5]],
        [[200, 1.75], [400, 0.25]],
    ]
    assert line_data(shown["Mask rate: unlabeled images that count"]) == [
        [[100, 0.1], [300, 0.5], [400, 0.75]]
    ]
    assert line_data(shown["Feedback to the teacher"]) == [[[100, 0.01], [200, -0.01]]]
    assert line_data(shown["Student's gradient norm"]) == [[[100, 3.5], [400, 4.5]]]
    assert line_data(shown["Student and teacher agree"]) == [[[100, 0.2], [300, 0.4]]]
    assert line_data(shown["Flux"]) == [[[100, 7], [200, 8], [300, 9]]]


def test_lines_are_named_at_their_ends_in_their_colors(history):
    shown = panels(plots.curves(history))
    accuracy = shown["Accuracy on the validation split"]
    colors = {line.get_color() for line in accuracy.lines}
    assert {text.get_text(): text.get_color() for text in accuracy.texts}.keys() == {
        "student 87.5%",
        "teacher 75.0%",
    }
    assert {text.get_color() for text in accuracy.texts} == colors
    assert len(colors) == 2
    loss = shown["Student's loss (nats)"]
    assert [text.get_text() for text in loss.texts] == ["validation", "training"]  # from below
    student = next(text.get_color() for text in accuracy.texts if "student" in text.get_text())
    assert shown["Student's gradient norm"].lines[0].get_color() == student
    for of_neither in ("Flux", "Student and teacher agree"):
        assert shown[of_neither].lines[0].get_color() not in colors


def test_where_a_line_is_of_the_training_each_line_says_which_split_it_is_of():
    axes = plots.curve(rows("step,accuracy,val_accuracy\n0,0.5,0.25\n9,1,0.5\n"), "accuracy").axes[0]
    assert [text.get_text() for text in axes.texts] == [
        "student, validation 50.0%",
        "student, training 100.0%",
    ]


def test_one_panel_is_drawn_as_among_the_others(history):
    titles = plots.curve_titles(history)
    shown = panels(plots.curves(history))
    assert list(titles.values()) == [title.replace("\n", " ") for title in shown]
    for quantity, title in titles.items():
        (axes,) = plots.curve(history, quantity).axes
        assert line_data(axes) == line_data(shown[title])
        assert [text.get_text() for text in axes.texts] == [text.get_text() for text in shown[title].texts]


def test_curves_are_legible_with_the_accuracies_largest(history):
    figure = plots.curves(history)
    image = plots.to_pixels(figure)
    assert image.shape[1] == 1200
    assert 700 < image.shape[0] < 1200
    assert 0.005 < (image.min(axis=-1) < 128).mean() < 0.2
    boxes = {title: axes.get_window_extent() for title, axes in panels(figure).items()}
    accuracy = boxes.pop("Accuracy on the validation split")
    assert all(
        accuracy.width > 2 * box.width and accuracy.height > 1.3 * box.height for box in boxes.values()
    )
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 8
    for text in texts:
        if any(letter.isalpha() for letter in text.get_text()):
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0
            assert box.x1 <= 1200


@pytest.mark.parametrize("ends", [(1.0, 1.0, 1.0), (0.1, 0.1, 0.9), (0.0, 0.0, 0.01)])
def test_labels_of_lines_that_end_together_do_not_overlap(ends):
    history = "step,val_accuracy,val_teacher_accuracy,val_generator_accuracy\n0,0,0.5,1\n10,{},{},{}\n"
    figure = plots.curves(rows(history.format(*ends)))
    plots.to_pixels(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = figure.axes[0].texts
    boxes = sorted((text.get_window_extent(renderer) for text in texts), key=lambda box: box.y0)
    assert len(boxes) == 3
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
    assert all(0.0 <= text.get_position()[1] <= 1.0 for text in texts)


def test_a_keras_history_without_steps_is_drawn_over_epochs():
    (axes,) = plots.curves(rows("epoch,loss\n0,2\n1,1\n")).axes
    assert axes.get_xlabel() == "epoch"
    assert line_data(axes) == [[[0, 2], [1, 1]]]


def test_the_consistency_loss_of_a_student_without_a_teacher_is_not_called_a_teachers():
    (title,) = plots.curve_titles([{"step": 1, "consistency_loss": 0.5}]).values()
    assert "eacher" not in title


def test_one_row_only_and_a_long_name_with_dollars_are_drawn():
    name = "a_quantity_whose_$name$_is_far_too_long_for_one_line_above_its_panel"
    figure = plots.curves([{"step": 1, name: 5, "b": 1, "c": 1}], title="$5 \\alpha")
    title = figure.axes[0].get_title(loc="left")
    assert title.replace("\n", " ") == name.replace("_", " ").capitalize()
    assert max(map(len, title.split("\n"))) < 40
    assert not any(text.get_parse_math() for text in figure.findobj(Text) if text.get_text())
    assert (plots.to_pixels(figure).min(axis=-1) < 128).any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows yet: draw it after the first epoch"),
        ("epoch,loss\n", "has no rows yet: draw it after the first epoch"),
        ("time,loss\n1,2\n", "has the columns time, loss, but neither 'step' nor 'epoch'"),
        ("step,loss\n1,NA\n", "has no numbers besides 'step': there is nothing to draw"),
    ],
)
def test_a_history_without_anything_to_draw_is_refused(content, message):
    for draw in (plots.curves, plots.curve_titles):
        with pytest.raises(ValueError, match=message):
            draw(rows(content))


def test_figures_replace_older_files_and_failures_leave_them(history, tmp_path, monkeypatch):
    destination, figure = tmp_path / "deep" / "curves.png", plots.curves(history)
    destination.parent.mkdir()
    destination.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, path, **kwargs: path.write_text("half") and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            plots.save_png(figure, destination)
    assert destination.read_text() == "old"
    assert plots.save_png(figure, destination) == destination
    assert [path.name for path in destination.parent.iterdir()] == ["curves.png"]
    image = Image.open(destination)
    assert image.format == "PNG"
    assert image.text["Description"] == "Curves over the steps of a run"
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), plots.to_pixels(plots.curves(history)))


def test_drawing_leaves_matplotlib_as_it_was(history, tmp_path):
    pyplot.close("all")
    with matplotlib.rc_context({"font.size": 17, "axes.spines.top": True}):
        before = dict(matplotlib.rcParams)
        plots.save_png(plots.curves(history), tmp_path / "curves.png")
        assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
