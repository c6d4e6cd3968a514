"""How the weights of a method's roles move: their optimizers, the passes that are differentiated, and descent."""

import keras
import tensorflow as tf

from mpl_tf import checks, distribute
from mpl_tf.methods import loss_scaling, refusals
from mpl_tf.methods.layerwise import BackboneSteps
from mpl_tf.methods.training_pass import TrainingPass


class Optimization:
    """Compiling and descending of a `Method`, to be inherited from before `keras.Model`."""

    # --- compiling -------------------------------------------------------------------------------------

    def compile(self, student_optimizer="sgd", **options):
        """Sets the optimizer, where the student alone learns; methods with more learners have one for each.

        Args:
            student_optimizer: a Keras optimizer, or its name.
            **options: `jit_compile`, `micro_batches`, `recompute`, `backbone_learning_rate_factor` as in
                `compile_roles`; `run_eagerly`, `steps_per_execution`.
        """
        self.compile_roles({"student": student_optimizer}, **options)

    def compile_roles(
        self,
        optimizers: dict,
        *,
        jit_compile: bool | str = "auto",
        micro_batches: int | dict = 1,
        recompute: bool = False,
        backbone_learning_rate_factor: float = 1.0,
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
            backbone_learning_rate_factor: of the learning rate of all weights but those of the last dense layer, in
                0…1; for fine-tuning what was learned elsewhere under a new head.
            **options: `run_eagerly`, `steps_per_execution`.

        Raises:
            ValueError: for an optimizer or a value that does not work here.
        """
        jit_compile = distribute.use_xla(jit_compile)
        checks.one_of("recompute", recompute, (True, False))
        checks.within("backbone_learning_rate_factor", backbone_learning_rate_factor, low=0.0, high=1.0)
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
        self.backbone_learning_rate_factor = backbone_learning_rate_factor
        factor = backbone_learning_rate_factor
        self.backbone_steps = {role: BackboneSteps(getattr(self, role), factor) for role in learners}
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
        backbone_steps = self.backbone_steps.get(role)
        before = backbone_steps.before() if backbone_steps else []
        made = loss_scaling.apply(getattr(self, f"{role}_optimizer"), gradients, variables)
        if backbone_steps:
            backbone_steps.shorten(before)
        for tracker in self.skip_trackers:
            if tracker.name == f"{role}_skipped_steps":
                tracker.update_state(tf.where(made, 0.0, 1.0 / count))
        return tf.where(made, norm, 0.0) if self.scales_losses else norm
