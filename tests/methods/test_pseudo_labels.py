import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data.augmentation import mixup
from mpl_tf.methods.pseudo_labels import PseudoLabels
from mpl_tf.training.callbacks import EndEpoch
from tests.support import oracles, tiny

# All weights on from the first step, where a test does not say otherwise.
AT_ONCE = {"ramp_start": 0, "ramp_end": 0}


def compiled(network=tiny.plain_network, **settings):
    method = PseudoLabels(student=network("student"), **(AT_ONCE | settings))
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return method


def keeping(labels="stored", *, rows, num_images=6, **settings):
    """A method that keeps `rows`: place → distribution."""
    method = compiled(labels=labels, num_images=num_images, **settings)
    table = np.zeros((num_images, 3), np.float32)
    for place, row in rows.items():
        table[place] = row
    method.stored_labels.assign(table)
    return method


def logits_of(network, *views):
    return [np.array(network(view), np.float64) for view in views]


def prior_divergence(logits):
    mean = oracles.softmax(logits).mean(axis=0)
    return (np.log(1 / 3 / mean) / 3).sum()


def all_terms(method, batch, probabilities, *, view="weak", fraction=1.0, partners=None):
    """Every term of the loss in float64, of images that mixup combined with these draws."""
    partners = np.arange(10) if partners is None else partners
    images = np.concatenate([batch["labeled"]["image"], batch["unlabeled"][view]]).astype(np.float64)
    (logits,) = logits_of(method.student, fraction * images + (1 - fraction) * images[partners])
    confident = probabilities.max(axis=-1) >= max(method.threshold, 1e-9)
    targets = oracles.one_hot(probabilities.argmax(axis=-1), 3) if method.hard else probabilities
    labeled = oracles.smoothed(batch["labeled"]["label"], 3, method.label_smoothing)
    rows = np.concatenate([labeled, targets])

    def cross_entropy(counts):
        # Both partners' cross-entropies to the one prediction, as Arazo's loss is written.
        own, partner = oracles.cross_entropies(rows, logits), oracles.cross_entropies(rows[partners], logits)
        return (fraction * counts * own + (1 - fraction) * counts[partners] * partner).sum()

    return {
        "labeled_loss": cross_entropy(np.r_[np.ones(4), np.zeros(6)]) / 4,
        "unlabeled_loss": cross_entropy(np.r_[np.zeros(4), confident]) / 6,
        "mask_rate": confident.mean(),
        "prior_divergence": prior_divergence(logits),
        "entropy": oracles.entropies(logits).mean(),
    }


def total(method, terms, ramp=1.0):
    return (
        method.labeled_weight * terms["labeled_loss"]
        + ramp * method.unlabeled_weight * terms["unlabeled_loss"]
        + method.prior_weight * terms["prior_divergence"]
        + method.entropy_weight * terms["entropy"]
    )


def assert_logs(method, batch, terms, ramp=1.0):
    logs = method.train_step(batch)
    expected = terms | {"loss": total(method, terms, ramp)}
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, abs=2e-5)


# --- the terms of the loss -------------------------------------------------------------------------------


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("view", ["weak", "strong"])
def test_online_labels_are_predictions_on_the_weak_view(batch, hard, view):
    settings = {"prior_weight": 0.8, "entropy_weight": 0.4, "label_smoothing": 0.1, "labeled_weight": 0.7}
    method = compiled(hard=hard, view=view, **settings)
    probabilities = oracles.softmax(*logits_of(method.student, batch["unlabeled"]["weak"]))
    method.threshold = float(np.median(probabilities.max(axis=-1)))
    terms = all_terms(method, batch, probabilities, view=view)
    assert terms["mask_rate"] == 0.5
    assert_logs(method, batch, terms)


def test_a_step_descends_the_loss_and_no_gradient_reaches_the_labels(batch):
    method = compiled(
        hard=False, threshold=0.0, view="strong", unlabeled_weight=2.0, prior_weight=0.8, entropy_weight=0.4
    )
    targets = oracles.softmax(*logits_of(method.student, batch["unlabeled"]["weak"])).astype(np.float32)
    one_hot = oracles.one_hot(batch["labeled"]["label"], 3).astype(np.float32)
    images = tf.concat([batch["labeled"]["image"], batch["unlabeled"]["strong"]], axis=0)
    with tf.GradientTape() as tape:
        predictions = tf.nn.softmax(method.student(images))
        logs = tf.math.log(predictions)
        loss = -tf.reduce_sum(one_hot * logs[:4]) / 4 - 2.0 * tf.reduce_sum(targets * logs[4:]) / 6
        loss -= 0.8 * tf.reduce_sum(tf.math.log(3 * tf.reduce_mean(predictions, axis=0))) / 3
        loss -= 0.4 * tf.reduce_sum(predictions * logs) / 10
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)


@pytest.mark.parametrize(
    ("step", "ramp"), [(0, 0.0), (99, 0.0), (100, 0.0), (350, 0.5), (600, 1.0), (900, 1.0)]
)
def test_the_weight_of_the_unlabeled_images_rises_as_lees_does(batch, step, ramp):
    method = PseudoLabels(student=tiny.plain_network("student"), threshold=0.0)
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    method.step.assign(step)
    probabilities = oracles.softmax(*logits_of(method.student, batch["unlabeled"]["weak"]))
    assert method.unlabeled_weight == 3.0
    assert_logs(method, batch, all_terms(method, batch, probabilities), ramp)


@pytest.mark.parametrize("labels", ["online", "stored"])
def test_mixup_is_that_of_arazo(batch, labels):
    method = compiled(
        labels=labels, num_images=6, hard=False, mixup=0.7, seed=5, prior_weight=0.8, entropy_weight=0.4
    )
    method.step.assign(11)
    drawn = mixup.draw(mixup.beta_quantiles(0.7), rows=10, seed=5, step=tf.constant(11, tf.int64))
    probabilities = oracles.softmax(*logits_of(method.student, batch["unlabeled"]["weak"]))
    if labels == "stored":
        probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=6)
        method.stored_labels.assign(probabilities)
    method.threshold = float(np.median(probabilities.max(axis=-1)))
    mixing = {"fraction": float(drawn.fraction), "partners": drawn.partners.numpy()}
    terms = all_terms(method, batch, probabilities, **mixing)
    assert terms["mask_rate"] == 0.5
    assert_logs(method, batch, terms)


def test_where_every_image_weighs_the_same_the_loss_is_arazos_mean_over_the_batch(batch):
    method = compiled(labeled_weight=4 / 10, unlabeled_weight=6 / 10, threshold=0.0, hard=False)
    logits = np.concatenate(logits_of(method.student, batch["labeled"]["image"], batch["unlabeled"]["weak"]))
    targets = np.concatenate([oracles.one_hot(batch["labeled"]["label"], 3), oracles.softmax(logits[4:])])
    logs = method.train_step(batch)
    assert float(logs["loss"]) == pytest.approx(oracles.cross_entropies(targets, logits).mean(), abs=1e-5)


# --- labels that are kept --------------------------------------------------------------------------------


def test_kept_labels_are_looked_up_by_the_images_index(batch):
    generator = np.random.default_rng(0)
    rows = dict(enumerate(generator.dirichlet(np.ones(3), size=20)))
    method = keeping(rows=rows, num_images=20, hard=False, threshold=0.0, view="strong")
    index = np.array([17, 3, 3, 0, 19, 8])
    batch["unlabeled"]["index"] = tf.constant(index)
    kept = np.stack([rows[place] for place in index])
    assert_logs(method, batch, all_terms(method, batch, kept, view="strong"))


@pytest.mark.parametrize("hard", [True, False])
def test_images_without_a_label_do_not_count(batch, hard):
    rows = {1: [0.5, 0.3, 0.2], 4: [0.1, 0.0, 0.9]}
    method = keeping(rows=rows, hard=hard, threshold=0.0)
    logs = method.train_step(batch)
    assert float(logs["mask_rate"]) == pytest.approx(2 / 6)
    unlabeled_only = keeping(rows={}, hard=hard, threshold=0.0, labeled_weight=0.0)
    moved = tiny.changes(unlabeled_only.student, lambda: unlabeled_only.train_step(batch))
    assert all(np.array_equal(change, np.zeros_like(change)) for change in moved)


def test_relabeling_keeps_the_teachers_predictions_in_inference_mode():
    method = compiled(labels="fixed", num_images=9)
    teacher = tiny.network("teacher", seed=2)
    method.stored_labels.assign(np.full((9, 3), 0.25))
    before = tiny.values(teacher.weights)
    images, places = tiny.images(np.random.default_rng(0), 5), np.array([8, 2, 0, 5, 3])
    batches = tf.data.Dataset.from_tensor_slices({"image": images, "index": places}).batch(2)
    method.relabel(teacher, batches)
    expected = oracles.softmax(np.array(teacher(images, training=False), np.float64))
    assert np.allclose(method.stored_labels.numpy()[places], expected, atol=1e-6)
    assert np.array_equal(method.stored_labels.numpy()[[1, 4, 6, 7]], np.full((4, 3), 0.25))
    assert all(map(np.array_equal, before, tiny.values(teacher.weights)))


def test_a_teacher_that_gave_its_labels_is_let_go():
    method, teacher = compiled(labels="fixed", num_images=6), tiny.network("teacher", seed=2)
    method.relabel(teacher, tiny.unlabeled_images(6))
    reference = weakref.ref(teacher.trainable_variables[0])
    del teacher
    gc.collect()
    assert reference() is None


def test_the_end_of_an_epoch_refreshes_stored_labels_from_the_served_student(batch):
    method = compiled(tiny.network, labels="stored", num_images=6, ema_decay=0.9)
    method.train_step(batch)
    unlabeled = tiny.unlabeled_images(6)
    method.end_epoch(unlabeled)
    images = np.concatenate([each["image"] for each in unlabeled])
    average, current = (
        oracles.softmax(np.array(network(images, training=False), np.float64))
        for network in (method.student_average, method.student)
    )
    assert np.allclose(method.stored_labels, average, atol=1e-5)
    assert not np.allclose(method.stored_labels, current, atol=1e-3)
    # Again, of the weights that have moved since, without compiling anew.
    method.train_step(batch)
    method.end_epoch(unlabeled)
    assert not np.allclose(method.stored_labels, average, atol=1e-3)
    assert method._predict.experimental_get_tracing_count() <= 2


@pytest.mark.parametrize("labels", ["online", "fixed"])
def test_the_end_of_an_epoch_leaves_other_labels_alone(labels):
    method = compiled(labels=labels, num_images=6)
    method.end_epoch(tiny.unlabeled_images(6))
    if labels == "fixed":
        assert not method.stored_labels.numpy().any()


def test_the_labels_to_be_measured_are_those_that_the_student_learns_from():
    images, index = tiny.images(np.random.default_rng(0), 3), np.array([4, 0, 1])
    kept = keeping(rows={0: [0.0, 1.0, 0.0], 4: [0.6, 0.4, 0.0]})
    assert np.allclose(kept.pseudo_label(images, index), [[0.6, 0.4, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    online = compiled(ema_decay=0.9)
    online.student.trainable_variables[-1].assign_add([1.0, 2.0, 3.0])
    expected = oracles.softmax(*logits_of(online.student, images))
    assert np.allclose(online.pseudo_label(images, index), expected, atol=1e-6)


# --- validation --------------------------------------------------------------------------------------------


def test_fixed_labels_that_nobody_gave_are_refused():
    method = compiled(labels="fixed", num_images=6)
    with pytest.raises(ValueError, match="labels='fixed' has no labels yet: call relabel"):
        method.fit(tiny.dataset(batches=1), verbose=0)
    method.relabel(tiny.plain_network("teacher", seed=1), tiny.unlabeled_images(6))
    method.fit(tiny.dataset(batches=1), verbose=0)


def test_stored_labels_that_nobody_will_refresh_are_refused():
    method = compiled(labels="stored", num_images=6)
    with pytest.raises(
        ValueError, match=r"labels='stored' has no labels yet: pass fit the callback .*EndEpoch"
    ):
        method.fit(tiny.dataset(batches=1), verbose=0)
    refresh = EndEpoch(tiny.unlabeled_images(6))
    method.fit(tiny.dataset(batches=1), verbose=0, callbacks=[refresh])
    assert method.stored_labels.numpy().any()
    # They are there, as after a checkpoint is loaded.
    method.fit(tiny.dataset(batches=1), verbose=0)


def test_relabeling_that_has_no_meaning_is_refused():
    images = tiny.unlabeled_images(6)
    with pytest.raises(ValueError, match="labels='online' keeps no labels"):
        compiled().relabel(tiny.plain_network("teacher"), images)
    other = tiny.network("other", num_classes=4)
    with pytest.raises(
        ValueError, match=r"'other' that is to give the labels has 4 classes and the student 3"
    ):
        compiled(labels="fixed", num_images=6).relabel(other, images)
    message = (
        "An image has the index 5, and num_images=4 keeps labels of 0…3: pass the number of all training"
    )
    with pytest.raises(ValueError, match=message):
        compiled(labels="fixed", num_images=4).relabel(tiny.plain_network("teacher"), images)


def test_a_batch_without_indices_is_refused_where_labels_are_kept(batch):
    del batch["unlabeled"]["index"]
    compiled().train_step(batch)
    with pytest.raises(ValueError, match="no 'unlabeled' entry with 'weak' and 'strong' and 'index'"):
        keeping(rows={}).train_step(batch)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"labels": "onlin"}, "labels='onlin' is unknown: did you mean 'online'"),
        ({"labels": "stored"}, "num_images=0 is out of range"),
        ({"threshold": 1.5}, "threshold=1.5 is out of range"),
        ({"labeled_weight": -1.0}, "labeled_weight=-1.0 is out of range"),
        ({"unlabeled_weight": -1.0}, "unlabeled_weight=-1.0 is out of range"),
        ({"ramp_start": -1}, "ramp_start=-1 is out of range"),
        ({"ramp_start": 5, "ramp_end": 4}, "ramp_end=4 is out of range: pass a value of at least 5"),
        ({"view": "stronger"}, "view='stronger' is unknown: did you mean 'strong'"),
        ({"mixup": -0.1}, "mixup=-0.1 is out of range"),
        ({"prior_weight": -0.1}, "prior_weight=-0.1 is out of range"),
        ({"entropy_weight": -0.1}, "entropy_weight=-0.1 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
    ],
)
def test_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        PseudoLabels(student=tiny.plain_network("student"), **setting)
