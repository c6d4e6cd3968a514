"""Are the images of DAFL's generators adversarial, or like real ones: what do other networks see in them?

python benchmarks/claims/digits.py --study=statistics_guide --seeds=0-2 --run_dir=runs/claims/statistics_guide
python benchmarks/claims/generated_images.py --run_dir=runs/claims/statistics_guide

An adversarial image fools the network that it was made against; on a real one networks that were trained apart from
each other agree. So the teacher's classes are compared with those of *judges*: networks of other architectures and
seeds, trained on the same real digits, which no generator has seen. And the nearest real training image is looked up,
in pixels and in a judge's features; a distance is divided by that of real test images. Test images, noise and the
images of generators that are left untrained have a row each, for scale. The generators draw 1,024 images as they do
in training; `images.md` is written beside the study.
"""

import argparse
import pathlib
import re
from collections.abc import Mapping, Sequence

import comparison
import keras
import numpy as np
import tensorflow as tf

from mpl_tf import data, models, report
from mpl_tf.utils import files

# Model → seed: not of the teacher, nor of a student.
JUDGES = {"convnet": 200, "wrn-10-1": 201, "mlp": 202}
REFERENCE = "neither"
IMAGES, BATCH = 1024, 128


def generate(generator: keras.Model, *, seed: int = 0) -> np.ndarray:
    """Images as the student sees them, with BatchNorm over a batch: float32 `[1024, H, W, C]` in 0…255."""
    noise = np.random.default_rng(seed).standard_normal((IMAGES, generator.input_shape[-1]), np.float32)
    batches = [generator(noise[first : first + BATCH], training=True) for first in range(0, IMAGES, BATCH)]
    return np.concatenate(batches)


def measure(
    images: np.ndarray,
    teacher: keras.Model,
    judges: Mapping[str, keras.Model],
    real: Mapping[str, np.ndarray],
) -> dict[str, float]:
    """What independent networks say of some images, and how far these are from the nearest real ones.

    Args:
        images: float32 `[n, H, W, C]` in 0…255.
        teacher: that they were made against.
        judges: name → another network; the features are the first one's, of its layer `features`.
        real: `"pixels"` and `"features"` → `[m, d]`, those of the real images.

    Returns:
        Name → number: percentages, and root mean square differences of pixels, and distances of features.
    """
    teacher_probabilities = _probabilities(teacher, images)
    classes = teacher_probabilities.argmax(axis=-1)
    numbers = {"teacher's confidence %": 100.0 * teacher_probabilities.max(axis=-1).mean()}
    confidences = []
    for name, judge in judges.items():
        probabilities = _probabilities(judge, images)
        numbers[f"{name} agrees %"] = 100.0 * (probabilities.argmax(axis=-1) == classes).mean()
        confidences.append(probabilities[np.arange(len(images)), classes].mean())
    numbers["judges' confidence in that class %"] = 100.0 * np.mean(confidences)
    own = {"pixels": _pixels(images), "features": features(next(iter(judges.values())), images)}
    for space, values in own.items():
        nearest = nearest_distances(values, real[space]).mean()
        numbers[f"distance, {space}"] = nearest / values.shape[1] ** 0.5 if space == "pixels" else nearest
    return {name: float(value) for name, value in numbers.items()}


def nearest_distances(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Euclidean distance of each row to the nearest of the others: float64 `[n]`.

    Args:
        values: `[n, d]`.
        others: `[m, d]`.
    """
    values, others = values.astype(np.float64), others.astype(np.float64)
    squares = (values**2).sum(axis=1)[:, None] - 2.0 * values @ others.T + (others**2).sum(axis=1)
    return np.sqrt(np.maximum(squares.min(axis=1), 0.0))


def features(network: keras.Model, images: np.ndarray) -> np.ndarray:
    """The outputs of a network's layer `features`, float32 `[n, d]`."""
    part = keras.Model(network.input, network.get_layer("features").output)
    return keras.ops.convert_to_numpy(part(images, training=False)).reshape(len(images), -1)


def _probabilities(network, images):
    return tf.nn.softmax(tf.cast(network(images, training=False), tf.float32)).numpy().astype(np.float64)


def _pixels(images):
    return images.reshape(len(images), -1)


# --- the tables ---------------------------------------------------------------------------------------------


def tables(found: Mapping[str, Mapping[int, Mapping[str, float]]], scale: Mapping[str, float]) -> str:
    """Means over seeds, and paired differences to the generators without the losses in question, as Markdown.

    Args:
        found: trial → seed → what `measure` has found.
        scale: the same for real test images, whose distances the others are divided by.
    """
    relative = {
        trial: {seed: _relative(numbers, scale) for seed, numbers in runs.items()}
        for trial, runs in found.items()
    }
    rows, differences = [], []
    for trial, runs in relative.items():
        row = {"images": trial, "seeds": str(len(runs))}
        names = next(iter(runs.values()))
        for name in names:
            row[name] = report.mean_and_deviation([runs[seed][name] for seed in runs], digits=_digits(name))
        rows.append(row)
        others = relative.get(REFERENCE, {})
        paired = sorted(runs.keys() & others.keys())
        if trial != REFERENCE and len(paired) > 1:
            row = {f"- {REFERENCE}": trial}
            for name in names:
                values = [runs[seed][name] - others[seed][name] for seed in paired]
                row[name] = report.mean_and_error(values, digits=_digits(name))
            differences.append(row)
    legend = (
        "Mean ± standard deviation over seeds; differences are paired by seed, mean ± standard error. A distance of "
        "1 is that of real test images from the nearest training image."
    )
    return "\n\n".join([legend, report.table(rows), report.table(differences)])


def _relative(numbers, scale):
    return {
        name: value / scale[name] if name.startswith("distance") else value for name, value in numbers.items()
    }


def _digits(name):
    return 2 if name.startswith("distance") else 1


def read_generators(folder: pathlib.Path, trials: Sequence[str]) -> dict[str, dict[int, pathlib.Path]]:
    """Trial → seed → generator.keras, of the finished runs of a comparison.

    Args:
        folder: of the comparison.
        trials: by their names.
    """
    found: dict[str, dict[int, pathlib.Path]] = {}
    for trial in trials:
        for run_dir in folder.glob(f"{files.folder_name(trial)}.*"):
            generator = run_dir / "networks" / "generator.keras"
            if (run_dir / "metrics.json").is_file() and generator.is_file():
                found.setdefault(trial, {})[int(run_dir.suffix[1:])] = generator
    return found


def trial_names(folder: pathlib.Path) -> list[str]:
    """The trials of a comparison in the order of its table."""
    lines = (folder / "table.md").read_text("utf-8").splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    return [name for name in rows if name != "trial" and not re.fullmatch("-+", name)]


def main():
    """Trains the judges, and measures the generators of a study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run_dir", required=True, help="of the study")
    folder = pathlib.Path(parser.parse_args().run_dir)
    judges = {}
    for model, seed in JUDGES.items():
        run_dir = folder / "judges" / model
        comparison.run(
            "supervised", "--dataset=digits", f"--model={model}", f"--seed={seed}", "--steps=600",
            "--learning_rate=0.1", "--weight_decay=5e-4", "--ema_decay=0", f"--run_dir={run_dir}",
        )  # fmt: skip
        judges[model] = models.load(run_dir / "networks" / "student.keras")
    teacher = models.load(folder / "teacher" / "networks" / "student.keras")

    source = data.load("digits")
    train, test = (
        images.fetch(tf.range(len(images), dtype=tf.int64)).numpy().astype(np.float32)
        for images in (source.train, source.test)
    )
    real = {"pixels": _pixels(train), "features": features(next(iter(judges.values())), train)}
    scale = measure(test, teacher, judges, real)
    noise = np.random.default_rng(0).normal(127.5, 127.5, (IMAGES, *train.shape[1:])).clip(0, 255)
    found = {
        "real test images": {0: scale},
        "noise": {0: measure(noise.astype(np.float32), teacher, judges, real)},
    }
    trials = {
        trial: {seed: models.load(path) for seed, path in sorted(paths.items())}
        for trial, paths in read_generators(folder, trial_names(folder)).items()
    }
    # Their layers draw the weights anew that they began with.
    untrained = {
        seed: keras.models.clone_model(generator) for seed, generator in next(iter(trials.values())).items()
    }
    for trial, generators in ({"untrained": untrained} | trials).items():
        found[trial] = {
            seed: measure(generate(generator), teacher, judges, real)
            for seed, generator in generators.items()
        }
    text = tables(found, scale)
    (folder / "images.md").write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
