"""Methods at equal time from few labels: the trials of docs/few_labels.md, through `recipes.compare`.

python benchmarks/few_labels.py --task=cifar10_250 --network=efficientnet-lite0-imagenet.keras --seeds=0,1 \
    --data_dir=tensorflow_datasets --run_dir=runs/few_labels/cifar10_250

Resumes trial by trial. The numbers of steps are those that take the task's CPU seconds on the machine of the tables,
one thread; the table has the seconds that were really taken. Hyper-parameters were chosen on the validation images of
seed 100, which no table reports.
"""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence

WITHOUT_FEEDBACK, PLACEBO = "MPL, no feedback", "MPL, placebo"
START = "supervised, half as long"


@dataclasses.dataclass(frozen=True)
class Task:
    """Images, labels, and how long each method trains.

    Args:
        common: flags of all trials.
        supervised: flags of the baseline, which has no unlabeled images.
        unlabeled: flags of the methods that have.
        mpl: flags of Meta Pseudo Labels, whose two networks start from a baseline that the run trains, in the same
            time as the others, and make fewer steps.
        uda: flags of UDA's consistency, in UDA and in Meta Pseudo Labels' teacher.
        thresholds: FixMatch's, and FreeMatch's decay of its own.
        decay: of all averages.
        steps: recipe → updates; `WITHOUT_FEEDBACK` → those of the ablation, which makes more in the same time.
        start: updates of a supervised network, a trial of its own, that all methods with unlabeled images go on from,
            and whose seconds count as theirs; 0 where there is none.
    """

    common: tuple[str, ...]
    supervised: tuple[str, ...]
    unlabeled: tuple[str, ...]
    mpl: tuple[str, ...]
    uda: tuple[str, ...]
    thresholds: tuple[float, float]
    decay: float
    steps: Mapping[str, int]
    start: int = 0

    def scaled(self, scale: float) -> "Task":
        """The same with other numbers of steps, those of the baselines that methods start from too.

        Args:
            scale: factor on all of them.
        """
        return dataclasses.replace(
            self,
            mpl=tuple(_scaled_flag(flag, scale) for flag in self.mpl),
            steps={name: _scaled(steps, scale) for name, steps in self.steps.items()},
            start=_scaled(self.start, scale) if self.start else 0,
        )

    def trials(
        self, network: str | None, *, placebo: bool = False, only: Sequence[str] | None = None
    ) -> list[str]:
        """The arguments `--trial=…` of recipes.compare.

        Args:
            network: a pre-trained network's file, where the task begins with one.
            placebo: whether Meta Pseudo Labels is run with each image's neighbor's feedback too.
            only: the names of those that are wanted; None for all.

        Raises:
            ValueError: for a name that no trial has.
        """
        model = (f"--model={network}",) if network else ()
        average = ("--targets=average",)
        unlabeled, own_start = self.unlabeled, ("--initialize=supervised",)
        if self.start:
            unlabeled, own_start = (*unlabeled, f"--initialize={{{START}}}/networks/student.keras"), ()
        mpl = (
            *unlabeled, *own_start, *self.mpl, *self.uda, "--uda_targets=average", "--uda_ramp_steps=1",
            f"--teacher_ema_decay={self.decay}", "--student_labeled_weight=1",
        )  # fmt: skip
        trials = {
            "supervised": ("supervised", self.supervised),
            "UDA": ("uda", (*unlabeled, *self.uda, *average)),
            "FixMatch": ("fixmatch", (*unlabeled, *average, f"--threshold={self.thresholds[0]}")),
            "FreeMatch": ("freematch", (*unlabeled, *average, f"--threshold_decay={self.thresholds[1]}")),
            "MPL": ("mpl", mpl),
        }
        steps = {name: self.steps[recipe] for name, (recipe, _) in trials.items()}
        trials[WITHOUT_FEEDBACK] = ("mpl", (*mpl, "--feedback=none"))
        steps[WITHOUT_FEEDBACK] = self.steps[WITHOUT_FEEDBACK]
        if placebo:
            trials[PLACEBO] = ("mpl", (*mpl, "--feedback_placebo"))
            steps[PLACEBO] = steps["MPL"]
        if unknown := set(only or ()) - set(trials):
            raise ValueError(f"{sorted(unknown)} are no trials of this task: choose from {list(trials)}.")
        wanted = {name: trial for name, trial in trials.items() if only is None or name in only}
        if self.start:
            wanted, steps = {START: ("supervised", self.supervised), **wanted}, {START: self.start, **steps}
        return [
            f"--trial={name}: {' '.join((recipe, *model, *self.common, *flags, *_length(steps[name])))}"
            for name, (recipe, flags) in wanted.items()
        ]


def fine_tuning_trials(network: str | None) -> list[str]:
    """What careful fine-tuning consists of, each part left out once, and all of them.

    Args:
        network: a pre-trained network's file.
    """
    task = TASKS["cifar10_250"]
    start, careful = (f"--model={network}", *task.common), (*task.supervised, *_length(150))
    naive = {
        "BatchNorm learns": ("--nofreeze_batch_norm",),
        "random head": ("--head=random",),
        "SGD, 0.05": ("--optimizer=sgd", "--learning_rate=0.05"),
        "all layers": ("--trainable=all",),
        "crops resized": ("--crop=resized",),
    }
    trials = {"careful": (), **naive}
    trials["naive"] = tuple(flag for name in list(naive)[:3] for flag in naive[name])
    probed = [flag for flag in start if not flag.startswith(("--trainable", "--optimizer"))]
    return [
        f"--trial=probe: probe {' '.join(probed)}",
        *(
            f"--trial={name}: supervised {' '.join((*start, *careful, *flags))}"
            for name, flags in trials.items()
        ),
    ]


def _scaled(steps: int, scale: float) -> int:
    return max(2, round(steps * scale))


def _scaled_flag(flag: str, scale: float) -> str:
    name, _, value = flag.partition("=")
    return f"{name}={_scaled(int(value), scale)}" if name == "--supervised_steps" else flag


def _length(steps: int) -> tuple[str, str]:
    """One evaluation in the middle, and one at the end."""
    return f"--steps={steps}", f"--epoch_steps={-(-steps // 2)}"


def _steps(supervised: int, unlabeled: int, *, mpl: int, without_feedback: int) -> dict[str, int]:
    """Updates in the same time: the methods that pass one network are equally fast."""
    same = dict.fromkeys(("uda", "fixmatch", "freematch"), unlabeled)
    return {"supervised": supervised, **same, "mpl": mpl, WITHOUT_FEEDBACK: without_feedback}


_FEW = ("--batch_size=16", "--unlabeled_ratio=6")


def _cifar10(labels: int, *, unlabeled: tuple[str, ...], mpl: tuple[str, ...]) -> Task:
    """From a network with weights of ImageNet, at 64 pixels, of which the first three blocks stay as they are."""
    return Task(
        common=(
            "--dataset=cifar10", f"--labels={labels}", "--image_size=64", "--crop=padded", "--validation=0.04",
            "--trainable=block3_expand_conv", "--optimizer=adamw",
        ),
        supervised=("--batch_size=32", "--learning_rate=3e-4", "--ema_decay=0.98"),
        unlabeled=(
            *unlabeled, "--ema_decay=0.97", "--distribution_alignment=uniform", "--confirmation_images=0",
        ),
        mpl=mpl,
        uda=("--uda_threshold=0.4", "--uda_temperature=0.4", "--uda_weight=2"),
        thresholds=(0.7, 0.95),
        decay=0.97,
        steps=_steps(1000, 260, mpl=75, without_feedback=110),
    )  # fmt: skip


def _from_scratch(dataset: str, labels: int, *, supervised: tuple[str, ...], **others) -> Task:
    """LeNet-5 from random weights; what a view shifts in has the color of the images' borders."""
    return Task(
        common=(
            f"--dataset={dataset}", f"--labels={labels}", "--model=lenet-5", "--validation=0.04", "--ema_decay=0.99",
            "--fill=auto",
        ),
        supervised=("--batch_size=32", *supervised),
        thresholds=(0.95, 0.99),
        decay=0.99,
        **others,
    )  # fmt: skip


TASKS = {
    "cifar10_40": _cifar10(
        40,
        unlabeled=(*_FEW, "--learning_rate=3e-4", "--warmup_steps=16"),
        mpl=("--supervised_steps=300", "--warmup_steps=8"),
    ),
    "cifar10_250": _cifar10(
        250,
        unlabeled=(*_FEW, "--learning_rate=6e-4"),
        mpl=("--learning_rate=3e-4", "--supervised_steps=500", "--warmup_steps=8"),
    ),
    # So many labels are worth half of the time: every method goes on from what they alone have taught.
    "cifar10_4000": dataclasses.replace(
        _cifar10(
            4000,
            unlabeled=("--batch_size=32", "--unlabeled_ratio=1", "--learning_rate=1e-4", "--warmup_steps=8"),
            mpl=(),
        ),
        start=800,
        uda=("--uda_threshold=0.8", "--uda_temperature=0.4", "--uda_weight=0.5"),
        thresholds=(0.9, 0.95),
        steps=_steps(1600, 360, mpl=120, without_feedback=165),
    ),
    "mnist_100": _from_scratch(
        "mnist",
        100,
        supervised=("--optimizer=adam", "--learning_rate=2e-3", "--randaugment_labeled"),
        unlabeled=(
            "--batch_size=20", "--unlabeled_ratio=5", "--optimizer=adam", "--learning_rate=2e-3",
            "--randaugment_magnitude=6", "--distribution_alignment=uniform", "--confirmation_images=0",
        ),
        mpl=("--supervised_steps=1000",),
        uda=("--uda_threshold=0.8", "--uda_temperature=0.4", "--uda_weight=1"),
        steps=_steps(6000, 1600, mpl=570, without_feedback=690),
    ),
    "fashion_1000": _from_scratch(
        "fashion_mnist",
        1000,
        supervised=("--optimizer=adam", "--learning_rate=2e-3"),
        unlabeled=(
            "--batch_size=32", "--unlabeled_ratio=2", "--optimizer=adam", "--learning_rate=4e-3",
            "--randaugment_operations=1", "--randaugment_magnitude=4", "--distribution_alignment=uniform",
            "--confirmation_images=0",
        ),
        mpl=("--supervised_steps=3500", "--learning_rate=2e-3"),
        uda=("--uda_threshold=0.8", "--uda_temperature=0.4", "--uda_weight=0.5"),
        steps=_steps(6500, 2200, mpl=420, without_feedback=510),
    ),
}  # fmt: skip

FINE_TUNING = "fine_tuning"
ABLATIONS = (f"MPL = {WITHOUT_FEEDBACK}", f"{PLACEBO} = {WITHOUT_FEEDBACK}")


def _has_both(trials: Sequence[str], ablation: str) -> bool:
    return all(
        any(trial.startswith(f"--trial={name}: ") for trial in trials) for name in ablation.split(" = ")
    )


def main():
    """Runs the comparison of a task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=[*TASKS, FINE_TUNING], required=True)
    parser.add_argument(
        "--network", help="a pre-trained network, for cifar10: EfficientNet-Lite0's .keras file"
    )
    parser.add_argument(
        "--placebo", action="store_true", help="run Meta Pseudo Labels with the neighbors' feedback too"
    )
    parser.add_argument("--only", action="append", metavar="TRIAL", help="the trials to run, once for each")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of all numbers of steps: 2 for twice the time"
    )
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--data_dir", help="of TensorFlow Datasets")
    parser.add_argument("--run_dir", required=True)
    options = parser.parse_args()
    fine_tuning = options.task == FINE_TUNING
    if fine_tuning:
        trials = fine_tuning_trials(options.network)
    else:
        task = TASKS[options.task].scaled(options.scale)
        trials = task.trials(options.network, placebo=options.placebo, only=options.only)
    if options.data_dir:
        trials = [f"{trial} --data_dir={options.data_dir}" for trial in trials]
    if options.network:
        # The probe's features, computed once.
        trials = [f"{trial} --feature_cache={options.run_dir}/features" for trial in trials]
    compare = [
        sys.executable, "-m", "recipes.compare", *trials, f"--seeds={options.seeds}", f"--run_dir={options.run_dir}",
        f"--reference={'careful' if fine_tuning else 'supervised'}",
        *(f"--ablation={ablation}" for ablation in ABLATIONS if _has_both(trials, ablation)),
    ]  # fmt: skip
    sys.exit(subprocess.run(compare).returncode)


if __name__ == "__main__":
    main()
