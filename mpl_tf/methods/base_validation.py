"""Validation of what `Method` is given: by the class that extends it, and by who compiles, fits and saves it."""

import itertools
import os
import warnings
from typing import Any

import keras
import tensorflow as tf

from mpl_tf.methods.engine import loss_scaling
from mpl_tf.models.surgery import regularized_parts
from mpl_tf.utils.validation import check_choice, check_integer


def check_student(networks: dict[str, keras.Model]) -> None:
    """Raises for networks of which none is the one that is served."""
    if "student" not in networks:
        raise ValueError(
            f"The networks have the roles {', '.join(map(repr, networks))}, and 'student' is the one that call, "
            "evaluate, predict and the export mean: give one of them this role."
        )


def check_arguments_stored(method: keras.Model, arguments: list[str]) -> None:
    """Raises for arguments of a method's constructor that a saved method could not be made of again."""
    for argument in arguments:
        if not hasattr(method, argument):
            raise ValueError(
                f"{type(method).__name__} does not keep the argument {argument!r} of its constructor, without which "
                f"it could not be saved: set self.{argument} = {argument} there."
            )


def check_one_learner(method: str, arguments: dict[str, str]) -> None:
    """Raises for a class with several learners that has only the base's `compile`, with its one optimizer.

    Args:
        method: name of the class, for the message.
        arguments: role that learns → the argument for its optimizer.
    """
    if len(arguments) > 1:
        raise ValueError(
            f"{method} trains {_listed(arguments)}, and the compile that it has is for a student alone: give the "
            f"class one that takes {' and '.join(arguments.values())}, and hands them to compile_roles."
        )


def check_compile_options(method: str, arguments: dict[str, str], options: dict[str, Any]) -> None:
    """Raises for options of `compile` that would have no effect.

    Args:
        method: name of the class, for the message.
        arguments: role that learns → the argument for its optimizer.
        options: those that are left after the arguments of `Method.compile_roles`.

    Raises:
        ValueError: for the first that is none of `run_eagerly` and `steps_per_execution`.
    """
    for name, value in options.items():
        if name.endswith("optimizer"):
            raise ValueError(
                f"{method} trains {_listed(arguments)}, so compile takes no {name}=: pass "
                f"{' and '.join(f'{argument}=' for argument in arguments.values())}."
            )
        if name in ("loss", "loss_weights") and value is not None:
            raise ValueError(
                f"{method} minimizes the losses of its paper, so compile takes no {name}=: leave it out, and weigh "
                "the losses by the arguments of the method itself."
            )
        if name in ("metrics", "weighted_metrics") and value is not None:
            raise ValueError(
                f"{method} measures its own loss and accuracies, so compile takes no {name}=: compile the network "
                f"that it trains with them afterwards, method.inference_model.compile({name}=…), and evaluate that."
            )
        if name not in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            known = (
                "jit_compile",
                "micro_batches",
                "rematerialize",
                "backbone_learning_rate_factor",
                "run_eagerly",
                "steps_per_execution",
            )
            check_choice("The option of compile", name, (*arguments.values(), *known))


def _listed(roles):
    return " and ".join(f"the {role}" for role in roles) + (" alone" if len(roles) == 1 else "")


def check_optimizers(arguments: dict[str, str], optimizers: dict[str, Any]) -> None:
    """Raises for a role without an optimizer, and one optimizer for two roles."""
    call = ", ".join(f"{argument}=…" for argument in arguments.values())
    for role, optimizer in optimizers.items():
        if optimizer is None:
            raise ValueError(
                f"The {role} has no optimizer: pass compile({call}){', one for each' if len(arguments) > 1 else ''}."
            )
    given = {role: loss_scaling.inner(optimizer) for role, optimizer in optimizers.items()}
    for (role, one), (other, another) in itertools.combinations(given.items(), 2):
        if one is another and not isinstance(one, str | dict):
            raise ValueError(
                f"The {role} and the {other} share one optimizer, whose state belongs to one network: make one for "
                "each of them."
            )


def check_optimizer(
    role: str, optimizer: keras.optimizers.Optimizer, scales_losses: bool = False
) -> keras.optimizers.Optimizer:
    """Raises for optimizers and options that are wrong for two networks under a strategy."""
    given = optimizer
    if isinstance(loss_scaling.inner(optimizer), keras.optimizers.MultiOptimizer):
        raise ValueError(
            f"The {role}'s optimizer is made of several, and so has no learning rate that callbacks and the feedback "
            "could read: pass one of them, and backbone_learning_rate_factor to compile for a smaller rate of all "
            "but the last layer."
        )
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
            "pass global_clipnorm to the method instead."
        )
    if optimizer.loss_scale_factor:
        raise ValueError(
            f"The {role}'s optimizer has loss_scale_factor={optimizer.loss_scale_factor} and divides gradients by "
            "it, of a loss that no method multiplies by it: leave it out; mixed_float16 scales losses anyway."
        )
    if optimizer.gradient_accumulation_steps:
        raise ValueError(
            f"The {role}'s optimizer has gradient_accumulation_steps={optimizer.gradient_accumulation_steps}, "
            "so that the network stands still in most steps, whose feedback and averages count all the same: "
            "leave it out, and pass micro_batches to compile where a batch does not fit into memory."
        )
    return given


def check_strategy(
    method: Any, optimizers: dict[str, keras.optimizers.Optimizer], strategy: tf.distribute.Strategy
) -> None:
    """Raises for what several replicas train and what was not made in the scope of their strategy.

    A variable from elsewhere has no copy for each replica: all of them move the one that there is.

    Args:
        method: a `Method`.
        optimizers: role → the optimizer of its network.
        strategy: that trains, or under which `compile` is called.
    """
    if strategy.num_replicas_in_sync == method.distribute_strategy.num_replicas_in_sync == 1:
        return
    made = {"method": [method.step]}
    for role, optimizer in optimizers.items():
        made[role] = getattr(method, role).trainable_variables
        made[f"{role}'s optimizer"] = [loss_scaling.inner(optimizer).iterations]
    for what, variables in made.items():
        if not all(strategy.extended.variable_created_in_scope(variable.value) for variable in variables):
            raise ValueError(
                f"The {what} was not made under the strategy that compiles or trains it: build the networks, the "
                "method and the optimizers, and call compile, inside of the same `with strategy.scope():`."
            )


def check_micro_batches(micro_batches: int | dict, learners: list) -> dict:
    """Role → the number of micro-batches, for each of the classifiers that learn; others raise."""
    if not isinstance(micro_batches, dict):
        micro_batches = dict.fromkeys(learners, micro_batches)
    for role, count in micro_batches.items():
        check_choice("The role of micro_batches", role, learners)
        check_integer(f"micro_batches of the {role}", count, low=1)
    return {role: micro_batches.get(role, 1) for role in learners}


def check_not_frozen(role: str, variables: list) -> None:
    """Raises when asked to train a network that has nothing to train."""
    if not variables:
        raise ValueError(
            f"The {role} has no trainable weights, so its optimizer has nothing to do: "
            "set trainable = True on the layers that are to learn before building the method."
        )


def warn_of_own_losses(role: str, network: keras.Model) -> None:
    """Warns of regularizers, whose penalties no method minimizes."""
    if parts := regularized_parts(network):
        warnings.warn(
            f"The {role} {network.name!r} has regularizers, as that of {parts[0]}, and a method minimizes the "
            "losses of its paper alone: pass weight_decay= to the method instead.",
            stacklevel=4,
        )


def check_same_variables(role: str, compiled: list, present: list) -> None:
    """Raises where layers were frozen or made trainable after `compile`, when the optimizers were built."""
    before, now = ({id(variable): variable.path for variable in each} for each in (compiled, present))
    frozen, added = before.keys() - now.keys(), now.keys() - before.keys()
    if frozen or added:
        counts = f"{len(frozen)} of its weights were frozen and {len(added)} made trainable"
        example = next(path for key, path in (before | now).items() if key in frozen | added)
        raise ValueError(
            f"The {role} is not as it was compiled, {counts} since, such as {example}: call compile again after a "
            "change of trainable, with a new optimizer."
        )


def check_fit_arguments(arguments: dict[str, Any]) -> None:
    """Raises for arguments of `keras.Model.fit` that have no effect on batches that are made already."""
    advice = {
        "y": "pass the batches that mpl_tf.data.training_batches makes of images and labels as x alone",
        "batch_size": "pass it to mpl_tf.data.training_batches, which makes the batches",
        "validation_split": "hold images out with mpl_tf.data.draw_split, and pass them as validation_data=",
        "class_weight": "pass balance='sample' to mpl_tf.data.training_batches, which draws all classes alike, or "
        "balance='weight', which weighs them alike",
        "sample_weight": "put one number for each labeled image into the batches, as 'weight' beside 'label'",
    }
    for name, instead in advice.items():
        value = arguments.get(name)
        if value is not None and not (name == "validation_split" and value == 0.0):
            raise ValueError(f"{name}= has no effect on the batches that a method is trained on: {instead}.")


def check_epoch(data: Any, steps_per_epoch: int | None) -> None:
    """Raises for endless batches of which nobody knows how long an epoch is."""
    if steps_per_epoch is None and isinstance(data, tf.data.Dataset):
        cardinality = int(data.cardinality())
        # Batches that are numbered by 64 bits do not end in anybody's life.
        if cardinality == tf.data.INFINITE_CARDINALITY or cardinality > 2**48:
            raise ValueError(
                "These batches never end, and so would the first epoch: pass steps_per_epoch=, the number of updates "
                "between two evaluations."
            )


def check_batches_divide(data: Any, replicas: int) -> None:
    """Raises for batches that leave some of several replicas with fewer examples, whose mean would be another."""
    if replicas == 1 or not isinstance(data, tf.data.Dataset):
        return
    for spec in tf.nest.flatten(data.element_spec):
        size = spec.shape[0] if spec.shape.rank else None
        if size is not None and size % replicas:
            raise ValueError(
                f"Batches of {size} do not divide over {replicas} replicas: choose a multiple of {replicas}."
            )


def check_learner(method: str, role: str, learners: tuple[str, ...]) -> None:
    """Raises for a training pass or a step of a network that does not learn."""
    if role not in learners:
        raise ValueError(
            f"The {role} is none of the learners {learners} of {method}: add it to them, and an optimizer for it to "
            f"compile; a network that does not learn is called by itself, self.{role}(images)."
        )


def check_scalar_losses(losses: dict[str, tf.Tensor]) -> None:
    """Raises for losses of several numbers, of which a tape would give the gradient of the sum."""
    for role, loss in losses.items():
        if loss.shape.rank:
            raise ValueError(
                f"The loss of the {role} has the shape {tuple(loss.shape)}, and its gradient would be that of the "
                "sum: pass the mean, tf.reduce_mean(…)."
            )


def check_step_ended(method: str, step_is_open: bool) -> None:
    """Raises for a step that has moved a network and is not counted, nor in the averages that are served."""
    if step_is_open:
        raise ValueError(
            f"The train_step of {method} does not end its step, whose average would stay as it began: call "
            "self.end_step(after=…) after the last apply_gradients and before update_metrics."
        )


def check_all_tracked(declared: list[str], given: dict[str, Any]) -> None:
    """Raises for values that no metric was declared for, and for metrics without a value."""
    if left_over := given.keys() - {*declared}:
        raise ValueError(f"The metrics {sorted(left_over)} were not declared: add them to train_metrics.")
    if missing := [name for name in declared if name not in given]:
        raise ValueError(
            f"The metrics {missing} were declared and have no value: pass them to update_metrics, or leave them out "
            "of train_metrics."
        )


def check_file(filepath: str | os.PathLike) -> None:
    """Raises for a file in which Keras cannot save several networks."""
    if not str(os.fspath(filepath)).endswith(".keras"):
        raise ValueError(
            f"A method with its networks and optimizers does not fit into {os.fspath(filepath)!r}: pass a name that "
            "ends in '.keras', or save one network, method.inference_model.save(…)."
        )
