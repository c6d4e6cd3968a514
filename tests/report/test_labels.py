import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from mpl_tf import data
from mpl_tf.report import plots

NAMES = ("golden retriever", "tench", "great white shark", "cock")


def drawn_labels(count=200, num_classes=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.linspace(0.3, 1, num_classes), count).astype(np.float32)


def images_of(classes, shape=(8, 12, 1), labels=None):
    """Images whose every pixel says which row they belong to."""
    examples = np.broadcast_to(np.arange(len(classes))[:, None, None, None] % 251, (len(classes), *shape))
    return data.ArrayImages(
        examples.astype(np.uint8), np.full(len(classes), -1) if labels is None else labels
    )


def panel(figure, beginning):
    (axes,) = (axes for axes in figure.axes if axes.get_title(loc="left").startswith(beginning))
    return axes


def heights(axes, label):
    (bars,) = (bars for bars in axes.containers if bars.get_label() == label)
    return [bar.get_height() for bar in bars]


def test_the_panels_show_what_the_selection_did():
    probabilities = drawn_labels()
    confidence, classes = probabilities.max(axis=1), probabilities.argmax(axis=1)
    rows = data.select_indices(confidence, classes, 4, threshold=0.6, per_class=40)
    figure = plots.label_store(probabilities, threshold=0.6, per_class=40, class_names=NAMES)
    counts = panel(figure, "Images per predicted class")
    assert heights(counts, "predicted") == [(classes == label).sum() for label in range(4)]
    assert heights(counts, "selected") == [len(set(rows[classes[rows] == label])) for label in range(4)]
    assert heights(counts, "copies") == [40 - len(set(rows[classes[rows] == label])) for label in range(4)]
    histogram = panel(figure, f"{(confidence >= 0.6).mean():.1%} of 200 reach 0.6")
    sums = [sum(bar.get_height() for bar in bars) for bars in histogram.containers]
    assert sums == [len(set(rows)), 200 - len(set(rows))]
    (line,) = histogram.lines
    assert line.get_xdata() == [0.6, 0.6]


def test_examples_are_shown_with_their_class_the_most_confident_first():
    probabilities = drawn_labels()
    confidence, classes = probabilities.max(axis=1), probabilities.argmax(axis=1)
    wrong = np.arange(200) % 3 == 0
    labels = np.where(wrong, (classes + 1) % 4, np.where(np.arange(200) % 3 == 1, classes, -1))
    images = images_of(classes, labels=labels)
    figure = plots.label_store(probabilities, threshold=0.6, images=images)
    kept = set(data.select_indices(confidence, classes, 4, threshold=0.6).tolist())
    for title, members in (("Selected: 24 of", kept), ("Dropped: 24 of", set(range(200)) - kept)):
        axes = panel(figure, title)
        assert axes.get_title(loc="left").endswith("(red: the image's own label is another)")
        shown = [int(image.get_array()[0, 0, 0]) for image in axes.images]
        assert set(shown) <= members
        assert len(set(shown)) == 24
        assert [confidence[row] for row in shown] == sorted((confidence[row] for row in shown), reverse=True)
        ends = sorted(members, key=lambda row: -confidence[row])
        assert (shown[0], shown[-1]) == (ends[0], ends[-1])
        assert [text.get_text() for text in axes.texts] == [
            f"{classes[row]}\n{confidence[row]:.0%}" for row in shown
        ]
        reds = [text.get_color() for text, row in zip(axes.texts, shown, strict=True) if wrong[row]]
        others = [text.get_color() for text, row in zip(axes.texts, shown, strict=True) if not wrong[row]]
        assert len(set(reds)) == len(set(others)) == 1
        assert reds[0] != others[0]


@pytest.mark.parametrize(("shape", "num_classes"), [((8, 12, 1), 4), ((24, 8, 3), 24), ((16, 16, 3), 60)])
def test_nothing_overlaps_or_leaves_the_page(shape, num_classes):
    probabilities = drawn_labels(600, num_classes)
    names = [f"{NAMES[label % 4]} of kind {label}" for label in range(num_classes)]
    options = {"threshold": 0.4, "class_names": names, "title": "A store"}
    images = images_of(probabilities, shape)
    figure = plots.label_store(probabilities, images=images, **options)
    pixels = plots.to_pixels(figure).min(axis=-1)
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    assert min(text.get_fontsize() for text in texts) >= 8
    # Tilted names have boxes that overlap where the letters do not.
    level = [text for text in texts if text.get_rotation() == 0]
    assert len(level) > 50
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in level]
    for (one, box), (other, second) in itertools.combinations(boxes, 2):
        apart = box.x1 <= second.x0 or second.x1 <= box.x0 or box.y1 <= second.y0 or second.y1 <= box.y0
        assert apart, (one, other)
    for edge in (pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]):
        assert edge.min() == 255


def test_a_store_is_drawn_through_its_index(tmp_path):
    probabilities = drawn_labels(20)
    images = images_of(range(50))
    index = np.arange(49, 29, -1)
    store = data.LabelStore.create(
        tmp_path / "store", index=index, num_classes=4, teacher={}, fingerprint="", shard_size=8
    )
    for shard in store.missing():
        store.write(shard, probabilities[store.rows(shard)])
    figure = plots.label_store(store, images=images, balance=False)
    shown = [int(image.get_array()[0, 0, 0]) for image in panel(figure, "Selected: all 20").images]
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    assert shown == index[order].tolist()


def test_a_threshold_that_nothing_reaches_and_points_are_drawn_without_examples():
    probabilities = np.full((6, 3), 1 / 3, np.float32)
    points = data.ArrayImages(np.zeros((6, 2), np.float32), np.zeros(6))
    figure = plots.label_store(probabilities, threshold=0.9, images=points)
    assert heights(panel(figure, "Images per predicted class"), "selected") == [0, 0, 0]
    assert panel(figure, "0.0% of 6 reach 0.9")
    assert len(figure.axes) == 2


def test_labels_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="There are 2 class names, but the labels are for 4 classes"):
        plots.label_store(drawn_labels(), class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"The probabilities have the shape \(3,\)"):
        plots.label_store([0.1, 0.2, 0.7])
