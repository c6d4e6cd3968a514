"""FixMatch.

python -m recipes.fixmatch --preset=fixmatch_digits
python -m recipes.fixmatch --preset=fixmatch_cifar10_250
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_alignment_flag()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()
HYPERPARAMETERS = MethodFlags("mpl_tf", "FixMatch")
shared_flags.define_baseline_flags()
shared_flags.define_serve_flag("finetuned", "student", "supervised")

if __name__ == "__main__":
    start.parse_flags()

from mpl_tf.methods.fixmatch import FixMatch
from mpl_tf.training.run import Run
from recipes.common import builders, program


def build(run: Run) -> FixMatch:
    """The compiled method."""
    method = FixMatch(
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed),
        **HYPERPARAMETERS.values(class_prior=builders.class_prior(run.data)),
    )
    method.compile(builders.optimizer(FLAGS.learning_rate, steps=FLAGS.steps), **builders.compile_options())
    return method


def train(run: Run) -> None:
    """The baseline, where it is asked for, the method and its fine-tuning."""
    program.train_baseline(run)
    run.train("method", lambda: build(run), program.stage())
    run.finetune(**program.finetuning())


def main(_):
    """Trains, fine-tunes, evaluates, exports."""
    with program.open_run(train) as run:
        train(run)
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
