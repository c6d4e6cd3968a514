"""Refusals of networks, optimizers and batches, each a sentence that says what to do."""

import itertools

import keras

from mpl_tf import checks
from mpl_tf.models.class_names import check_class_names, get_class_names


def networks(classifiers: dict, auxiliary: dict | None = None) -> None:
    """Refuses networks that are not built, share weights, disagree in shape or end in a softmax.

    Args:
        classifiers: role → network from pictures to logits.
        auxiliary: role → network with another input, whose shapes are its method's business.
    """
    everything = {**classifiers, **(auxiliary or {})}
    for role, network in everything.items():
        _not_built(role, network)
    for role, network in classifiers.items():
        _logits(role, network)
        _softmax(role, network)
    first_role, first = next(iter(classifiers.items()))
    for role, network in list(classifiers.items())[1:]:
        if network.output_shape[-1] != first.output_shape[-1]:
            raise ValueError(
                f"The {first_role} has {first.output_shape[-1]} classes and the {role} "
                f"{network.output_shape[-1]}: both must be built for the same class names."
            )
        names = get_class_names(network)
        if names is not None and get_class_names(first) is not None:
            check_class_names(first, names, whose=f"the {role}")
        if network.input_shape[1:] != first.input_shape[1:]:
            raise ValueError(
                f"The {first_role} takes pictures of shape {first.input_shape[1:]} and the {role} of "
                f"{network.input_shape[1:]}: both see the same batch, so build them for one shape."
            )
    for (role, network), (other, another) in itertools.combinations(everything.items(), 2):
        if {id(v) for v in network.weights} & {id(v) for v in another.weights}:
            raise ValueError(f"The {role} and the {other} share weights: build two separate networks.")


def _not_built(role, network):
    if not isinstance(network, keras.Model):
        raise ValueError(f"{role}={network!r} is not a keras.Model: pass a network from pictures to logits.")
    if not network.built:
        raise ValueError(f"The {role} {network.name!r} is not built: call it once, or give it a keras.Input.")
    if not hasattr(network, "output_shape"):
        raise ValueError(
            f"The {role} {network.name!r} is a subclassed model, whose shapes and layers cannot be read: rebuild it "
            "as keras.Model(inputs, outputs)."
        )


def _logits(role, network):
    shape = network.output_shape
    if len(shape) != 2 or not isinstance(shape[-1], int) or shape[-1] < 2:
        raise ValueError(
            f"The {role} {network.name!r} returns the shape {shape}, and a classifier's logits are [B, K] with at "
            "least two classes: end it in a dense layer of as many units as there are classes."
        )


def _softmax(role, network):
    final = network
    while isinstance(final, keras.Model):
        # Operations, where there are any, are the layers and functions such as keras.ops.softmax.
        final = getattr(final, "operations", final.layers)[-1]
    if type(final).__name__ == "Softmax" or getattr(final, "activation", None) is keras.activations.softmax:
        raise ValueError(
            f"The {role} {network.name!r} ends in a softmax, but the losses here take logits: "
            "remove the softmax from its last layer."
        )


def optimizer(
    role: str, optimizer: keras.optimizers.Optimizer, scales_losses: bool = False
) -> keras.optimizers.Optimizer:
    """Refuses optimizers and options that are wrong for two networks under a strategy."""
    given = optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
        if not scales_losses:
            raise ValueError(
                f"The {role}'s optimizer scales its loss, for mixed_float16, but no network computes in float16: "
                f"pass {optimizer.name!r} itself, or build the networks under that policy."
            )
    if optimizer.use_ema:
        raise ValueError(
            f"The {role}'s optimizer has use_ema=True, which Keras writes into the wrong network of a method "
            "with several: pass ema_decay to the method instead."
        )
    if optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue:
        raise ValueError(
            f"The {role}'s optimizer clips gradients, which Keras does per replica before their sum: "
            "pass gradient_clip_norm to the method instead."
        )
    return given


def all_tracked(left_over: dict) -> None:
    """Refuses values that no metric was declared for."""
    if left_over:
        raise ValueError(f"The metrics {sorted(left_over)} were not declared: add them to train_metrics.")


def scalar_feedback(feedback, student_labels: str) -> None:
    """Refuses a feedback that rewards drawn labels where none are drawn."""
    if feedback.is_scalar and student_labels == "soft":
        raise ValueError(
            f"The feedback {feedback.estimator!r} rewards the labels that were drawn, and "
            "student_labels='soft' draws none: pass student_labels='sampled' or feedback='per_example'."
        )


def calibrator(calibrator: keras.Model, student: keras.Model) -> None:
    """Refuses a calibrator that does not map distributions over the student's classes to logits."""
    classes = student.output_shape[-1]
    shapes = tuple(calibrator.input_shape[1:]), tuple(calibrator.output_shape[1:])
    if shapes != ((classes,), (classes,)):
        raise ValueError(
            f"The calibrator maps {shapes[0]} to {shapes[1]}, but the student has {classes} classes: build it with "
            f"mpl_tf.models.calibrator({classes})."
        )


def generator(generator: keras.Model, student: keras.Model) -> None:
    """Refuses a generator that does not map noise to the student's pictures."""
    shapes = tuple(generator.input_shape[1:]), tuple(generator.output_shape[1:])
    if len(shapes[0]) != 1 or shapes[1] != tuple(student.input_shape[1:]):
        raise ValueError(
            f"The generator maps {shapes[0]} to {shapes[1]}, but the student takes pictures of shape "
            f"{tuple(student.input_shape[1:])}: build it with mpl_tf.models.generator for these."
        )


def norm_of_predictions(one_hot: str) -> None:
    """Refuses the L1 norm as a loss on predictions."""
    if one_hot == "l1":
        raise ValueError(
            "one_hot='l1' has no gradient: a softmax sums to 1 whatever the picture, so its L1 norm cannot "
            "change. Pass one_hot='cross_entropy' or 'l2'."
        )


def one_replica_only(feedback: str, replicas: int) -> None:
    """Refuses a feedback that would need every replica's student step."""
    if replicas > 1:
        raise ValueError(
            f"The feedback {feedback!r} goes through the student's whole step and runs on one replica, not "
            f"on {replicas}: use 'per_example', which is as exact."
        )


def plain_pass_only(feedback: str, training_pass) -> None:
    """Refuses a feedback that needs the second derivative of the student's pass."""
    if not training_pass.is_plain:
        raise ValueError(
            f"The feedback {feedback!r} differentiates the student's pass twice and keeps all of its activations: "
            "pass micro_batches=1 for the student and recompute=False, or use 'per_example', which is as exact."
        )


def micro_batches(micro_batches: int | dict, learners: list) -> dict:
    """Role → the number of micro-batches, for each of the classifiers that learn; refuses other roles and numbers."""
    if not isinstance(micro_batches, dict):
        micro_batches = dict.fromkeys(learners, micro_batches)
    for role, count in micro_batches.items():
        checks.one_of("The role of micro_batches", role, learners)
        checks.whole(f"micro_batches of the {role}", count, low=1)
    return {role: micro_batches.get(role, 1) for role in learners}


def layers_to_follow(network: keras.Model, *, reached: bool) -> None:
    """Refuses a network whose layers could not be followed from its input to its output."""
    if not reached:
        raise ValueError(
            f"recompute=True needs a network whose layers are used once, and {network.name!r} has some that are used "
            "more often or were taken from another network: build it anew, or pass recompute=False."
        )


def frozen(role: str, variables: list) -> None:
    """Refuses to train a network that has nothing to train."""
    if not variables:
        raise ValueError(
            f"The {role} has no trainable weights, so its optimizer has nothing to do: "
            "set trainable = True on the layers that are to learn before building the method."
        )


def relabeling(network: keras.Model, student: keras.Model, *, labels: str) -> None:
    """Refuses labels from a network of other classes, and where none are kept."""
    if labels == "online":
        raise ValueError(
            "labels='online' keeps no labels that could be filled in: pass labels='fixed' or labels='stored'."
        )
    if network.output_shape[-1] != student.output_shape[-1]:
        raise ValueError(
            f"The network {network.name!r} that is to give the labels has {network.output_shape[-1]} classes and the "
            f"student {student.output_shape[-1]}: both must be built for the same class names."
        )


def missing_labels(kept_labels: keras.Variable) -> None:
    """Refuses to train on labels that were never filled in."""
    if not kept_labels.numpy().any():
        raise ValueError(
            "labels='fixed' has no labels yet: call relabel(teacher, pictures) before fit, or load a checkpoint that "
            "holds them."
        )
