import json
import multiprocessing
import pathlib
import re
import warnings

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.soft_labels import store as store_module
from mpl_tf.data.soft_labels.store import LabelStore

NUM_CLASSES = 5
INDEX = np.array([40, 3, 17, 8, 25, 31, 2, 11, 19, 6])
TEACHER = {"file": "teacher.keras", "sha256": "ab12", "round": 1}
REQUEST = {
    "index": INDEX,
    "num_classes": NUM_CLASSES,
    "teacher": TEACHER,
    "fingerprint": "f00d",
    "shard_size": 4,
}


def rows(count=10, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(NUM_CLASSES), count).astype(np.float32)


def created(path, **changes):
    return LabelStore.create(path, **{**REQUEST, **changes})


def filled(path, probabilities=None, **changes):
    store = created(path, **changes)
    probabilities = rows(len(store)) if probabilities is None else probabilities
    for shard in store.missing():
        store.write(shard, probabilities[store.rows(shard)])
    return store


def test_what_is_written_is_read_back(tmp_path):
    filled(tmp_path / "store")
    store = LabelStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.probabilities(), rows())
    np.testing.assert_array_equal(store.index, INDEX)
    np.testing.assert_array_equal(store.confidence(), [max(row) for row in rows()])
    np.testing.assert_array_equal(store.classes(), [list(row).index(max(row)) for row in rows()])
    assert (store.probabilities().dtype, store.confidence().dtype) == (np.float32, np.float32)
    assert (store.index.dtype, store.classes().dtype) == (np.int64, np.int64)
    assert (len(store), store.num_classes, store.teacher, store.fingerprint) == (
        10,
        NUM_CLASSES,
        TEACHER,
        "f00d",
    )
    assert store.path == tmp_path / "store"


def test_numpy_alone_reads_the_folder(tmp_path):
    filled(tmp_path)
    shards = [np.load(path, allow_pickle=False) for path in sorted(tmp_path.glob("shard_*.npy"))]
    assert [len(shard) for shard in shards] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(shards), rows())
    np.testing.assert_array_equal(np.load(tmp_path / "index.npy"), INDEX)
    assert json.loads((tmp_path / "store.json").read_text())["teacher"] == TEACHER
    assert len(list(tmp_path.iterdir())) == 5


def test_the_documentation_reads_a_store_in_these_lines(tmp_path, monkeypatch, capsys):
    page = pathlib.Path(__file__).parents[3] / "docs" / "labeling.md"
    with_numpy, with_mpl_tf = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    unsure = rows(seed=1) * 0.1 + 0.18
    unsure[[2, 5]] = np.eye(NUM_CLASSES)[:2]
    filled(tmp_path / "labels" / "pets", unsure)
    monkeypatch.chdir(tmp_path)
    exec(with_numpy, {})
    assert capsys.readouterr().out.split() == str(np.delete(INDEX, [2, 5])).split()
    with pytest.warns(UserWarning, match="No image is predicted as class 2, 3, 4"):
        exec(with_mpl_tf, {})
    assert (tmp_path / "labels" / "pets.png").exists()


def test_one_shard_is_a_memory_map_and_16_bit_floats_come_back_as_float32(tmp_path):
    one = filled(tmp_path / "one", shard_size=10)
    assert isinstance(one.probabilities(), np.memmap)
    half = filled(tmp_path / "half", dtype="float16")
    assert half.read(0).dtype == np.float16
    assert half.probabilities().dtype == np.float32
    np.testing.assert_array_equal(half.probabilities(), rows().astype(np.float16).astype(np.float32))


def test_shards_are_written_in_any_order_and_the_missing_ones_are_known(tmp_path):
    store = created(tmp_path)
    assert store.missing() == [0, 1, 2]
    assert [store.rows(shard) for shard in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 10)]
    store.write(2, rows()[8:])
    store.write(0, rows()[:4])
    assert created(tmp_path).missing() == store.missing() == [1]
    for read in (store.probabilities, store.confidence, store.classes, lambda: store.targets(50)):
        with pytest.raises(
            ValueError, match=r"lacks 1 of 3 shards \(1\): run the labeling that began it again"
        ):
            read()
    store.write(1, rows()[4:8])
    assert store.missing() == []


def test_a_shard_that_is_there_stays_as_it_is(tmp_path):
    store = filled(tmp_path)
    store.write(0, rows(4, seed=1))
    np.testing.assert_array_equal(store.probabilities(), rows())


def truncated(path):
    path.write_bytes(path.read_bytes()[:-3])


def emptied(path):
    path.write_bytes(b"")


def zeroed(path):
    # What a machine that lost its power can leave of a file that was renamed into place.
    header = len(path.read_bytes()) - 4 * 4 * NUM_CLASSES
    path.write_bytes(path.read_bytes()[:header] + bytes(4 * 4 * NUM_CLASSES))


def of_another_type(path):
    np.save(path, np.load(path).astype(np.float64))


def of_another_shape(path):
    np.save(path, np.load(path)[:2])


def no_array(path):
    path.write_text("I was a shard once.")


@pytest.mark.parametrize("spoil", [truncated, emptied, zeroed, of_another_type, of_another_shape, no_array])
@pytest.mark.parametrize("reopened", [True, False])
def test_a_spoiled_shard_is_missing_and_can_be_made_again(tmp_path, spoil, reopened):
    store = filled(tmp_path)
    assert not store.missing()
    spoil(tmp_path / "shard_00001.npy")
    if reopened:
        with pytest.raises(ValueError, match=r"lacks 1 of 3 shards \(1\)"):
            LabelStore.open(tmp_path)
        store = created(tmp_path)
    assert store.missing() == [1]
    store.write(1, rows()[4:8])
    np.testing.assert_array_equal(store.probabilities(), rows())


def test_a_write_that_is_killed_leaves_no_shard(tmp_path, monkeypatch):
    store = created(tmp_path)

    def half(path, array, **kwargs):
        path.write_bytes(array.tobytes()[:7])
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", half)
    with pytest.raises(KeyboardInterrupt):
        store.write(0, rows()[:4])
    assert store.missing() == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.npy", "store.json"]


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"index": INDEX[::-1]}, "index '"),
        ({"index": INDEX[:-1]}, "count 10 there and 9 here"),
        ({"num_classes": 6}, "num_classes 5 there and 6 here"),
        ({"shard_size": 5}, "shard_size 4 there and 5 here"),
        ({"dtype": "float16"}, "dtype 'float32' there and 'float16' here"),
        ({"fingerprint": "beef"}, "fingerprint 'f00d' there and 'beef' here"),
        ({"teacher": {**TEACHER, "round": 2}}, r"teacher's round 1 there and 2 here\): choose another"),
        ({"teacher": {**TEACHER, "view": "weak"}}, "teacher's view None there and 'weak' here"),
    ],
)
def test_another_request_is_refused_and_the_folder_left_alone(tmp_path, changes, difference):
    filled(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"holds other labels .*{difference}"):
        created(tmp_path, **changes)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_tuple_in_the_teacher_is_the_same_request_again(tmp_path):
    created(tmp_path, teacher={"files": ("a", "b")})
    assert created(tmp_path, teacher={"files": ("a", "b")}).teacher == {"files": ["a", "b"]}


def test_folders_that_hold_no_store_are_refused_and_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no label store at"):
        LabelStore.open(tmp_path / "nowhere")
    (tmp_path / "photo.jpg").touch()
    for attempt in (lambda: LabelStore.open(tmp_path), lambda: created(tmp_path)):
        with pytest.raises(ValueError, match=r"holds no label store .*: give another path"):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_store_of_another_version_or_with_another_index_is_refused(tmp_path):
    filled(tmp_path)
    text = (tmp_path / "store.json").read_text()
    (tmp_path / "store.json").write_text(text.replace('"format": 1', '"format": 7'))
    with pytest.raises(ValueError, match="has the format 7, and this version reads 1"):
        LabelStore.open(tmp_path)
    (tmp_path / "store.json").write_text(text)
    np.save(tmp_path / "index.npy", INDEX[::-1])
    with pytest.raises(ValueError, match=r"index.npy is not the one that store.json was written for"):
        LabelStore.open(tmp_path)
    (tmp_path / "index.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no label store \(EOFError"):
        LabelStore.open(tmp_path)


def create_and_report(path, start, results):
    start.wait()
    results.put(created(path).missing())


def test_several_processes_may_create_the_same_store_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Forking beside TensorFlow's threads, of which the children use none.
        workers = [
            context.Process(target=create_and_report, args=(tmp_path / "store", start, results))
            for _ in range(4)
        ]
        for worker in workers:
            worker.start()
    assert [results.get(timeout=60) for _ in workers] == [[0, 1, 2]] * 4
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    ("shard", "probabilities", "message"),
    [
        (3, rows(4), r"shard=3 is out of range: pass one of the table's shards, 0…2"),
        (0, rows(3), r"have the shape \(3, 5\): pass \(4, 5\)"),
        (2, rows(4), r"have the shape \(4, 5\): pass \(2, 5\)"),
        (0, np.full((4, 5), 0.3), r"Row 0 .* lies in 0.3…0.3 and adds up to 1.5: pass the softmax"),
        (0, np.where(np.arange(20).reshape(4, 5) == 11, np.nan, 0.2), "Row 2 .* lies in nan…nan"),
        (0, np.eye(5)[:4] * 3 - 0.4, r"Row 0 .* lies in -0.4…2.6 and adds up to 1"),
    ],
)
def test_what_is_no_distribution_is_not_written(tmp_path, shard, probabilities, message):
    store = created(tmp_path)
    with pytest.raises(ValueError, match=message):
        store.write(shard, probabilities)
    assert store.missing() == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": np.array([], np.int64)}, "index is int64 of the shape"),
        ({"index": np.array([0.5])}, "index is float64"),
        ({"index": [3, -1]}, "whole numbers from 0 on"),
        ({"index": [3, 4, 3]}, "names an image more than once"),
        ({"num_classes": 1}, "num_classes=1 is out of range"),
        ({"shard_size": 0}, "shard_size=0 is out of range"),
        ({"shard_size": 2.5}, "shard_size=2.5 is not a whole number"),
        ({"dtype": "int8"}, "dtype='int8' is unknown"),
    ],
)
def test_requests_that_make_no_store_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        created(tmp_path / "store", **changes)
    assert not (tmp_path / "store").exists()


@pytest.fixture(params=["in memory", "on disk", "on disk, 16-bit"])
def targets(request, tmp_path, monkeypatch):
    if request.param != "in memory":
        monkeypatch.setattr(store_module, "TABLE_LIMIT", 0)
    dtype = "float16" if "16" in request.param else "float32"
    quarters = np.random.default_rng(0).multinomial(16, np.ones(5) / 5, 10) / 16  # exact in 16 bits
    return filled(tmp_path, quarters, dtype=dtype).targets(41), dict(zip(INDEX, quarters, strict=True))


def test_targets_find_the_row_of_an_image(targets):
    targets, truth = targets
    asked = np.array([6, 40, 2, 2, 19, 3, 11])
    expected = [truth[image] for image in asked]
    np.testing.assert_array_equal(targets.fetch(tf.constant(asked)), expected)
    dataset = tf.data.Dataset.from_tensors(asked).map(targets.fetch)
    assert dataset.element_spec == tf.TensorSpec((7, NUM_CLASSES), tf.float32)
    np.testing.assert_array_equal(next(dataset.as_numpy_iterator()), expected)
    loose = tf.data.Dataset.from_tensor_slices(asked).batch(3).map(targets.fetch)
    np.testing.assert_array_equal(np.concatenate(list(loose.as_numpy_iterator())), expected)


def test_an_image_without_labels_is_an_error_that_names_it(targets):
    targets, _ = targets
    dataset = tf.data.Dataset.from_tensors(np.array([6, 7, 40, 39])).map(targets.fetch)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"has no labels of the images[^\d]*7,? 39"):
        next(iter(dataset))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"has no labels of the images[^\d]*7,? 39"):
        targets.fetch(tf.constant([6, 7, 40, 39], tf.int64))


def test_targets_for_fewer_images_than_were_labeled_are_refused(tmp_path):
    with pytest.raises(ValueError, match="labels image 40, but there are only 40 images"):
        filled(tmp_path).targets(40)


def test_a_store_shows_where_it_is_and_how_large(tmp_path):
    store = created(tmp_path)
    expected = f"{len(store)} images, {store.num_classes} classes, {store.num_shards} shards"
    assert repr(store) == f"LabelStore({str(store.path)!r}: {expected})"
