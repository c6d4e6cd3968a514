"""Meta Pseudo Labels, fine-tuned on the labels at the end, beside a supervised baseline on the same labels.

python -m recipes.mpl --preset=digits
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_finetune_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_collapse_flag()
shared_flags.define_alignment_flag()
shared_flags.define_run_flags()
HYPERPARAMETERS = MethodFlags("mpl_tf", "MetaPseudoLabels")
shared_flags.define_baseline_flags(optional=True)
shared_flags.define_serve_flag("finetuned", "student", "teacher", "supervised")

flags.DEFINE_string("teacher_model", None, "The teacher's network; the student's when not given.")
flags.DEFINE_float("teacher_learning_rate", None, "Peak; the student's when not given.", 0.0)
flags.DEFINE_integer("teacher_micro_batches", 1, "As --student_micro_batches.", lower_bound=1)
flags.DEFINE_integer(
    "teacher_schedule_steps",
    None,
    "The step at which the teacher's schedule ends; --steps when not given.",
    lower_bound=1,
)
flags.DEFINE_integer("student_wait_steps", 0, "Steps before the student begins to learn.", lower_bound=0)
shared_flags.require_cosine("student_wait_steps")


@flags.multi_flags_validator(
    ["teacher_schedule_steps", "steps", "schedule"],
    message="--teacher_schedule_steps ends a teacher's schedule before its student's: pass at most --steps, and a "
    "--schedule that ends.",
)
def _teacher_ends_first(values: dict) -> bool:
    steps = values["teacher_schedule_steps"]
    return steps is None or (steps <= values["steps"] and values["schedule"] != "constant")


@flags.multi_flags_validator(
    ["initialize", "teacher_model", "model"],
    message="--initialize=supervised starts teacher and student from one baseline, so that both are to be the same "
    "network: leave --teacher_model out, or pass --initialize=FILE.keras, from which the one starts that it fits.",
)
def _supervised_fits_both(values: dict) -> bool:
    return values["initialize"] != "supervised" or values["teacher_model"] in (None, values["model"])


if __name__ == "__main__":
    start.parse_flags()

from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.training.run import Run
from recipes.common import builders, program


def build(run: Run) -> MetaPseudoLabels:
    """The compiled method."""
    method = MetaPseudoLabels(
        # The supervised baseline starts from the student's weights too, the teacher from its own; or all from others.
        teacher=builders.network(
            FLAGS.teacher_model or FLAGS.model, run, seed=fold_in(FLAGS.seed, "teacher")
        ),
        student=builders.network(FLAGS.model, run, seed=FLAGS.seed),
        **HYPERPARAMETERS.values(class_prior=builders.class_prior(run.data)),
    )
    peak = FLAGS.learning_rate if FLAGS.teacher_learning_rate is None else FLAGS.teacher_learning_rate
    method.compile(
        teacher_optimizer=builders.optimizer(peak, steps=FLAGS.teacher_schedule_steps or FLAGS.steps),
        student_optimizer=builders.optimizer(
            FLAGS.learning_rate, steps=FLAGS.steps, wait=FLAGS.student_wait_steps
        ),
        **builders.compile_options(teacher=FLAGS.teacher_micro_batches),
    )
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
