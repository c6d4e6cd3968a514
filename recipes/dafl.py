"""Data-free learning: a student of a finished teacher that never sees an image of its training set.

python -m recipes.dafl --preset=dafl_digits --teacher=runs/teacher/networks/student.keras

The dataset is read for the class names and to evaluate on, never to learn from.
"""

import keras
from absl import flags

from mpl_tf import models
from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.dafl import DataFreeLearning
from recipes.common import builders, program, shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_run_flags()

flags.DEFINE_string("teacher", None, "The teacher's .keras file, as runs leave it in networks/.")
flags.DEFINE_enum(
    "generator", "learned", ["learned", "noise"], "Noise: the student learns from pixels drawn one by one."
)
flags.DEFINE_integer("latent_dim", 100, "Length of the generator's noise.", lower_bound=1)
flags.DEFINE_integer("generator_width", 128, "Filters of its first layers.", lower_bound=2)
flags.DEFINE_float("pixel_mean", 127.5, "Mean of the generated pixels, before the cut at 0 and 255.", 0, 255)
flags.DEFINE_float("pixel_std", 127.5, "Their standard deviation.", 1e-3)
flags.DEFINE_float("generator_learning_rate", 0.02, "Of the generator's Adam, constant.", 0.0)
flags.DEFINE_float("generator_weight_decay", 0.0, "L2 penalty on the generator's kernels.", 0.0)
flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "The student's.")
flags.DEFINE_string("one_hot", "cross_entropy", "Loss that asks for sure predictions: cross_entropy or l2.")
flags.DEFINE_float("one_hot_weight", 1.0, "Factor on it.", 0.0)
flags.DEFINE_enum("entropy_over", "batch", ["batch", "example"], "Of the mean prediction, or of each.")
flags.DEFINE_float("entropy_weight", 2.17, "Factor on the entropy, in nats.", 0.0)
flags.DEFINE_string("activation_layer", "features", "The teacher's layer whose response is to be large.")
flags.DEFINE_float("activation_weight", 0.1, "Factor on its mean size.", 0.0)
flags.DEFINE_float("temperature", 1.0, "T of the student's distillation.", 1e-3)
flags.mark_flag_as_required("teacher")


def build(data: RunData) -> DataFreeLearning:
    """The compiled method."""
    method = DataFreeLearning(
        teacher=models.load(FLAGS.teacher, class_names=data.source.class_names),
        student=builders.network(FLAGS.model, data, seed=FLAGS.seed),
        generator=generator(data.source.image_shape),
        one_hot=FLAGS.one_hot,
        one_hot_weight=FLAGS.one_hot_weight,
        entropy_over=FLAGS.entropy_over,
        entropy_weight=FLAGS.entropy_weight,
        activation_layer=FLAGS.activation_layer,
        activation_weight=FLAGS.activation_weight,
        temperature=FLAGS.temperature,
        weight_decay=FLAGS.weight_decay,
        generator_weight_decay=FLAGS.generator_weight_decay,
        global_clipnorm=FLAGS.global_clipnorm,
        ema_decay=FLAGS.ema_decay or None,
        seed=FLAGS.seed,
    )
    method.compile(
        generator_optimizer=keras.optimizers.Adam(FLAGS.generator_learning_rate),
        student_optimizer=student_optimizer(),
        **builders.compile_options(),
    )
    return method


def generator(image_shape: tuple) -> keras.Model:
    """Noise → images, as the flags say."""
    moments = {"pixel_mean": FLAGS.pixel_mean, "pixel_std": FLAGS.pixel_std}
    if FLAGS.generator == "noise":
        return models.pixel_noise(image_shape, **moments)
    return models.generator(
        image_shape,
        latent_dim=FLAGS.latent_dim,
        width=FLAGS.generator_width,
        synchronized=FLAGS.strategy != "default",
        seed=fold_in(FLAGS.seed, "generator"),
        **moments,
    )


def student_optimizer() -> keras.optimizers.Optimizer:
    """Adam, or the other recipes' SGD, under the run's schedule."""
    if FLAGS.optimizer == "adam":
        return keras.optimizers.Adam(builders.learning_rate(FLAGS.learning_rate, steps=FLAGS.steps))
    return builders.optimizer(FLAGS.learning_rate, steps=FLAGS.steps)


def main(_):
    """Trains, evaluates, exports."""
    with program.open_run() as run:
        run.train("method", lambda: build(run.data), program.stage())
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
