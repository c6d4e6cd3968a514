"""Learning to reweight: cheap labels count as much as learning from them helps on the trusted ones.

python -m recipes.learning_to_reweight --dataset=folders --labeled_dir=crowd --trusted_dir=checked --image_size=96
python -m recipes.learning_to_reweight --preset=learning_to_reweight_digits
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()
HYPERPARAMETERS = MethodFlags("mpl_tf", "LearningToReweight")
shared_flags.define_baseline_flags()
shared_flags.define_serve_flag("finetuned", "student", "supervised")


@flags.multi_flags_validator(
    ["trusted", "trusted_dir"],
    message="Learning to reweight measures cheap labels on trusted ones: say which are by --trusted_dir or "
    "--trusted.",
)
def _some_are_trusted(values: dict) -> bool:
    return (values["trusted"] or values["trusted_dir"]) is not None


@flags.multi_flags_validator(
    ["cheap_labels", "labels", "trusted"],
    message="Learning to reweight weighs cheap labels, and these flags leave none: leave --cheap_labels=ignore out, "
    "and pass more --labels than --trusted.",
)
def _some_are_cheap(values: dict) -> bool:
    fits = values["labels"] is None or values["trusted"] is None or values["labels"] > values["trusted"]
    return values["cheap_labels"] == "use" and fits


if __name__ == "__main__":
    start.parse_flags()

from mpl_tf.methods.learning_to_reweight import LearningToReweight
from mpl_tf.training.run import Run
from recipes.common import builders, program


def build(run: Run) -> LearningToReweight:
    """The compiled method."""
    method = LearningToReweight(
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed), **HYPERPARAMETERS.values()
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
