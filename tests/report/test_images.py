import warnings

import keras
import numpy as np
import pytest
from matplotlib.colors import to_hex

from mpl_tf.report import plots


def pixels(figure):
    return plots.to_pixels(figure).astype(int)


def panels(figure):
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def line_data(axes):
    return [np.stack(line.get_data(), axis=-1).tolist() for line in axes.lines]


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


def test_decision_boundaries_are_where_the_networks_have_them():
    points = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [1.0, 2.0]])
    networks = {
        "right of 1": lambda x: np.stack([np.ones(len(x)), x[:, 0]], axis=-1),
        "above 0.5": lambda x: np.stack([0.5 - x[:, 1], 0 * x[:, 1], x[:, 1] - 0.5], axis=-1),
    }
    figure = plots.decision_boundaries(points, [1, -1, 0, -1], networks)
    shown = panels(figure)
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
    assert len(np.unique(pixels(figure) @ [1, 256, 65536])) > 20


def test_decision_boundaries_takes_a_keras_network_and_more_panels_than_a_row_holds():
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(12)])
    points = np.random.default_rng(0).normal(size=(20, 2))
    labels = np.r_[[11, 0], np.full(18, -1)]
    figure = plots.decision_boundaries(points, labels, {f"{index}": network for index in range(6)})
    assert len({(round(axes.get_position().y0, 3)) for axes in figure.axes}) == 2
    assert len({(round(axes.get_position().x0, 3)) for axes in figure.axes}) == 4


@pytest.mark.parametrize(
    ("points", "labels", "networks", "message"),
    [
        (np.zeros((3, 5)), np.zeros(3), {"a": None}, r"Points of shape \(3, 5\) and labels of shape \(3,\)"),
        (np.zeros((3, 2)), np.zeros(4), {"a": None}, r"Points of shape \(3, 2\) and labels of shape \(4,\)"),
        (np.zeros((0, 2)), np.zeros(0), {"a": None}, r"Points of shape \(0, 2\)"),
        (np.zeros((3, 2)), np.zeros(3), {}, "There is no network to draw"),
    ],
)
def test_points_that_cannot_be_drawn_are_refused(points, labels, networks, message):
    with pytest.raises(ValueError, match=message):
        plots.decision_boundaries(points, labels, networks)


def test_image_grid_enlarges_images_without_blurring_them():
    generator = np.random.default_rng(0)
    gray = generator.integers(0, 256, (5, 8, 8, 1)).astype("float32")
    color = generator.integers(0, 256, (3, 16, 32, 3), dtype=np.uint8)
    canvas = pixels(plots.image_grid({"weak": gray, "strong": color}))
    assert (canvas[:, -1] == 255).all()
    for images, factor in ((gray, 12), (color, 3)):
        for image in images:
            enlarged = np.kron(image, np.ones((factor, factor, 1))).repeat(3 // image.shape[-1], axis=-1)
            assert contains(canvas, enlarged.astype(int))


@pytest.mark.parametrize(("channels", "drawn"), [(1, 1), (2, 1), (3, 3), (4, 3), (7, 3)])
def test_images_of_any_number_of_channels_are_drawn_in_color_or_gray(channels, drawn):
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, channels), dtype=np.uint8)
    canvas = pixels(plots.image_grid({"": images}))
    for image in images:
        assert contains(canvas, image[..., :drawn].repeat(3 // drawn, axis=-1).astype(int))
    (axes,) = plots.image_strip(images, ["one", "two"], np.array([False, True])).axes
    for image, shown in zip(images, axes.images, strict=True):
        np.testing.assert_array_equal(shown.get_array(), image[..., :drawn].repeat(3 // drawn, axis=-1))


def contains(canvas, patch):
    height, width = patch.shape[:2]
    corners = np.argwhere((canvas[: 1 - height, : 1 - width] == patch[0, 0]).all(axis=-1))
    return any((canvas[y : y + height, x : x + width] == patch).all() for y, x in corners)


def test_a_grid_is_saved_without_a_warning(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plots.save_png(plots.image_grid({"some": np.zeros((2, 8, 8, 1))}), tmp_path / "grid.png")
        plots.to_pixels(plots.image_grid({"some": np.zeros((2, 8, 8, 1))}))
    assert [str(warning.message) for warning in caught] == []


def test_image_grid_clips_values_outside_of_pixels_and_rounds():
    canvas = pixels(plots.image_grid({"": np.full((1, 96, 96, 1), 300.0)}))
    assert contains(canvas, np.full((96, 96, 3), 255))
    canvas = pixels(plots.image_grid({"": np.full((1, 96, 96, 3), 9.6)}))
    assert contains(canvas, np.full((96, 96, 3), 10))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({}, "There are no images to draw"),
        (
            {"weak": np.zeros((2, 8, 8))},
            r"The row 'weak' has the shape \(2, 8, 8\): pass images \[N, H, W, C\]",
        ),
        ({"weak": np.zeros((2, 8, 8, 0))}, r"The row 'weak' has the shape \(2, 8, 8, 0\)"),
        ({"weak": np.zeros((0, 8, 8, 1))}, r"The row 'weak' has the shape \(0, 8, 8, 1\)"),
    ],
)
def test_rows_that_are_not_images_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        plots.image_grid(rows)
