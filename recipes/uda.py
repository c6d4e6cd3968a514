"""Unsupervised Data Augmentation.

python -m recipes.uda --preset=uda_cifar10_4k
"""

from absl import flags

from mpl_tf import schedules
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.uda import UDA
from recipes.common import builders, program, shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_consistency_flags()
shared_flags.define_alignment_flag()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()

flags.DEFINE_float("entropy_weight", 0.0, "Factor on the entropy of predictions on the weak view.", 0.0)
flags.DEFINE_enum(
    "tsa_schedule", "none", ["none", *schedules.TSA_SCHEDULES], "Training signal annealing's schedule."
)
flags.DEFINE_integer("tsa_steps", None, "The step at which it ends; the last when not given.", 1)


def build(data: RunData) -> UDA:
    """The compiled method."""
    method = UDA(
        student=builders.network(FLAGS.model, data, seed=FLAGS.seed),
        consistency_weight=FLAGS.uda_weight,
        temperature=FLAGS.uda_temperature,
        threshold=FLAGS.uda_threshold,
        entropy_weight=FLAGS.entropy_weight,
        tsa_schedule=FLAGS.tsa_schedule,
        tsa_steps=FLAGS.tsa_steps or FLAGS.steps,
        class_prior=builders.class_prior(data),
        **builders.regularization(),
    )
    method.compile(builders.optimizer(FLAGS.learning_rate, steps=FLAGS.steps), **builders.compile_options())
    return method


def main(_):
    """Trains, fine-tunes, evaluates, exports."""
    with program.open_run() as run:
        run.train("method", lambda: build(run.data), program.stage())
        run.finetune(**program.finetuning())
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
