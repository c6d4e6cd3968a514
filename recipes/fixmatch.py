"""FixMatch.

python -m recipes.fixmatch --preset=fixmatch_digits
python -m recipes.fixmatch --preset=fixmatch_cifar10_250
"""

from absl import flags

from mpl_tf.data.run_data import RunData
from mpl_tf.methods.fixmatch import FixMatch
from recipes.common import builders, program, shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_pseudo_labeling_flags()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()

flags.DEFINE_float("threshold", 0.95, "Confidence below which an image is masked.", 0.0, 1.0)


def build(data: RunData) -> FixMatch:
    """The compiled method."""
    method = FixMatch(
        student=builders.network(FLAGS.model, data, seed=FLAGS.seed),
        consistency_weight=FLAGS.consistency_weight,
        threshold=FLAGS.threshold,
        temperature=FLAGS.temperature,
        targets=FLAGS.targets,
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
