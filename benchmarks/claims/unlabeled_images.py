"""How many unlabeled images, and what becomes of those that belong to no class: digits 0 to 4 beside 5 to 9.

python benchmarks/claims/unlabeled_images.py --study=amounts --seeds=0-2 --run_dir=runs/claims/unlabeled_images

Folders of scikit-learn's digits are written first: 80 images of the digits 0 to 4, of which each seed labels 20
others, more of them without labels, and, in one folder, as many of the digits 5 to 9, which are of no class. Each
study is one `recipes.compare` in `<run_dir>/<study>`, which resumes trial by trial, a run under a minute of one core;
all trials of a method make the same number of updates. The study of amounts ends with `filter.md`: which unlabeled
images Noisy Student's teachers let through. Nothing was tuned: hyper-parameters are those of the presets, of all ten
digits.
"""

import argparse
import pathlib

import comparison
import numpy as np
import tensorflow as tf
from PIL import Image

from mpl_tf import data, report
from mpl_tf.data.soft_labels import selection
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.utils import files

CLASSES, OTHERS = range(5), range(5, 10)
# Unlabeled images of the five classes: those beside which labels are drawn, and with the folders that are added.
FEWEST, AMOUNTS = 80, (80, 320, 640)
# Half of the unlabeled images are of no class beside so many of the five.
MIXED = 320
# Noisy Student without its filter, and with one that means as much of 5 classes as the paper's 0.3 does of 1,000.
THRESHOLDS = (0.0, 0.95)
# Whose confident images are counted.
FILTERS = (0.3, 0.8, 0.95)

PRESETS = {"amounts": "noisy_student_digits", "feedback": "digits"}
REFERENCES = {"amounts": f"{MIXED} images", "feedback": "MPL, no feedback"}
ABLATIONS = {"amounts": (), "feedback": ("MPL = MPL, placebo",)}


def write_folders(folder: pathlib.Path) -> None:
    """Writes the images as PNG files, where that has not been done.

    Args:
        folder: gets `labeled/` and `test/`, a folder per class in each; `unlabeled_320/` and so on with `known/`,
            images of the five classes beyond the labeled folder's; and `unlabeled_mixed/` with `others/` too.
    """
    if folder.exists():
        return
    source = data.load("digits")
    of_class = [np.flatnonzero(source.train.labels == digit) for digit in range(10)]
    of_class = [np.random.default_rng(0).permutation(members) for members in of_class]
    first = FEWEST // len(CLASSES)
    with files.replacing(folder) as temporary:
        for digit in CLASSES:
            _write(source.train, of_class[digit][:first], temporary / "labeled" / str(digit))
            tests = np.flatnonzero(source.test.labels == digit)
            _write(source.test, tests, temporary / "test" / str(digit))
            for amount in AMOUNTS:
                more = of_class[digit][first : amount // len(CLASSES)]
                if len(more):
                    _write(source.train, more, temporary / f"unlabeled_{amount}" / "known")
                if amount == MIXED:
                    _write(source.train, more, temporary / "unlabeled_mixed" / "known")
        for digit in OTHERS:
            others = of_class[digit][: MIXED // len(OTHERS)]
            _write(source.train, others, temporary / "unlabeled_mixed" / "others")


def _write(images: data.Images, index: np.ndarray, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in zip(index, images.fetch(tf.constant(index)).numpy(), strict=True):
        Image.fromarray(pixels[..., 0]).save(folder / f"{number:04d}.png")


def trials(study: str, images: pathlib.Path) -> dict[str, str]:
    """Trial → recipe and flags, as `--trial` of recipes.compare takes them.

    Args:
        study: `"amounts"`, Noisy Student with more and more images, and with a filter on a half that is of no class;
            or `"feedback"`, the methods on that half, and Meta Pseudo Labels' feedback beside its placebo.
        images: folder that `write_folders` has written.
    """
    common = (
        f"--dataset=folders --channels=1 --flip=false --labels=20 --validation=0 --labeled_dir={images / 'labeled'} "
        f"--test_dir={images / 'test'}"
    )
    rounds = f"noisy_student {common} --rounds=2"
    mixed = f"{common} --unlabeled_dir={images / 'unlabeled_mixed'}"
    alone = f"{common} --unlabeled_dir={images / f'unlabeled_{MIXED}'}"
    if study == "amounts":
        more = {
            f"{amount} images": rounds
            + ("" if amount == FEWEST else f" --unlabeled_dir={images / f'unlabeled_{amount}'}")
            for amount in AMOUNTS
        }
        return more | {
            mixed_trial(
                threshold
            ): f"{rounds} --unlabeled_dir={images / 'unlabeled_mixed'} --threshold={threshold}"
            for threshold in THRESHOLDS
        }
    mpl = f"mpl {mixed} --nobaseline"
    return {
        "supervised": f"supervised {alone}",
        "UDA": f"uda {mixed}",
        "MPL, no feedback": f"{mpl} --feedback=none",
        "MPL, placebo": f"{mpl} --feedback_placebo",
        "MPL": mpl,
        "UDA, without the other half": f"uda {alone}",
        "MPL, without the other half": f"mpl {alone} --nobaseline",
    }


def mixed_trial(threshold: float) -> str:
    """What the trial is called that learns from confident images, of which half are of no class."""
    return f"{MIXED} images and as many of no class, from {threshold:g} on"


# --- what the filter lets through --------------------------------------------------------------------------


def filter_table(folder: pathlib.Path) -> str:
    """What Noisy Student's teachers let through of the images of a class and of the others, and wrote on them.

    Args:
        folder: of the comparison, with finished runs.

    Returns:
        A row per trial and round, as Markdown: mean ± standard deviation over seeds, in %.
    """
    rows = []
    for threshold in THRESHOLDS:
        runs = sorted(folder.glob(f"{files.folder_name(mixed_trial(threshold))}.*"))
        rounds = [sorted(run.glob("round_*/labels")) for run in runs]
        for number, stores in enumerate(zip(*rounds, strict=True), start=1):
            let_through = [_let_through(LabelStore.open(path), threshold) for path in stores]
            row = {"learned from": f"{threshold:g}", "round": str(number), "seeds": str(len(let_through))}
            for name in let_through[0]:
                values = [100 * facts[name] for facts in let_through]
                row[name] = report.mean_and_deviation(values, digits=1)
            rows.append(row)
    return report.table(rows)


def _let_through(store: LabelStore, threshold: float) -> dict[str, float]:
    """Fractions of the images of a class and of the others, those of no class being the last ones of the source."""
    other = store.index > store.index.max() - MIXED
    confidence, classes = store.confidence(), store.classes()
    chosen = selection.select_indices(confidence, classes, store.num_classes, threshold=threshold)
    learned_from = np.zeros(len(store.index), bool)
    learned_from[chosen] = True
    fractions = {"learned from": learned_from}
    fractions |= {f"{filter_:g} or more": confidence >= filter_ for filter_ in FILTERS}
    return {
        f"{name}, {whose}": float(chosen[images].mean())
        for name, chosen in fractions.items()
        for whose, images in (("of a class", ~other), ("of none", other))
    }


def main():
    """Writes the folders, and runs the comparison of a study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=PRESETS, required=True)
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--run_dir", required=True)
    options = parser.parse_args()
    folder = pathlib.Path(options.run_dir)
    write_folders(folder / "images")
    comparison.run(
        "compare", f"--preset={PRESETS[options.study]}",
        *(f"--trial={name}: {words}" for name, words in trials(options.study, folder / "images").items()),
        *(f"--ablation={ablation}" for ablation in ABLATIONS[options.study]),
        f"--reference={REFERENCES[options.study]}", f"--seeds={options.seeds}", f"--run_dir={folder / options.study}",
    )  # fmt: skip
    if options.study == "amounts":
        table = filter_table(folder / options.study)
        (folder / options.study / "filter.md").write_text(f"{table}\n", encoding="utf-8")
        print(table)


if __name__ == "__main__":
    main()
