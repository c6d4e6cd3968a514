"""Many runs as a page: the summary, the figure, the table, and the way to each run's own page."""

import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence

from mpl_tf.report import plots
from mpl_tf.report.comparison import (
    Results,
    budget_note,
    comparison_rows,
    final_accuracies,
    legend,
)
from mpl_tf.report.html import render
from mpl_tf.report.html.blocks import Cell, Fact, Messages, Paragraph, Plot, Section, Table
from mpl_tf.report.summary import comparison_summary, counted


def comparison_page(
    folder: str | os.PathLike,
    results: Results,
    *,
    reference: str,
    ablations: Mapping[str, str] | None = None,
    split: str = "test",
    runs: Mapping[str, Mapping[int, pathlib.Path]] | None = None,
    warnings: Mapping[str, Mapping[int, Sequence[str]]] | None = None,
    command: str = "",
) -> pathlib.Path:
    """Draws `<folder>/report.html` over several trials and seeds.

    Args:
        folder: where the page goes.
        results: trial → seed → what metrics.json of the run holds.
        reference: the trial that the differences are taken to.
        ablations: trial → the trial that it is also compared with.
        split: whose accuracies are shown, `"test"` or `"validation"`.
        runs: trial → seed → run folder; linked to, by relative paths, where it has a page.
        warnings: trial → seed → what the run has warned of.
        command: that made the runs.

    Returns:
        The path of the page.
    """
    folder, runs = pathlib.Path(folder), runs or {}
    accuracies = {trial: final_accuracies(of_trial, split) for trial, of_trial in results.items()}
    rows = comparison_rows(results, reference=reference, ablations=ablations, split=split)
    wide, narrow = (
        plots.comparison(
            {trial: list(values.values()) for trial, values in accuracies.items() if values},
            reference=reference,
            split=split,
            width=width,
        )
        for width in (8.1, 3.9)
    )
    caption = f"Each dot is a run; mean ± standard deviation on the {split} images, dashed: {reference}."
    text = legend(split)
    sections = [
        Section(
            "Accuracy",
            [
                Plot(wide, caption, narrow),
                Table(rows, text[:1].upper() + text[1:]),
                Paragraph(budget_note(rows)),
            ],
        ),
        Section("Runs", [_runs_table(folder, accuracies, runs, split)]),
        Section("Warnings", _warnings(folder, runs, warnings or {})),
    ]
    return render.write_page(
        folder,
        "base.html.j2",
        title=f"Comparison · {folder.resolve().name}",
        summary=comparison_summary(accuracies, reference=reference, split=split),
        facts=_facts(results),
        command=command,
        sections=sections,
        footer=["Runs of one seed share the split, so differences are paired by seed."],
    )


def _facts(results):
    of_all = [run for of_trial in results.values() for run in of_trial.values()]
    splits = list(dict.fromkeys(run["split"] for run in of_all if "split" in run))
    seconds = sum(sum(run["seconds"].values()) for run in of_all)
    cpu_seconds = sum(sum(run.get("cpu_seconds", {}).values()) for run in of_all)
    trained = f"{seconds / 60:,.0f} min of training"
    facts = [
        Fact("Trials", f"{len(results)}"),
        Fact(
            "Runs",
            f"{len(of_all)}",
            f"{trained}, {cpu_seconds / 60:,.0f} CPU min" if cpu_seconds else trained,
        ),
    ]
    if splits:
        note = counted(len(splits), "split")
        facts.append(Fact("Splits", splits[0] if len(splits) == 1 else f"{splits[0]} … {splits[-1]}", note))
    return facts


def _link(folder, path):
    """A relative address, so that the folder may move."""
    # Not every character of a file's name means itself in an address.
    return urllib.parse.quote(os.fsencode(pathlib.Path(os.path.relpath(path, folder)).as_posix()))


def _runs_table(folder, accuracies, runs, split):
    """All runs, with links to those that have a page."""
    rows = []
    seeds = sorted({seed for values in accuracies.values() for seed in values})
    for trial, values in accuracies.items():
        row = {"trial": trial}
        for seed in seeds:
            if seed not in values:
                continue
            path = runs.get(trial, {}).get(seed)
            has_page = path is not None and (path / render.PAGE).is_file()
            row[f"seed {seed}"] = Cell(
                f"{values[seed]:.2f}", href=_link(folder, path / render.PAGE) if has_page else ""
            )
        rows.append(row)
    caption = f"{split} accuracy of each run's final network, %. A linked number leads to the run's own page."
    return Table(rows, caption[:1].upper() + caption[1:])


def _warnings(folder, runs, warnings):
    """What the runs have warned of, each with a link to its log where there is one."""
    entries = []
    for trial, of_trial in warnings.items():
        for seed, messages in of_trial.items():
            log = runs[trial][seed] / "log.txt" if seed in runs.get(trial, {}) else None
            known = log is not None and log.is_file()
            source = Cell(f"{trial}, seed {seed}", href=_link(folder, log) if known else "")
            entries += [(source, message) for message in messages]
    return [Messages(entries)] if entries else []
