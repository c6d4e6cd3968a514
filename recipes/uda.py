"""Unsupervised Data Augmentation.

python -m recipes.uda --preset=uda_cifar10_4k
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
HYPERPARAMETERS = MethodFlags(
    "mpl_tf",
    "UDA",
    # As in Meta Pseudo Labels, whose presets this recipe reads too.
    names={
        "consistency_weight": "uda_weight",
        "temperature": "uda_temperature",
        "threshold": "uda_threshold",
    },
    defaults={"uda_weight": 8.0, "uda_temperature": 0.7, "uda_threshold": 0.6, "tsa_steps": None},
)
shared_flags.define_baseline_flags()
shared_flags.define_serve_flag("finetuned", "student", "supervised")

if __name__ == "__main__":
    start.parse_flags()

from mpl_tf.methods.uda import UDA
from mpl_tf.training.run import Run
from recipes.common import builders, program


def build(run: Run) -> UDA:
    """The compiled method."""
    method = UDA(
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed),
        **HYPERPARAMETERS.values(
            tsa_steps=FLAGS.tsa_steps or FLAGS.steps, class_prior=builders.class_prior(run.data)
        ),
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
