"""Noisy Student: rounds of labeling, filtering, balancing, and training a noised student.

python -m recipes.noisy_student --preset=noisy_student_digits
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.parameters import MethodFlags
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_training_flags()
shared_flags.define_finetune_flags()
shared_flags.define_unlabeled_flags()
shared_flags.define_supervised_flags()
shared_flags.define_run_flags()
HYPERPARAMETERS = MethodFlags("mpl_tf", "NoisyStudent")
shared_flags.define_initialization_flags("supervised", "teacher")
shared_flags.define_serve_flag("finetuned", "student", "teacher")
# The paper's student is noised on its labeled images too.
FLAGS.set_default("randaugment_labeled", True)

flags.DEFINE_integer("rounds", 3, "Students in a row, each labeled for by the one before.", lower_bound=1)
flags.DEFINE_list("models", None, "The student's network in each round; --model in all when not given.")
define_path("teacher", None, "The first teacher's .keras file; trained on the labels when not given.")
flags.DEFINE_string("teacher_model", None, "The first teacher's network; the student's when not given.")
flags.DEFINE_integer("teacher_steps", None, "Updates of the first teacher; --steps when not given.", 1)
flags.DEFINE_float("threshold", 0.3, "Confidence below which a label is left out.", 0.0, 1.0)
flags.DEFINE_bool(
    "balance_selection", True, "Give every class the same number of soft labels, repeated where too few."
)
flags.DEFINE_integer("per_class", None, "This number; the mean over the classes when not given.", 1)
flags.DEFINE_bool("unlabeled_noise", True, "RandAugment on unlabeled images.")
flags.DEFINE_bool("model_noise", True, "Dropout and stochastic depth in the students.")
flags.DEFINE_bool("teacher_noise", False, "Dropout and stochastic depth while the teacher labels.")
flags.DEFINE_enum("teacher_view", "none", ["none", "weak", "strong"], "Augmentation while it labels.")
flags.DEFINE_integer("label_batch_size", 256, "Images per step of the labeling.", lower_bound=1)

if __name__ == "__main__":
    start.parse_flags()

import dataclasses
import functools

import keras

from mpl_tf import data as data_module
from mpl_tf import report
from mpl_tf.data.augmentation.stateless_random import fold_in
from mpl_tf.data.run_data import RunData
from mpl_tf.methods.noisy_student import NoisyStudent
from mpl_tf.training import self_training
from mpl_tf.training.rehearsal import Rehearsal, UniformTargets
from mpl_tf.training.run import Run
from recipes.common import builders, program


def rounds(data: RunData) -> self_training.Rounds:
    """The rounds that the flags describe."""
    views = {"none": None, "weak": data.weak, "strong": data_module.Chain(data.weak, data.strong)}
    return self_training.Rounds(
        rounds=FLAGS.rounds,
        teacher_steps=FLAGS.teacher_steps or FLAGS.steps,
        threshold=FLAGS.threshold,
        balance=FLAGS.balance_selection,
        per_class=FLAGS.per_class,
        teacher_noise=FLAGS.teacher_noise,
        teacher_view=views[FLAGS.teacher_view],
        label_batch_size=FLAGS.label_batch_size,
    )


def models() -> list[str]:
    """The name of the student's network in each round.

    Raises:
        ValueError: for another number of names than rounds.
    """
    names = FLAGS.models or [FLAGS.model] * FLAGS.rounds
    if len(names) != FLAGS.rounds:
        raise ValueError(
            f"--models={','.join(names)} names {len(names)} networks for {FLAGS.rounds} rounds: name one for each, "
            "or leave it out to take --model in all."
        )
    different = dict.fromkeys([FLAGS.teacher_model or FLAGS.model, *names])
    if builders.is_word(FLAGS.initialize) and len(different) > 1:
        raise ValueError(
            f"--initialize={FLAGS.initialize} needs equal networks, and there are {', '.join(different)}: give the "
            "teacher and every round the same one, or leave it out."
        )
    return names


def check_teacher() -> None:
    """Raises for flags of a first teacher that the run would train, beside one that is finished.

    Raises:
        ValueError: for the first of them.
    """
    if not FLAGS.teacher:
        return
    if FLAGS.teacher_model:
        raise ValueError(
            f"--teacher={FLAGS.teacher} is a finished network, and --teacher_model={FLAGS.teacher_model} one that "
            "the run would train: leave one of them out."
        )
    if FLAGS.teacher_steps and "teacher_steps" in start.given():
        raise ValueError(
            f"--teacher={FLAGS.teacher} is a finished network, which --teacher_steps={FLAGS.teacher_steps} would not "
            "train: leave one of them out."
        )
    if builders.is_word(FLAGS.initialize):
        raise ValueError(
            f"--initialize={FLAGS.initialize} starts from a teacher that the run has trained, and --teacher="
            f"{FLAGS.teacher} is finished: pass --initialize={FLAGS.teacher} to start from that one."
        )


def build_teacher(run: Run):
    """The compiled first teacher."""
    return builders.supervised(
        run, steps=FLAGS.teacher_steps or FLAGS.steps, model=FLAGS.teacher_model or FLAGS.model
    )


def add_teacher(run: Run) -> None:
    """Takes the first teacher from its file, where one is given."""
    if FLAGS.teacher:
        run.add_network("teacher", lambda: builders.load_network(FLAGS.teacher, run.data.source))


def build_student(number: int, teacher: keras.Model, run: Run) -> NoisyStudent:
    """The compiled student of a round."""
    seed = fold_in(FLAGS.seed, f"round {number}")
    initial = {"teacher": teacher, "supervised": run.networks["teacher"]}.get(FLAGS.initialize)
    method = NoisyStudent(
        student=builders.network(
            models()[number - 1], run, seed=seed, noise=FLAGS.model_noise, initial=initial
        ),
        **HYPERPARAMETERS.values(),
    )
    method.compile(builders.optimizer(FLAGS.learning_rate, steps=FLAGS.steps), **builders.compile_options())
    return method


def noised(data: RunData) -> RunData:
    """The data under the views that the noise switches ask for."""
    return data if FLAGS.unlabeled_noise else dataclasses.replace(data, strong=data_module.Identity())


def rehearse(run: Rehearsal) -> None:
    """The stages with labels that say nothing, to be timed; the labeling is counted."""
    data, stage = noised(run.data), program.stage()
    targets = dataclasses.replace(data, targets=UniformTargets(data.source.num_classes))
    add_teacher(run)
    if not FLAGS.teacher:
        run.train(
            "teacher",
            lambda: build_teacher(run),
            dataclasses.replace(stage, unlabeled_ratio=0, steps=FLAGS.teacher_steps or FLAGS.steps),
        )
        run.labels["teacher"] = len(data.split.unlabeled)
    for number in range(1, FLAGS.rounds + 1):
        name = f"round_{number}"
        role = name if number < FLAGS.rounds else "student"
        run.train(
            name,
            functools.partial(build_student, number, run.networks["teacher"], run),
            stage,
            role=role,
            data=targets,
        )
        if number < FLAGS.rounds:
            run.labels[name] = len(data.split.unlabeled)
    run.finetune(**program.finetuning())


def show_rounds(metrics: dict) -> None:
    """Prints which labels each round learned from."""
    rows = []
    for facts in metrics["rounds"]:
        wrong = facts["wrong_fraction"]
        row = {"round": facts["round"], "labeled by": facts["labeled_by"], "images": facts["images"]}
        row |= {"confident": facts["confident"], "learned from": facts["different_images"]}
        row |= {"with repetitions": facts["drawn_from"]}
        row["wrong labels %"] = None if wrong is None else f"{100 * wrong:.2f}"
        rows.append(row)
    print(f"\nlabels of each round\n\n{report.table(rows)}")


def main(_):
    """Trains all rounds, fine-tunes, evaluates, exports."""
    models()
    check_teacher()
    # The labels of each round are made by the one before: more steps would be another run.
    with program.open_run(rehearse, may_grow=False) as run:
        plain, run.data = run.data, noised(run.data)
        add_teacher(run)
        self_training.train_rounds(
            run,
            lambda: build_teacher(run),
            lambda number, teacher: build_student(number, teacher, run),
            program.stage(),
            rounds(plain),
            jit_compile=builders.jit_compile(),
        )
        run.finetune(**program.finetuning())
        metrics = program.finish(run)
    if run.folder.writes:
        show_rounds(metrics)


if __name__ == "__main__":
    start.run(main)
