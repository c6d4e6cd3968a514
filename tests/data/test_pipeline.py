import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data import pipeline
from mpl_tf.data.augmentation import views
from mpl_tf.data.splits import Split


class Numbers:
    """Images whose every pixel is their own index, so that a batch tells what is in it."""

    image_shape = (2, 2, 1)

    def __init__(self, count, num_classes=3):
        self.labels = (np.arange(count) % num_classes).astype(np.int32)

    def __len__(self):
        return len(self.labels)

    def fetch(self, index):
        return tf.cast(tf.tile(tf.reshape(index, (-1, 1, 1, 1)), (1, 2, 2, 1)), tf.uint8)


def a_source(count=40):
    images = Numbers(count)
    return types.SimpleNamespace(
        name="numbers", train=images, test=None, num_classes=3, image_shape=(2, 2, 1), flip=False
    )


def a_split(labeled=(1, 5, 9, 13, 17), unlabeled=range(40), validation=()):
    def as_array(values):
        return np.array(list(values), np.int64)

    return Split(
        name="numbers.0@5",
        labeled=as_array(labeled),
        unlabeled=as_array(unlabeled),
        validation=as_array(validation),
        labels_per_class={},
        validation_per_class={},
        fingerprint="",
    )


def view(images, *, seed, position):
    return tf.cast(images, tf.float32)


def view_that_tells_its_draw(images, *, seed, position):
    # Small enough for float32 to tell neighbors apart.
    drawn = tf.cast(position * 7 + seed % 4099, tf.float32)
    return tf.cast(images, tf.float32) * 0.0 + tf.reshape(drawn, (-1, 1, 1, 1))


def batches(steps, start=0, **options):
    settings = {"batch_size": 4, "unlabeled_ratio": 3, "weak": view, "strong": view, "seed": 0} | options
    dataset = pipeline.training_batches(a_source(), a_split(), start=start, **settings)
    return list(dataset.take(steps).as_numpy_iterator())


def indices(images):
    return images[:, 0, 0, 0].astype(int)


def test_shapes_and_types_are_the_contract():
    dataset = pipeline.training_batches(
        a_source(), a_split(), batch_size=4, unlabeled_ratio=3, weak=view, strong=view
    )
    image = (2, 2, 1)
    assert dataset.element_spec == {
        "labeled": {
            "image": tf.TensorSpec((4, *image), tf.float32),
            "label": tf.TensorSpec((4,), tf.int32),
        },
        "unlabeled": {
            "weak": tf.TensorSpec((12, *image), tf.float32),
            "strong": tf.TensorSpec((12, *image), tf.float32),
            "index": tf.TensorSpec((12,), tf.int64),
        },
    }


def test_labels_and_indices_belong_to_their_images():
    for batch in batches(5):
        shown = indices(batch["labeled"]["image"])
        assert set(shown) <= {1, 5, 9, 13, 17}
        np.testing.assert_array_equal(batch["labeled"]["label"], shown % 3)
        np.testing.assert_array_equal(batch["unlabeled"]["index"], indices(batch["unlabeled"]["weak"]))


def test_every_epoch_of_each_stream_shows_each_image_once():
    # 20 steps are 80 labeled images = 16 epochs of 5, and 240 unlabeled ones = 6 epochs of 40.
    drawn = batches(20)
    labeled = np.concatenate([indices(batch["labeled"]["image"]) for batch in drawn]).reshape(16, 5)
    unlabeled = np.concatenate([batch["unlabeled"]["index"] for batch in drawn]).reshape(6, 40)
    for epoch in labeled:
        assert sorted(epoch) == [1, 5, 9, 13, 17]
    for epoch in unlabeled:
        assert sorted(epoch) == list(range(40))
    assert len({tuple(epoch) for epoch in labeled}) > 8
    assert len({tuple(epoch) for epoch in unlabeled}) == 6


def test_resuming_at_a_step_draws_what_an_uninterrupted_run_draws():
    whole = batches(9, weak=view_that_tells_its_draw)
    resumed = batches(4, start=5, weak=view_that_tells_its_draw)
    for one, other in zip(whole[5:], resumed, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one, other)


def test_the_parts_of_a_batch_make_the_whole():
    parts = [batches(3, shard=(part, 2)) for part in range(2)]
    for whole, *shards in zip(batches(3), *parts, strict=True):
        tf.nest.map_structure(
            lambda rows, *cut: np.testing.assert_array_equal(np.concatenate(cut), rows), whole, *shards
        )


def test_streams_over_the_same_images_go_through_them_in_orders_of_their_own():
    split = a_split(labeled=range(40), unlabeled=range(40))
    options = {"batch_size": 40, "unlabeled_ratio": 1, "weak": view, "strong": view}
    batch = next(pipeline.training_batches(a_source(), split, **options).as_numpy_iterator())
    order, other = indices(batch["labeled"]["image"]), batch["unlabeled"]["index"]
    assert set(order) == set(other)
    # Of two orders that know nothing of each other, one image stands at the same position on average.
    assert (order == other).sum() < 8


def test_the_seed_changes_the_order_and_the_draws():
    one, other = batches(3)[2], batches(3, seed=1)[2]
    assert list(one["unlabeled"]["index"]) != list(other["unlabeled"]["index"])
    one = batches(1, weak=view_that_tells_its_draw)[0]
    other = batches(1, weak=view_that_tells_its_draw, seed=1)[0]
    assert not np.array_equal(one["labeled"]["image"], other["labeled"]["image"])


def test_labeled_and_unlabeled_views_are_drawn_from_different_seeds():
    seeds = []

    def recording(images, *, seed, position):
        seeds.append(seed)
        return tf.cast(images, tf.float32)

    batches(1, weak=recording)
    assert len(set(seeds)) == 2


def test_strong_view_starts_from_the_weak_one():
    def plus_hundred(images, *, seed, position):
        return tf.cast(images, tf.float32) + 100.0

    batch = batches(1, weak=plus_hundred, strong=plus_hundred)[0]
    np.testing.assert_array_equal(batch["unlabeled"]["strong"], batch["unlabeled"]["weak"] + 100.0)


def test_labeled_images_may_have_a_view_of_their_own():
    def shifted(images, *, seed, position):
        return view(images, seed=seed, position=position) + 100.0

    plain, own = batches(2), batches(2, labeled_view=views.Chain(view, shifted))
    for one, other in zip(plain, own, strict=True):
        assert np.array_equal(other["labeled"]["image"], one["labeled"]["image"] + 100.0)
        assert np.array_equal(other["unlabeled"]["weak"], one["unlabeled"]["weak"])


def test_views_and_images_of_a_user_may_branch_on_what_the_graph_computes(monkeypatch):
    def sparing(images, *, seed, position):
        if tf.reduce_any(tf.cast(images, tf.int32) == 1):
            return tf.cast(images, tf.float32)
        return tf.cast(images, tf.float32) + 100.0

    def fetch(self, index, fetch=Numbers.fetch):
        if tf.size(index) > 100:
            index = index[:0]
        return fetch(self, index)

    monkeypatch.setattr(Numbers, "fetch", fetch)
    for batch in batches(3, weak=sparing, strong=sparing):
        images = batch["labeled"]["image"]
        assert 1.0 in images or (images > 100).all()
    images = pipeline.image_batches(Numbers(8), batch_size=4, view=sparing)
    assert [indices(batch["image"])[0] for batch in images.as_numpy_iterator()] == [0, 104]


@pytest.mark.parametrize("name", ["weak", "strong", "labeled_view"])
@pytest.mark.parametrize("wrong", [keras.layers.RandomFlip(), lambda images: images])
def test_a_layer_and_a_function_of_images_alone_are_no_views(name, wrong):
    with pytest.raises(
        ValueError, match=rf"^{name}=.* is not called as view\(.*: pass lambda images, seed, posi"
    ):
        batches(1, **{name: wrong})


def test_a_layer_that_is_called_as_a_view_is_one():
    class Shift(keras.layers.Layer):
        def call(self, images, seed, position):
            return tf.cast(images, tf.float32) + 100.0

    plain, shifted = batches(1)[0], batches(1, strong=Shift())[0]
    assert np.array_equal(shifted["unlabeled"]["strong"], plain["unlabeled"]["weak"] + 100.0)


def test_without_unlabeled_images_there_is_no_unlabeled_entry():
    assert set(batches(1, unlabeled_ratio=0, strong=None)[0]) == {"labeled"}


def test_one_labeled_image_fills_a_batch():
    dataset = pipeline.training_batches(a_source(), a_split(labeled=(4,)), batch_size=4, weak=view)
    assert list(indices(next(iter(dataset))["labeled"]["image"].numpy())) == [4, 4, 4, 4]


def test_numbered_batches_count_on_from_any_step():
    dataset = pipeline.index_batches(4, start=3)
    assert dataset.element_spec == {"generated": {"index": tf.TensorSpec((4,), tf.int64)}}
    numbers = [list(batch["generated"]["index"]) for batch in dataset.take(2).as_numpy_iterator()]
    assert numbers == [[12, 13, 14, 15], [16, 17, 18, 19]]
    parts = [next(iter(pipeline.index_batches(4, start=3, shard=(part, 2)))) for part in range(2)]
    assert [list(part["generated"]["index"].numpy()) for part in parts] == [[12, 13], [14, 15]]
    with pytest.raises(ValueError, match="batch_size=0 makes no batch: it must be at least 1"):
        pipeline.index_batches(0)


def test_evaluation_shows_each_image_once_in_order():
    shown = list(pipeline.evaluation_batches(Numbers(10), [7, 3, 5], batch_size=2).as_numpy_iterator())
    assert [list(indices(batch["image"])) for batch in shown] == [[7, 3], [5]]
    assert [list(batch["label"]) for batch in shown] == [[1, 0], [2]]
    assert [list(batch["index"]) for batch in shown] == [[7, 3], [5]]
    assert shown[0]["image"].dtype == np.float32


@pytest.mark.parametrize(
    ("options", "split", "message"),
    [
        ({"batch_size": 0}, a_split(), "batch_size=0 and unlabeled_ratio=3 make no batch"),
        (
            {"batch_size": 4.0},
            a_split(),
            "batch_size=4.0 and unlabeled_ratio=3 make no batch: the first must be a whole",
        ),
        ({"unlabeled_ratio": 1.5}, a_split(), "unlabeled_ratio=1.5 make no batch"),
        ({"unlabeled_ratio": -1}, a_split(), "unlabeled_ratio=-1 make no batch"),
        ({"strong": None}, a_split(), "need a strong view"),
        ({}, a_split(unlabeled=()), "has no unlabeled images"),
        ({}, a_split(labeled=()), "has no labeled images"),
    ],
)
def test_validation(options, split, message):
    settings = {"batch_size": 4, "unlabeled_ratio": 3, "weak": view, "strong": view} | options
    with pytest.raises(ValueError, match=message):
        pipeline.training_batches(a_source(), split, **settings)


def test_labels_outside_the_classes_are_refused():
    source = a_source()
    source.train.labels[5] = 3
    with pytest.raises(ValueError, match=r"The label 3 of a labeled image is outside 0…2"):
        pipeline.training_batches(source, a_split(), batch_size=4, weak=view)


class OwnNumbers:
    """Soft labels [i, i, i] of image i."""

    def fetch(self, index):
        return tf.tile(tf.cast(index, tf.float32)[:, None], (1, 3))


def test_targets_are_those_of_the_images_beside_them():
    for batch in batches(5, targets=OwnNumbers(), labeled_targets=True):
        for part, image in (("labeled", "image"), ("unlabeled", "weak")):
            shown = indices(batch[part][image])
            np.testing.assert_array_equal(batch[part]["probabilities"], np.tile(shown[:, None], (1, 3)))
    dataset = pipeline.training_batches(
        a_source(), a_split(), batch_size=4, unlabeled_ratio=3, weak=view, strong=view, targets=OwnNumbers()
    )
    assert dataset.element_spec["unlabeled"]["probabilities"] == tf.TensorSpec((12, 3), tf.float32)
    assert set(dataset.element_spec["labeled"]) == {"image", "label"}


def test_targets_change_nothing_else():
    for plain, with_targets in zip(batches(3), batches(3, targets=OwnNumbers()), strict=True):
        del with_targets["unlabeled"]["probabilities"]
        tf.nest.map_structure(np.testing.assert_array_equal, plain, with_targets)


def test_labeled_targets_without_targets_are_refused():
    with pytest.raises(ValueError, match="labeled_targets=True needs soft labels"):
        batches(1, labeled_targets=True)


def test_images_to_label_come_once_in_order_with_their_index():
    shown = list(pipeline.image_batches(Numbers(10), [7, 3, 5], 2).as_numpy_iterator())
    assert [list(indices(batch["image"])) for batch in shown] == [[7, 3], [5]]
    assert [list(batch["index"]) for batch in shown] == [[7, 3], [5]]
    assert shown[0]["image"].dtype == np.float32
    assert shown[0]["index"].dtype == np.int64
    everything = list(pipeline.image_batches(Numbers(10)).as_numpy_iterator())
    assert [list(batch["index"]) for batch in everything] == [list(range(10))]


def test_the_view_of_an_image_to_label_depends_on_the_seed_and_the_image_alone():
    def views(order, size, seed=0):
        drawn = pipeline.image_batches(Numbers(10), order, size, view_that_tells_its_draw, seed)
        return {
            index: image[0, 0, 0]
            for batch in drawn.as_numpy_iterator()
            for index, image in zip(batch["index"], batch["image"], strict=True)
        }

    assert views(range(10), 4) == views(range(9, -1, -1), 3)
    assert len(set(views(range(10), 4).values())) == 10
    assert views(range(10), 4) != views(range(10), 4, seed=1)


def test_views_made_later_are_those_that_the_pipeline_makes():
    def times(factor):
        return lambda images, **place: factor * view_that_tells_its_draw(images, **place)

    views = {"weak": times(1), "strong": times(2), "labeled_view": times(3)}
    drawn = batches(3, start=2, augment=False, seed=4, **views)
    assert set(drawn[0]["labeled"]) == {"image", "label", "position"}
    assert set(drawn[0]["unlabeled"]) == {"image", "index", "position"}
    made = map(pipeline.BatchViews(**views, seed=4), drawn)
    for later, expected in zip(made, batches(3, start=2, seed=4, **views), strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, later, expected)


def unequal_source():
    """Twelve images of class 0, three of class 1 and one of class 2, mixed."""
    source = a_source(16)
    source.train.labels = np.array([0, 0, 1, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 1, 0, 0], np.int32)
    return source


def balanced_draws(steps, *, size=4, start=0, seed=0, shard=(0, 1), **options):
    batches = pipeline.training_batches(
        unequal_source(),
        a_split(labeled=range(16), unlabeled=range(16)),
        batch_size=size,
        weak=view,
        balance="sample",
        seed=seed,
        start=start,
        shard=shard,
        **options,
    )
    return [indices(batch["labeled"]["image"]) for batch in batches.take(steps).as_numpy_iterator()]


def test_balanced_draws_go_through_the_classes_and_in_each_through_its_images():
    # 36 rounds: 3 epochs of the twelve images of class 0, 12 of class 1, 36 of class 2.
    drawn, labels = np.concatenate(balanced_draws(27)), unequal_source().train.labels
    rounds = labels[drawn].reshape(36, 3)
    assert (np.sort(rounds) == [0, 1, 2]).all()
    assert len({tuple(order) for order in rounds}) == 6
    for label, epochs in ((0, 3), (1, 12), (2, 36)):
        walk = drawn[labels[drawn] == label].reshape(epochs, -1)
        for epoch in walk:
            assert sorted(epoch) == np.flatnonzero(labels == label).tolist()
        assert label == 2 or len({tuple(epoch) for epoch in walk}) > 2


def test_balanced_draws_resume_divide_and_follow_the_seed():
    whole = balanced_draws(9)
    np.testing.assert_array_equal(balanced_draws(4, start=5), whole[5:])
    parts = [balanced_draws(9, shard=(part, 2)) for part in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    np.testing.assert_array_equal(np.concatenate(balanced_draws(6, size=6)), np.concatenate(whole))
    assert not np.array_equal(balanced_draws(9, seed=1), whole)


@pytest.mark.parametrize(
    ("labels", "num_classes"),
    [([0, 1, 2], 3), ([0] * 99 + [1], 2), ([2, 2, 2, 0, 0, 1], 3), ([0, 0, 3], 4), ([5], 9)],
)
def test_class_weights_make_classes_count_alike(labels, num_classes):
    weights = pipeline.class_weights(np.array(labels), num_classes)
    assert weights.dtype == np.float32
    assert weights.shape == (num_classes,)
    of_images = weights[labels]
    np.testing.assert_allclose(of_images.mean(), 1.0, rtol=1e-6)
    sums = [of_images[np.array(labels) == label].sum() for label in set(labels)]
    np.testing.assert_allclose(sums, sums[0], rtol=1e-6)
    assert not weights[sorted(set(range(num_classes)) - set(labels))].any()


def test_weights_resume_divide_and_go_through_views_in_the_step():
    def weights(steps=6, **options):
        split = a_split(labeled=range(12), unlabeled=range(16))
        dataset = pipeline.training_batches(
            unequal_source(), split, batch_size=4, weak=view, balance="weight", **options
        )
        return [batch["labeled"]["weight"] for batch in dataset.take(steps).as_numpy_iterator()]

    whole = weights()
    np.testing.assert_array_equal(weights(2, start=4), whole[4:])
    parts = [weights(shard=(part, 2)) for part in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    np.testing.assert_array_equal(weights(augment=False), whole)
    # Over an epoch, every labeled image once, the mean is 1.
    np.testing.assert_allclose(np.mean(whole[:3]), 1.0, rtol=1e-6)


def test_balance_changes_the_labeled_images_alone():
    options = {"batch_size": 4, "unlabeled_ratio": 3, "weak": view, "strong": view}
    split = a_split(labeled=range(16), unlabeled=range(16))
    plain, balanced, weighted = (
        next(
            pipeline.training_batches(unequal_source(), split, balance=balance, **options).as_numpy_iterator()
        )
        for balance in pipeline.BALANCES
    )
    tf.nest.map_structure(np.testing.assert_array_equal, plain["unlabeled"], balanced["unlabeled"])
    labels = unequal_source().train.labels
    np.testing.assert_array_equal(balanced["labeled"]["label"], labels[indices(balanced["labeled"]["image"])])
    # Weights change nothing but what they add: 16 / (3 · 12) and so on.
    weights = weighted["labeled"].pop("weight")
    tf.nest.map_structure(np.testing.assert_array_equal, plain, weighted)
    np.testing.assert_allclose(weights, np.array([16 / 36, 16 / 9, 16 / 3])[plain["labeled"]["label"]])
    with pytest.raises(ValueError, match="balance='samples'"):
        batches(1, balance="samples")
