"""Pre-training against self-training (Zoph et al. 2020, arXiv 2006.06882), for rows M16 and A47 of docs/claims.md.

python benchmarks/claims/pretraining.py --seeds=0,1 --data_dir=tensorflow_datasets --run_dir=runs/claims/pretraining

MNIST, of whose training images half may have labels; the other half never has, so that self-training has images of
its own however many labels there are. LeNet-5 starts from random weights or from those that it has learned
Fashion-MNIST with, learns with weak or strong augmentation, and by supervised training or by one round of Noisy
Student with the source's loss normalization. One `recipes.compare`, which resumes trial by trial, and at its end, and
with `--table` at any time, `grid.md` of the cells that are finished. The numbers of steps are those that take all
runs about the same CPU seconds, labeling included, on one core of the machine of docs/pretraining.md. Nothing was
tuned: hyper-parameters are those of benchmarks/few_labels.py for MNIST.
"""

import argparse
import itertools
import pathlib
from collections.abc import Collection, Mapping

import comparison

from mpl_tf import report

# Half of MNIST's training images, less those that are held out.
ALL_LABELS = 28_800

COMMON = (
    "--validation=0.04", "--fill=auto", "--ema_decay=0.99", "--batch_size=32", "--noreport",
)  # fmt: skip
FROM_RANDOM_WEIGHTS = ("--model=lenet-5", "--optimizer=adam", "--learning_rate=2e-3")
# As those, with a head for the new classes: the start is all that differs.
FROM_FASHION_MNIST = ("--model={}", "--head=random", "--optimizer=adam", "--learning_rate=2e-3")
# What careful fine-tuning is here: docs/pretrained.md.
FROM_NETWORK = ("--model={}", "--image_size=32", "--optimizer=adamw", "--learning_rate=3e-4")

STRONG = ("--randaugment_operations=2", "--randaugment_magnitude=6")
# Augmentation → flags of supervised training and of Noisy Student: of the images that both learn from.
AUGMENTATIONS = {
    "weak": ((), ("--norandaugment_labeled", "--nounlabeled_noise")),
    "strong": ((*STRONG, "--randaugment_labeled"), STRONG),
}
RANDOM, PRETRAINED = "random", "Fashion-MNIST"
SUPERVISED, SELF_TRAINING = "supervised", "self-training"
STEPS = {"pre-training": 2000, SUPERVISED: 2000, "teacher": 550, "student": 550}
SELF_TRAINING_FLAGS = (
    "--rounds=1", "--unlabeled_ratio=1", "--loss_normalization", "--unlabeled_weight=1", "--confirmation_images=0",
)  # fmt: skip


def trial_name(percent: int, augmentation: str, start: str, method: str) -> str:
    """What a cell of the grid is called."""
    return f"{percent} %, {augmentation}, {start}, {method}"


def starts(pretrained: pathlib.Path, network: str | None = None) -> dict[str, tuple[str, ...]]:
    """Name of a start → flags.

    Args:
        pretrained: the network that has learned Fashion-MNIST.
        network: file of another that has learned elsewhere.
    """
    found = {
        RANDOM: FROM_RANDOM_WEIGHTS,
        PRETRAINED: tuple(flag.format(pretrained) for flag in FROM_FASHION_MNIST),
    }
    if network:
        found[pathlib.Path(network).stem] = tuple(flag.format(network) for flag in FROM_NETWORK)
    return found


def trials(
    percents: Collection[int], starts: Mapping[str, tuple[str, ...]], *, scale: float = 1.0
) -> dict[str, str]:
    """Trial → recipe and flags, as `--trial` of recipes.compare takes them.

    Args:
        percents: of the labels.
        starts: name → flags.
        scale: of all numbers of steps.
    """
    found = {}
    for percent, augmentation, (start, network) in itertools.product(percents, AUGMENTATIONS, starts.items()):
        labels = f"--labels={round(ALL_LABELS * percent / 100)}"
        common = ("--dataset=mnist", labels, *network, *COMMON)
        supervised, self_training = AUGMENTATIONS[augmentation]
        steps = comparison.scaled(STEPS, scale)
        methods = {
            SUPERVISED: ("supervised", *common, *supervised, *comparison.length(steps[SUPERVISED])),
            SELF_TRAINING: (
                "noisy_student", *common, *self_training, *SELF_TRAINING_FLAGS,
                f"--teacher_steps={steps['teacher']}", *comparison.length(steps["student"]),
            ),
        }  # fmt: skip
        for method, words in methods.items():
            found[trial_name(percent, augmentation, start, method)] = " ".join(words)
    return found


def pretraining(*, scale: float = 1.0) -> tuple[str, ...]:
    """Recipe and flags of the run on Fashion-MNIST, of another seed than all others."""
    length = comparison.length(comparison.scaled(STEPS, scale)["pre-training"])
    return ("supervised", "--dataset=fashion_mnist", *FROM_RANDOM_WEIGHTS, *COMMON, *length, "--seed=100")


# --- the table --------------------------------------------------------------------------------------------


def grid(results: Mapping[str, Mapping[int, Mapping]], percents: Collection[int], names: list[str]) -> str:
    """Two tables as Markdown, of the accuracies and of what pre-training and self-training add.

    Args:
        results: trial → seed → what metrics.json of the run holds.
        percents: of the labels.
        names: of the starts, random weights first. Rows of which a cell has no finished run are left out.
    """
    rows, gains = [], []
    for percent, augmentation in itertools.product(percents, AUGMENTATIONS):
        cells = {
            (start, method): results.get(trial_name(percent, augmentation, start, method)) or {}
            for start, method in itertools.product(names, (SUPERVISED, SELF_TRAINING))
        }
        if not all(cells.values()):
            continue
        students = {cell: comparison.students(runs) for cell, runs in cells.items()}
        row = {"labels": str(round(ALL_LABELS * percent / 100)), "augmentation": augmentation}
        rows.append(
            row
            | {"seeds": str(min(map(len, students.values())))}
            | {
                ", ".join(cell): report.mean_and_deviation(values.values())
                for cell, values in students.items()
            }
            | {"CPU s": ", ".join(f"{comparison.cpu_seconds(runs):.0f}" for runs in cells.values())}
        )
        random = students[names[0], SUPERVISED]
        gain = {}
        for start in names[1:]:
            supervised, both = students[start, SUPERVISED], students[start, SELF_TRAINING]
            gain[f"pre-training ({start})"] = comparison.difference(supervised, random)
            gain[f"self-training on {start}"] = comparison.difference(both, supervised)
        gains.append(
            row | {"self-training": comparison.difference(students[names[0], SELF_TRAINING], random)} | gain
        )
    legend = (
        "Test accuracy of the student in %, mean ± standard deviation over seeds, and the CPU seconds that each "
        "column trained; those of the labeling come on top."
    )
    explained = (
        "What each adds, paired by seed, mean ± standard error: self-training and pre-training to supervised "
        "training from random weights, and self-training on a pre-trained network to supervised training of that."
    )
    return f"{legend}\n\n{report.table(rows)}\n\n{explained}\n\n{report.table(gains)}\n"


def main():
    """Trains on Fashion-MNIST, runs the comparison, and writes `grid.md`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--labels", default="2,20,100", help="percents of 28,800 labels; the source's: 2,10,20,50,100"
    )
    parser.add_argument(
        "--network", help="a further start: .keras file of a network that has learned elsewhere"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of steps, to try it out")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--data_dir", help="of TensorFlow Datasets")
    parser.add_argument("--table", action="store_true", help="only write grid.md of what is finished")
    parser.add_argument("--run_dir", required=True)
    options = parser.parse_args()
    folder, percents = pathlib.Path(options.run_dir), [int(text) for text in options.labels.split(",")]
    data_dir = [f"--data_dir={options.data_dir}"] if options.data_dir else []
    own = folder / "pre-training"
    choices = starts(own / "networks" / "student.keras", options.network)
    cells = trials(percents, choices, scale=options.scale)
    if not options.table:
        comparison.run(*pretraining(scale=options.scale), *data_dir, f"--run_dir={own}")
        comparison.run(
            "compare",
            *(f"--trial={name}: {' '.join([words, *data_dir])}" for name, words in cells.items()),
            *(
                f"--ablation={name} = {_without_self_training(name)}"
                for name in cells
                if SELF_TRAINING in name
            ),
            f"--seeds={options.seeds}",
            f"--run_dir={folder}",
        )
    table = grid(comparison.read_results(folder, list(cells)), percents, list(choices))
    (folder / "grid.md").write_text(table, encoding="utf-8")
    print(table)


def _without_self_training(name: str) -> str:
    return name.removesuffix(SELF_TRAINING) + SUPERVISED


if __name__ == "__main__":
    main()
