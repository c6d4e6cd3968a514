"""Knowledge distillation from a finished teacher.

python -m recipes.distillation --preset=digits --teacher=runs/digits/networks/teacher.keras --model=mlp
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()
HYPERPARAMETERS = MethodFlags("mpl_tf", "Distillation")
shared_flags.define_baseline_flags()
shared_flags.define_serve_flag("finetuned", "student", "teacher", "supervised")

define_path("teacher", None, "The teacher's .keras file, as runs leave it in networks/.")
flags.mark_flag_as_required("teacher")

if __name__ == "__main__":
    start.parse_flags()

from mpl_tf.methods.distillation import Distillation
from mpl_tf.training.run import Run
from recipes.common import builders, program


def build(run: Run) -> Distillation:
    """The compiled method."""
    method = Distillation(
        teacher=builders.load_network(FLAGS.teacher, run.data.source),
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed),
        **HYPERPARAMETERS.values(),
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
