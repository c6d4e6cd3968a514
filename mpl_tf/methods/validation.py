"""Validation of methods' settings and networks against each other, each error a sentence that says what to do."""

from typing import Any

import keras
import numpy as np


def check_targets(
    targets: str, *, ema_decay: float | None, name: str = "targets", decay: str = "ema_decay"
) -> None:
    """Raises for targets of an averaged network that is not kept."""
    if targets == "average" and ema_decay is None:
        raise ValueError(
            f"{name}='average' needs the averaged network, and {decay}=None keeps none: pass {decay}=0.999, or "
            f"another {name}."
        )


def check_weak_view(value: Any, name: str, *, learns: bool) -> None:
    """Raises for what needs a gradient through the weak view where none is kept."""
    if value and not learns:
        raise ValueError(
            f"{name}={value!r} needs a gradient through the weak view, which only a joint pass keeps: pass "
            f"weak_view='joint' with the network's own targets, or leave {name} at its default."
        )


def check_feedback_reaches(student_targets: str, weak_view: str) -> None:
    """Raises for a feedback on labels through which no gradient reaches the teacher."""
    if student_targets == "average" or (student_targets == "weak" and weak_view == "separate"):
        view = ", weak_view='separate'" if student_targets == "weak" else ""
        raise ValueError(
            f"student_targets={student_targets!r}{view} has no gradient that could carry the student's feedback to "
            "the teacher: pass feedback='none', or student_targets='strong'."
        )


def check_scalar_feedback(feedback: Any, student_labels: str) -> None:
    """Raises for a feedback that rewards drawn labels where none are drawn."""
    if feedback.is_scalar and student_labels == "soft":
        raise ValueError(
            f"The feedback {feedback.estimator!r} rewards the labels that were drawn, and "
            "student_labels='soft' draws none: pass student_labels='sampled' or feedback='per_example'."
        )


def check_calibrator(calibrator: keras.Model, student: keras.Model) -> None:
    """Raises for a calibrator that does not map distributions over the student's classes to logits."""
    classes = student.output_shape[-1]
    shapes = tuple(calibrator.input_shape[1:]), tuple(calibrator.output_shape[1:])
    if shapes != ((classes,), (classes,)):
        raise ValueError(
            f"The calibrator maps {shapes[0]} to {shapes[1]}, but the student has {classes} classes: build it with "
            f"mpl_tf.models.build_calibrator({classes})."
        )


def check_generator(generator: keras.Model, student: keras.Model) -> None:
    """Raises for a generator that does not map noise to the student's images."""
    shapes = tuple(generator.input_shape[1:]), tuple(generator.output_shape[1:])
    if len(shapes[0]) != 1 or shapes[1] != tuple(student.input_shape[1:]):
        raise ValueError(
            f"The generator maps {shapes[0]} to {shapes[1]}, but the student takes images of shape "
            f"{tuple(student.input_shape[1:])}: build it with mpl_tf.models.build_generator for these."
        )


def check_norm_of_predictions(one_hot: str) -> None:
    """Raises for the L1 norm as a loss on predictions."""
    if one_hot == "l1":
        raise ValueError(
            "one_hot='l1' has no gradient: a softmax sums to 1 whatever the image, so its L1 norm cannot "
            "change. Pass one_hot='cross_entropy' or 'l2'."
        )


def check_statistics(weight: float, teacher: keras.Model) -> None:
    """Raises for a guide by BatchNorm statistics where the teacher has none."""
    if not any(isinstance(layer, keras.layers.BatchNormalization) for layer in teacher.layers):
        raise ValueError(
            f"statistics_weight={weight} compares images with the means and variances in the teacher's BatchNorm "
            f"layers, and {teacher.name!r} has none: pass 0, or a teacher with BatchNorm, such as convnet."
        )


def check_one_replica(feedback: str, replicas: int) -> None:
    """Raises for a feedback that would need every replica's student step."""
    if replicas > 1:
        raise ValueError(
            f"The feedback {feedback!r} goes through the student's whole step and runs on one replica, not "
            f"on {replicas}: use 'per_example', which is as exact."
        )


def check_one_learning_rate(feedback: str, backbone_factor: float) -> None:
    """Checks that a feedback that makes the student's step again makes the one that was made.

    Raises:
        ValueError: for a smaller learning rate of the backbone.
    """
    if backbone_factor != 1.0:
        raise ValueError(
            f"The feedback {feedback!r} knows one learning rate for all weights, got backbone_learning_rate_factor="
            f"{backbone_factor}: use 'per_example', which is as exact, or a factor of 1."
        )


def check_plain_pass(feedback: str, training_pass: Any) -> None:
    """Raises for a feedback that needs the second derivative of the student's pass."""
    if not training_pass.is_plain:
        raise ValueError(
            f"The feedback {feedback!r} differentiates the student's pass twice and keeps all of its activations: "
            "pass micro_batches=1 for the student and rematerialize=False, or use 'per_example', which is as exact."
        )


def check_layers(network: keras.Model, *, reached: bool) -> None:
    """Raises for a network whose layers could not be followed from its input to its output."""
    if not reached:
        raise ValueError(
            f"rematerialize=True needs a network whose layers are used once, and {network.name!r} has some that are "
            "used more often or were taken from another network: build it anew, or pass rematerialize=False."
        )


def check_relabeling(network: keras.Model, student: keras.Model, *, labels: str) -> None:
    """Raises for labels from a network of other classes, and where none are kept."""
    if labels == "online":
        raise ValueError(
            "labels='online' keeps no labels that could be filled in: pass labels='fixed' or labels='stored'."
        )
    if network.output_shape[-1] != student.output_shape[-1]:
        raise ValueError(
            f"The network {network.name!r} that is to give the labels has {network.output_shape[-1]} classes and the "
            f"student {student.output_shape[-1]}: both must be built for the same class names."
        )


def check_indices(index: np.ndarray, num_images: int) -> None:
    """Raises for images that a table of labels has no row for."""
    wrong = index[(index < 0) | (index >= num_images)]
    if wrong.size:
        raise ValueError(
            f"An image has the index {wrong.max()}, and num_images={num_images} keeps labels of 0…{num_images - 1}: "
            "pass the number of all training images of the source, labeled or not."
        )


def check_labels_stored(stored_labels: keras.Variable, *, labels: str) -> None:
    """Raises when asked to train on labels that were never filled in."""
    if not stored_labels.numpy().any():
        refresh = "pass fit the callback mpl_tf.training.callbacks.EndEpoch(images), which makes them"
        give = "call relabel(teacher, images) before fit"
        raise ValueError(
            f"labels={labels!r} has no labels yet: {refresh if labels == 'stored' else give}, or load a checkpoint "
            "that holds them."
        )
