"""Data-free learning of student networks, DAFL (Chen et al.; ICCV 2019; arXiv 1904.01186).

A generator learns to make images on which a finished teacher behaves as on those that it was trained on; a student
learns the teacher's predictions on them. No image of the training set is needed.

    L_oh = mean CE(y_T, argmax y_T)       the teacher is sure of each image
    L_a  = - mean |f_T|                   its features respond
    L_ie = - H(p̄)                         the batch holds all classes: p̄ is the mean prediction
    G descends  w_oh L_oh + w_a L_a + w_ie L_ie   (section 3.2),   S descends  KL(y_T ‖ y_S)   (section 3.1)

Where `statistics_weight` is not 0, G also descends w_s R_feature of DeepInversion (Yin et al.; CVPR 2020; arXiv
1912.08795, section 3.2), which asks for the statistics that the teacher's BatchNorm layers l have kept of its
training images, μ_l and σ²_l per channel:

    R_feature = Σ_l ‖mean(x_l) - μ_l‖₂ + Σ_l ‖var(x_l) - σ²_l‖₂     x_l: the layer's inputs on G(z), over the batch

| paper | here |
|---|---|
| z, G(z) | `noise`, `images` |
| y_T, f_T, y_S | softmax of `teacher_logits`, `features`, softmax of `student_logits` |
| p̄ = 1/n Σ y_T | `mean_prediction`, over the batch of all replicas |
| x_l, μ_l, σ²_l | `normalized`, `moving_mean` and `moving_variance`; x_l's moments are over all replicas too |

As in the released code both networks step on the same images; the paper's algorithm draws new ones for the student.
Where else this departs from either, and why, is in docs/methods/dafl.md.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from mpl_tf import losses
from mpl_tf.data.batches import batch_size, check_index_batch
from mpl_tf.distribute import replicas
from mpl_tf.methods import validation
from mpl_tf.methods.base import Method
from mpl_tf.methods.constraints import Choice, Integer, Number
from mpl_tf.methods.engine import kernels, normalization, sampling
from mpl_tf.models.surgery import as_functional
from mpl_tf.utils.validation import check_choice


@keras.saving.register_keras_serializable("mpl_tf")
class DataFreeLearning(Method):
    """Trains a generator against a teacher, and a student on what it generates; the student is served.

    Args:
        teacher: built functional `keras.Model` from images `[B, H, W, C]` in 0…255 to logits `[B, K]`. It does not
            change.
        student: another one, with the same input shape and number of classes.
        generator: built `keras.Model` from noise `[B, Z]` to images in 0…255, see `models.build_generator`; also
            `models.pixel_noise`, which has nothing to learn.
        one_hot: the loss that asks for sure predictions: `"cross_entropy"` with the teacher's own class, or `"l2"`,
            -‖y_T‖₂. The L1 norm is refused: a prediction's is always 1.
        one_hot_weight: factor on it.
        entropy_over: `"batch"`, the entropy of the mean prediction, or `"example"`, the mean of the predictions'
            entropies, which asks for unsure predictions and not for many classes.
        entropy_weight: factor on the entropy, in nats. The weight that goes with log₁₀ is ln 10 times as large.
        activation_layer: name of the teacher's layer whose output f_T is.
        activation_weight: factor on the mean of |f_T| over all its entries.
        statistics_weight: factor on R_feature, the distance of the generated images' statistics from those in the
            teacher's BatchNorm layers. 0, as in DAFL, does without; anything else needs a teacher that has some.
        temperature: of the student's distillation; 1 in the paper.
        weight_decay: λ of the L2 penalty ½ λ ‖w‖² on the student's kernels.
        generator_weight_decay: the same on the generator's.
        global_clipnorm: largest global norm of each network's gradient; None for no bound.
        ema_decay: decay of the averaged student that is then served; None serves the student itself.
        seed: of the noise.
        name: name of the model.

    Raises:
        ValueError: for a value out of range, networks that do not fit each other, or a layer that is not there.
    """

    uses_images = False
    learners = ("generator", "student")
    parameter_constraints = Method.parameter_constraints | {
        "one_hot": Choice("cross_entropy", "l2"),
        "one_hot_weight": Number(),
        "entropy_over": Choice("batch", "example"),
        "entropy_weight": Number(),
        "activation_weight": Number(),
        "statistics_weight": Number(),
        "temperature": Number(low=1e-3),
        "generator_weight_decay": Number(),
        "seed": Integer(),
    }

    def __init__(
        self,
        *,
        teacher: keras.Model,
        student: keras.Model,
        generator: keras.Model,
        one_hot: str = "cross_entropy",
        one_hot_weight: float = 1.0,
        entropy_over: str = "batch",
        entropy_weight: float = 2.17,
        activation_layer: str = "features",
        activation_weight: float = 0.1,
        statistics_weight: float = 0.0,
        temperature: float = 1.0,
        weight_decay: float = 0.0,
        generator_weight_decay: float = 0.0,
        global_clipnorm: float | None = None,
        ema_decay: float | None = None,
        seed: int = 0,
        name: str | None = None,
    ):
        metrics = (
            "loss", "generator_loss", "one_hot_loss", "entropy", "activation_loss", "agreement",
            "class_balance", "pairwise_distance", "student_gradient_norm", "generator_gradient_norm",
            *(("statistics_loss",) if statistics_weight else ()),
        )  # fmt: skip
        super().__init__(
            {"teacher": teacher, "student": student},
            auxiliary={"generator": generator},
            train_metrics=metrics,
            ema_decay=ema_decay,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            name=name,
        )
        self.one_hot = one_hot
        self.one_hot_weight = one_hot_weight
        self.entropy_over = entropy_over
        self.entropy_weight = entropy_weight
        self.activation_layer = activation_layer
        self.activation_weight = activation_weight
        self.statistics_weight = statistics_weight
        self.temperature = temperature
        self.generator_weight_decay = generator_weight_decay
        self.seed = seed
        validation.check_generator(generator, student)
        validation.check_norm_of_predictions(one_hot)
        self.check_parameters()
        check_choice("activation_layer", activation_layer, [layer.name for layer in teacher.layers])
        outputs = [teacher.get_layer(activation_layer).output, *teacher.outputs]
        if statistics_weight:
            validation.check_statistics(statistics_weight, teacher)
            outputs += [layer.input for layer in _batch_norms(teacher)]
        # Kept as a function: Keras would save a model a second time, with the teacher's weights.
        self._teacher_outputs = keras.Model(as_functional(teacher).inputs, outputs).__call__

    def compile(
        self,
        generator_optimizer: str | keras.optimizers.Optimizer | None = None,
        student_optimizer: str | keras.optimizers.Optimizer | None = None,
        **options: Any,
    ) -> None:
        """Sets the optimizers, one for each network.

        Args:
            generator_optimizer: a Keras optimizer, or its name; not needed for a generator without trainable weights,
                which stays as it is.
            student_optimizer: a Keras optimizer, or its name. Learning-rate callbacks act on this one.
            **options: `jit_compile`, `micro_batches`, `rematerialize` as in `compile_roles`; `run_eagerly`,
                `steps_per_execution`.

        Raises:
            ValueError: when one of them is missing, and for one or an option that does not work here.
        """
        optimizers = {"student": student_optimizer}
        self.generator_optimizer = None
        if self.generator.trainable_variables:
            optimizers["generator"] = generator_optimizer
        self.compile_roles(optimizers, **options)
        normalization.prepare(self.generator)

    def train_step(self, data: dict) -> dict[str, tf.Tensor]:
        """One step of both networks on as many images as `data["generated"]["index"]` numbers."""
        check_index_batch(data)
        index = data["generated"]["index"]
        rows, columns = batch_size(index), self.generator.input_shape[-1]
        noise = sampling.normal(rows, columns, seed=self.seed, step=self.step.value)

        with tf.GradientTape() as tape:
            # G(z)
            with kernels.training_pass():
                images = self.generator(noise, training=True)

            # f_T, y_T, x_l: the teacher in inference mode; gradients pass through it to the generator.
            features, teacher_logits, *normalized = self._teacher_outputs(images, training=False)
            features, teacher_logits = tf.cast(features, tf.float32), tf.cast(teacher_logits, tf.float32)

            # L_oh, L_a
            one_hot_loss = tf.reduce_mean(self._one_hot_losses(teacher_logits))
            activation_loss = -tf.reduce_mean(tf.abs(features))

            # L_ie. The mean over all replicas is taken inside the tape, which differentiates it.
            mean_prediction = tf.reduce_mean(tf.nn.softmax(teacher_logits), axis=0)
            mean_prediction = replicas.replica_mean(mean_prediction)
            entropy = batch_entropy = -tf.reduce_sum(tf.math.xlogy(mean_prediction, mean_prediction))
            if self.entropy_over == "example":
                entropy = tf.reduce_mean(losses.entropy(teacher_logits))

            generator_loss = (
                self.one_hot_weight * one_hot_loss
                + self.activation_weight * activation_loss
                - self.entropy_weight * entropy
            )

            # R_feature
            statistics = {}
            if self.statistics_weight:
                statistics["statistics_loss"] = self._statistics_loss(normalized)
                generator_loss += self.statistics_weight * statistics["statistics_loss"]

            # KL(y_T ‖ y_S): neither the images nor the teacher's predictions carry a gradient into it.
            student_logits = self.training_logits("student", tf.stop_gradient(images))
            student_loss = losses.distillation(teacher_logits, student_logits, temperature=self.temperature)
            student_loss = tf.reduce_mean(student_loss)

        gradients = self.gradients(tape, generator=generator_loss, student=student_loss)
        # θ_S ← θ_S - η ∇ KL
        student_norm = self.apply_gradients("student", gradients["student"])
        # θ_G ← θ_G - η ∇ (w_oh L_oh + w_a L_a + w_ie L_ie + w_s R_feature)
        generator_norm = tf.constant(0.0)
        if self.generator_optimizer is not None:
            generator_norm = self.apply_gradients(
                "generator", gradients["generator"], weight_decay=self.generator_weight_decay
            )
        self.end_step(after=student_norm)

        return self.update_metrics(
            loss=student_loss,
            generator_loss=generator_loss,
            one_hot_loss=one_hot_loss,
            entropy=entropy,
            activation_loss=activation_loss,
            agreement=losses.accuracy(tf.argmax(teacher_logits, axis=-1), student_logits),
            # 1 where the mean prediction is uniform, 0 where every image is of one class.
            class_balance=batch_entropy / math.log(teacher_logits.shape[-1]),
            pairwise_distance=_pairwise_distance(images),
            student_gradient_norm=student_norm,
            generator_gradient_norm=generator_norm,
            **statistics,
        )

    def _one_hot_losses(self, logits):
        if self.one_hot == "l2":
            return -tf.norm(tf.nn.softmax(logits), axis=-1)
        return losses.cross_entropy(tf.argmax(logits, axis=-1), logits)

    def _statistics_loss(self, normalized):
        """R_feature, a sum over the BatchNorm layers and, as in DeepInversion, of distances that are not squared."""
        loss = 0.0
        for layer, inputs in zip(_batch_norms(self.teacher), normalized, strict=True):
            mean, variance = _moments(tf.cast(inputs, tf.float32), channels=layer.axis)
            loss += _distance(mean, layer.moving_mean) + _distance(variance, layer.moving_variance)
        return loss


def _batch_norms(teacher):
    """The BatchNorm layers of a network, without those inside of networks that are layers of it."""
    return [layer for layer in teacher.layers if isinstance(layer, keras.layers.BatchNormalization)]


def _moments(values, *, channels):
    """Mean and variance of each channel over the batch of all replicas, whose means the tape differentiates."""
    axes = [axis for axis in range(values.shape.rank) if axis != channels % values.shape.rank]
    mean = replicas.replica_mean(tf.reduce_mean(values, axis=axes, keepdims=True))
    variance = replicas.replica_mean(tf.reduce_mean(tf.square(values - mean), axis=axes))
    return tf.reshape(mean, [-1]), variance


def _distance(values, others):
    """‖values - others‖₂, whose gradient is 0, and not infinite, where they are equal."""
    squares = tf.reduce_sum(tf.square(values - tf.cast(others, tf.float32)))
    return tf.sqrt(tf.maximum(squares, 1e-12))


def _pairwise_distance(images):
    """Root mean square difference between the same pixel of two different images, in 0…255."""
    count = tf.cast(tf.shape(images)[0], tf.float32)
    # E (a - b)² = 2 Var over all pairs, of which the n pairs of an image with itself are left out.
    variance = tf.reduce_mean(tf.math.reduce_variance(tf.cast(images, tf.float32), axis=0))
    return tf.sqrt(2.0 * variance * count / tf.maximum(count - 1.0, 1.0))
