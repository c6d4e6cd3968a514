"""Fine-tunes a saved network on the labeled images: the last step of Meta Pseudo Labels on its own.

    python -m recipes.finetune --network=runs/digits/networks/student.keras --dataset=digits --labels=20

FixRes, the last step of Noisy Student: a larger resolution, no augmentation, and the shallow layers frozen.

    python -m recipes.finetune --network=… --dataset=cifar10 --image_size=40 --augment=none --frozen_fraction=0.9
"""

from absl import flags

from recipes.common import parameters, shared_flags, start
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_run_flags()

define_path("network", None, "The .keras file to start from, as runs leave it in networks/.")
flags.DEFINE_integer("steps", 1000, "Updates.", lower_bound=1)
shared_flags.define_minutes_flags()
flags.DEFINE_integer("epoch_steps", None, "Updates per epoch; a twentieth of them when not given.", 1)
flags.DEFINE_integer("batch_size", 64, "Labeled images per update.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Of plain SGD.", 0.0)
flags.DEFINE_enum("augment", "weak", ["weak", "none"], "The weak view, or the images as they are.")
flags.DEFINE_float(
    "frozen_fraction", 0.0, "Fraction of the layers, from the input on, that do not learn.", 0.0, 0.99
)
flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "XLA; auto is on for GPUs and off for CPUs.")
flags.DEFINE_enum(
    "strategy", "default", parameters.constant("mpl_tf.distribute", "STRATEGIES"),
    "One device; all of this machine; all of several machines, which TF_CONFIG names; or a TPU.",
)  # fmt: skip
flags.mark_flag_as_required("network")

if __name__ == "__main__":
    start.parse_flags()

import dataclasses

from mpl_tf import data as data_module
from mpl_tf.methods.supervised import Supervised
from mpl_tf.training.run import Run, finetuning
from recipes.common import builders, origin, program


def build(source: data_module.Source) -> Supervised:
    """The saved network, compiled to learn from these images."""
    return finetuning(
        builders.load_network(FLAGS.network, source),
        FLAGS.learning_rate,
        builders.jit_compile(),
        image_shape=source.image_shape,
        frozen_fraction=FLAGS.frozen_fraction,
    )


def train(run: Run) -> None:
    """The fine-tuning."""
    if FLAGS.augment == "none":
        run.data = dataclasses.replace(run.data, weak=data_module.Identity())
    run.train("method", lambda: build(run.data.source), program.stage())


def main(_):
    """Trains, evaluates, exports."""
    origin.adopt_data(FLAGS.network)
    with program.open_run(train) as run:
        train(run)
        program.finish(run)


if __name__ == "__main__":
    start.run(main)
