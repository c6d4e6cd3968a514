"""A run without training: features, a linear probe on them, and its accuracy."""

import dataclasses
import itertools
import os
import time

import keras
import numpy as np

from mpl_tf import evaluation, models
from mpl_tf.data.run_data import RunData
from mpl_tf.utils.progress import Progress


@dataclasses.dataclass(frozen=True)
class Probed:
    """What a linear probe of a network gave.

    Attributes:
        probe: the regression.
        metrics: "validation" and "test", where there are such images, → what `evaluation.evaluate` returns.
        seconds: "features" and "probe" → how long they took. Stored features take none.
        cpu_seconds: the same on all cores together.
    """

    probe: models.Probe
    metrics: dict[str, dict]
    seconds: dict[str, float]
    cpu_seconds: dict[str, float]


def probe(
    network: keras.Model,
    data: RunData,
    *,
    cache_dir: str | os.PathLike | None = None,
    regularization: float | None = None,
    seed: int = 0,
    verbose: int | str = "auto",
) -> Probed:
    """Fits a linear probe to the labeled images of a run, gives it to the network as its head, and evaluates it.

    Args:
        network: whose last layer is dense, from features to logits.
        data: images and split.
        cache_dir: folder in which features are stored; None for none.
        regularization: C of the regression; None chooses it by cross-validation on the labeled images alone.
        seed: of the folds.
        verbose: 0 for silence, 1 for a progress bar, 2 for lines, `"auto"` for the bar in a terminal.

    Returns:
        The probe, its accuracy and the time that it took.

    Raises:
        ValueError: for features that are not finite, or a class without a labeled image.
    """
    train, test = data.source.train, data.source.test
    parts = {"labeled": (train, data.split.labeled), "validation": (train, data.split.validation)}
    if test is not None:
        parts["test"] = test, np.arange(len(test))
    parts = {name: part for name, part in parts.items() if len(part[1])}
    times = [_clocks()]
    with Progress(sum(len(part[1]) for part in parts.values()), "features", verbose=verbose) as progress:
        features = {
            name: models.extract_features(
                network, images, indices, cache_dir=cache_dir, advance=progress.update
            )
            for name, (images, indices) in parts.items()
        }
    labels = {name: np.asarray(images.labels)[indices] for name, (images, indices) in parts.items()}
    times.append(_clocks())
    num_classes = data.source.num_classes
    fitted = models.fit_probe(
        features.pop("labeled"), labels["labeled"], num_classes, regularization=regularization, seed=seed
    )
    models.set_head(network, fitted.kernel, fitted.bias)
    times.append(_clocks())
    spent = [
        [later - earlier for earlier, later in itertools.pairwise(clock)]
        for clock in zip(*times, strict=True)
    ]
    seconds, cpu_seconds = (dict(zip(("features", "probe"), each, strict=True)) for each in spent)
    metrics = {
        name: evaluation.summarize(evaluation.outcomes(fitted.logits(part), labels[name]), num_classes)
        for name, part in features.items()
    }
    return Probed(fitted, metrics, seconds, cpu_seconds)


def _clocks():
    return time.perf_counter(), time.process_time()
