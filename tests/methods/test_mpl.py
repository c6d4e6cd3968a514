"""Real training steps of `MetaPseudoLabels` against replays that are written out here.

The change that the feedback makes to the teacher is isolated by a second method from the same weights with
`feedback="none"`: with plain SGD and the raw normalization, their difference is -η_T ∂L_l(θ_S')/∂θ_T.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.feedback_settings import FeedbackSettings
from mpl_tf.methods.mpl import MetaPseudoLabels
from tests import oracles, tiny

TEACHER_RATE, STUDENT_RATE = 0.7, 0.9
LABELS = np.array([0, 1, 2, 0, 1, 2])


def compiled(feedback="none", *, plain=True, teacher=None, student=None, **settings):
    network = tiny.plain_network if plain else tiny.network
    method = MetaPseudoLabels(
        teacher=network("teacher"),
        student=network("student", seed=1),
        feedback=feedback,
        **{"uda_weight": 0.0, "ema_decay": None, **settings},
    )
    method.compile(
        teacher or keras.optimizers.SGD(TEACHER_RATE),
        student or keras.optimizers.SGD(STUDENT_RATE),
        run_eagerly=True,
    )
    return method


def raw(estimator, **settings):
    """The literal gradient: no normalization, no bound, the sum that REINFORCE asks for."""
    settings = {"normalization": "raw", "weight": 1.0, "clip": None, "cross_entropy": "sum", **settings}
    return FeedbackSettings(estimator, **settings)


def teacher_changes(method, batch, *, labels=None):
    """How one step moves the teacher; `labels` replace the draw for the student."""
    if labels is not None:
        method._label = lambda logits: (tf.one_hot(labels, logits.shape[1]), tf.constant(labels))
    return tiny.changes(method.teacher, lambda: method.train_step(batch))


@functools.cache
def changes_without_feedback(unlabeled=6, **settings):
    return teacher_changes(compiled("none", **settings), tiny.tensors(tiny.batch(unlabeled=unlabeled)))


def difference(changes, others):
    return [change - other for change, other in zip(changes, others, strict=True)]


def feedback_changes(feedback, batch, *, labels=None, **settings):
    """What the feedback alone adds to the teacher's weights."""
    with_feedback = teacher_changes(compiled(feedback, **settings), batch, labels=labels)
    return difference(with_feedback, changes_without_feedback(**settings))


def mean_cross_entropy(targets, logits):
    return -tf.reduce_mean(tf.reduce_sum(targets * tf.math.log(tf.nn.softmax(logits)), axis=-1))


def meta_gradients(method, batch):
    """∂L_l(θ_S')/∂θ_T by autodiff through both networks, from a method that has not stepped yet."""
    teacher_weights = [tf.constant(v) for v in method.teacher.trainable_variables]
    student_weights = [tf.constant(v) for v in method.student.trainable_variables]
    images, labels = batch["labeled"]["image"], tf.one_hot(batch["labeled"]["label"], 3)
    views = [images, batch["unlabeled"]["weak"], batch["unlabeled"]["strong"]]

    def logits(network, weights, pictures):
        state = [tf.constant(v) for v in network.non_trainable_variables]
        return network.stateless_call(weights, state, pictures, training=True)[0]

    with tf.GradientTape() as teacher_tape:
        teacher_tape.watch(teacher_weights)
        targets = tf.nn.softmax(logits(method.teacher, teacher_weights, tf.concat(views, axis=0))[-6:])
        with tf.GradientTape() as student_tape:
            student_tape.watch(student_weights)
            loss = mean_cross_entropy(targets, logits(method.student, student_weights, views[2]))
        slopes = student_tape.gradient(loss, student_weights)
        moved = [w - STUDENT_RATE * slope for w, slope in zip(student_weights, slopes, strict=True)]
        new_loss = mean_cross_entropy(labels, logits(method.student, moved, images))
    return teacher_tape.gradient(new_loss, teacher_weights)


def relative_error(values, expected):
    errors = difference(map(np.array, values), map(np.array, expected))
    return oracles.global_norm(errors) / oracles.global_norm(expected)


# --- the feedback in a real step ---------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "BatchNorm and dropout"])
@pytest.mark.parametrize("estimator", ["per_example", "unrolled"])
def test_the_teacher_descends_the_loss_of_the_new_student(estimator, plain, batch):
    expected = [-TEACHER_RATE * slope for slope in meta_gradients(compiled(plain=plain), batch)]
    moved = feedback_changes(raw(estimator), batch, plain=plain)
    assert all(np.abs(change).max() > 1e-6 for change in expected)
    assert relative_error(moved, expected) < 1e-4


def test_the_finite_difference_is_close_to_the_forward_mode(batch):
    exact = feedback_changes(raw("per_example"), batch)
    approximate = feedback_changes(raw("per_example", finite_difference=True), batch)
    assert 0 < relative_error(approximate, exact) < 0.05


@pytest.fixture(scope="module")
def small_batch():
    return tiny.tensors(tiny.batch(unlabeled=2))


def expected_changes(estimator, small_batch):
    """The feedback's mean over every labeling of two pictures, by the teacher's probabilities."""
    method = compiled(raw(estimator))
    networks = (method.teacher, method.student)
    old = [network.get_weights() for network in networks]
    teacher_logits = np.array(method.teacher(small_batch["unlabeled"]["strong"]), np.float64)
    # The probabilities sum to 1, so that what moves the teacher without feedback comes off once.
    total = [-change for change in changes_without_feedback(unlabeled=2)]
    for labels in oracles.labelings(2, 3):
        moved = teacher_changes(method, small_batch, labels=labels)
        weight = oracles.probability(labels, teacher_logits)
        total = [mean + weight * change for mean, change in zip(total, moved, strict=True)]
        for network, weights in zip(networks, old, strict=True):
            network.set_weights(weights)
    return total


def enumerated_meta_gradients(small_batch):
    """∂E_y[L_l(θ_S'(y))]/∂θ_T over every labeling, by autodiff through the labelings' probabilities."""
    method = compiled()
    student, strong = method.student, small_batch["unlabeled"]["strong"]
    labels = tf.one_hot(small_batch["labeled"]["label"], 3)
    old = tiny.values(student.trainable_variables)
    with tf.GradientTape() as teacher_tape:
        probabilities = tf.nn.softmax(method.teacher(strong))
        expected_loss = 0.0
        for labeling in oracles.labelings(2, 3):
            with teacher_tape.stop_recording(), tf.GradientTape() as tape:
                loss = mean_cross_entropy(tf.one_hot(labeling, 3), student(strong))
            slopes = tape.gradient(loss, student.trainable_variables)
            for variable, weight, slope in zip(student.trainable_variables, old, slopes, strict=True):
                variable.assign(weight - STUDENT_RATE * slope)
            new_loss = float(mean_cross_entropy(labels, student(small_batch["labeled"]["image"])))
            for variable, weight in zip(student.trainable_variables, old, strict=True):
                variable.assign(weight)
            expected_loss += new_loss * probabilities[0, labeling[0]] * probabilities[1, labeling[1]]
    return teacher_tape.gradient(expected_loss, method.teacher.trainable_variables)


def test_the_loss_difference_teaches_the_exact_gradient_on_average(small_batch):
    expected = [-TEACHER_RATE * slope for slope in enumerated_meta_gradients(small_batch)]
    assert relative_error(expected_changes("loss_difference", small_batch), expected) < 1e-3


def test_the_dot_product_teaches_the_gradient_to_first_order(small_batch, monkeypatch):
    errors = {}
    for rate in (0.04, 0.02):
        monkeypatch.setitem(globals(), "STUDENT_RATE", rate)
        expected = [-TEACHER_RATE * slope for slope in enumerated_meta_gradients(small_batch)]
        errors[rate] = relative_error(expected_changes("dot_product", small_batch), expected)
    # The gradient is of order η and the error of order η², so the relative error halves with η.
    assert errors[0.02] == pytest.approx(errors[0.04] / 2, rel=0.2)


@pytest.mark.parametrize("estimator", ["dot_product", "loss_difference"])
def test_the_mean_cross_entropy_is_the_sum_divided_by_the_pictures(estimator, batch):
    of_sum = feedback_changes(raw(estimator), batch, labels=LABELS)
    of_mean = feedback_changes(raw(estimator, cross_entropy="mean"), batch, labels=LABELS)
    assert relative_error([6 * change for change in of_mean], of_sum) < 1e-3


def test_a_weaker_feedback_moves_the_teacher_less(batch):
    full = feedback_changes(raw("per_example"), batch)
    weak = feedback_changes(raw("per_example", weight=0.25), batch)
    assert relative_error([4 * change for change in weak], full) < 1e-3


# --- the settings around the estimators --------------------------------------------------------------------


@pytest.fixture(scope="module")
def targets_and_slopes():
    """q and u on the six unlabeled pictures, u by one backward pass per logit instead of a forward mode."""
    method, batch = compiled(), tiny.tensors(tiny.batch())
    student, strong = method.student, batch["unlabeled"]["strong"]
    variables = student.trainable_variables
    targets = oracles.softmax(np.array(method.teacher(strong), np.float64))
    with tf.GradientTape(persistent=True) as tape:
        logits = student(strong)
        entries = [logits[picture, index] for picture in range(6) for index in range(3)]
        loss = mean_cross_entropy(targets.astype(np.float32), logits)
    jacobian = [tape.gradient(entry, variables) for entry in entries]
    for variable, slope in zip(variables, tape.gradient(loss, variables), strict=True):
        variable.assign_sub(STUDENT_RATE * slope)
    with tf.GradientTape() as tape:
        labels = tf.one_hot(batch["labeled"]["label"], 3)
        loss = mean_cross_entropy(labels, student(batch["labeled"]["image"]))
    direction = tape.gradient(loss, variables)
    slopes = [
        sum(float(tf.reduce_sum(slope * along)) for slope, along in zip(row, direction, strict=True))
        for row in jacobian
    ]
    return targets, np.reshape(slopes, (6, 3))


@pytest.mark.parametrize(("floor", "clip"), [(1e-6, None), (1e-6, 0.5), (100.0, None)])
def test_normalized_feedback(targets_and_slopes, batch, floor, clip):
    targets, slopes = targets_and_slopes
    centered = slopes - (targets * slopes).sum(axis=-1, keepdims=True)
    size = np.sqrt((centered**2).mean())
    values = np.clip(centered / max(size, floor), -(clip or np.inf), clip or np.inf)
    values -= (targets * values).sum(axis=-1, keepdims=True)
    method = compiled(FeedbackSettings("per_example", weight=0.8, floor=floor, clip=clip))
    with tf.GradientTape() as tape:
        logits = method.teacher(batch["unlabeled"]["strong"])
        meta_loss = tf.reduce_sum(logits * (0.8 * targets * values / 6).astype(np.float32))
    expected = [-TEACHER_RATE * g for g in tape.gradient(meta_loss, method.teacher.trainable_variables)]
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    assert relative_error(moved, expected) < 2e-3
    assert float(method.get_metrics_result()["feedback"]) == pytest.approx(size, rel=1e-4)


def improvement(method, batch):
    """Old minus new labeled loss of one step, measured from outside."""
    labels = np.array(batch["labeled"]["label"])

    def loss():
        logits = np.array(method.student(batch["labeled"]["image"]), np.float64)
        return oracles.cross_entropies(oracles.one_hot(labels, 3), logits).mean()

    old = loss()
    logs = {name: float(value) for name, value in method.train_step(batch).items()}
    return old - loss(), loss(), logs


def test_the_loss_difference_is_old_minus_new(batch):
    method = compiled(raw("loss_difference"))
    gain, new_loss, logs = improvement(method, batch)
    assert abs(gain) > 1e-3
    assert logs["feedback"] == pytest.approx(gain, abs=1e-5)
    assert logs["student_labeled_loss"] == pytest.approx(new_loss, abs=1e-5)


def test_the_dot_product_is_the_improvement_of_a_small_step(batch):
    method = compiled(raw("dot_product"), student=keras.optimizers.SGD(0.01))
    gain, _, logs = improvement(method, batch)
    assert logs["feedback"] == pytest.approx(gain, rel=0.05)


@pytest.mark.parametrize("estimator", ["dot_product", "loss_difference"])
def test_the_cosine_divides_by_both_norms(estimator, batch):
    method = compiled(FeedbackSettings(estimator))
    old = tiny.values(method.student.trainable_variables)
    gain, _, logs = improvement(method, batch)
    moved = [before - v.numpy() for before, v in zip(old, method.student.trainable_variables, strict=True)]
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(
            tf.one_hot(batch["labeled"]["label"], 3), method.student(batch["labeled"]["image"])
        )
    gradients = tape.gradient(loss, method.student.trainable_variables)
    if estimator == "dot_product":
        gain = sum((np.array(g) * m).sum() for g, m in zip(gradients, moved, strict=True))
    expected = gain / (oracles.global_norm(gradients) * oracles.global_norm(moved))
    assert 0 < abs(expected) <= 1
    assert logs["feedback"] == pytest.approx(expected, abs=1e-4)


def test_a_scalar_is_clipped(batch):
    method = compiled(raw("loss_difference"))
    free = difference(teacher_changes(method, batch, labels=LABELS), changes_without_feedback())
    size = float(method.get_metrics_result()["feedback"])
    assert abs(size) > 1e-2
    bounded = feedback_changes(raw("loss_difference", clip=1e-2), batch, labels=LABELS)
    assert relative_error(bounded, [change * 1e-2 / abs(size) for change in free]) < 1e-3


def test_the_baseline_starts_at_zero_and_follows_the_feedback(batch):
    method = compiled(raw("loss_difference", baseline_decay=0.8))
    baseline, sizes = 0.0, []
    assert float(method.feedback_baseline) == 0.0
    for _ in range(3):
        method.reset_metrics()
        sizes.append(float(method.train_step(batch)["feedback"]))
        baseline = 0.8 * baseline + 0.2 * sizes[-1]
        assert float(method.feedback_baseline) == pytest.approx(baseline, abs=1e-6)
    assert len(set(sizes)) == 3


def test_the_baseline_is_subtracted(batch):
    method = compiled(raw("loss_difference"))
    full = difference(teacher_changes(method, batch, labels=LABELS), changes_without_feedback())
    size = method.get_metrics_result()["feedback"]
    method = compiled(raw("loss_difference", baseline_decay=0.8))
    method.feedback_baseline.assign(size / 2)
    half = difference(teacher_changes(method, batch, labels=LABELS), changes_without_feedback())
    assert relative_error([2 * change for change in half], full) < 1e-3


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (4, 0.4), (10, 1.0), (50, 1.0)])
def test_the_feedback_warms_up_linearly(batch, step, share):
    method = compiled(raw("per_example", warmup_steps=10))
    method.step.assign(step)
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    full = meta_gradients(compiled(), batch)
    for change, slope in zip(moved, full, strict=True):
        assert np.allclose(change, -TEACHER_RATE * share * slope, atol=1e-6)


@pytest.mark.parametrize("estimator", ["per_example", "unrolled", "dot_product", "loss_difference"])
def test_a_student_that_waits_gives_no_feedback(estimator, batch):
    method = compiled(FeedbackSettings(estimator), student=keras.optimizers.SGD(0.0))
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    assert not any(change.any() for change in moved)


@pytest.mark.parametrize(("nesterov", "boost"), [(False, 1.0), (True, 1.9)])
def test_nesterov_momentum_enlarges_the_step_that_is_fed_back(nesterov, boost, batch):
    # The first step of plain momentum is that of SGD.
    momentum = keras.optimizers.SGD(STUDENT_RATE, momentum=0.9, nesterov=nesterov)
    sgd = keras.optimizers.SGD(STUDENT_RATE * boost)
    sizes = [
        float(compiled(raw("dot_product"), student=optimizer).train_step(batch)["feedback"])
        for optimizer in (momentum, sgd)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-4)


def test_the_feedback_touches_neither_moving_statistics_nor_random_states(batch):
    with_feedback, without = compiled(raw("per_example"), plain=False), compiled("none", plain=False)
    for method in (with_feedback, without):
        old = tiny.values(method.student.non_trainable_variables)
        method.train_step(batch)
        new = tiny.values(method.student.non_trainable_variables)
        assert not any(map(np.array_equal, old, new))
    pairs = zip(
        with_feedback.student.non_trainable_variables,
        without.student.non_trainable_variables,
        strict=True,
    )
    assert all(np.array_equal(np.array(one), np.array(other)) for one, other in pairs)


def test_old_and_new_labeled_losses_share_their_dropout_masks(batch):
    # A student that hardly moves: without a common mask the losses would differ by dropout noise.
    settings = {"plain": False, "student": keras.optimizers.SGD(1e-7)}
    method = compiled(raw("loss_difference"), **settings)
    assert abs(float(method.train_step(batch)["feedback"])) < 1e-5


# --- the teacher's other losses ----------------------------------------------------------------------------


def replayed_consistency(batch, *, temperature, threshold):
    """Its gradient in the teacher's weights, from targets and masks that are NumPy constants."""
    teacher = compiled().teacher
    weak = np.array(teacher(batch["unlabeled"]["weak"]), np.float64)
    kept = oracles.softmax(weak).max(axis=-1) >= threshold
    targets = kept[:, None] * oracles.softmax(weak / temperature)
    with tf.GradientTape() as tape:
        log_probabilities = tf.math.log(tf.nn.softmax(teacher(batch["unlabeled"]["strong"])))
        loss = -tf.reduce_sum(targets.astype(np.float32) * log_probabilities) / 6
    return tape.gradient(loss, teacher.trainable_variables), kept, float(loss)


@pytest.fixture
def threshold(batch):
    """Keeps half of the six pictures."""
    weak = np.array(compiled().teacher(batch["unlabeled"]["weak"]), np.float64)
    return float(np.median(oracles.softmax(weak).max(axis=-1)))


@pytest.mark.parametrize(("step", "ramp"), [(0, 0.0), (3, 0.3), (10, 1.0), (99, 1.0)])
def test_the_teacher_descends_the_ramped_consistency(batch, threshold, step, ramp):
    method = compiled(uda_weight=2.0, uda_temperature=0.5, uda_threshold=threshold, uda_ramp_steps=10)
    method.step.assign(step)
    moved = difference(teacher_changes(method, batch), changes_without_feedback())
    gradients, kept, _ = replayed_consistency(batch, temperature=0.5, threshold=threshold)
    assert kept.sum() == 3
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.allclose(change, -TEACHER_RATE * 2.0 * ramp * gradient, atol=2e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_teacher_descends_its_labeled_loss(batch, smoothing):
    teacher = compiled().teacher
    targets = oracles.smoothed(batch["labeled"]["label"], 3, smoothing).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(targets, teacher(batch["labeled"]["image"]))
    moved = teacher_changes(compiled(label_smoothing=smoothing), batch)
    for change, gradient in zip(moved, tape.gradient(loss, teacher.trainable_variables), strict=True):
        assert np.allclose(change, -TEACHER_RATE * gradient, atol=1e-6)


def test_decay_and_clip_reach_both_networks(batch):
    method = compiled(weight_decay=0.1, gradient_clip_norm=1e-3)
    for role, rate in (("teacher", TEACHER_RATE), ("student", STUDENT_RATE)):
        fresh = compiled(weight_decay=0.1, gradient_clip_norm=1e-3)
        moved = tiny.changes(getattr(fresh, role), lambda fresh=fresh: fresh.train_step(batch))
        assert oracles.global_norm(moved) == pytest.approx(rate * 1e-3, rel=1e-2)
    logs = method.train_step(batch)
    assert float(logs["teacher_gradient_norm"]) > 1e-3
    undecayed = compiled().train_step(batch)
    for name in ("teacher_gradient_norm", "student_gradient_norm"):
        assert float(logs[name]) != pytest.approx(float(undecayed[name]), rel=1e-3)


def test_the_metrics_are_those_of_the_step(batch, threshold):
    method = compiled("none", uda_weight=2.0, uda_temperature=0.5, uda_threshold=threshold)
    labeled, unlabeled = batch["labeled"], batch["unlabeled"]
    teacher_logits = np.array(method.teacher(unlabeled["strong"]), np.float64)
    student_logits = np.array(method.student(unlabeled["strong"]), np.float64)
    labeled_logits = np.array(method.teacher(labeled["image"]), np.float64)
    _, kept, consistency = replayed_consistency(batch, temperature=0.5, threshold=threshold)
    logs = method.train_step(batch)
    expected = {
        "loss": oracles.cross_entropies(oracles.softmax(teacher_logits), student_logits).mean(),
        "teacher_labeled_loss": oracles.cross_entropies(
            oracles.one_hot(labeled["label"], 3), labeled_logits
        ).mean(),
        "consistency_loss": consistency,
        "mask_rate": kept.mean(),
        "agreement": (teacher_logits.argmax(axis=-1) == student_logits.argmax(axis=-1)).mean(),
    }
    assert {name: float(logs[name]) for name in expected} == pytest.approx(expected, abs=1e-4)
    assert set(logs) == {*expected, "student_gradient_norm", "teacher_gradient_norm"}


# --- the student's labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["soft", "sampled"])
def test_the_student_descends_the_cross_entropy_to_its_labels(labels, batch):
    method = compiled(student_labels=labels)
    teacher_logits = method.teacher(batch["unlabeled"]["strong"])
    targets = tf.nn.softmax(teacher_logits) if labels == "soft" else method._label(teacher_logits)[0]
    with tf.GradientTape() as tape:
        loss = mean_cross_entropy(targets, method.student(batch["unlabeled"]["strong"]))
    gradients = tape.gradient(loss, method.student.trainable_variables)
    moved = tiny.changes(method.student, lambda: method.train_step(batch))
    for change, gradient in zip(moved, gradients, strict=True):
        assert np.allclose(change, -STUDENT_RATE * gradient, atol=1e-6)


def test_sampled_labels_follow_the_teacher():
    method = compiled("loss_difference")
    probabilities = np.array([0.6, 0.3, 0.1])
    rows = 20_000
    targets, labels = method._label(tf.tile(tf.math.log([[0.6, 0.3, 0.1]]), [rows, 1]))
    frequencies = np.bincount(labels, minlength=3) / rows
    assert np.array_equal(targets, oracles.one_hot(labels, 3))
    assert np.abs(frequencies - probabilities).max() < 4 * np.sqrt(0.25 / rows)


def test_sampled_labels_are_a_function_of_the_seed_and_the_step():
    def draws(seed, step):
        method = compiled("loss_difference", seed=seed)
        method.step.assign(step)
        return tuple(method._label(tf.zeros([50, 3]))[1].numpy())

    assert draws(0, 7) == draws(0, 7)
    assert len({draws(0, 7), draws(0, 8), draws(1, 7), draws(1, 8)}) == 4


def test_sampled_labels_of_a_batch_of_unknown_size():
    method = compiled("loss_difference")
    draw = tf.function(lambda logits: method._label(logits)[1], input_signature=[tf.TensorSpec([None, 3])])
    assert np.array_equal(draw(tf.zeros([50, 3])), method._label(tf.zeros([50, 3]))[1])


@pytest.mark.parametrize(
    ("estimator", "labels"),
    [("per_example", "soft"), ("unrolled", "soft"), ("none", "soft"), ("dot_product", "sampled")],
)
def test_default_student_labels(estimator, labels):
    assert compiled(estimator).student_labels == labels


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"student_labels": "hard"}, "student_labels='hard' is unknown: .*'soft', 'sampled'"),
        ({"feedback": "dotproduct"}, "feedback='dotproduct' is unknown: did you mean 'dot_product'"),
        (
            {"feedback": "dot_product", "student_labels": "soft"},
            "The feedback 'dot_product' rewards the labels that were drawn, and student_labels='soft' draws n",
        ),
        ({"label_smoothing": 2.0}, r"label_smoothing=2\.0 is out of range: pass a value between 0 and 1"),
        ({"uda_weight": -8.0}, r"uda_weight=-8\.0 is out of range: pass a value of at least 0"),
        ({"uda_temperature": 0.0}, r"uda_temperature=0\.0 is out of range: pass a value of at least 0\.001"),
        ({"uda_threshold": 95}, "uda_threshold=95 is out of range: pass a value between 0 and 1"),
        ({"uda_ramp_steps": -1}, "uda_ramp_steps=-1 is out of range: pass a value of at least 0"),
        ({"weight_decay": -1e-4}, r"weight_decay=-0\.0001 is out of range: pass a value of at least 0"),
        ({"gradient_clip_norm": -5}, "gradient_clip_norm=-5 is out of range: pass a value of at least 0"),
        ({"ema_decay": 995}, "ema_decay=995 is out of range: pass a value between 0 and 1"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        compiled(**settings)
