"""A run as a page: one HTML file that needs nothing but itself, drawn from what its folder holds."""

import os
import pathlib
from collections.abc import Mapping

import keras

from mpl_tf import files
from mpl_tf.report import markup, parts
from mpl_tf.report.markup import element, escape, paragraph
from mpl_tf.report.run_view import RunView
from mpl_tf.report.verdict import counted, verdict

PAGE = "report.html"


def page(
    run_dir: str | os.PathLike, data=None, networks: Mapping[str, keras.Model] | None = None
) -> pathlib.Path:
    """Draws `<run_dir>/report.html` from what a run has left so far; what is not there is left out.

    The test pictures are never looked at: their numbers are those of metrics.json. Whatever is shown picture by
    picture comes from the validation split or the training pictures.

    Args:
        run_dir: the run's folder; any of its files may be missing.
        data: `mpl_tf.training.RunData`, for the pictures.
        networks: role → network, for what they say of the pictures. Needs `data`.

    Returns:
        The path of the page. An older one is replaced in one step.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    run = RunView(pathlib.Path(run_dir), data, networks or {})
    makers = (
        parts.accuracy,
        parts.curves,
        parts.errors,
        parts.pseudo_labels,
        parts.pictures,
        parts.robustness,
    )
    sections = [make(run) for make in makers]
    text = markup.document(f"{run.name} · mpl_tf", _header(run), sections, _footer(run))
    with files.replacing(run.path / PAGE) as temporary:
        temporary.write_text(text, "utf-8")
    return run.path / PAGE


def _header(run):
    metrics, split = run.metrics, run.split
    numbers = split.get("counts") or {}
    labels = numbers.get("labeled")
    facts = {"split": run.name}
    if labels is not None:
        counts = split.get("labels_per_class") or {}
        each = sorted(set(counts.values()))
        facts["labels"] = f"{labels:,}" + (f", {each[0]:,} of each class" if len(each) == 1 else "")
        for part in ("unlabeled", "validation"):
            facts[part] = counted(numbers[part], run.thing) if part in numbers else None
    if "test" in metrics:
        facts["test"] = counted(next(iter(metrics["test"].values()))["count"], run.thing)
    facts["student"] = run.flags.get("model")
    if "steps" in metrics:
        facts["updates"] = f"{metrics['steps']:,}, on {metrics['pictures']:,} {run.thing}s"
    if "seconds" in metrics:
        facts["training"] = ", ".join(
            f"{stage} {value:,.0f} s" for stage, value in metrics["seconds"].items()
        )
    if "versions" in metrics:
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    entries = [
        element("dt", escape(name)) + element("dd", escape(value)) for name, value in facts.items() if value
    ]
    title = " · ".join(filter(None, (run.name, run.recipe and run.recipe.replace("_", " "), run.path.name)))
    shown = [element("h1", escape(title))]
    shown.append(paragraph(verdict(metrics, labels=labels, thing=run.thing), class_="verdict"))
    shown.append(element("dl", *entries))
    if metrics.get("command"):
        shown.append(markup.command(metrics["command"]))
    return "".join(shown)


def _footer(run):
    known = "Drawn with the run's pictures and networks." if run.networks else "Drawn from the run's files."
    return paragraph(
        f"{known} Test pictures are measured once, at the end of the run; every picture shown and every mistake "
        "counted class by class is from the training or the validation split."
    )
