import dataclasses
import io
import types

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mpl_tf import data
from mpl_tf.methods.supervised import Supervised
from mpl_tf.report import plots
from mpl_tf.report.plots import style
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.settings import Monitoring
from mpl_tf.training import loop
from mpl_tf.training.callbacks import monitors, tensorboard
from tests.support.runs import QUIET, KilledError, build_pseudo_labels, network, run_data, stage

STEPS = [4, 8, 10]
IMAGES = {"views", "pseudo_labels/most_confident"}
HISTOGRAMS = {"pseudo_labels/confidence", "pseudo_labels/classes"}


@pytest.fixture(autouse=True, scope="module")
def pictures_of_every_epoch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorboard, "FRACTION_OF_TIME", 1.0)
        yield


def written(folder, name):
    """Tag → step → what TensorBoard reads there."""
    events = EventAccumulator(str(folder / "tensorboard" / name), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [(event.step, tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def image(value):
    """The pixels of an image summary, whose first two strings are its width and its height."""
    width, height, encoded = value
    pixels = np.array(PIL.Image.open(io.BytesIO(encoded)))
    assert pixels.shape == (int(height), int(width), 3)
    return pixels


def supervised():
    method = Supervised(student=network(2))
    method.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    return method


def fit(folder, method=None, *, writes=True, tensorboard=True, **changes):
    if method is None:
        method = build_pseudo_labels()
    monitoring = dataclasses.replace(QUIET, tensorboard=tensorboard, confirmation_images=30)
    folder = RunFolder(folder, writes=writes)
    loop.fit(method, run_data(), stage(**{"steps": 10, **changes}), folder, monitoring)
    return method


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of stored pseudo labels, its method, and what was measured at the end of its last epoch."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, fit(folder)


def test_every_epoch_is_there_once_at_its_step(whole):
    train, validation = (written(whole[0], name) for name in ("train", "validation"))
    assert IMAGES | HISTOGRAMS | {"loss", "confident_fraction", "student_learning_rate"} <= set(train)
    assert set(validation) == {"loss", "accuracy", "confusion"}
    for tag, events in [*train.items(), *validation.items()]:
        steps = [step for step, _ in events]
        # A fraction of wrong labels among none is left out, and an image of none.
        assert steps == STEPS or tag in ("confirmation_bias", "pseudo_labels/most_confident_wrong"), tag
    history = RunFolder(whole[0]).read_history()
    for tag, column in (("loss", train), ("accuracy", validation)):
        name = tag if column is train else f"val_{tag}"
        expected = [float(row[name]) for row in history]
        assert [float(value) for _, value in column[tag]] == pytest.approx(expected, rel=1e-5)


def test_pictures_take_a_tenth_of_the_time_and_the_last_epoch_has_some(tmp_path, monkeypatch):
    """An epoch takes a second, and drawing takes two: the next pictures are due 18 seconds after."""
    now, draw = [100.0], plots.confusion
    monkeypatch.setattr(tensorboard, "FRACTION_OF_TIME", 0.1)
    monkeypatch.setattr(tensorboard, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def pass_time(seconds):
        now[0] += seconds

    monkeypatch.setattr(plots, "confusion", lambda *given, **options: pass_time(2) or draw(*given, **options))
    learn = monitors.Record.on_epoch_end
    monkeypatch.setattr(
        monitors.Record, "on_epoch_end", lambda self, *given: pass_time(1) or learn(self, *given)
    )
    fit(tmp_path, supervised(), unlabeled_ratio=0, steps=23, epoch_steps=1)
    train, validation = (written(tmp_path, name) for name in ("train", "validation"))
    assert [step for step, _ in train["loss"]] == list(range(1, 24))
    for pictures in (train["views"], validation["confusion"]):
        assert [step for step, _ in pictures] == [1, 19, 23]


def test_images_that_are_neither_color_nor_gray_do_not_end_a_run(tmp_path):
    images, labels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 2)), np.arange(12) % 3
    source = data.from_arrays(images, labels, flip=False)
    split = data.draw_split(source, num_labeled=6, seed=0, validation=0)
    inputs = keras.Input((4, 4, 2))
    student = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    method = Supervised(student=student)
    method.compile("sgd", run_eagerly=True)
    views = dataclasses.replace(run_data(), source=source, split=split)
    settings = stage(steps=1, epoch_steps=1, unlabeled_ratio=0)
    loop.fit(method, views, settings, RunFolder(tmp_path), Monitoring(verbose=0))
    assert set(written(tmp_path, "train")) >= {"loss", "views"}


def test_the_histograms_count_the_pseudo_labels(whole):
    folder, method = whole
    run = run_data()
    rows = method.stored_labels.numpy()[run.unlabeled_sample(30)]
    train = written(folder, "train")
    buckets = train["pseudo_labels/confidence"][-1][1]
    counts, _ = np.histogram(rows.max(axis=1), np.append(buckets[:, 0], buckets[-1, 1]))
    assert buckets[:, 2].sum() == 30
    np.testing.assert_array_equal(buckets[:, 2], counts)
    buckets = train["pseudo_labels/classes"][-1][1]
    predicted = rows.argmax(axis=1)
    for label in range(3):
        inside = [
            count
            for place, (low, high, count) in enumerate(buckets)
            if low <= label < high or (place == len(buckets) - 1 and label == high)
        ]
        assert sum(inside) == (predicted == label).sum()


def test_the_confusion_is_that_of_the_served_student_on_the_validation_split(whole, monkeypatch):
    folder, method = whole
    run, drawn = run_data(), []
    callback = summaries(folder, method)
    confusion = plots.confusion
    monkeypatch.setattr(
        plots, "confusion", lambda *given, **options: drawn.append(given) or confusion(*given, **options)
    )
    with callback.writers["validation"].as_default(1):
        callback._write_confusion()
    ((counts, names),) = drawn
    expected = np.zeros((3, 3), int)
    for index in run.split.validation:
        image = run.source.train.examples[index : index + 1].astype(np.float32)
        expected[
            run.source.train.labels[index], np.argmax(method.inference_model(image, training=False))
        ] += 1
    assert written(folder / "own", "validation")["confusion"]
    np.testing.assert_array_equal(counts, expected)
    assert names == run.source.class_names


def summaries(folder, method, bias=None):
    callback = tensorboard.WriteSummaries(RunFolder(folder / "own"), run_data(), unlabeled=True, bias=bias)
    callback.set_model(method)
    callback.on_train_begin()
    return callback


def test_views_are_of_the_same_images_and_drawn_anew_at_each_step(whole):
    run, callback = run_data(), summaries(*whole)
    early, again, late = callback.views(4), callback.views(4), callback.views(8)
    assert list(early) == ["labeled", "unlabeled", "weak view", "strong view"]
    for caption in early:
        np.testing.assert_array_equal(early[caption], again[caption])
    np.testing.assert_array_equal(early["unlabeled"], late["unlabeled"])
    assert (early["strong view"] != late["strong view"]).any()
    assert set(callback.labeled) <= set(run.split.labeled)
    assert set(callback.unlabeled) <= set(run.split.unlabeled)
    np.testing.assert_array_equal(early["unlabeled"], run.source.train.examples[callback.unlabeled])
    # What TensorBoard has of the last step, each image enlarged.
    shown = image(written(whole[0], "train")["views"][-1][1])
    first = callback.views(10)["unlabeled"][0].repeat(24, axis=0).repeat(24, axis=1)
    corners = np.argwhere(shown[..., 0] == first[0, 0, 0])
    assert any(
        np.array_equal(shown[y : y + 96, x : x + 96], np.broadcast_to(first, (96, 96, 3))) for y, x in corners
    )


def write_pseudo_labels(folder, method, labels):
    """What is drawn of ten pseudo labels, of which three are wrong if their classes are known at all."""
    index = run_data().split.unlabeled[:10]
    confidence = np.linspace(0.5, 0.95, 10).astype(np.float32)
    confidence[9] = 0.0
    measured = monitors.PseudoLabeled(index, labels, np.arange(10) % 3, confidence)
    callback = summaries(folder, method, types.SimpleNamespace(measured=measured))
    with callback.writers["train"].as_default(1):
        callback._write_strips(measured)
    callback.on_train_end()
    return measured


def test_the_most_confident_pseudo_labels_come_first_and_the_wrong_ones_are_red(whole, tmp_path, monkeypatch):
    strips, strip = [], plots.image_strip

    def remember(images, captions, wrong, *, title):
        strips.append({"images": images, "captions": captions, "wrong": wrong, "title": title})
        return strip(images, captions, wrong, title=title)

    monkeypatch.setattr(plots, "image_strip", remember)
    labels = np.arange(10) % 3
    labels[[2, 5, 8]] = [1, 1, 0]
    measured = write_pseudo_labels(tmp_path, whole[1], labels)
    shown, mistakes = strips
    names = run_data().source.class_names
    # The tenth image has no label.
    order = list(range(8, -1, -1))
    for row, caption, wrong in zip(order, shown["captions"], shown["wrong"], strict=True):
        said = names[row % 3] + (f", is {names[labels[row]]}" if row in (2, 5, 8) else "")
        assert caption == f"{said}\n{measured.confidence[row]:.1%}"
        assert wrong == (row in (2, 5, 8))
    np.testing.assert_array_equal(shown["images"], run_data().source.train.examples[measured.index[order]])
    assert shown["title"] == "Most confident of 9 pseudo labels, 3 of which are wrong (red)"
    assert mistakes["captions"] == [shown["captions"][place] for place in (0, 3, 6)]
    for name, columns in (("most_confident", {0, 3, 6}), ("most_confident_wrong", {0, 1, 2})):
        ((_, value),) = written(tmp_path / "own", "train")[f"pseudo_labels/{name}"]
        assert reddened_columns(image(value)) == columns


def reddened_columns(pixels):
    """Which of the twelve columns of a strip has red text."""
    red = tuple(int(style.WRONG[place : place + 2], 16) for place in (1, 3, 5))
    _, places = np.nonzero((abs(pixels.astype(int) - red) < 12).all(axis=-1))
    return set((places * 12 // pixels.shape[1]).tolist())


def test_pseudo_labels_of_unknown_classes_are_not_called_wrong(whole, tmp_path):
    write_pseudo_labels(tmp_path, whole[1], np.full(10, -1))
    train = written(tmp_path / "own", "train")
    assert reddened_columns(image(train["pseudo_labels/most_confident"][0][1])) == set()
    assert "pseudo_labels/most_confident_wrong" not in train


def test_killed_between_the_summaries_and_the_checkpoint_an_epoch_is_still_there_once(
    whole, tmp_path, monkeypatch
):
    record = monitors.Record.on_epoch_end

    def killed_before_recording(self, epoch, logs=None):
        if epoch == 1:
            raise KilledError
        record(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(monitors.Record, "on_epoch_end", killed_before_recording)
        with pytest.raises(KilledError):
            fit(tmp_path)
    assert [step for step, _ in written(tmp_path, "train")["loss"]] == [4, 8]
    # A kill may leave half an event behind as well.
    (unfinished,) = (tmp_path / "tensorboard" / "train").iterdir()
    unfinished.write_bytes(unfinished.read_bytes()[:-7])
    fit(tmp_path)
    for name in ("train", "validation"):
        resumed, expected = written(tmp_path, name), written(whole[0], name)
        assert set(resumed) == set(expected)
        for tag, events in expected.items():
            assert [step for step, _ in resumed[tag]] == [step for step, _ in events], tag
            for (_, one), (_, other) in zip(resumed[tag], events, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=tag)


def test_the_student_is_compiled_once_for_all_epochs(tmp_path, monkeypatch):
    used, end = [], tensorboard.WriteSummaries.on_train_end
    monkeypatch.setattr(
        tensorboard.WriteSummaries, "on_train_end", lambda self, logs=None: used.append(self) or end(self)
    )
    fit(tmp_path, supervised(), unlabeled_ratio=0, epoch_steps=2)
    (callback,) = used
    assert callback.classify.experimental_get_tracing_count() == 1
    train = written(tmp_path, "train")
    assert [step for step, _ in train["views"]] == [2, 4, 6, 8, 10]
    assert not HISTOGRAMS & set(train)
    assert list(callback.views(2)) == ["labeled"]


@pytest.mark.parametrize("change", [{"tensorboard": False}, {"writes": False}])
def test_nothing_is_written_where_it_is_not_wanted(tmp_path, change):
    fit(tmp_path, supervised(), unlabeled_ratio=0, epoch_steps=5, **change)
    assert not (tmp_path / "tensorboard").exists()


def test_points_come_without_images(tmp_path):
    source = data.load("two_moons")
    split = data.draw_split(source, num_labeled=6, seed=0)
    views = dict(zip(("weak", "strong"), data.make_views(source.image_shape), strict=True))
    inputs = keras.Input((2,))
    method = Supervised(student=keras.Model(inputs, keras.layers.Dense(2)(inputs)))
    method.compile(keras.optimizers.SGD(0.05), run_eagerly=True)
    options = stage(steps=1, epoch_steps=1, unlabeled_ratio=0)
    points = data.RunData(source=source, split=split, **views)
    loop.fit(method, points, options, RunFolder(tmp_path), Monitoring(verbose=0))
    assert "views" not in written(tmp_path, "train")
    assert "confusion" in written(tmp_path, "validation")
