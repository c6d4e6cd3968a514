"""What unlabeled images bring to somebody with two folders and twenty minutes: a table of docs/few_labels.md.

python benchmarks/own_images.py --model=efficientnet-lite0-imagenet.keras --minutes=20 --seeds=0,1,2,3 \
    --data_dir=tensorflow_datasets --run_dir=runs/own_images

For each seed five classes of CIFAR-10 and some of their images are drawn, written as JPEG files into folders like a
user's, and handed to `recipes.auto`, which plans, trains, compares and exports by itself; nothing else is said to it.
The minutes are CPU time, so that runs side by side get equally much. Resumes run by run and inside of a run.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from mpl_tf import report
from mpl_tf.utils import files

NUM_CLASSES = 5
LABELED, UNLABELED, TEST = 30, 600, 80  # of each class
WIDTH, HEIGHT = 96, 72  # not square, as photographs are


def write_folders(
    folder: pathlib.Path,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    names: Sequence[str],
    seed: int,
) -> None:
    """Draws classes and images, and writes `labeled/`, `unlabeled/` and `test/`; does nothing where they are.

    Args:
        folder: gets the three.
        train: images, uint8 `[N, H, W, 3]`, and their classes.
        test: images to test on.
        names: of the classes.
        seed: of the draw.
    """
    if folder.exists():
        return
    generator = np.random.default_rng(seed)
    classes = sorted(generator.choice(len(names), NUM_CLASSES, replace=False))
    with files.replacing(folder) as being_written:
        for label in classes:
            drawn = generator.permutation(np.flatnonzero(train[1] == label))
            for index in drawn[:LABELED]:
                _write(train[0][index], being_written / "labeled" / names[label] / f"{index:05d}.jpg")
            for index in drawn[LABELED : LABELED + UNLABELED]:
                _write(train[0][index], being_written / "unlabeled" / f"{index:05d}.jpg")
            for index in generator.permutation(np.flatnonzero(test[1] == label))[:TEST]:
                _write(test[0][index], being_written / "test" / names[label] / f"{index:05d}.jpg")


def _write(image: np.ndarray, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)


def table(runs: Mapping[int, Mapping]) -> str:
    """Test accuracies by seed and their means, and what the unlabeled images have brought, as Markdown.

    Args:
        runs: seed → what metrics.json of its run holds.
    """
    roles = list(dict.fromkeys(role for metrics in runs.values() for role in metrics["test"]))
    rows = []
    for role in roles:
        accuracies = {
            seed: 100.0 * metrics["test"][role]["accuracy"]
            for seed, metrics in runs.items()
            if role in metrics["test"]
        }
        seconds = [
            metrics["cpu_seconds"][role] for metrics in runs.values() if role in metrics["cpu_seconds"]
        ]
        rows.append({
            "network": role.replace("_", " "),
            **{f"seed {seed}": f"{accuracies[seed]:.1f}" if seed in accuracies else "" for seed in runs},
            "test %": report.mean_and_deviation(accuracies.values(), digits=1),
            "CPU s": f"{statistics.mean(seconds):.0f}" if seconds else "",
        })  # fmt: skip
    gains = {seed: metrics["gain"] for seed, metrics in runs.items()}
    rows.append({
        "network": "served",
        **{f"seed {seed}": metrics["served"]["role"].replace("_", " ") for seed, metrics in runs.items()},
    })  # fmt: skip
    rows.append({
        "network": "what the unlabeled images brought",
        **{f"seed {seed}": _points(gain["test"]) for seed, gain in gains.items()},
        "test %": report.mean_and_error(
            [100.0 * gain["test"]["difference"] for gain in gains.values()], digits=1
        )
        if len(gains) > 1
        else "",
    })  # fmt: skip
    return report.table(rows)


def _points(gain: Mapping[str, float]) -> str:
    return f"{100.0 * gain['difference']:+.1f} ± {100.0 * gain['standard_error']:.1f}"


def main():
    """Runs all seeds, and writes `<run_dir>/table.md` after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a pre-trained network's .keras file; without, random weights")
    parser.add_argument("--minutes", type=float, default=20.0, help="of CPU time, for each seed")
    parser.add_argument("--seeds", default="0,1,2", help="of the drawn classes, images and the training")
    parser.add_argument("--data_dir", help="of TensorFlow Datasets")
    parser.add_argument("--run_dir", required=True)
    options = parser.parse_args()

    import tensorflow_datasets as tfds

    parts, facts = tfds.load(
        "cifar10", split=["train", "test"], batch_size=-1, data_dir=options.data_dir, with_info=True
    )
    train, test = ((part["image"].numpy(), part["label"].numpy()) for part in parts)
    start = [f"--model={options.model}"] if options.model else ["--weights=none"]
    folder, runs = pathlib.Path(options.run_dir), {}
    for seed in map(int, options.seeds.split(",")):
        images, run = folder / f"images_{seed}", folder / f"run_{seed}"
        write_folders(images, train, test, facts.features["label"].names, seed)
        command = [
            sys.executable, "-m", "recipes.auto", *start, f"--minutes={options.minutes}", "--clock=cpu",
            *(f"--{part}_dir={images / part}" for part in ("labeled", "unlabeled", "test")), f"--seed={seed}",
            f"--run_dir={run}", f"--export_dir={folder / f'exported_{seed}'}",
        ]  # fmt: skip
        if code := subprocess.run(command).returncode:
            sys.exit(code)
        runs[seed] = json.loads((run / "metrics.json").read_text("utf-8"))
        (folder / "table.md").write_text(table(runs) + "\n", encoding="utf-8")
    print((folder / "table.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
