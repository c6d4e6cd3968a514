"""Supervised training on the labeled pictures alone.

python -m recipes.supervised --dataset=digits --labels=20 --model=convnet --steps=1000
"""

from absl import flags

from recipes import shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_supervised_flags()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()

if __name__ == "__main__":
    start.parse_flags(shared_flags)

from recipes import builders, common


def main(_):
    """Trains, evaluates, exports."""
    with common.open_run() as run:
        run.train("method", lambda: builders.supervised(run.data, steps=FLAGS.steps), common.stage())
        run.finetune(**common.finetuning())
        common.finish(run)


if __name__ == "__main__":
    start.run(main)
