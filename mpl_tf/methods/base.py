"""What every training method shares: services, never control flow.

A method is a `keras.Model` made of networks with roles (a teacher, a student). It writes its own
`train_step`; from here it takes one optimizer per role, the descent step, the averaged student, the metrics,
evaluation, and saving. The networks are built before the method is, and the method is built when
`__init__` ends: under a strategy Keras would otherwise try to build it symbolically on the nested batch.
"""

import keras
import tensorflow as tf

from mpl_tf import checks, distribute, schedules
from mpl_tf.methods import loss_scaling, refusals
from mpl_tf.methods.persistence import Persistence
from mpl_tf.methods.training_pass import TrainingPass


class Method(Persistence, keras.Model):
    """Base of the training methods.

    Args:
        networks: role → built `keras.Model` from pictures to logits. The role `"student"` is the one that is
            served: `call`, `evaluate` and `predict` mean it.
        auxiliary: role → built `keras.Model` that does not take pictures and is not evaluated (a generator, a
            calibrator).
        train_metrics: names of the scalars that `train_step` tracks.
        ema_decay: decay of the exponential moving average of the student's weights *and* BatchNorm
            statistics, warmed up as `schedules.average_decay`. Where it is kept, it is what is served. None
            keeps none.
        weight_decay: λ of an L2 penalty ½ λ ‖w‖² on the kernels of every network that learns.
        gradient_clip_norm: largest global norm of each network's gradient, weight decay included; None for no
            bound.
        name: name of the model.

    Raises:
        ValueError: when the networks do not fit each other, share weights, or end in a softmax.
    """

    # Whether `train_step` reads pictures; where it does not, `data.numbered_batches` is enough.
    takes_pictures = True
    # What makes a batch's views inside of the step, `mpl_tf.data.BatchViews`; None where the pipeline has made them.
    augmentation = None

    def __init__(
        self,
        networks: dict,
        *,
        auxiliary: dict | None = None,
        train_metrics: tuple,
        ema_decay: float | None,
        weight_decay: float,
        gradient_clip_norm: float | None,
        name: str | None,
    ):
        super().__init__(name=name)
        refusals.networks(networks, auxiliary)
        checks.within("ema_decay", ema_decay, low=0.0, high=1.0, optional=True)
        checks.within("weight_decay", weight_decay, low=0.0)
        checks.within("gradient_clip_norm", gradient_clip_norm, low=0.0, optional=True)
        self.classifiers = tuple(networks)
        networks = {**networks, **(auxiliary or {})}
        self.roles = tuple(networks)
        for role, network in networks.items():
            setattr(self, role, network)
        self.ema_decay = ema_decay
        self.weight_decay = weight_decay
        self.gradient_clip_norm = gradient_clip_norm
        self.student_average = _clone(self.student) if ema_decay is not None else None
        # An own counter: loss-scaled optimizers skip steps, and theirs would differ from each other.
        self.step = self.add_state("step", dtype="int64")
        self.train_trackers = [keras.metrics.Mean(name=metric) for metric in train_metrics]
        self.scales_losses = loss_scaling.is_needed(networks.values())
        skipped = [f"{role}_skipped_steps" for role in networks if self.scales_losses]
        self.skip_trackers = [keras.metrics.Sum(name=metric) for metric in skipped]
        self.test_trackers = [keras.metrics.Mean(name="loss")]
        self.test_trackers += [keras.metrics.SparseCategoricalAccuracy(name=key) for key in self.evaluated()]
        self.built = True

    # Keras calls this before the first batch; on a nested batch under MultiWorkerMirroredStrategy its
    # `strategy.reduce` fails, and there is nothing left to build. Private: see tests/methods/test_base.py.
    def _maybe_symbolic_build(self, *args, **kwargs):
        pass

    @property
    def served(self) -> keras.Model:
        """The network that `call`, `evaluate`, `predict` and the export mean."""
        return self.student if self.student_average is None else self.student_average

    def evaluated(self) -> dict:
        """Metric name → the network whose accuracy on labeled pictures it is."""
        others = {f"{role}_accuracy": getattr(self, role) for role in self.classifiers if role != "student"}
        return {"accuracy": self.served, **others}

    def call(self, inputs, training=False):
        """Logits `[B, K]` of the served student on pictures `[B, H, W, C]` in 0…255."""
        return self.served(inputs, training=training)

    def add_state(self, name: str, dtype: str = "float32", shape: tuple = ()):
        """Numbers that start at 0, are the same on every replica, and are saved with the model."""
        shared = {"trainable": False, "aggregation": "only_first_replica"}
        state = self.add_weight(name=name, shape=shape, dtype=dtype, initializer="zeros", **shared)
        self.built = True
        return state

    # --- compiling -------------------------------------------------------------------------------------

    def compile(self, student_optimizer="sgd", **options):
        """Sets the optimizer, where the student alone learns; methods with more learners have one for each.

        Args:
            student_optimizer: a Keras optimizer, or its name.
            **options: `jit_compile`, `micro_batches`, `recompute` as in `compile_roles`; `run_eagerly`,
                `steps_per_execution`.
        """
        self.compile_roles({"student": student_optimizer}, **options)

    def compile_roles(
        self,
        optimizers: dict,
        *,
        jit_compile: bool | str = "auto",
        micro_batches: int | dict = 1,
        recompute: bool = False,
        **options,
    ):
        """Takes one optimizer per role, with a loss scale where networks compute in float16, and builds its state.

        Building here matters: under MirroredStrategy an optimizer cannot create variables inside the step,
        and Keras saves only the state that exists.

        Args:
            optimizers: role → a Keras optimizer, or its name.
            jit_compile: True, False or `"auto"`, see `distribute.use_xla`.
            micro_batches: in how many parts the training passes are made, of which one's activations are in memory
                at a time; a number for every classifier that learns, or role → number.
            recompute: whether their backward passes compute activations again instead of keeping them.
            **options: `run_eagerly`, `steps_per_execution`.

        Raises:
            ValueError: for an optimizer or a value that does not work here.
        """
        jit_compile = distribute.use_xla(jit_compile)
        checks.one_of("recompute", recompute, (True, False))
        checks.whole("steps_per_execution", options.get("steps_per_execution", 1), low=1)
        for role, optimizer in optimizers.items():
            optimizer = refusals.optimizer(role, keras.optimizers.get(optimizer), self.scales_losses)
            if self.scales_losses:
                optimizer = loss_scaling.scaling(optimizer)
            variables = getattr(self, role).trainable_variables
            refusals.frozen(role, variables)
            inner = loss_scaling.inner(optimizer)
            if inner.weight_decay and not inner.built:
                inner.exclude_from_weight_decay([v for v in variables if len(v.shape) < 2])
            optimizer.build(variables)
            setattr(self, f"{role}_optimizer", optimizer)
        learners = [role for role in optimizers if role in self.classifiers]
        self.micro_batches, self.recompute = refusals.micro_batches(micro_batches, learners), recompute
        for role, count in self.micro_batches.items():
            training_pass = TrainingPass(getattr(self, role), micro_batches=count, recompute=recompute)
            setattr(self, f"{role}_pass", training_pass)
        # What Keras compiles is the step on all replicas together, which is more than XLA can.
        self.compiles_replicas = jit_compile and distribute.replica_count() > 1
        jit_compile = jit_compile and not self.compiles_replicas
        super().compile(
            optimizer=self.student_optimizer, jit_compile=jit_compile, auto_scale_loss=False, **options
        )

    def make_train_function(self, force=False):
        """Keras' own training function, but on several replicas where that cannot do what is asked for."""
        strategy = self.distribute_strategy
        several = strategy.num_replicas_in_sync > 1 and self.steps_per_execution > 1
        if self.run_eagerly or not (several or self.compiles_replicas):
            super().make_train_function(force)
        elif self.train_function is None or force:
            steps, jit_compile = self.steps_per_execution, self.compiles_replicas
            self.train_function = distribute.train_function(
                self.train_step, strategy, steps=steps, jit_compile=jit_compile
            )

    # --- inside train_step -----------------------------------------------------------------------------

    def views(self, data: dict) -> dict:
        """The batch with its weak and strong views, which are made here where `augmentation` is set."""
        if self.augmentation is None:
            return data
        return self.augmentation(data)

    def training_logits(self, role: str, images: tf.Tensor) -> tf.Tensor:
        """Logits of a classifier that learns, in training mode; in micro-batches where `compile` was told so.

        Args:
            role: whose.
            images: `[B, H, W, C]` in 0…255. In several micro-batches no gradient reaches them.

        Returns:
            float32 `[B, K]`.
        """
        return getattr(self, f"{role}_pass").logits(images)

    def gradients(self, tape: tf.GradientTape, **losses) -> dict:
        """Gradients of the global batch, in float32 and without a loss scale.

        Args:
            tape: that recorded the losses.
            **losses: role → scalar, the mean over this replica's share of the batch. Where there are several, no
                weight of one role is in the loss of another.

        Returns:
            Role → one tensor per trainable variable, the same on every replica.
        """
        variables = {role: getattr(self, role).trainable_variables for role in losses}
        scales = {role: loss_scaling.scale(getattr(self, f"{role}_optimizer", None)) for role in losses}
        seeds = [tf.constant(1.0) if scale is None else scale for scale in scales.values()]
        gradients = tape.gradient(
            list(losses.values()), variables, output_gradients=seeds if self.scales_losses else None
        )
        gradients = {role: loss_scaling.unscaled(gradients[role], scales[role]) for role in losses}
        return distribute.replica_mean(gradients)

    def descend(self, role: str, gradients: list, *, weight_decay: float | None = None):
        """One optimizer step of a role, with the method's weight decay and clipping.

        The decay is coupled into the gradient, as in the released Meta Pseudo Labels code; biases, scales and
        offsets are left alone.

        Args:
            role: whose weights move.
            gradients: one tensor per trainable variable, of the *global* batch, as `gradients` returns them.
            weight_decay: λ of this role; None for the method's.

        Returns:
            The global norm before clipping, scalar; 0 for a step that was skipped because float16 overflowed.
        """
        variables = getattr(self, role).trainable_variables
        decay = self.weight_decay if weight_decay is None else weight_decay
        if decay:
            pairs = zip(gradients, variables, strict=True)
            gradients = [g + decay * v if len(v.shape) > 1 else g for g, v in pairs]
        norm = tf.linalg.global_norm(gradients)
        if self.gradient_clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.gradient_clip_norm, use_norm=norm)
        # Keras optimizers sum over replicas; the gradients are already the global mean on each of them.
        count = distribute.replica_count()
        if count > 1:
            gradients = [gradient / count for gradient in gradients]
        made = loss_scaling.apply(getattr(self, f"{role}_optimizer"), gradients, variables)
        for tracker in self.skip_trackers:
            if tracker.name == f"{role}_skipped_steps":
                tracker.update_state(tf.where(made, 0.0, 1.0 / count))
        return tf.where(made, norm, 0.0) if self.scales_losses else norm

    def finish_step(self, *, after):
        """Averages BatchNorm statistics over replicas, updates the averaged student, counts the step.

        Args:
            after: a tensor that was computed from the batch. TensorFlow runs what does not depend on the batch even
                when the dataset turns out to have ended, and that step is not to be counted.
        """
        for role in self.roles:
            distribute.average_moving_statistics(getattr(self, role).non_trainable_weights)
        if self.student_average is not None:
            decay = schedules.average_decay(self.step.value, self.ema_decay)
            for average, value in zip(self.student_average.weights, self.student.weights, strict=True):
                mixed = tf.cast(value, tf.float32) * (1.0 - decay) + tf.cast(average, tf.float32) * decay
                average.assign(tf.cast(mixed, average.dtype))
        with tf.control_dependencies([after]):
            self.step.assign_add(1)

    def track(self, **values):
        """Adds one step's scalars to the metrics and returns the running means, as `train_step` must.

        Args:
            **values: one scalar for each name in `train_metrics`.
        """
        for tracker in self.train_trackers:
            tracker.update_state(values.pop(tracker.name))
        refusals.all_tracked(values)
        return distribute.as_logs([*self.train_trackers, *self.skip_trackers])

    # --- labels of unlabeled pictures ------------------------------------------------------------------

    def label(self, images, index) -> tf.Tensor:
        """What the method would label unlabeled pictures with: the teacher where one learns, else the student.

        Args:
            images: float32 `[n, H, W, C]` in 0…255, not augmented.
            index: int64 `[n]`, their places among the training pictures; for methods that keep labels.

        Returns:
            float32 `[n, K]`, probabilities in inference mode; a row of zeros where there is no label yet.
        """
        return probabilities(self.teacher if hasattr(self, "teacher_optimizer") else self.student, images)

    def end_epoch(self, unlabeled: tf.data.Dataset) -> None:
        """What a method does between two epochs, before the checkpoint that has to hold it: here, nothing.

        Args:
            unlabeled: each unlabeled picture once and not augmented, `{"image", "index"}`.
        """

    # --- evaluation -------------------------------------------------------------------------------------

    def test_step(self, data):
        """Loss (nats) of the served student and accuracy of every network on labeled pictures."""
        images, labels = refusals.evaluation_batch(data)
        loss, *accuracies = self.test_trackers
        for tracker, network in zip(accuracies, self.evaluated().values(), strict=True):
            logits = network(images, training=False)
            tracker.update_state(labels, logits)
            if tracker.name == "accuracy":
                entropies = tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels, tf.cast(logits, tf.float32)
                )
                loss.update_state(entropies)
        return distribute.as_logs(self.test_trackers)


def probabilities(network: keras.Model, images) -> tf.Tensor:
    """A network's predictions `[n, K]` on pictures, in float32 and inference mode."""
    return tf.nn.softmax(tf.cast(network(images, training=False), tf.float32))


def _clone(network: keras.Model) -> keras.Model:
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    return clone
