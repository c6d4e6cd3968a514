"""A run as a page, drawn from what its folder holds."""

import os
import pathlib
from collections.abc import Mapping

import keras

from mpl_tf.data.images.decoding import CROPPED
from mpl_tf.data.run_data import RunData
from mpl_tf.report.gain import gain_summary
from mpl_tf.report.html import render, run_sections
from mpl_tf.report.html.blocks import Fact
from mpl_tf.report.html.run_contents import RunContents
from mpl_tf.report.summary import run_summary
from mpl_tf.runs.roles import role_name


def page(
    run_dir: str | os.PathLike,
    data: RunData | None = None,
    networks: Mapping[str, keras.Model] | None = None,
) -> pathlib.Path:
    """Draws `<run_dir>/report.html` from what a run has left so far; what is not there is left out.

    The test images are never looked at: their numbers are those of metrics.json. Whatever is shown image by image
    comes from the validation split or the training images.

    Args:
        run_dir: the run's folder; any of its files may be missing.
        data: `mpl_tf.data.RunData`, for the images.
        networks: role → network, for what they say of the images. Needs `data`.

    Returns:
        The path of the page. An older one is replaced in one step.

    Raises:
        FileNotFoundError: when there is no such folder.
    """
    run = RunContents(pathlib.Path(run_dir), data, networks or {})
    sections = [
        run_sections.accuracy(run),
        run_sections.plan(run),
        run_sections.curves(run),
        run_sections.errors(run),
        run_sections.pseudo_labels(run),
        run_sections.suspect_labels(run),
        run_sections.training_images(run),
        run_sections.robustness(run),
    ]
    parts = (run.name, run.recipe and run.recipe.replace("_", " "), run.folder.path.resolve().name)
    return render.write_page(
        run.folder.path,
        "base.html.j2",
        title=" · ".join(filter(None, parts)),
        summary=_summary(run),
        details=_reason(run),
        facts=_facts(run),
        command=run.metrics.get("command"),
        sections=sections,
        footer=_footer(run),
    )


def _summary(run):
    if "plan" in run.metrics:
        return gain_summary(run.metrics, noun=run.noun)
    return run_summary(run.metrics, labels=_labels(run), noun=run.noun)


def _reason(run):
    """Why this network is the one that is served, where there was a choice; a plan's section says it there."""
    if "plan" in run.metrics:
        return ""
    chosen = run.metrics.get("served", {})
    return chosen["reason"] if len(chosen.get("candidates", ())) > 1 else ""


def _labels(run):
    return run.split.get("counts", {}).get("labeled")


def _facts(run):
    metrics, split = run.metrics, run.split
    facts = []
    if (labels := _labels(run)) is not None:
        each = sorted((split.get("labels_per_class") or {}).values())
        note = (f"{each[0]:,}" if each[0] == each[-1] else f"{each[0]:,} to {each[-1]:,}") if each else ""
        facts.append(Fact("Labels", f"{labels:,}", note and f"{note} of each class"))
    facts += _facts_of_trust(run)
    # More than somebody has put into the folder of the unlabeled ones.
    among = ", the labeled ones among them" if split.get("arguments", {}).get("labeled_in_unlabeled") else ""
    facts += [
        Fact(part.capitalize(), f"{split['counts'][part]:,}", f"{run.noun}s{note}")
        for part, note in (("unlabeled", among), ("validation", ""))
        if part in split.get("counts", {})
    ]
    if "test" in metrics:
        facts.append(Fact("Test", f"{next(iter(metrics['test'].values()))['count']:,}", f"{run.noun}s"))
    if run.flags.get("model"):
        # Of a file its name.
        facts.append(Fact("Student", pathlib.PurePath(run.flags["model"]).name))
    if "steps" in metrics:
        facts.append(Fact("Updates", f"{metrics['steps']:,}", f"on {metrics['images']:,} {run.noun}s"))
    for stage, selected in metrics.get("selected", {}).items():
        title = "Selected epoch" if stage == "method" else f"Selected epoch, {stage.replace('_', ' ')}"
        accuracy = f"{100 * selected['accuracy']:.1f} % on validation"
        facts.append(Fact(title, f"{selected['epoch'] + 1:,}", f"step {selected['step']:,}, {accuracy}"))
    if "seconds" in metrics:
        facts.append(_time_of_stages("Training", metrics["seconds"]))
    if metrics.get("cpu_seconds"):
        facts.append(_time_of_stages("CPU time", metrics["cpu_seconds"]))
    if "accelerator" in metrics:
        facts.append(Fact("Accelerator", metrics["accelerator"]))
    return facts


def _time_of_stages(title, seconds):
    stages = ", ".join(f"{role_name(stage)} {value:,.0f} s" for stage, value in seconds.items())
    return Fact(title, _duration(sum(seconds.values())), stages)


def _facts_of_trust(run):
    """Which labels are trusted, and what became of the others."""
    counts, noise = run.split.get("counts", {}), run.split.get("arguments", {}).get("label_noise")
    trusted, ignored = counts.get("trusted", 0), counts.get("ignored", 0)
    cheap = counts.get("labeled", 0) - trusted + ignored
    facts = []
    if trusted:
        facts.append(
            Fact("Trusted labels", f"{trusted:,}", "half of every labeled batch" if cheap > ignored else "")
        )
        facts.append(
            Fact("Cheap labels", f"{cheap:,}", "ignored: counted as unlabeled" if ignored else "learned from")
        )
    if noise:
        wrong = counts.get("mislabeled", 0)
        facts.append(
            Fact("Label noise", noise, f"{wrong:,} of {cheap:,} cheap labels made wrong, for an experiment")
        )
    return facts


def _duration(seconds):
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _footer(run):
    known = "Drawn with the run's images and networks." if run.networks else "Drawn from the run's files."
    lines = [
        f"{known} Test images are measured once, at the end of the run; every image shown and every mistake counted "
        "class by class is from the training or the validation split."
    ]
    if run.data is not None and run.noun == "image":
        source = run.data.source
        lines.append(
            "In training half of the images were mirrored." if source.flip else "No image was mirrored."
        )
        if source.resizing != CROPPED:
            lines.append(f"Images of other sizes: {source.resizing.resize}, {source.resizing.interpolation}.")
        if source.reading is not None:
            lines.append(f"What was read: {source.reading}.")
    if versions := run.metrics.get("versions"):
        lines.append(", ".join(f"{name} {version}" for name, version in versions.items()))
    return lines
