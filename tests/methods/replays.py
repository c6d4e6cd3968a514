"""Single training steps of `MetaPseudoLabels`, and replays of them that do not use its code.

The change that the feedback makes to the teacher is isolated by a second method from the same weights with
`feedback="none"`: with plain SGD and the raw normalization, their difference is -η_T ∂L_l(θ_S')/∂θ_T.
"""

import functools
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.methods.engine import sampling
from mpl_tf.methods.feedback.settings import FeedbackSettings
from mpl_tf.methods.mpl import MetaPseudoLabels
from tests.support import oracles, tiny

TEACHER_RATE, STUDENT_RATE = 0.7, 0.9
LABELS = np.array([0, 1, 2, 0, 1, 2])


def compiled(feedback="none", *, plain=True, student=None, backbone_factor=1.0, **settings):
    """A method with plain SGD and, unless set otherwise, no losses but the labeled one and the feedback."""
    network = tiny.plain_network if plain else tiny.network
    method = MetaPseudoLabels(
        teacher=network("teacher"),
        student=network("student", seed=1),
        feedback=feedback,
        **{"uda_weight": 0.0, "ema_decay": None, **settings},
    )
    method.compile(
        keras.optimizers.SGD(TEACHER_RATE),
        student or keras.optimizers.SGD(STUDENT_RATE),
        backbone_learning_rate_factor=backbone_factor,
        run_eagerly=True,
    )
    return method


def raw(estimator, **settings):
    """The literal gradient: no normalization, no bound, the sum that REINFORCE asks for."""
    settings = {"normalization": "raw", "weight": 1.0, "clip": None, "cross_entropy": "sum", **settings}
    return FeedbackSettings(estimator, **settings)


def teacher_changes(method, batch, *, labels=None):
    """How one step moves the teacher; `labels` replace the draw for the student."""

    def drawn(logits, *_, **__):
        return tf.one_hot(labels, logits.shape[1]), tf.constant(labels)

    with mock.patch.object(
        sampling, "student_targets", sampling.student_targets if labels is None else drawn
    ):
        return tiny.changes(method.teacher, lambda: method.train_step(batch))


@functools.cache
def changes_without_feedback(unlabeled=6, **settings):
    """How one step on the standard batch moves a teacher that gets no feedback."""
    return teacher_changes(compiled("none", **settings), tiny.tensors(tiny.batch(unlabeled=unlabeled)))


def difference(changes, others):
    return [change - other for change, other in zip(changes, others, strict=True)]


def feedback_changes(feedback, batch, *, labels=None, **settings):
    """What the feedback alone adds to the teacher's weights."""
    with_feedback = teacher_changes(compiled(feedback, **settings), batch, labels=labels)
    return difference(with_feedback, changes_without_feedback(**settings))


def mean_cross_entropy(targets, logits):
    return -tf.reduce_mean(tf.reduce_sum(targets * tf.math.log(tf.nn.softmax(logits)), axis=-1))


def meta_gradients(method, batch, *, view="strong", labeled_weight=0.0, measured=slice(None)):
    """∂L_l(θ_S')/∂θ_T by autodiff through both networks, from a method that has not stepped yet.

    The teacher labels this view, the student's own loss on the labeled images has this weight, and its success is
    measured on these rows.
    """
    teacher_weights = [tf.constant(v) for v in method.teacher.trainable_variables]
    student_weights = [tf.constant(v) for v in method.student.trainable_variables]
    images, labels = batch["labeled"]["image"], tf.one_hot(batch["labeled"]["label"], 3)
    rate = float(method.student_optimizer.learning_rate)
    views = [images, batch["unlabeled"]["weak"], batch["unlabeled"]["strong"]]

    def logits(network, weights, inputs):
        state = [tf.constant(v) for v in network.non_trainable_variables]
        return network.stateless_call(weights, state, inputs, training=True)[0]

    with tf.GradientTape() as teacher_tape:
        teacher_tape.watch(teacher_weights)
        teacher_logits = logits(method.teacher, teacher_weights, tf.concat(views, axis=0))
        targets = tf.nn.softmax(teacher_logits[-6:] if view == "strong" else teacher_logits[4:10])
        with tf.GradientTape() as student_tape:
            student_tape.watch(student_weights)
            seen = tf.concat([images, views[2]], axis=0) if labeled_weight else views[2]
            student_logits = logits(method.student, student_weights, seen)
            loss = mean_cross_entropy(targets, student_logits[-6:])
            if labeled_weight:
                loss += labeled_weight * mean_cross_entropy(labels, student_logits[:4])
        tangents = student_tape.gradient(loss, student_weights)
        moved = [w - rate * tangent for w, tangent in zip(student_weights, tangents, strict=True)]
        new_logits = logits(method.student, moved, images)
        new_loss = mean_cross_entropy(labels[measured], new_logits[measured])
    return teacher_tape.gradient(new_loss, teacher_weights)


def relative_error(values, expected):
    """‖values - expected‖ / ‖expected‖ over two lists of arrays."""
    errors = difference(map(np.array, values), map(np.array, expected))
    return oracles.global_norm(errors) / oracles.global_norm(expected)
