import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import schedules
from mpl_tf.methods.uda import UDA
from tests.support import oracles, tiny


def compiled(**settings):
    method = UDA(student=tiny.plain_network("student"), **settings)
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    return method


def logits_of(method, batch):
    views = (batch["labeled"]["image"], batch["unlabeled"]["weak"], batch["unlabeled"]["strong"])
    return [np.array(method.student(view), np.float64) for view in views]


@pytest.fixture
def threshold(batch):
    """Keeps half of the six unlabeled images."""
    _, weak, _ = logits_of(compiled(), batch)
    return float(np.median(oracles.softmax(weak).max(axis=-1)))


def aligned_first(logits, class_prior):
    """What ReMixMatch's alignment makes of logits in the first step; nothing without a prior."""
    if class_prior is None:
        return logits
    # The first step of a moving average whose decay is warmed up: 1 / 10.
    mean = 0.1 / 3 + 0.9 * oracles.softmax(logits).mean(axis=0)
    # With ReMixMatch's ε, without which a class that never comes would have no finite logit.
    return logits + np.log(np.add(class_prior, 1e-6)) - np.log(mean + 1e-6)


def confident_half(logits):
    """Half of the images, and a threshold on their confidence that tells them from the others."""
    confidence = oracles.softmax(logits).max(axis=-1)
    threshold = float(np.median(confidence))
    return confidence >= threshold, threshold


@pytest.mark.parametrize("class_prior", [None, (0.6, 0.4, 0.0)])
def test_a_step_descends_equation_1(batch, class_prior):
    method = compiled(
        temperature=0.5,
        consistency_weight=2.0,
        entropy_weight=0.3,
        label_smoothing=0.1,
        class_prior=class_prior,
    )
    _, weak, strong = logits_of(method, batch)
    target_logits = aligned_first(weak, class_prior)
    kept, method.threshold = confident_half(target_logits)
    targets = (kept[:, None] * oracles.softmax(target_logits / 0.5)).astype(np.float32)
    labels = oracles.smoothed(batch["labeled"]["label"], 3, 0.1).astype(np.float32)

    def logs(images):
        return tf.math.log(tf.nn.softmax(method.student(images)))

    with tf.GradientTape() as tape:
        labeled_loss = -tf.reduce_sum(labels * logs(batch["labeled"]["image"])) / 4
        consistency = -tf.reduce_sum(targets * logs(batch["unlabeled"]["strong"])) / 6
        on_weak = logs(batch["unlabeled"]["weak"])
        entropy = -tf.reduce_sum(tf.exp(on_weak) * on_weak) / 6
        loss = labeled_loss + 2.0 * consistency + 0.3 * entropy
    gradients = tape.gradient(loss, method.student.trainable_variables)
    metrics = {}
    moved = tiny.changes(method.student, lambda: metrics.update(method.train_step(batch)))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.abs(gradient).max() > 1e-3
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)
    divergences = kept * oracles.kl_divergences(target_logits / 0.5, strong)
    assert float(metrics["consistency_loss"]) == pytest.approx(divergences.mean(), abs=1e-4)


def prediction(network, images, *, training):
    """Logits as a function of the weights that the network has now, and which changes nothing."""
    weights = [tf.constant(v) for v in network.trainable_variables]
    state = [tf.constant(v) for v in network.non_trainable_variables]
    return network.stateless_call(weights, state, images, training=training)[0]


@pytest.mark.parametrize(
    "settings",
    [{"weak_view": "separate"}, {"targets": "average"}, {"targets": "average", "weak_view": "separate"}],
)
@pytest.mark.parametrize("class_prior", [None, (0.5, 0.3, 0.2)])
def test_targets_of_another_pass_or_network(settings, class_prior, batch):
    """With BatchNorm, whose statistics tell which images a pass was over, and in which mode."""
    student = tiny.network("student", dropout=0.0)
    method = UDA(
        student=student,
        temperature=0.5,
        ema_decay=0.9,
        class_prior=class_prior,
        **settings,
    )
    method.compile(keras.optimizers.SGD(0.5), run_eagerly=True)
    weak, strong, labeled = (
        batch["unlabeled"]["weak"],
        batch["unlabeled"]["strong"],
        batch["labeled"]["image"],
    )
    # The average is another network than the student.
    method.student_average.trainable_variables[-1].assign([0.5, -0.5, 0.0])
    average = settings.get("targets") == "average"
    source = method.student_average if average else student
    logits = np.array(prediction(source, weak, training=not average), np.float64)
    logits = aligned_first(logits, class_prior)
    kept, method.threshold = confident_half(logits)
    targets = (kept[:, None] * oracles.softmax(logits / 0.5)).astype(np.float32)
    one_hot = oracles.one_hot(batch["labeled"]["label"], 3).astype(np.float32)
    weights = [tf.constant(v) for v in student.trainable_variables]
    state = [tf.constant(v) for v in student.non_trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(weights)
        images = tf.concat([labeled, strong], axis=0)
        logs = tf.nn.log_softmax(student.stateless_call(weights, state, images, training=True)[0])
        loss = -tf.reduce_sum(one_hot * logs[:4]) / 4 - tf.reduce_sum(targets * logs[4:]) / 6
    moved = tiny.changes(student, lambda: method.train_step(batch))
    assert kept.sum() == 3
    for change, gradient in zip(moved, tape.gradient(loss, weights), strict=True):
        assert np.allclose(change, -0.5 * gradient, atol=1e-5)


def test_a_separate_weak_view_moves_the_statistics_too(batch):
    student = tiny.network("student", dropout=0.0)
    method = UDA(student=student, weak_view="separate", ema_decay=None)
    method.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    convolved = [
        np.array(student.layers[2](student.layers[1](tf.concat(images, axis=0))))
        for images in (
            [batch["unlabeled"]["weak"]],
            [batch["labeled"]["image"], batch["unlabeled"]["strong"]],
        )
    ]
    method.train_step(batch)
    means = [features.mean(axis=(0, 1, 2)) for features in convolved]
    assert np.allclose(student.layers[3].moving_mean, 0.9 * 0.1 * means[0] + 0.1 * means[1], atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"targets": "average", "ema_decay": None}, "targets='average' needs the averaged network, and ema_decay="),
        ({"targets": "average", "entropy_weight": 0.1}, "entropy_weight=0.1 needs a gradient through the weak view"),
        ({"weak_view": "separate", "entropy_weight": 0.1}, "entropy_weight=0.1 needs a gradient through the weak"),
    ],
)  # fmt: skip
def test_settings_that_exclude_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        UDA(student=tiny.plain_network("student"), **settings)


def test_the_metrics_are_those_of_the_step(batch, threshold):
    method = compiled(threshold=threshold, temperature=0.5)
    on_labeled, weak, strong = logits_of(method, batch)
    labels = oracles.one_hot(batch["labeled"]["label"], 3)
    logs = method.train_step(batch)
    labeled_loss = oracles.cross_entropies(labels, on_labeled).mean()
    consistency = oracles.consistencies(weak, strong, temperature=0.5, threshold=threshold).mean()
    expected = {
        "loss": labeled_loss + consistency,
        "labeled_loss": labeled_loss,
        "consistency_loss": consistency,
        "mask_rate": (oracles.softmax(weak).max(axis=-1) >= threshold).mean(),
        "tsa_rate": 0.0,
        "entropy": oracles.entropies(weak).mean(),
    }
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, abs=1e-4)


def test_annealing_leaves_out_the_labeled_images_that_are_predicted_well(batch):
    method = compiled(tsa_schedule="linear", tsa_steps=100, consistency_weight=0.0)
    on_labeled, _, _ = logits_of(method, batch)
    labels = np.array(batch["labeled"]["label"])
    correct = oracles.softmax(on_labeled)[np.arange(4), labels]
    # The step at which the threshold lies between the second and the third of the four.
    wanted = np.sort(correct)[1:3].mean()
    step = round(100 * (wanted - 1 / 3) / (1 - 1 / 3))
    method.step.assign(max(step, 0))
    threshold = max(step, 0) / 100 * (1 - 1 / 3) + 1 / 3
    kept = correct <= threshold
    assert 0 < kept.sum() < 4
    logs = method.train_step(batch)
    losses = oracles.cross_entropies(oracles.one_hot(labels, 3), on_labeled)
    assert float(logs["labeled_loss"]) == pytest.approx(losses[kept].mean(), rel=1e-4)
    assert float(logs["tsa_rate"]) == pytest.approx(1 - kept.mean())


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("linear", lambda share: share),
        ("exponential", lambda share: np.exp(5 * (share - 1))),
        ("logarithmic", lambda share: 1 - np.exp(-5 * share)),
    ],
)
def test_tsa_thresholds(kind, formula):
    for step in (0, 1, 37, 99):
        value = schedules.tsa_threshold(tf.constant(step, tf.int64), 100, num_classes=4, kind=kind)
        assert float(value) == pytest.approx(formula(step / 100) * 3 / 4 + 1 / 4, rel=1e-5)
    for step in (100, 250):
        value = schedules.tsa_threshold(tf.constant(step, tf.int64), 100, num_classes=4, kind=kind)
        assert float(value) == 1.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"consistency_weight": -1.0}, "consistency_weight=-1.0 is out of range"),
        ({"temperature": 0.0}, "temperature=0.0 is out of range"),
        ({"threshold": 1.5}, "threshold=1.5 is out of range"),
        ({"entropy_weight": -0.1}, "entropy_weight=-0.1 is out of range"),
        ({"tsa_schedule": "liner", "tsa_steps": 3}, "tsa_schedule='liner' is unknown: did you mean 'linear'"),
        ({"tsa_schedule": "linear"}, "tsa_steps=0 is out of range"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0 is out of range"),
    ],
)
def test_settings_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        UDA(student=tiny.plain_network("student"), **setting)
