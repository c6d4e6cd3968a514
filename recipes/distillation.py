"""Knowledge distillation from a finished teacher.

python -m recipes.distillation --preset=digits --teacher=runs/digits/networks/teacher.keras --model=mlp
"""

from absl import flags

from mpl_tf import models
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.distillation import Distillation
from recipes.common import builders, program, shared_flags, start

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_finetune_flags()
shared_flags.define_run_flags()

flags.DEFINE_string("teacher", None, "The teacher's .keras file, as runs leave it in networks/.")
flags.DEFINE_float("temperature", 4.0, "T of the distillation loss.", 1e-3)
flags.DEFINE_float("distillation_weight", 1.0, "Factor on the distillation loss.", 0.0)
flags.DEFINE_float("labeled_weight", 1.0, "Factor on the cross-entropy with the labels; 0 needs none.", 0.0)
flags.DEFINE_bool("same_view", False, "Show the teacher the student's strong view (function matching).")
flags.mark_flag_as_required("teacher")


def build(data: RunData) -> Distillation:
    """The compiled method."""
    method = Distillation(
        teacher=models.load(FLAGS.teacher, class_names=data.source.class_names),
        student=builders.network(FLAGS.model, data, seed=FLAGS.seed),
        temperature=FLAGS.temperature,
        distillation_weight=FLAGS.distillation_weight,
        labeled_weight=FLAGS.labeled_weight,
        same_view=FLAGS.same_view,
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
