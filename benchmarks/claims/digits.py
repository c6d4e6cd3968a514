"""Studies on handwritten digits for rows of docs/claims.md: each changes one thing of a preset at a time.

python benchmarks/claims/digits.py --study=noisy_student --seeds=0-4 --run_dir=runs/claims/noisy_student

Each is one `recipes.compare`, which resumes trial by trial, and a run is under a minute of one core. Nothing was
tuned for a trial: hyper-parameters are those of the preset. Those that ask what a faster step costs in accuracy, and
what noise does to robustness, are here for other images too, and data-free learning for MNIST, in some minutes of one
core for each run.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence

import comparison

from mpl_tf import report
from mpl_tf.utils import files

# Where the flags of a trial name the network of the run that the study makes before them.
TEACHER = "TEACHER"


@dataclasses.dataclass(frozen=True)
class Study:
    """A preset, and what is changed in it.

    Args:
        preset: whose flags all trials have; None for trials with all of theirs.
        trials: trial → recipe and flags.
        answers: row of docs/claims.md → the trials beside the reference that speak to it.
        reference: the trial that differences are taken to; the first where it is not given.
        teacher: recipe and flags of a run that is made once, and of whose network the trials learn.
        ablations: trial → the trial that it is also compared with.
        robustness: the trials whose networks are evaluated on corrupted, perturbed and adversarial images too, each
            seed's with its first teacher as the baseline.
    """

    preset: str | None
    trials: Mapping[str, str]
    answers: Mapping[str, tuple[str, ...]]
    teacher: str | None = None
    robustness: tuple[str, ...] = ()
    reference: str | None = None
    ablations: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _grid_of_dafl() -> dict[str, str]:
    """DAFL with its preset's weights, and α and β a tenth and ten times as large, each with each."""
    trials = {}
    for activation in (0.1, 0.01, 1.0):
        for entropy in (2.171, 0.2171, 21.71):
            name = f"α {activation:g}, β {entropy / 0.4342:.3g}"
            trials[name] = (
                f"dafl --teacher={TEACHER} --activation_weight={activation} --entropy_weight={entropy}"
            )
    return trials


# DAFL's teacher, of another seed than the students, which would start from its initial weights.
TEACHER_OF_ALL_DIGITS = (
    "supervised --dataset=digits --model=convnet --steps=600 --learning_rate=0.1 --weight_decay=5e-4 --ema_decay=0 "
    "--seed=100"
)


# MNIST's, of another seed too.
_LENET = "supervised --dataset=mnist --model=lenet-5 --fill=auto --validation=0.04 --optimizer=adam"
TEACHER_OF_MNIST = f"{_LENET} --learning_rate=2e-3 --steps=1500 --epoch_steps=750 --ema_decay=0.99 --seed=100"
PERCEPTRON_OF_MNIST = TEACHER_OF_MNIST.replace("--model=lenet-5", "--model=hinton_mlp")
# In place of the source's hours: some six minutes of one core, by a narrow generator and an eighth of its batches.
_SHORT = "--batch_size=64 --steps=6000 --epoch_steps=1000 --schedule=cosine --validation=0.04"
_DAFL_ON_MNIST = f"dafl --teacher={TEACHER} --generator_width=32 {_SHORT}"
# What DAFL is measured against, whatever its networks are.
_BESIDE_DAFL = {
    "generator left untrained": f"{_DAFL_ON_MNIST} --generator_learning_rate=0",
    "noise": f"{_DAFL_ON_MNIST} --generator=noise",
    "real images": f"supervised {_SHORT}",
}

# What wears a generator out, and what keeps it: its learning rate and its weight decay.
_GENERATOR_RATES = {
    "0.2": "0.2",
    **{f"0.2, decay {decay}": f"0.2 --generator_weight_decay={decay}" for decay in ("1e-5", "1e-4")},
    "0.05": "0.05",
    "0.02": "0.02",
}
_LONGER = (
    f"dafl --teacher={TEACHER} --generator_width=32 --batch_size=64 --steps=12000 --epoch_steps=1500 "
    "--schedule=cosine --ema_decay=0.999 --precision=mixed_bfloat16 --validation=0.04"
)

_LABELED_BY_TEACHER = "--teacher={teacher}/networks/student.keras"
_REDUCED = f"reduced_mpl --nobaseline {_LABELED_BY_TEACHER}"


def _teachers_of_dafl() -> dict[str, str]:
    """Three teachers of MNIST, the less the better trained, and what a student learns of each in minutes."""
    teachers = {
        "1,500 updates": "--learning_rate=2e-3 --steps=1500 --ema_decay=0.99",
        # As the source trains its own: ten epochs.
        "2,340 updates": "--learning_rate=1e-3 --steps=2340 --batch_size=256 --schedule=constant --ema_decay=0",
        "6,000 updates": "--learning_rate=2e-3 --steps=6000 --batch_size=256 --schedule=cosine --ema_decay=0.999",
    }
    flags_of_students = (
        "--generator_width=32 --batch_size=128 --steps=3000 --epoch_steps=500 --schedule=cosine "
        "--validation=0.04"
    )
    return {
        **{f"teacher, {name}": f"{_LENET} {flags}" for name, flags in teachers.items()},
        **{
            f"student, {name}": (
                f"dafl --preset=dafl_mnist --teacher={{teacher, {name}}}/networks/student.keras {flags_of_students}"
            )
            for name in teachers
        },
    }


# Of all noise of Noisy Student's students.
_NO_NOISE = "--nounlabeled_noise --norandaugment_labeled --nomodel_noise"


def _robustness(preset: str | None, *, common: str = "", teacher: str, student: str) -> Study:
    """Three rounds with noise and without, from one first teacher.

    Args:
        preset: as of `Study`.
        common: flags of all trials.
        teacher: flags of the first teacher, which learns without noise.
        student: flags of each round.
    """
    network = "--teacher={first teacher}/networks/student.keras"
    noised = f"noisy_student {network} --rounds=3 --dropout=0.3 {common} {student}".replace("  ", " ")
    return Study(
        preset=preset,
        trials={
            "first teacher": f"supervised --finetune_steps=0 {common} {teacher}".replace("  ", " "),
            "noise": noised,
            "no noise": f"{noised} {_NO_NOISE}",
        },
        answers={"D25": ("no noise",), "D26": ("no noise",), "D27": ("no noise",)},
        reference="noise",
        robustness=("noise", "no noise"),
    )


def _pairs(trials: Mapping[str, str]) -> dict[str, str]:
    """Every second trial → the one before it."""
    names = list(trials)
    return dict(zip(names[1::2], names[::2], strict=True))


# What makes a step faster → trials in pairs, with and without it.
FASTER_STEPS = {
    "weak_view": {
        "UDA, joint": "uda",
        "UDA, separate": "uda --weak_view=separate",
        "MPL, joint": "mpl --nobaseline",
        "MPL, separate": "mpl --nobaseline --weak_view=separate",
    },
    "precision": {
        "supervised, float32": "supervised",
        "supervised, bfloat16": "supervised --precision=mixed_bfloat16",
        "UDA, float32": "uda",
        "UDA, bfloat16": "uda --precision=mixed_bfloat16",
        "MPL, float32": "mpl --nobaseline",
        "MPL, bfloat16": "mpl --nobaseline --precision=mixed_bfloat16",
    },
}

STUDIES = {
    "noisy_student": Study(
        preset="noisy_student_digits",
        trials={
            "Noisy Student": "noisy_student",
            "no RandAugment on unlabeled images": "noisy_student --nounlabeled_noise",
            "no dropout": "noisy_student --nomodel_noise",
            "neither": "noisy_student --nounlabeled_noise --nomodel_noise",
            "noised teacher": "noisy_student --teacher_noise --teacher_view=strong",
            "poor teacher": "noisy_student --teacher_steps=60",
            "hard labels": "noisy_student --targets=hard",
            "hard labels, no smoothing": "noisy_student --targets=hard --label_smoothing=0",
            "pseudo labels first, then labels": "noisy_student --labeled_weight=0",
            "ratio 1": "noisy_student --unlabeled_ratio=1",
            "ratio 1, weight 4": "noisy_student --unlabeled_ratio=1 --unlabeled_weight=4",
            "from the teacher's weights": "noisy_student --initialize=teacher",
        },
        answers={
            "A34": ("no RandAugment on unlabeled images", "no dropout", "neither"),
            "A35": ("noised teacher",),
            "A37": ("poor teacher",),
            "A40": ("hard labels", "hard labels, no smoothing"),
            "A42": ("pseudo labels first, then labels",),
            "A43": ("ratio 1", "ratio 1, weight 4"),
            "A44": ("from the teacher's weights",),
            "A45": (),
        },
        robustness=("Noisy Student",),
    ),
    # As docs/few_labels.md trains on these images.
    "robustness_fashion_mnist": _robustness(
        None,
        common=(
            "--dataset=fashion_mnist --labels=1000 --validation=0.04 --model=lenet-5 --ema_decay=0.99 --fill=auto "
            "--batch_size=32 --optimizer=adam --randaugment_operations=1 --randaugment_magnitude=4"
        ),
        teacher="--learning_rate=2e-3 --steps=2200 --epoch_steps=1100",
        student="--learning_rate=4e-3 --unlabeled_ratio=2 --steps=1100 --epoch_steps=550",
    ),
    # The first teacher sees as many images as a student.
    "robustness_cifar10": _robustness(
        "cifar10_short", teacher="--batch_size=128", student="--finetune_steps=0"
    ),
    "larger_student": Study(
        preset="noisy_student_digits",
        trials={
            "equal": "noisy_student --teacher_model=wrn-10-1 --model=wrn-10-1 --rounds=1",
            "larger": "noisy_student --teacher_model=wrn-10-1 --model=wrn-10-2 --rounds=1",
        },
        answers={"A38": ("larger",)},
    ),
    "pseudo_labels": Study(
        preset="digits",
        trials={
            "fixed, from 0.95 on": "pseudo_labels --pseudo_labels=fixed",
            "fixed, all": "pseudo_labels --pseudo_labels=fixed --threshold=0",
            "online, from 0.95 on": "pseudo_labels",
            "online, all": "pseudo_labels --threshold=0",
            "large network": "supervised",
            "small network": "supervised --model=mlp-32x1",
            "small, taught by the large one": (
                "pseudo_labels --pseudo_labels=fixed --model=mlp-32x1 "
                "--teacher={large network}/networks/student.keras"
            ),
        },
        answers={
            "M2": ("large network", "small network", "small, taught by the large one"),
            "M10": ("fixed, all", "online, from 0.95 on", "online, all"),
            "A41": ("fixed, all",),
        },
    ),
    # A teacher that is often wrong and never learns: where a feedback has most to correct.
    "fixed_teacher": Study(
        preset="digits",
        trials={
            "teacher": "supervised",
            "no feedback": f"{_REDUCED} --feedback=none",
            "feedback": _REDUCED,
            "placebo": f"{_REDUCED} --feedback_placebo",
            "its labels from 0.95 on": f"pseudo_labels --pseudo_labels=fixed {_LABELED_BY_TEACHER}",
        },
        answers={"M4": ("feedback", "placebo")},
        reference="no feedback",
    ),
    "softness": Study(
        preset="digits",
        trials={
            "labels": "supervised --finetune_steps=0",
            "labels smoothed by 0.1": "supervised --finetune_steps=0 --label_smoothing=0.1",
            "distilled": (
                "distillation --finetune_steps=0 --teacher={labels}/networks/student.keras --unlabeled_ratio=4"
            ),
        },
        answers={"A59": ("labels smoothed by 0.1", "distilled")},
    ),
    "dafl_grid": Study(
        preset="dafl_digits",
        trials=_grid_of_dafl(),
        answers={"A53": tuple(_grid_of_dafl())[1:]},
        teacher=TEACHER_OF_ALL_DIGITS,
    ),
    "dafl_mnist": Study(
        preset="dafl_mnist",
        trials={
            "DAFL": _DAFL_ON_MNIST,
            "one-hot loss off": f"{_DAFL_ON_MNIST} --one_hot_weight=0",
            "entropy off": f"{_DAFL_ON_MNIST} --entropy_weight=0",
            "activation loss off": f"{_DAFL_ON_MNIST} --activation_weight=0",
            **_BESIDE_DAFL,
        },
        answers={
            "M15": ("noise",),
            "D28": ("noise", "real images"),
            "A52": ("one-hot loss off", "entropy off", "activation loss off"),
        },
        teacher=TEACHER_OF_MNIST,
    ),
    # The same minutes for the source's other pair, two perceptrons.
    "dafl_mnist_mlp": Study(
        preset="dafl_mnist_mlp",
        trials={"DAFL": _DAFL_ON_MNIST, **_BESIDE_DAFL},
        answers={"D29": ("real images",)},
        teacher=PERCEPTRON_OF_MNIST,
    ),
    # No row of the page asks for it alone: how far two generators get in the same hour of one core.
    "dafl_mnist_hour": Study(
        preset="dafl_mnist",
        trials={
            "DAFL": (
                f"dafl --teacher={TEACHER} --generator_width=32 --batch_size=128 --steps=40000 --epoch_steps=2000 "
                "--schedule=cosine --validation=0.04"
            ),
            "DAFL, 64 filters, bfloat16": (
                f"dafl --teacher={TEACHER} --generator_width=64 --batch_size=256 --steps=16000 --epoch_steps=1000 "
                "--schedule=cosine --validation=0.04 --precision=mixed_bfloat16"
            ),
        },
        answers={},
        teacher=TEACHER_OF_MNIST,
    ),
    # Nor these: how long a generator lasts, and how much of what a student learns is the teacher's.
    "dafl_mnist_rates": Study(
        preset="dafl_mnist",
        trials={
            name: f"{_LONGER} --generator_learning_rate={rate}" for name, rate in _GENERATOR_RATES.items()
        },
        answers={},
        teacher=TEACHER_OF_MNIST.replace("--seed=100", "--seed=110"),
    ),
    "dafl_teachers": Study(
        preset=None, trials=_teachers_of_dafl(), answers={}, reference="student, 1,500 updates"
    ),
    "first_teacher": Study(
        preset="noisy_student_digits",
        trials={
            # As Noisy Student trains its first teacher by itself: the dropout is the preset's.
            "noised teacher": "supervised --steps=300 --finetune_steps=0 --randaugment_labeled",
            "clean teacher": "supervised --steps=300 --finetune_steps=0 --dropout=0",
            "student of the noised": "noisy_student --teacher={noised teacher}/networks/student.keras",
            "student of the clean": "noisy_student --teacher={clean teacher}/networks/student.keras",
        },
        answers={"A36": ("noised teacher", "clean teacher", "student of the clean")},
        reference="student of the noised",
    ),
    # No row of the page asks for these: whether defaults may be what costs less.
    **{
        f"{study}{suffix}": Study(preset=preset, trials=trials, answers={}, ablations=_pairs(trials))
        for study, trials in FASTER_STEPS.items()
        for suffix, preset in (("", "digits"), ("_cifar10", "cifar10_short"))
    },
    # generated_images.py measures what these generators make.
    "statistics_guide": Study(
        preset="dafl_digits",
        trials={
            "activations": f"dafl --teacher={TEACHER}",
            "neither": f"dafl --teacher={TEACHER} --activation_weight=0",
            **{
                f"statistics, {weight:g}": (
                    f"dafl --teacher={TEACHER} --activation_weight=0 --statistics_weight={weight}"
                )
                for weight in (0.1, 1.0)
            },
            "both, 0.1": f"dafl --teacher={TEACHER} --statistics_weight=0.1",
        },
        answers={
            "A56": ("neither",),
            "A57": ("neither", "statistics, 0.1", "statistics, 1", "both, 0.1"),
        },
        teacher=TEACHER_OF_ALL_DIGITS,
    ),
}


def main():
    """Runs the comparison of a study, and evaluates its networks' robustness where it asks for that."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=STUDIES, required=True)
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--data_dir", help="of TensorFlow Datasets")
    parser.add_argument("--run_dir", required=True)
    options = parser.parse_args()
    study, folder = STUDIES[options.study], pathlib.Path(options.run_dir)
    data_dir = [f"--data_dir={options.data_dir}"] if options.data_dir else []
    if study.teacher:
        comparison.run(*study.teacher.split(), *data_dir, f"--run_dir={folder / 'teacher'}")
    network = folder / "teacher" / "networks" / "student.keras"
    trials = {
        name: " ".join([words.replace(TEACHER, str(network)), *data_dir])
        for name, words in study.trials.items()
    }
    comparison.run(
        "compare",
        *([f"--preset={study.preset}"] if study.preset else []),
        *(f"--trial={name}: {words}" for name, words in trials.items()),
        *(f"--ablation={name} = {other}" for name, other in study.ablations.items()),
        f"--reference={study.reference or next(iter(study.trials))}",
        f"--seeds={options.seeds}",
        f"--run_dir={folder}",
    )
    if study.robustness:
        print(robustness(folder, study.robustness, data_dir))


def robustness(folder: pathlib.Path, trials: Collection[str], data_dir: Sequence[str] = ()) -> str:
    """Evaluates the networks of some trials where it has not been done, and writes `robustness.md`.

    Args:
        folder: of the comparison.
        trials: whose.
        data_dir: the flag that says where their images lie, if any.

    Returns:
        A row per trial and network, as Markdown: mean ± standard deviation over seeds.
    """
    found = {}
    runs = [
        (trial, path) for trial in trials for path in sorted(folder.glob(f"{files.folder_name(trial)}.*"))
    ]
    for trial, run_dir in runs:
        metrics = run_dir / "metrics.json"
        if "evaluation" not in json.loads(metrics.read_text("utf-8")):
            comparison.run(
                "evaluate",
                f"--run_dir={run_dir}",
                *data_dir,
                "--robustness",
                "--baseline=teacher",
                "--fgsm=1,2,4,8,16",
            )
        for role, results in json.loads(metrics.read_text("utf-8"))["evaluation"]["test"].items():
            found.setdefault((trial, role), []).append(_numbers(results))
    rows = [
        {"trial": trial, "network": role, "seeds": str(len(seeds))}
        | {
            name: report.mean_and_deviation([numbers[name] for numbers in seeds], digits=1)
            for name in seeds[0]
        }
        for (trial, role), seeds in found.items()
    ]
    table = report.table(rows)
    (folder / "robustness.md").write_text(f"{table}\n", encoding="utf-8")
    return table


def _numbers(results: Mapping) -> dict[str, float]:
    """What the sources report of a network, in %."""
    attacks = results["fgsm"]
    return {
        "clean": 100 * results["clean"]["accuracy"],
        "mCE": 100 * results["corruptions"]["mce"],
        "mFR": 100 * results["perturbations"]["mfr"],
        **{
            f"FGSM ε {epsilon:g}": 100 * accuracy
            for epsilon, accuracy in zip(attacks["epsilon"], attacks["accuracy"], strict=True)
            if epsilon
        },
    }


if __name__ == "__main__":
    main()
