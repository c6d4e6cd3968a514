"""Unsupervised Data Augmentation.

python -m recipes.uda --preset=uda_cifar10_4k
"""

from absl import flags

from mpl_tf import schedules, training
from mpl_tf.methods.uda import UDA
from recipes import common, start

FLAGS = flags.FLAGS

common.define_data_flags()
common.define_training_flags()
common.define_unlabeled_flags()
common.define_finetune_flags()
common.define_run_flags()

flags.DEFINE_float("entropy_weight", 0.0, "Factor on the entropy of predictions on the weak view.", 0.0)
flags.DEFINE_enum(
    "annealing", "none", ["none", *schedules.ANNEALING], "Training signal annealing's schedule."
)
flags.DEFINE_integer("annealing_steps", None, "The step at which it ends; the last when not given.", 1)


def build(data: training.RunData) -> UDA:
    """The compiled method."""
    method = UDA(
        student=common.network(FLAGS.model, data, seed=FLAGS.seed),
        consistency_weight=FLAGS.uda_weight,
        temperature=FLAGS.uda_temperature,
        threshold=FLAGS.uda_threshold,
        entropy_weight=FLAGS.entropy_weight,
        annealing=FLAGS.annealing,
        annealing_steps=FLAGS.annealing_steps or FLAGS.steps,
        label_smoothing=FLAGS.label_smoothing,
        weight_decay=FLAGS.weight_decay,
        gradient_clip_norm=FLAGS.gradient_clip_norm,
        ema_decay=FLAGS.ema_decay or None,
    )
    method.compile(common.optimizer(FLAGS.learning_rate, steps=FLAGS.steps), **common.compile_options())
    return method


def main(_):
    """Trains, evaluates, exports."""
    folder = common.run_dir()
    common.claim(folder)
    common.prepare()
    data = common.load_data(folder)
    settings = common.run_settings(folder, unlabeled_ratio=FLAGS.unlabeled_ratio)
    common.show(training.run(lambda: build(data), data, settings), folder)


if __name__ == "__main__":
    start.run(main)
