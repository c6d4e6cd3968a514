"""Data-free learning: a student of a finished teacher that never sees an image of its training set.

python -m recipes.dafl --preset=dafl_digits --teacher=runs/teacher/networks/student.keras

The dataset is read for the class names and to evaluate on, never to learn from.
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_run_flags()
shared_flags.define_serve_flag("student", "teacher")
HYPERPARAMETERS = MethodFlags("mpl_tf", "DataFreeLearning")

define_path("teacher", None, "The teacher's .keras file, as runs leave it in networks/.")
flags.DEFINE_enum(
    "generator", "learned", ["learned", "noise"], "Noise: the student learns from pixels drawn one by one."
)
flags.DEFINE_integer("latent_dim", 100, "Length of the generator's noise.", lower_bound=1)
flags.DEFINE_integer("generator_width", 128, "Filters of its first layers.", lower_bound=2)
flags.DEFINE_float("pixel_mean", 127.5, "Mean of the generated pixels, before the cut at 0 and 255.", 0, 255)
flags.DEFINE_float("pixel_std", 127.5, "Their standard deviation.", 1e-3)
flags.DEFINE_float("generator_learning_rate", 0.02, "Of the generator's Adam, constant.", 0.0)
flags.DEFINE_string("activation_layer", "features", "The teacher's layer whose response is to be large.")
flags.mark_flag_as_required("teacher")

if __name__ == "__main__":
    start.parse_flags()

import keras

from mpl_tf import models
from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.methods.dafl import DataFreeLearning
from mpl_tf.training.run import Run
from recipes.common import builders, program


def build(run: Run) -> DataFreeLearning:
    """The compiled method."""
    method = DataFreeLearning(
        teacher=builders.load_network(FLAGS.teacher, run.data.source),
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed),
        generator=generator(run.data.source.image_shape),
        activation_layer=FLAGS.activation_layer,
        **HYPERPARAMETERS.values(),
    )
    method.compile(
        generator_optimizer=keras.optimizers.Adam(FLAGS.generator_learning_rate),
        student_optimizer=builders.optimizer(FLAGS.learning_rate, steps=FLAGS.steps),
        **builders.compile_options(),
    )
    return method


def generator(image_shape: tuple) -> keras.Model:
    """Noise → images, as the flags say."""
    moments = {"pixel_mean": FLAGS.pixel_mean, "pixel_std": FLAGS.pixel_std}
    if FLAGS.generator == "noise":
        return models.pixel_noise(image_shape, **moments)
    return models.build_generator(
        image_shape,
        latent_dim=FLAGS.latent_dim,
        width=FLAGS.generator_width,
        synchronized=FLAGS.strategy != "default",
        seed=fold_in(FLAGS.seed, "generator"),
        **moments,
    )


def train(run: Run) -> None:
    """The method."""
    run.train("method", lambda: build(run), program.stage())


def main(_):
    """Trains, evaluates, exports."""
    with program.open_run(train) as run:
        train(run)
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
