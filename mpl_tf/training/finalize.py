"""The end of a run: networks evaluated once, saved and exported, metrics and images written."""

import functools
import hashlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mpl_tf import evaluation, export, models, report
from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import replicas
from mpl_tf.models.fingerprints import weights_fingerprint
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.roles import baseline_role, chosen_role, role_name
from mpl_tf.training.suspect_labels import write_suspect_labels
from mpl_tf.utils import files
from mpl_tf.utils.progress import Progress
from mpl_tf.utils.validation import check_choice
from mpl_tf.version import __version__


def finish(
    folder: RunFolder,
    data: RunData,
    networks: dict[str, keras.Model],
    *,
    results: dict[str, dict[str, dict]] | None = None,
    export_dir: str | os.PathLike | None = None,
    draw_report: bool = True,
    command: str = "",
    serve: str = evaluation.AUTO,
    candidates: Sequence[str] | None = None,
    baseline: str | None = None,
    verbose: int | str = "auto",
    **facts: object,
) -> dict:
    """Evaluates the finished networks, saves and exports them, and writes metrics.json.

    Args:
        folder: of the run.
        data: images and split.
        networks: role → network, in the order of the training.
        results: split → role → numbers, where the networks have been evaluated; None does so.
        export_dir: where to; None exports nothing.
        draw_report: whether to draw report.html.
        command: the command line that started the run.
        serve: the role of the network that is exported; `"auto"` chooses it by the validation images.
        candidates: the roles to choose from; None for all.
        baseline: the role that was trained on the labeled images alone; None finds it by its name.
        verbose: as in `keras.Model.fit`.
        **facts: more entries for metrics.json.

    Returns:
        What metrics.json holds.

    Raises:
        ValueError: for a role that the run does not have.
    """
    check_choice("serve", serve, (evaluation.AUTO, *networks))
    for network in networks.values():
        models.check_class_names(network, data.source.class_names)
        models.set_class_names(network, data.source.class_names)
        if len(data.source.image_shape) == 3:
            models.set_resizing(network, data.source.resizing)
    metrics: dict[str, Any] = dict(results) if results else _evaluate(data, networks, verbose, folder=folder)
    for role, network in networks.items():
        folder.save_network(role, network)
    if (folder.path / "history.csv").exists():
        curves = report.plots.curves(folder.read_history(), title=data.split.name)
        report.plots.save_png(curves, folder.path / "curves.png")
    if tuple(data.source.image_shape) == (2,):
        _draw_boundaries(folder, data, networks)
    metrics.update(
        **facts,
        split=data.split.name,
        data=_fingerprints(data),
        command=command,
        versions={"tensorflow": tf.__version__, "keras": keras.__version__, "mpl_tf": __version__},
    )
    if (accelerator := replicas.accelerator()) is not None:
        metrics["accelerator"] = accelerator
    candidates = list(networks if candidates is None else candidates)
    if results and len(candidates) > 1 and set(folder.read_outcomes()) != set(networks):
        # Numbers do not say on which images the networks differ.
        _evaluate(data, networks, verbose, ("validation",), folder=folder)
    metrics["served"] = _choose(folder, metrics, serve, candidates, baseline)
    write_suspect_labels(folder, data, networks[metrics["served"]["role"]])
    if export_dir:
        metrics["export"] = str(_export(folder, data, export_dir, networks, metrics))
    folder.write_metrics(metrics)
    if draw_report:
        draw_page(folder, data, networks)
    return folder.read_metrics() or metrics


def _choose(folder, metrics, serve, candidates, baseline=None):
    """What metrics.json says of the network that is served, and a warning where it is worse than the baseline."""
    roles = metrics.get("validation", metrics.get("test", candidates))
    baseline = baseline or baseline_role(roles, metrics.get("seconds", ()))
    choice = evaluation.choose(
        folder.read_outcomes(), order=candidates, baseline=baseline, serve=serve, name=role_name
    )
    if choice.warning:
        warnings.warn(choice.warning, stacklevel=2)
    return {
        "role": choice.role,
        "reason": " ".join(filter(None, [choice.reason, choice.warning])),
        "serve": serve,
        "candidates": candidates,
        "baseline": baseline,
    }


def collect_outcomes(
    data: RunData,
    networks: dict[str, keras.Model],
    *,
    splits: Sequence[str] = ("validation", "test"),
    verbose: int | str = "auto",
) -> dict[str, dict[str, evaluation.Outcomes]]:
    """Passes the images of each split through every network.

    Args:
        data: images and split.
        networks: role → network.
        splits: `"validation"`, `"test"`; one without images is left out.
        verbose: as in `keras.Model.fit`.

    Returns:
        Split → role → what became of each image.
    """
    batches = {split: getattr(data, split)() for split in splits}
    counts = {"validation": len(data.split.validation), "test": len(data.source.test or ())}
    total = len(networks) * sum(counts[split] for split in splits)
    with Progress(total, "evaluation", verbose=verbose) as progress:
        return {
            split: {
                role: evaluation.collect_outcomes(network, of_split, advance=progress.update)
                for role, network in networks.items()
            }
            for split, of_split in batches.items()
            if of_split is not None
        }


def summarize(
    outcomes: dict[str, dict[str, evaluation.Outcomes]], data: RunData, folder: RunFolder
) -> dict[str, dict[str, dict]]:
    """Split → role → numbers; of each validation image the folder gets whether the networks are right.

    Args:
        outcomes: what `collect_outcomes` returns.
        data: images and split.
        folder: of the run.
    """
    if "validation" in outcomes:
        folder.write_outcomes({role: found.correct for role, found in outcomes["validation"].items()})
    return {
        split: {role: evaluation.summarize(found, data.source.num_classes) for role, found in roles.items()}
        for split, roles in outcomes.items()
    }


def _evaluate(data, networks, verbose, splits=("validation", "test"), *, folder):
    """Split → role → numbers, as `summarize`."""
    return summarize(collect_outcomes(data, networks, splits=splits, verbose=verbose), data, folder)


def complete(
    folder: RunFolder,
    data: RunData,
    *,
    export_dir: str | os.PathLike | None = None,
    draw_report: bool = True,
    serve: str = evaluation.AUTO,
    verbose: int | str = "auto",
) -> list[str]:
    """Does what a complete run has not done yet: other test images, another network to serve, an export, a page.

    Args:
        folder: of the run.
        data: images and split.
        export_dir: where the chosen network is to be; None for nowhere.
        draw_report: whether there is to be a page.
        serve: as for `finish`.
        verbose: as in `keras.Model.fit`.

    Returns:
        What was done, in words.
    """
    metrics, done = folder.read_metrics() or {}, []
    networks = functools.cache(lambda: _evaluated(folder))
    fingerprints = _fingerprints(data)
    if fingerprints["test"] not in (None, metrics.get("data", {}).get("test")):
        _test_again(folder, data, networks(), metrics, verbose)
        metrics["data"] = fingerprints
        # Measured on the former ones.
        metrics.get("evaluation", {}).pop("test", None)
        done.append("evaluated on the test images, which it had not seen yet")
    if serve != metrics.get("served", {}).get("serve"):
        done += _choose_again(folder, data, networks, metrics, serve, verbose)
    if export_dir and not _is_exported(metrics, export_dir):
        metrics["export"] = str(_export(folder, data, export_dir, networks(), metrics))
        done.append("exported")
    if done:
        folder.write_metrics(metrics)
    if draw_report and (done or not (folder.path / report.PAGE).exists()):
        draw_page(folder, data, networks())
        done.append("its report drawn")
    return done


def _test_again(folder, data, networks, metrics, verbose) -> None:
    """Puts into the metrics of a complete run what its networks say of other test images."""
    outcomes = collect_outcomes(data, networks, splits=("test",), verbose=verbose)
    metrics |= summarize(outcomes, data, folder)
    if (gain := metrics.get("gain")) is not None:
        correct, other = (outcomes["test"][gain[role]].correct for role in ("method", "reference"))
        gain["test"] = evaluation.paired_difference(correct, other).as_dict()


def _choose_again(folder, data, networks, metrics, serve, verbose) -> list[str]:
    """Puts another choice into the metrics of a complete run; what was done, in words."""
    roles = list(metrics.get("validation", metrics.get("test", _candidates(metrics))))
    check_choice("serve", serve, (evaluation.AUTO, *roles))
    before = chosen_role(metrics)
    if "validation" in metrics and set(folder.read_outcomes()) != set(roles):
        _evaluate(data, networks(), verbose, ("validation",), folder=folder)
    known = metrics.get("served", {})
    candidates = known.get("candidates", roles)
    metrics["served"] = _choose(folder, metrics, serve, candidates, known.get("baseline"))
    replaced = known.get("replaces")
    if (role := metrics["served"]["role"]) != before:
        # It is another network's.
        replaced = metrics.pop("export", replaced)
        write_suspect_labels(folder, data, networks()[role])
    if replaced:
        metrics["served"]["replaces"] = replaced
    return [f"the {role_name(role)} chosen to be served"]


def _fingerprints(data):
    """Split → what identifies its images and labels."""
    test = data.source.test
    return {"train": data.split.fingerprint, "test": None if test is None else test.fingerprint()}


def _is_exported(metrics, export_dir):
    version = files.user_path(metrics.get("export") or "")
    wanted = files.user_path(export_dir).resolve()
    return bool(metrics.get("export")) and version.is_dir() and version.resolve().parent == wanted


def _export(folder, data, export_dir, networks, metrics):
    """The version in which the run's network is served: a new one, or its own where it was killed after it."""
    role = metrics["served"]["role"]
    origin = f"{folder.identity()} {weights_fingerprint(networks[role])}"
    if replaced := metrics["served"].get("replaces"):
        # A network that was chosen, replaced and chosen again is exported again: servers take the highest version.
        origin += f" {replaced}"
    provenance = export.Provenance.of_run(
        metrics,
        role,
        data=data.source.name,
        split=data.split,
        flip=data.source.flip if len(data.source.image_shape) == 3 else None,
        run=hashlib.sha256(origin.encode()).hexdigest()[:32],
    )
    return export.saved_model(
        networks[role], export_dir, class_names=data.source.class_names, provenance=provenance
    )


def draw_page(folder: RunFolder, data: RunData, networks: dict | None = None) -> None:
    """Draws report.html of a finished run; one that cannot be drawn is a warning, since the run itself is complete.

    Args:
        folder: of the run.
        data: images and split.
        networks: role → network; None reads them from the folder.
    """
    try:
        report.page(folder.path, data, _evaluated(folder) if networks is None else networks)
    except Exception as error:
        warnings.warn(
            f"The run is complete, but its report could not be drawn ({type(error).__name__}: {error}): draw it "
            f"again with python -m recipes.report --run_dir={folder.path}.",
            stacklevel=2,
        )


def _evaluated(folder):
    metrics = folder.read_metrics()
    # In the order of the training.
    roles = dict.fromkeys(role for split in ("validation", "test") for role in metrics.get(split, ()))
    # Without images to evaluate on, those that there were to choose from.
    return {role: folder.load_network(role) for role in roles or _candidates(metrics)}


def _candidates(metrics):
    """The roles of a complete run that its network was chosen from."""
    return metrics.get("served", {}).get("candidates", ())


def _draw_boundaries(folder, data, networks):
    points = data.source.train.fetch(tf.range(len(data.source.train), dtype=tf.int64)).numpy()
    labels = np.full(len(points), -1)
    labels[data.split.labeled] = data.source.train.labels[data.split.labeled]
    panels = {role: functools.partial(replicas.predict, network) for role, network in networks.items()}
    boundaries = report.plots.decision_boundaries(points, labels, panels)
    report.plots.save_png(boundaries, folder.path / "boundaries.png")
