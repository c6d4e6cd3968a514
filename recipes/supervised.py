"""Supervised training on the labeled pictures alone.

python -m recipes.supervised --dataset=digits --labels=20 --model=convnet --steps=1000
"""

from absl import flags

from mpl_tf import training
from recipes import common, start

FLAGS = flags.FLAGS

common.define_data_flags()
common.define_training_flags()
common.define_finetune_flags()
common.define_run_flags()


def main(_):
    """Trains, evaluates, exports."""
    folder = common.run_dir()
    common.claim(folder)
    common.prepare()
    data = common.load_data(folder)
    settings = common.run_settings(folder)
    metrics = training.run(lambda: common.build_supervised(data, steps=FLAGS.steps), data, settings)
    common.show(metrics, folder)


if __name__ == "__main__":
    start.run(main)
