"""What every training method shares: services, never control flow.

A method is a `keras.Model` made of networks with roles (a teacher, a student). It writes its own
`train_step`; from here it takes one optimizer per role, the descent step, the averaged student, the metrics,
evaluation, and saving. The networks are built before the method is, and the method is built when
`__init__` ends: under a strategy Keras would otherwise try to build it symbolically on the nested batch.
"""

import contextlib
import inspect
import os
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import schedules
from mpl_tf.data.batches import (
    as_floats,
    batch_size,
    check_evaluation_batch,
    evaluation_weights,
    unwrapped,
)
from mpl_tf.distribute import replicas, workers
from mpl_tf.methods import base_validation, constraints
from mpl_tf.methods.batch_values import BatchValues
from mpl_tf.methods.constraints import Constraint, Number
from mpl_tf.methods.engine import execution, layerwise, loss_scaling
from mpl_tf.methods.engine.microbatching import TrainingPass
from mpl_tf.methods.engine.momentum import MomentumSteps
from mpl_tf.models.heads import probabilities
from mpl_tf.models.saving import carried, carry
from mpl_tf.models.surgery import clone
from mpl_tf.models.validation import check_networks
from mpl_tf.utils.validation import check_choice, check_integer, check_range

# The arguments of `fit` that may be datasets.
_DATA = ("x", "validation_data")


def fit_arguments(method: keras.Model, *arguments: Any, **options: Any) -> dict[str, Any]:
    """What `keras.Model.fit` was given, by its arguments' names."""
    given = inspect.signature(keras.Model.fit).bind(method, *arguments, **options).arguments
    del given["self"]
    return given


class Method(keras.Model):
    """Base of the training methods, which write their whole `train_step`; docs/own_method.md has an example.

    Args:
        networks: role → built `keras.Model` from images to logits. The role `"student"` is the one that is
            served: `call`, `evaluate` and `predict` mean it.
        auxiliary: role → built `keras.Model` that does not take images and is not evaluated (a generator, a
            calibrator).
        train_metrics: names of the scalars that `train_step` tracks.
        ema_decay: decay of the exponential moving average of the student's weights *and* BatchNorm
            statistics, warmed up as `schedules.average_decay`. Where it is kept, it is what is served. None
            keeps none.
        weight_decay: λ of an L2 penalty ½ λ ‖w‖² on the kernels of every network that learns.
        global_clipnorm: largest global norm of each network's gradient, weight decay included; None for no
            bound.
        name: name of the model.

    Raises:
        ValueError: when the networks do not fit each other, share weights, or return probabilities, and when none is
            the student.
    """

    # What every method's hyper-parameters may be; each class adds its own, see `constraints`.
    parameter_constraints: ClassVar[dict[str, Constraint]] = {
        "weight_decay": Number(),
        "global_clipnorm": Number(low=1e-6, optional=True),
        "ema_decay": Number(high=1.0, optional=True),
    }
    # Keras' own, of which it makes the function when it is needed.
    train_function: Any
    steps_per_execution: int
    # The roles that learn, for each of which `compile` takes an optimizer.
    learners: ClassVar[tuple[str, ...]] = ("student",)
    # Whether `compile` was told to leave it to `fit` how many steps one call from Python makes.
    finds_steps_per_execution = False
    # Whether `train_step` reads images; where it does not, `data.index_batches` is enough.
    uses_images = True
    # What makes a batch's views inside of the step, `mpl_tf.data.BatchViews`; None where the pipeline has made them.
    augmentation: Callable[[dict], dict] | None = None

    def __init__(
        self,
        networks: dict[str, keras.Model],
        *,
        auxiliary: dict[str, keras.Model] | None = None,
        train_metrics: tuple[str, ...] | list[str],
        ema_decay: float | None,
        weight_decay: float,
        global_clipnorm: float | None,
        name: str | None,
    ):
        super().__init__(name=name)
        base_validation.check_student(networks)
        check_networks(networks, auxiliary)
        # Whether a step that is being traced has moved a network and has not been ended.
        self.step_is_open = False
        self.classifiers = tuple(networks)
        networks = {**networks, **(auxiliary or {})}
        self.roles = tuple(networks)
        for role, network in networks.items():
            setattr(self, role, network)
        self.ema_decay = ema_decay
        self.weight_decay = weight_decay
        self.global_clipnorm = global_clipnorm
        for parameter, constraint in Method.parameter_constraints.items():
            constraint.check(parameter, getattr(self, parameter))
        self.student_average = clone(self.student) if ema_decay is not None else None
        # An own counter: loss-scaled optimizers skip steps, and theirs would differ from each other.
        self.step = self.add_state("step", dtype="int64")
        self.train_trackers = [keras.metrics.Mean(name=metric) for metric in train_metrics]
        self.scales_losses = loss_scaling.is_needed(networks.values())
        skipped = [f"{role}_skipped_steps" for role in networks if self.scales_losses]
        self.skip_trackers = [keras.metrics.Sum(name=metric) for metric in skipped]
        self.test_trackers = [keras.metrics.Mean(name="loss")]
        self.test_trackers += [
            keras.metrics.SparseCategoricalAccuracy(name=key) for key in self.evaluation_models()
        ]
        self.built = True

    def check_parameters(self) -> None:
        """Checks every hyper-parameter by `parameter_constraints`, when the constructor has set them all."""
        constraints.check(self)

    # Keras calls this before the first batch; on a nested batch under MultiWorkerMirroredStrategy its
    # `strategy.reduce` fails, and there is nothing left to build. Private: see tests/methods/test_base.py.
    def _maybe_symbolic_build(self, *args, **kwargs):
        pass

    @property
    def inference_model(self) -> keras.Model:
        """The network that `call`, `evaluate`, `predict` and the export mean."""
        return self.averaged("student")

    def evaluation_models(self) -> dict[str, keras.Model]:
        """Metric name → the network whose accuracy on labeled images it is."""
        others = {f"{role}_accuracy": self.averaged(role) for role in self.classifiers if role != "student"}
        return {"accuracy": self.inference_model, **others}

    def averaged(self, role: str) -> keras.Model:
        """The moving average of a role's network where one is kept, else the network itself."""
        average = getattr(self, f"{role}_average", None)
        return getattr(self, role) if average is None else average

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits `[B, K]` of the served student on images `[B, H, W, C]` in 0…255."""
        return self.inference_model(inputs, training=training)

    def add_state(
        self, name: str, dtype: str = "float32", shape: tuple[int, ...] = (), initial: float = 0.0
    ) -> keras.Variable:
        """Numbers that start at `initial`, are the same on every replica, and are saved with the model."""
        shared = {"trainable": False, "aggregation": "only_first_replica"}
        initializer = keras.initializers.Constant(initial)
        state = self.add_weight(name=name, shape=shape, dtype=dtype, initializer=initializer, **shared)
        self.built = True
        return state

    # --- compiling -------------------------------------------------------------------------------------

    @property
    def optimizer_arguments(self) -> dict[str, str]:
        """Role that learns → the argument of `compile` for its optimizer: Keras' own where there is one role."""
        if len(self.learners) == 1:
            return {self.learners[0]: "optimizer"}
        return {role: f"{role}_optimizer" for role in self.learners}

    def compile(self, optimizer: str | keras.optimizers.Optimizer | None = None, **options: Any) -> None:
        """Sets the student's optimizer, where the student alone learns; methods with more learners have one for each.

        Args:
            optimizer: a Keras optimizer, or its name.
            **options: `jit_compile`, `micro_batches`, `rematerialize` as in `compile_roles`; `run_eagerly`,
                `steps_per_execution`.

        Raises:
            ValueError: without an optimizer, for one or an option that does not work here, and for a class with more
                learners that has no `compile` of its own.
        """
        base_validation.check_one_learner(type(self).__name__, self.optimizer_arguments)
        self.compile_roles({"student": optimizer}, **options)

    def compile_roles(
        self,
        optimizers: dict[str, str | keras.optimizers.Optimizer | None],
        *,
        jit_compile: bool | str = "auto",
        micro_batches: int | dict[str, int] = 1,
        rematerialize: bool = False,
        backbone_learning_rate_factor: float = 1.0,
        **options: Any,
    ) -> None:
        """Takes one optimizer per role, with a loss scale where networks compute in float16, and builds its state.

        Building here matters: under MirroredStrategy an optimizer cannot create variables inside the step,
        and Keras saves only the state that exists.

        Args:
            optimizers: role → a Keras optimizer, or its name.
            jit_compile: True, False or `"auto"`, see `replicas.use_xla`.
            micro_batches: in how many parts the training passes are made, of which one's activations are in memory
                at a time; a number for every classifier that learns, or role → number.
            rematerialize: whether their backward passes compute activations again instead of keeping them.
            backbone_learning_rate_factor: of the learning rate of all weights but those of the last dense layer, in
                [0, 1]; for fine-tuning what was learned elsewhere under a new head.
            **options: `run_eagerly`; `steps_per_execution`, a number, or `"auto"` for one that `fit` finds for small
                networks and its epochs, see `execution.suitable_steps`.

        Raises:
            ValueError: for an optimizer or a value that does not work here, and for an argument of the constructor
                that is no attribute, without which the method could not be saved.
        """
        if type(self).get_config is Method.get_config:
            # Not when the trained method is to be saved.
            base_validation.check_arguments_stored(self, _argument_names(type(self)))
        base_validation.check_compile_options(type(self).__name__, self.optimizer_arguments, options)
        base_validation.check_optimizers(self.optimizer_arguments, optimizers)
        # As they are given: what "auto" means is for each machine to find.
        self.execution_options = {
            "jit_compile": jit_compile,
            "run_eagerly": options.get("run_eagerly", False),
            "steps_per_execution": options.get("steps_per_execution", 1),
        }
        jit_compile = replicas.use_xla(jit_compile)
        check_choice("rematerialize", rematerialize, (True, False))
        check_range("backbone_learning_rate_factor", backbone_learning_rate_factor, low=0.0, high=1.0)
        self.finds_steps_per_execution = options.get("steps_per_execution") == "auto"
        if self.finds_steps_per_execution:
            options["steps_per_execution"] = 1
        check_integer("steps_per_execution", options.get("steps_per_execution", 1), low=1)
        self.momentum_steps = {}
        # Role → the ids of the trainable variables that its loss does not depend on, as the last trace has found.
        self.unreached: dict[str, frozenset[int]] = {}
        for role, optimizer in optimizers.items():
            optimizer = base_validation.check_optimizer(
                role, keras.optimizers.get(optimizer), self.scales_losses
            )
            base_validation.check_strategy(self, {role: optimizer}, tf.distribute.get_strategy())
            if self.scales_losses:
                optimizer = loss_scaling.scaling(optimizer)
            variables = getattr(self, role).trainable_variables
            base_validation.check_not_frozen(role, variables)
            base_validation.warn_of_own_losses(role, getattr(self, role))
            _exclude_vectors_from_decay(optimizer, variables)
            self.momentum_steps[role] = MomentumSteps(optimizer, variables)
            setattr(self, f"{role}_optimizer", optimizer)
        learners = [role for role in optimizers if role in self.classifiers]
        self.micro_batches = base_validation.check_micro_batches(micro_batches, learners)
        self.rematerialize = rematerialize
        self.backbone_learning_rate_factor = factor = backbone_learning_rate_factor
        self.backbone_steps = {
            role: layerwise.BackboneSteps(getattr(self, role), factor) for role in learners
        }
        for role, count in self.micro_batches.items():
            training_pass = TrainingPass(
                getattr(self, role), micro_batches=count, rematerialize=rematerialize
            )
            setattr(self, f"{role}_pass", training_pass)
        # What Keras compiles is the step on all replicas together, which is more than XLA can.
        self.compiles_replicas = jit_compile and replicas.replica_count() > 1
        jit_compile = jit_compile and not self.compiles_replicas
        super().compile(
            optimizer=self.student_optimizer, jit_compile=jit_compile, auto_scale_loss=False, **options
        )

    def make_train_function(self, force: bool = False) -> None:
        """Keras' own training function, but on several replicas where that cannot do what is asked for."""
        for role, compiled in self.momentum_steps.items():
            present = getattr(self, role).trainable_variables
            base_validation.check_same_variables(role, compiled.variables, present)
        strategy = self.distribute_strategy
        optimizers = {role: compiled.optimizer for role, compiled in self.momentum_steps.items()}
        base_validation.check_strategy(self, optimizers, strategy)
        several = strategy.num_replicas_in_sync > 1 and self.steps_per_execution > 1
        if self.run_eagerly or not (several or self.compiles_replicas):
            super().make_train_function(force)
        elif self.train_function is None or force:
            steps, jit_compile = self.steps_per_execution, self.compiles_replicas
            self.train_function = replicas.train_function(
                self.train_step, strategy, steps=steps, jit_compile=jit_compile
            )

    # --- metrics ---------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """One metric of each name: Keras looks up by these names what `evaluate` returns as a list."""
        # Keras' own tracker of the loss, that of training and that of evaluation share a name.
        return list({metric.name: metric for metric in super().metrics}.values())

    def reset_metrics(self) -> None:
        """Sets all metrics back, those of training and those of evaluation."""
        for metric in super().metrics:
            metric.reset_state()

    # Keras asks for an evaluation's results here, and its own takes what the last step returned: the mean over the
    # replicas, of which some have seen fewer images. Private: see tests/methods/test_base.py.
    def _get_metrics_result_or_logs(self, logs):
        results = {tracker.name: tracker.result for tracker in self.test_trackers}
        if self.distribute_strategy.num_replicas_in_sync == 1 or set(logs or ()) != set(results):
            return super()._get_metrics_result_or_logs(logs)
        return {name: results[name]() for name in logs}

    # --- training --------------------------------------------------------------------------------------

    def fit(self, *arguments: Any, **options: Any) -> keras.callbacks.History:
        """Trains, as `keras.Model.fit` does, on the batches of `mpl_tf.data.training_batches`.

        Those never end. Where `steps_per_epoch` is not given, an epoch is as long as the stream of the batches that
        goes through its images most slowly needs to see each of them: the unlabeled one where there is one.

        Args:
            *arguments: of `keras.Model.fit`.
            **options: of `keras.Model.fit`; those that cannot have an effect on batches that are made are refused.

        Returns:
            The history, name of a metric → its value after each epoch.

        Raises:
            ValueError: for an argument that would have no effect, for endless batches whose epoch is not known, and
                for a label, an index or a range of pixels in a dataset of one's own that the networks do not have.
        """
        given = fit_arguments(self, *arguments, **options)
        base_validation.check_fit_arguments(given)
        if given.get("steps_per_epoch") is None:
            given["steps_per_epoch"] = getattr(given.get("x"), "steps_per_epoch", None)
            base_validation.check_epoch(given.get("x"), given["steps_per_epoch"])
        base_validation.check_batches_divide(given.get("x"), self.distribute_strategy.num_replicas_in_sync)
        for callback in tf.nest.flatten(given.get("callbacks") or []):
            _set_direction(callback)
        if self.finds_steps_per_execution and not self.run_eagerly:
            self._find_steps_per_execution(given)
        values = BatchValues([getattr(self, role) for role in self.classifiers], self.table_size())
        # Batches with an epoch of their own are made of a `Source`, which has been checked as a whole.
        if (
            not hasattr(given.get("x"), "steps_per_epoch")
            and workers.worker_count(self.distribute_strategy) == 1
        ):
            given = {key: values.watch(x) if key in _DATA else x for key, x in given.items()}
        # Keras warns of its own default where somebody else makes the batches; its own kind and arrays it shuffles.
        arrays = all(hasattr(leaf, "shape") for leaf in tf.nest.flatten(given.get("x")))
        quiet = {} if arrays or isinstance(given.get("x"), keras.utils.PyDataset) else {"shuffle": False}
        with values.raise_found():
            return super().fit(**quiet | given)

    def table_size(self) -> int | None:
        """How many images the method keeps labels for, which their indices must be below; None for none."""
        return None

    def _find_steps_per_execution(self, given: dict[str, Any]) -> None:
        epochs, steps = given.get("epochs", 1) - given.get("initial_epoch", 0), given["steps_per_epoch"] or 1
        found = execution.suitable_steps(
            [getattr(self, role) for role in self.roles],
            given.get("x"),
            epoch_steps=steps,
            total_steps=epochs * steps,
        )
        if found != self.steps_per_execution:
            # The functions have the number in them.
            self.steps_per_execution, self.train_function, self.test_function = found, None, None

    # --- inside train_step -----------------------------------------------------------------------------

    def views(self, data: dict) -> dict:
        """The batch with its weak and strong views, which are made here where `augmentation` is set."""
        data = unwrapped(data)
        return as_floats(data if self.augmentation is None else self.augmentation(data))

    def training_logits(self, role: str, images: tf.Tensor) -> tf.Tensor:
        """Logits of a classifier that learns, in training mode; in micro-batches where `compile` was told so.

        Args:
            role: whose.
            images: `[B, H, W, C]` in 0…255. In several micro-batches no gradient reaches them.

        Returns:
            float32 `[B, K]`.

        Raises:
            ValueError: for a network that does not learn.
        """
        base_validation.check_learner(type(self).__name__, role, self.learners)
        return getattr(self, f"{role}_pass").logits(images)

    def joint_logits(self, role: str, *views: tf.Tensor) -> list[tf.Tensor]:
        """Logits of a classifier that learns on several views, from one pass: in one BatchNorm population.

        Args:
            role: whose.
            *views: each `[n, H, W, C]` in 0…255, of as many images as there are.

        Returns:
            For each view float32 `[n, K]`.
        """
        sizes = list(map(batch_size, views))
        return tf.split(self.training_logits(role, tf.concat(views, axis=0)), sizes)

    def averaged_logits(self, role: str, images: tf.Tensor) -> tf.Tensor:
        """Logits float32 `[B, K]` of a role's averaged network in inference mode, without a gradient."""
        return tf.stop_gradient(tf.cast(self.averaged(role)(images, training=False), tf.float32))

    def gradients(self, tape: tf.GradientTape, **losses: tf.Tensor) -> dict[str, list[tf.Tensor]]:
        """Gradients of the global batch, in float32 and without a loss scale.

        Args:
            tape: that recorded the losses.
            **losses: role → scalar, the mean over this replica's fraction of the batch. Where there are several, no
                weight of one role is in the loss of another.

        Returns:
            Role → one tensor per trainable variable, the same on every replica; zeros for one that the loss does not
            depend on, which `apply_gradients` leaves as it is.

        Raises:
            ValueError: for a loss of several numbers.
        """
        base_validation.check_scalar_losses(losses)
        variables = {role: getattr(self, role).trainable_variables for role in losses}
        scales = {role: loss_scaling.scale(getattr(self, f"{role}_optimizer", None)) for role in losses}
        seeds = [tf.constant(1.0) if scale is None else scale for scale in scales.values()]
        gradients = tape.gradient(
            list(losses.values()), variables, output_gradients=seeds if self.scales_losses else None
        )
        for role in losses:
            pairs = list(zip(variables[role], gradients[role], strict=True))
            self.unreached[role] = frozenset(id(variable) for variable, gradient in pairs if gradient is None)
            gradients[role] = [
                tf.zeros_like(v.value) if gradient is None else gradient for v, gradient in pairs
            ]
        gradients = {role: loss_scaling.unscaled(gradients[role], scales[role]) for role in losses}
        return replicas.replica_mean(gradients)

    def apply_gradients(
        self, role: str, gradients: list[tf.Tensor], *, weight_decay: float | None = None
    ) -> tf.Tensor:
        """One optimizer step of a role, with the method's weight decay and clipping.

        The decay is coupled into the gradient, as in the released Meta Pseudo Labels code; biases, scales and
        offsets are left alone.

        Args:
            role: whose weights move.
            gradients: one tensor per trainable variable, of the *global* batch, as `gradients` returns them.
            weight_decay: λ of this role; None for the method's.

        Returns:
            The global norm before clipping, scalar; 0 for a step that was skipped because float16 overflowed.

        Raises:
            ValueError: for a network that does not learn.
        """
        base_validation.check_learner(type(self).__name__, role, self.learners)
        self.step_is_open = True
        variables = getattr(self, role).trainable_variables
        decay = self.weight_decay if weight_decay is None else weight_decay
        unreached = self.unreached.get(role, frozenset())
        if decay:
            pairs = zip(gradients, variables, strict=True)
            gradients = [
                g + decay * v if len(v.shape) > 1 and id(v) not in unreached else g for g, v in pairs
            ]
        norm = tf.linalg.global_norm(gradients)
        if self.global_clipnorm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.global_clipnorm, use_norm=norm)
        # Keras optimizers sum over replicas; the gradients are already the global mean on each of them.
        count = replicas.replica_count()
        if count > 1:
            gradients = [gradient / count for gradient in gradients]
        if unreached:
            # Keras warns of them, and its optimizers would let them decay.
            pairs = zip(gradients, variables, strict=True)
            gradients = [None if id(variable) in unreached else gradient for gradient, variable in pairs]
        backbone_steps = self.backbone_steps.get(role)
        with backbone_steps.shorten() if backbone_steps else contextlib.nullcontext():
            made = self.momentum_steps[role].apply(gradients)
            if not made:
                made = loss_scaling.apply(getattr(self, f"{role}_optimizer"), gradients, variables)
        for tracker in self.skip_trackers:
            if tracker.name == f"{role}_skipped_steps":
                tracker.update_state(tf.where(made, 0.0, 1.0 / count))
        return tf.where(made, norm, 0.0) if self.scales_losses else norm

    def end_step(self, *, after: tf.Tensor, averages: dict[str, float | None] | None = None) -> None:
        """Averages BatchNorm statistics over replicas, updates the averaged networks, counts the step.

        Args:
            after: a tensor that was computed from the batch. TensorFlow runs what does not depend on the batch even
                when the dataset turns out to have ended, and that step is not to be counted.
            averages: role beside the student's → decay of its averaged network; None for one that is not kept.
        """
        for role in self.roles:
            replicas.average_moving_statistics(getattr(self, role).non_trainable_weights)
        # After the statistics are the same on all replicas, of which the averages would else be apart.
        for role, decay in {"student": self.ema_decay, **(averages or {})}.items():
            if decay is not None:
                self._update_average(role, decay)
        with tf.control_dependencies([after]):
            self.step.assign_add(1)
        self.step_is_open = False

    def _update_average(self, role: str, decay: float) -> None:
        """Moves a role's averaged network on, its BatchNorm statistics too, with a decay that is warmed up."""
        decay = schedules.average_decay(self.step.value, decay)
        weights, averages = getattr(self, role).weights, getattr(self, f"{role}_average").weights
        for average, value in zip(averages, weights, strict=True):
            if not average.dtype.startswith(("float", "bfloat")):
                # Tables of indices and counters have no mean, and rounding one would change it.
                average.assign(value)
                continue
            # In float64 where the weights are, and never in 16 bits.
            dtype = tf.float64 if average.dtype == "float64" else tf.float32
            old, new, kept = (tf.cast(each, dtype) for each in (average, value, decay))
            average.assign(tf.cast(old * kept + new * (1.0 - kept), average.dtype))

    def update_metrics(self, **values: tf.Tensor) -> dict[str, tf.Tensor]:
        """Adds one step's scalars to the metrics and returns the running means, as `train_step` must.

        Args:
            **values: one scalar for each name in `train_metrics`.

        Raises:
            ValueError: for a value without such a metric, for a metric without a value, and before `end_step`.
        """
        base_validation.check_step_ended(type(self).__name__, self.step_is_open)
        base_validation.check_all_tracked([tracker.name for tracker in self.train_trackers], values)
        for tracker in self.train_trackers:
            tracker.update_state(values[tracker.name])
        return replicas.as_logs([*self.train_trackers, *self.skip_trackers])

    # --- labels of unlabeled images ------------------------------------------------------------------

    def pseudo_label(self, images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        """What the method would label unlabeled images with: the teacher where one learns, else the student.

        Args:
            images: float32 `[n, H, W, C]` in 0…255, not augmented.
            index: int64 `[n]`, their positions among the training images; for methods that keep labels.

        Returns:
            float32 `[n, K]`, probabilities in inference mode; a row of zeros where there is no label yet.
        """
        return probabilities(self.teacher if "teacher" in self.learners else self.student, images)

    def end_epoch(self, unlabeled: tf.data.Dataset) -> None:
        """What a method does between two epochs, before the checkpoint that has to hold it: here, nothing.

        Args:
            unlabeled: each unlabeled image once and not augmented, `{"image", "index"}`.
        """

    # --- evaluation -------------------------------------------------------------------------------------

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """Loss (nats) of the served student and accuracy of every network on labeled images.

        Args:
            data: `{"image", "label"}`, and `"sample_weight"` where images are to weigh differently; or what Keras
                makes of `x`, `y` and `sample_weight`.
        """
        data = unwrapped(data)
        images, labels = check_evaluation_batch(data)
        weights = evaluation_weights(data)
        if replicas.replica_count() > 1:
            # What a replica without images gets instead weighs nothing.
            weights = tf.ones(tf.shape(labels)) if weights is None else weights
            images, labels, weights = replicas.never_empty(images, labels, weights)
        loss, *accuracies = self.test_trackers
        for tracker, network in zip(accuracies, self.evaluation_models().values(), strict=True):
            logits = tf.cast(network(images, training=False), tf.float32)
            tracker.update_state(labels, logits, sample_weight=weights)
            if tracker.name == "accuracy":
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                loss.update_state(losses, sample_weight=weights)
        return replicas.as_logs(self.test_trackers)

    def predict_step(self, data: Any) -> tf.Tensor:
        """Logits of the served student on the images of evaluation batches, or of what Keras takes."""
        if isinstance(data, dict) and "image" in data:
            images = data["image"]
        else:
            images, *_ = keras.utils.unpack_x_y_sample_weight(data)
        if replicas.replica_count() == 1:
            return super().predict_step(images)
        return super().predict_step(*replicas.never_empty(images))[: batch_size(images)]

    # --- saving and exporting --------------------------------------------------------------------------

    def export(self, filepath: str | os.PathLike, **options: Any) -> None:
        """Exports the network that is served, as `keras.Model.export` does; `mpl_tf.export` writes more with it.

        Args:
            filepath: of the artifact.
            **options: of `keras.Model.export`.
        """
        self.inference_model.export(filepath, **options)

    def save(self, filepath: str | os.PathLike, **options: Any) -> None:
        """Saves the method, its optimizers and random states, to be loaded by `keras.saving.load_model`.

        Args:
            filepath: that ends in `.keras`.
            **options: of `keras.Model.save`.

        Raises:
            ValueError: for another ending: HDF5 has no place for several networks.
        """
        base_validation.check_file(filepath)
        super().save(filepath, **options)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, each of which is kept under its own name; networks serialized.

        What networks carry besides, their class names and how images were resized, is under `"carried"`.
        """
        names = _argument_names(type(self))
        config = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}
        facts = {role: carried(getattr(self, role)) for role in self.roles}
        return config | {"carried": {role: found for role, found in facts.items() if found}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """Builds the method from what `get_config` returned."""
        # Lists too, of several teachers for example.
        arguments = {
            key: keras.saving.deserialize_keras_object(value) if isinstance(value, dict | list) else value
            for key, value in config.items()
            if key != "carried"
        }
        method = cls(**arguments)
        for role, found in config.get("carried", {}).items():
            for network in (getattr(method, role), method.averaged(role)):
                carry(network, found)
        return method

    def get_compile_config(self) -> dict[str, Any] | None:
        """One serialized optimizer for each role that learns, and how steps are made; None before `compile`."""
        if not self.compiled:
            return None
        roles = self.optimizer_arguments
        options = {name: getattr(self, f"{role}_optimizer", None) for role, name in roles.items()}
        options |= {"micro_batches": self.micro_batches, "rematerialize": self.rematerialize}
        options["backbone_learning_rate_factor"] = self.backbone_learning_rate_factor
        options |= self.execution_options
        return {key: keras.saving.serialize_keras_object(value) for key, value in options.items()}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with what `get_compile_config` described."""
        self.compile(**{key: keras.saving.deserialize_keras_object(value) for key, value in config.items()})

    def random_states(self) -> list[keras.Variable]:
        """The seed states of dropout and its like: in a network's `variables`, not in its `weights`."""
        networks = [getattr(self, role) for role in self.roles]
        known = {id(weight) for network in networks for weight in network.weights}
        return [v for network in networks for v in network.variables if id(v) not in known]

    def running_means(self) -> list[keras.Variable]:
        """What the metrics of training have summed up since the epoch began."""
        return [v for tracker in [*self.train_trackers, *self.skip_trackers] for v in tracker.variables]

    def save_own_variables(self, store: Any) -> None:
        """Saves the step counter and, which Keras leaves out, random states and running means."""
        super().save_own_variables(store)
        for name, variables in self._left_out_by_keras():
            for index, variable in enumerate(variables):
                store[f"{name}_{index}"] = np.asarray(variable)

    def load_own_variables(self, store: Any) -> None:
        """Restores what `save_own_variables` wrote."""
        others = {key: store[key] for key in tuple(store.keys())}
        for name, variables in self._left_out_by_keras():
            for index, variable in enumerate(variables):
                variable.assign(others.pop(f"{name}_{index}"))
        super().load_own_variables(others)

    def _left_out_by_keras(self):
        return ("random_state", self.random_states()), ("running_mean", self.running_means())


def _exclude_vectors_from_decay(optimizer, variables):
    """Leaves biases, scales and offsets out of an optimizer's weight decay, unless its user has left out others."""
    inner = loss_scaling.inner(optimizer)
    # Keras keeps what the user has excluded under private names, and a second call would replace it.
    chosen = [getattr(inner, f"_exclude_from_weight_decay{part}", None) for part in ("", "_pattern")]
    if inner.weight_decay and not inner.built and not any(chosen):
        inner.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])


def _argument_names(kind: type) -> list[str]:
    """A constructor's arguments, with those of the base class that it hands its **options on to."""
    names: list[str] = []
    for each in kind.__mro__:
        if "__init__" in vars(each):
            parameters = list(inspect.signature(vars(each)["__init__"]).parameters.values())[1:]
            named = [
                parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD
            ]
            names += named
            if len(named) == len(parameters):
                break
    return names


def _set_direction(callback: keras.callbacks.Callback) -> None:
    """Tells a callback that watches a metric which way is up; Keras knows it of compiled metrics only."""
    if getattr(callback, "mode", None) != "auto" or not isinstance(getattr(callback, "monitor", None), str):
        return
    for ending, mode in (("accuracy", "max"), ("agreement", "max"), ("loss", "min")):
        if callback.monitor.endswith(ending):
            callback.mode = mode
