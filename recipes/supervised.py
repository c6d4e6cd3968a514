"""Supervised training on the labeled images alone.

python -m recipes.supervised --dataset=digits --labels=20 --model=convnet --steps=1000
"""

from absl import flags

from recipes.common import shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_supervised_flags()
shared_flags.define_initialization_flags()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()
shared_flags.define_serve_flag("finetuned", "student")

if __name__ == "__main__":
    start.parse_flags()

from mpl_tf.training.run import Run
from recipes.common import builders, program


def train(run: Run) -> None:
    """The method and its fine-tuning."""
    run.train("method", lambda: builders.supervised(run, steps=FLAGS.steps), program.stage())
    run.finetune(**program.finetuning())


def main(_):
    """Trains, evaluates, exports."""
    with program.open_run(train) as run:
        train(run)
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
