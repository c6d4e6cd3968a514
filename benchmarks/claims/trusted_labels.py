"""Labels of unequal trust: what cheap labels are worth beside a few trusted ones, and whether the feedback pays.

python benchmarks/claims/trusted_labels.py --task=digits_convnet --noise=0.1,0.3 --cheap=100,1000 --trusted=20 \
    --seeds=0-9 --run_dir=runs/trusted_labels

For each setting one `recipes.compare` in `<run_dir>/<task>/<noise>_<cheap>_<trusted>`, which resumes trial by trial,
and after each the map of all settings that are finished, `<run_dir>/<task>/map.md`. The numbers of steps are those
that take the task's CPU seconds on one core of the machine of the tables; `map.md` has the seconds that were really
taken. Hyper-parameters are those of the presets, which were chosen with right labels, and the same for all trials;
learning to reweight has a rate and a clipping of its own, since it is no baseline at theirs (docs/trusted_labels.md).
"""

import argparse
import dataclasses
import itertools
import pathlib
import statistics
from collections.abc import Mapping

import comparison

from mpl_tf import report

# Trials without a feedback, of which the best is what Meta Pseudo Labels has to beat.
IGNORE, USE = "trusted alone", "all labels"
THEN_TRUSTED, REWEIGHT = "then trusted", "learning to reweight"
MPL, PLACEBO, WITHOUT_FEEDBACK, WITHOUT_UDA = "MPL", "placebo", "no feedback", "no UDA"


@dataclasses.dataclass(frozen=True)
class Task:
    """Images, a network, and how long each method trains.

    Args:
        data: flags of the images and their views, without the labels.
        common: flags of all trials but fine-tuning.
        unlabeled: flags of the methods that have unlabeled images.
        uda: flags of UDA's consistency, in UDA and in Meta Pseudo Labels' teacher.
        mpl: flags of Meta Pseudo Labels.
        finetuning: flags of the fine-tuning on the trusted images.
        reweighting: flags of learning to reweight.
        steps: recipe → updates; `REWEIGHT` → those of learning to reweight; `WITHOUT_FEEDBACK` → those of Meta Pseudo
            Labels without it, which makes more in the same time.
    """

    data: tuple[str, ...]
    common: tuple[str, ...]
    unlabeled: tuple[str, ...]
    uda: tuple[str, ...]
    mpl: tuple[str, ...]
    finetuning: tuple[str, ...]
    reweighting: tuple[str, ...]
    steps: Mapping[str, int]

    def trials(self, *, noise: str, cheap: int, trusted: int, without_uda: bool = False) -> dict[str, str]:
        """Trial → recipe and flags, as `--trial` of recipes.compare takes them.

        Args:
            noise: `"symmetric:0.3"`.
            cheap: labels of which this fraction is wrong.
            trusted: labels that are right.
            without_uda: whether Meta Pseudo Labels is run without a consistency loss, too.
        """
        labels = (
            *self.data, f"--labels={cheap + trusted}", f"--trusted={trusted}", f"--label_noise={noise}",
        )  # fmt: skip
        common, alone = (*labels, *self.common), "--cheap_labels=ignore"
        trials = {}
        for what, flags in ((IGNORE, (alone,)), (USE, ())):
            trials |= {
                f"{what}, supervised": (
                    "supervised",
                    *common,
                    *flags,
                    *comparison.length(self.steps["supervised"]),
                ),
                f"{what}, UDA": (
                    "uda",
                    *common,
                    *flags,
                    *self.unlabeled,
                    *self.uda,
                    *comparison.length(self.steps["uda"]),
                ),
            }
        for name in (f"{USE}, supervised", f"{USE}, UDA"):
            network = f"--network={{{name}}}/networks/student.keras"
            trials[f"{name}, {THEN_TRUSTED}"] = ("finetune", *labels, alone, network, *self.finetuning)
        length = comparison.length(self.steps[REWEIGHT])
        trials[REWEIGHT] = ("learning_to_reweight", *common, *self.reweighting, *length)
        consistencies = {MPL: self.uda}
        if without_uda:
            consistencies[f"{MPL}, {WITHOUT_UDA}"] = ("--uda_weight=0",)
        for name, consistency in consistencies.items():
            flags = (*common, *self.unlabeled, *self.mpl, *consistency, "--feedback_on=trusted")
            length = comparison.length(self.steps["mpl"])
            trials |= {
                name: ("mpl", *flags, *length),
                f"{name}, {PLACEBO}": ("mpl", *flags, "--feedback_placebo", *length),
                f"{name}, {WITHOUT_FEEDBACK}": (
                    "mpl", *flags, "--feedback=none", *comparison.length(self.steps[WITHOUT_FEEDBACK]),
                ),
            }  # fmt: skip
        return {name: " ".join(words) for name, words in trials.items()}


def _digits(model: str, steps: Mapping[str, int]) -> Task:
    """The preset of scikit-learn's digits."""
    return Task(
        data=("--dataset=digits", "--randaugment_operations=2", "--randaugment_magnitude=10"),
        common=(
            f"--model={model}", "--batch_size=20", "--learning_rate=0.1", "--warmup_steps=50", "--weight_decay=5e-4",
            "--ema_decay=0.98",
        ),
        unlabeled=("--unlabeled_ratio=4", "--confirmation_images=0"),
        uda=("--uda_weight=2", "--uda_temperature=0.7", "--uda_threshold=0.8"),
        mpl=("--teacher_learning_rate=0.05", "--uda_ramp_steps=100"),
        finetuning=("--steps=200", "--batch_size=20", "--learning_rate=0.02"),
        reweighting=("--learning_rate=0.005", "--global_clipnorm=0.5"),
        steps=steps,
    )  # fmt: skip


TASKS = {
    "digits_convnet": _digits(
        "convnet", {"supervised": 5200, REWEIGHT: 2980, "uda": 1400, "mpl": 780, WITHOUT_FEEDBACK: 1000}
    ),
    "digits_mlp": _digits(
        "mlp", {"supervised": 5000, REWEIGHT: 4400, "uda": 2900, "mpl": 2200, WITHOUT_FEEDBACK: 2250}
    ),
    # As docs/few_labels.md trains on these images: with SGD at 0.05 and full RandAugment nothing began to learn.
    "mnist": Task(
        data=("--dataset=mnist", "--validation=0.04", "--fill=auto", "--randaugment_magnitude=6"),
        common=(
            "--model=lenet-5",
            "--batch_size=20",
            "--optimizer=adam",
            "--learning_rate=2e-3",
            "--ema_decay=0.99",
        ),
        unlabeled=("--unlabeled_ratio=5", "--distribution_alignment=uniform", "--confirmation_images=0"),
        uda=("--uda_weight=1", "--uda_temperature=0.4", "--uda_threshold=0.8"),
        mpl=("--uda_ramp_steps=100",),
        finetuning=("--steps=200", "--batch_size=20", "--learning_rate=0.01"),
        reweighting=("--learning_rate=5e-4", "--global_clipnorm=0.5"),
        steps={"supervised": 6000, REWEIGHT: 3400, "uda": 950, "mpl": 380, WITHOUT_FEEDBACK: 450},
    ),
}


# --- the map of the settings ------------------------------------------------------------------------------


def regime_map(settings: Mapping[str, Mapping[str, Mapping[int, Mapping]]]) -> str:
    """A row per setting, as Markdown: the best trial without feedback, Meta Pseudo Labels, and what it adds.

    Args:
        settings: setting → trial → seed → what metrics.json of the run holds.
    """
    rows = []
    for setting, trials in settings.items():
        noise, cheap, trusted = setting.split("_")
        students = {name: comparison.students(runs) for name, runs in trials.items()}
        baselines = [name for name in students if not name.startswith(MPL)]
        best = max(baselines, key=lambda name: statistics.mean(students[name].values()))
        for name in (MPL, f"{MPL}, {WITHOUT_UDA}"):
            if name not in students:
                continue
            others = {
                "- best": best,
                "- placebo": f"{name}, {PLACEBO}",
                "- no feedback": f"{name}, {WITHOUT_FEEDBACK}",
            }
            rows.append({
                "noise": noise,
                "cheap": cheap,
                "trusted": trusted,
                "seeds": str(len(students[name])),
                "best without feedback": f"{best}: {_mean(students[best])}",
                "student": f"{name}: {_mean(students[name])}",
                **{
                    column: comparison.difference(students[name], students[other], digits=1)
                    for column, other in others.items()
                },
                "CPU s, best and MPL": f"{_seconds(trials, best):.0f}, {_seconds(trials, name):.0f}",
            })  # fmt: skip
    legend = (
        "Test accuracy of the student in %, mean ± standard deviation over seeds; differences are paired by seed, "
        "mean ± standard error. The best without feedback is the trial with the highest mean on these images: it "
        "has been chosen, which favors it by chance, and Meta Pseudo Labels has not."
    )
    return f"{legend}\n\n{report.table(rows)}\n"


def _mean(values: Mapping[int, float]) -> str:
    return report.mean_and_deviation(values.values(), digits=1)


def _seconds(trials: Mapping[str, Mapping[int, Mapping]], name: str) -> float:
    """CPU seconds of a trial's training, with that of the trial that it goes on from."""
    own = comparison.cpu_seconds(trials[name])
    before = name.removesuffix(f", {THEN_TRUSTED}")
    return own + (_seconds(trials, before) if before != name else 0.0)


def write_map(folder: pathlib.Path, task: Task) -> None:
    """Writes `map.md` of all settings in the folder of a task in which every trial has a finished run."""
    settings = {}
    for path in sorted(folder.glob("*_*_*")):
        noise, cheap, trusted = path.name.split("_")
        size = {"noise": noise, "cheap": int(cheap), "trusted": int(trusted)}
        with_uda_alone = comparison.read_results(path, list(task.trials(**size)))
        everything = comparison.read_results(path, list(task.trials(**size, without_uda=True)))
        for results in (everything, with_uda_alone):
            if all(results.values()):
                settings[path.name] = results
                break
    if settings:
        (folder / "map.md").write_text(regime_map(settings), encoding="utf-8")


def main():
    """Runs the comparisons of a task, one setting after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--noise", default="0.1,0.2,0.3,0.5", help="fractions of the cheap labels, wrong")
    parser.add_argument("--kind", default="symmetric", choices=["symmetric", "pairs"])
    parser.add_argument("--cheap", default="100,1000", help="numbers of cheap labels")
    parser.add_argument("--trusted", default="20,100", help="numbers of trusted labels")
    parser.add_argument("--without_uda", action="store_true", help="run Meta Pseudo Labels without UDA too")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of steps, to try it out")
    parser.add_argument("--seeds", default="0-4")
    parser.add_argument("--data_dir", help="of TensorFlow Datasets")
    parser.add_argument("--run_dir", required=True)
    options = parser.parse_args()
    task = TASKS[options.task]
    task = dataclasses.replace(task, steps=comparison.scaled(task.steps, options.scale))
    folder = pathlib.Path(options.run_dir) / options.task
    sizes = itertools.product(*(getattr(options, name).split(",") for name in ("trusted", "cheap", "noise")))
    for trusted, cheap, noise in sizes:
        trials = task.trials(
            noise=f"{options.kind}:{noise}",
            cheap=int(cheap),
            trusted=int(trusted),
            without_uda=options.without_uda,
        )
        where = f"{options.kind}:{noise}_{cheap}_{trusted}".replace(":", "-")
        data_dir = f" --data_dir={options.data_dir}" if options.data_dir else ""
        ablations = [
            f"--ablation={name} = {name}, {PLACEBO}" for name in trials if f"{name}, {PLACEBO}" in trials
        ]
        comparison.run(
            "compare",
            *(f"--trial={name}: {words}{data_dir}" for name, words in trials.items()),
            *ablations, f"--reference={IGNORE}, UDA", f"--seeds={options.seeds}", f"--run_dir={folder / where}",
        )  # fmt: skip
        write_map(folder, task)
    print((folder / "map.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
