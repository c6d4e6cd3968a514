"""The sections of a run's page; each is without blocks where the run has nothing for it."""

import numpy as np

from mpl_tf import evaluation
from mpl_tf.report import plots
from mpl_tf.report.gain import gain_details, is_planned, outlook
from mpl_tf.report.html import samples
from mpl_tf.report.html.blocks import (
    Block,
    Cell,
    Columns,
    Fold,
    Heading,
    ImageFile,
    Paragraph,
    Plot,
    Section,
    Table,
)
from mpl_tf.report.html.run_contents import RunContents
from mpl_tf.report.summary import counted, interval, percent
from mpl_tf.runs.roles import role_name

_MATRIX_UP_TO, _MOST_CONFUSIONS, _MOST_CLASSES, _MOST_SUSPECTS = 20, 15, 50, 20
_STAGES = {"supervised": "Supervised baseline", "finetune": "Fine-tuning", "teacher": "Teacher"}
# Quantity → the heading that its curve stands under; what is in none of these is a diagnostic.
_PSEUDO_LABEL_CURVES = ("confident_fraction", "confirmation_bias")
_LEARNING = ("loss", "agreement", "feedback", "mask_rate", "class_balance", "pairwise_distance")


def accuracy(run: RunContents) -> Section:
    """How often each network is right, with intervals."""
    blocks: list[Block] = []
    networks = run.metrics.get(run.measured or "", {})
    if run.measured and networks:
        rows = [_accuracy_row(run, role) for role in networks]
        caption = (
            f"On the {run.measured} split, with Wilson's 95 % interval over the {run.noun}s. One run with one seed: "
            "other seeds and other labels vary too, which these intervals do not show."
        )
        dots = {
            role: (role_name(role), found["accuracy"], *interval(found)) for role, found in networks.items()
        }
        figure = plots.accuracy_intervals(dots, split=run.measured)
        count = next(iter(networks.values()))["count"]
        title = f"Accuracy of each network on {counted(count, f'{run.measured} {run.noun}')}."
        blocks.append(Columns([Plot(figure, title), Table(rows, caption, span=2)]))
    blocks += _image_file(
        run, "boundaries.png", "Regions of the networks, training points, and labels as stars."
    )
    return Section("Accuracy", blocks)


def _accuracy_row(run, role):
    found = run.metrics[run.measured][role]
    row = {"network": role_name(role), f"{run.measured} %": _accuracy_cell(found)}
    columns = {
        "balanced_accuracy": ("balanced %", 100, 2),
        "macro_f1": ("macro F1 %", 100, 2),
        "nll": ("NLL", 1, 3),
        "ece": ("ECE %", 100, 1),
    }
    row |= {
        name: f"{factor * found[key]:.{digits}f}"
        for key, (name, factor, digits) in columns.items()
        if key in found
    }
    if run.measured == "test" and role in run.metrics.get("validation", {}):
        row["validation %"] = _accuracy_cell(run.metrics["validation"][role])
    return row


def _accuracy_cell(found):
    low, high = interval(found)
    return Cell(f"{100 * found['accuracy']:.2f}", f"{100 * low:.1f} – {100 * high:.1f}")


def plan(run: RunContents) -> Section:
    """What `recipes.auto` has trained for how long, and how far another hour might go."""
    known = run.metrics.get("plan")
    if known is None:
        return Section("Plan and outlook", [])
    rows = []
    planned = "planned CPU s" if known.get("clock") == "cpu" else "planned s"
    for stage in [role for role in ("probe",) if role in run.metrics["seconds"]] + list(known["steps"]):
        row = {
            "stage": role_name(stage),
            "steps": f"{known['steps'][stage]:,}" if stage in known["steps"] else "",
        }
        row[planned] = f"{known['seconds'][stage]:,.0f}" if stage in known["seconds"] else ""
        row["trained s"] = f"{run.metrics['seconds'][stage]:,.0f}"
        row["CPU s"] = f"{run.metrics.get('cpu_seconds', {}).get(stage, 0):,.0f}"
        if stage in run.metrics.get("validation", {}):
            row["validation %"] = _accuracy_cell(run.metrics["validation"][stage])
        rows.append(row)
    caption = "Every method starts from the supervised network"
    if is_planned(known):
        caption += (
            " and has had the time of its longer training. Planned seconds are with preparation, validation and "
            "evaluation."
        )
    else:
        caption += ". The steps of each stage were given, and their times differ."
    count = max((found["count"] for found in run.metrics.get("validation", {}).values()), default=0)
    text = outlook(run.metrics.get("trends", {}), run.metrics.get("longer"), count=count, noun=run.noun)
    blocks: list[Block] = [Table(rows, caption)]
    if details := gain_details(run.metrics, noun=run.noun):
        blocks += [Heading("How sure that is"), Paragraph(details)]
    if reason := run.metrics.get("served", {}).get("reason"):
        blocks += [
            Heading("What is served"),
            Paragraph(f"The {role_name(run.metrics['served']['role'])}. {reason}"),
        ]
    return Section("Plan and outlook", [*blocks, Heading("Another hour"), Paragraph(text)])


def curves(run: RunContents) -> Section:
    """How every loss, rate and accuracy went, in the method itself and in the stages before and after it."""
    histories = {name: folder.read_history() for name, folder in run.stages.items()}
    histories = {name: history for name, history in histories.items() if history}
    # A method of several rounds has its curves in its stages alone: the last round is open.
    rounds = [name for name in histories if name not in _STAGES]
    blocks: list[Block] = []
    for name, history in histories.items():
        drawn = _panels(history)
        if name:
            title = _STAGES.get(name, role_name(name)[:1].upper() + role_name(name)[1:])
            blocks.append(Fold(title, drawn, is_open="" not in histories and [name] == rounds[-1:]))
        else:
            blocks += drawn
    return Section("Curves", blocks)


def _panels(history):
    titles = plots.curve_titles(history)
    first: list[Plot] = []
    diagnostics: list[Plot] = []
    for quantity, title in titles.items():
        if quantity in _PSEUDO_LABEL_CURVES:
            continue
        if quantity == "accuracy":
            wide, narrow = (
                plots.curve(history, quantity, **size)
                for size in ({"width": 8.1, "height": 3.0}, {"height": 2.6})
            )
            first.append(Plot(wide, f"{title}, after each epoch.", narrow, span=2))
        elif any(word in quantity for word in _LEARNING):
            # The one beside the accuracies is as high as they are.
            height = 3.0 if first and len(first) == 1 and first[0].span == 2 else 2.2
            first.append(Plot(plots.curve(history, quantity, height=height), title))
        else:
            diagnostics.append(Plot(plots.curve(history, quantity), title))
    blocks: list[Block] = [Columns(first)] if first else []
    if diagnostics:
        blocks.append(Fold("Diagnostics: gradient norms, seconds and others", [Columns(diagnostics)]))
    return blocks


def errors(run: RunContents) -> Section:
    """What the final network takes for what, how far its confidence can be trusted, and what it gets wrong."""
    counts = run.confusion
    figures: list[Block] = []
    tables: list[Block] = []
    if counts is not None:
        names = run.names_of(len(counts))
        total = counted(int(counts.sum()), f"validation {run.noun}")
        if len(counts) <= _MATRIX_UP_TO:
            title = f"Confusion of the {run.final_name} on {total}"
            caption = f"{title}: true classes in rows, predicted ones in columns."
            figures.append(Plot(plots.confusion(counts, names), caption, span=1 if len(counts) <= 12 else 2))
        else:
            figures += _many_classes(counts, names, run, total)
        tables = [_class_table(counts, names)]
    figures += _reliability(run)
    if run.data is not None and run.predicted is not None:
        found = samples.feature_map(run.networks[run.final], run.data, run.predicted)
        if found is not None:
            figure, how = found
            caption = (
                f"Features of the {run.final_name} before its last layer ({how}); rings are misclassified."
            )
            figures.append(Plot(figure, caption))
    blocks: list[Block] = [Columns(figures)] if figures else []
    if run.data is not None and run.predicted is not None and not run.points:
        blocks += samples.mistakes(run.data, run.predicted, run.final_name)
    return Section("Mistakes and confidence", [*blocks, *tables])


def _many_classes(counts, names, run, total):
    """The distribution of the classes' accuracies and the most frequent confusions, for want of room for all."""
    images = counts.sum(axis=1)
    recalls = [hits / count if count else None for hits, count in zip(np.diag(counts), images, strict=True)]
    caption = f"Accuracy of the {run.final_name} on each of {len(counts):,} classes, {total}."
    blocks = [Plot(plots.class_accuracies(recalls), caption)] if images.any() else []
    off = counts - np.diag(np.diag(counts))
    worst = np.argsort(-off, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    rows = [
        {"class": names[label], "taken for": names[other], "times": f"{off[label, other]:,}"}
        for label, other in (divmod(int(cell), len(off)) for cell in worst)
        if off[label, other]
    ]
    caption = f"Most frequent confusions of the {run.final_name} among {total}."
    return [*blocks, *([Table(rows, caption)] if rows else [])]


def _class_table(counts, names):
    """Recall, precision and F1 of each class, the worst first, folded away."""
    images, predicted, hits = counts.sum(axis=1), counts.sum(axis=0), np.diag(counts)
    f1 = 2 * hits / np.maximum(1, images + predicted)
    known = np.flatnonzero(images)
    order = known[np.argsort(f1[known], kind="stable")]
    rows = [
        {
            "class": names[label],
            "recall %": f"{100 * hits[label] / images[label]:.1f}",
            "precision %": f"{100 * hits[label] / predicted[label]:.1f}" if predicted[label] else "",
            "F1 %": f"{100 * f1[label]:.1f}",
            "images": f"{images[label]:,}",
        }
        for label in order[:_MOST_CLASSES]
    ]
    shown = f"the {len(rows)} worst of {len(known):,}" if len(rows) < len(known) else "the worst first"
    return Fold(f"Class by class, {shown}", [Table(rows, "Of the same network on the same images.")])


def _reliability(run) -> list[Block]:
    if run.predicted is not None:
        outcomes, split = run.predicted.outcomes, "validation"
        bins = evaluation.reliability(outcomes.confidence, outcomes.correct)
        error = evaluation.expected_calibration_error(outcomes.confidence, outcomes.correct)
    elif (known := run.evaluation_of("calibration")) is not None and run.final in known[1]:
        split, roles = known
        calibration = roles[run.final]["calibration"]["raw"]
        bins, error = calibration["reliability"], calibration["ece"]
    else:
        return []
    total = counted(sum(entry["count"] for entry in bins), f"{split} {run.noun}")
    caption = (
        f"Reliability of the {run.final_name} on {total}: accuracy over confidence, equal on the dashed line; pale "
        f"bars hold fewer than ten. Expected calibration error {percent(error)}."
    )
    return [Plot(plots.reliability(bins), caption)]


def pseudo_labels(run: RunContents) -> Section:
    """What the student has learned from: classes over time, how many labels were confident, and which were wrong."""
    figures: list[Block] = []
    blocks: list[Block] = []
    for title, folder in run.stages.items():
        rows, history = folder.read_rows("pseudo_label_classes.csv"), folder.read_history()
        stage = f" in {title.replace('_', ' ')}" if title else ""
        if rows:
            caption = (
                f"Predicted classes of {int(rows[-1]['images']):,} unlabeled training {run.noun}s after each epoch"
                f"{stage}, as fractions. A band that swallows the others is a collapse."
            )
            figures.append(Plot(plots.class_fractions(rows, run.class_names), caption))
        titles = plots.curve_titles(history) if history else {}
        figures += [
            Plot(plots.curve(history, quantity, height=2.9), f"{titles[quantity]}{stage}.")
            for quantity in _PSEUDO_LABEL_CURVES
            if quantity in titles
        ]
    if figures:
        blocks.append(Columns(figures))
    before = [role for role in run.networks if role not in ("supervised", "finetuned")]
    if run.data is not None and before and not run.points and len(run.data.split.unlabeled):
        # The one that labeled for the student; a student without a teacher labels for itself.
        whose = before[max(0, before.index("student") - 1)] if "student" in before else before[-1]
        blocks += samples.pseudo_labels(run.data, run.networks[whose], role_name(whose))
    return Section("Pseudo labels", blocks)


def suspect_labels(run: RunContents) -> Section:
    """The cheap labels that the final network contradicts most surely, to be checked first."""
    rows = run.folder.read_rows("suspect_labels.csv")
    if not rows:
        return Section("Suspect labels", [])
    trusted = run.split.get("counts", {}).get("trusted", 0)
    blocks: list[Block] = [
        Paragraph(
            f"The {run.final_name} contradicts {counted(len(rows), 'label')} that "
            f"{'nobody has checked' if trusted else 'it was given'}: look at these first, the most "
            "confident contradiction foremost. All stand in suspect_labels.csv, with what was predicted in their "
            "place."
        )
    ]
    if "true_label" in rows[0]:
        wrong = sum(row["label"] != row["true_label"] for row in rows)
        made = run.split.get("counts", {}).get("mislabeled", 0)
        blocks.append(
            Paragraph(f"{wrong:,} of these are wrong, of {made:,} that label noise has made wrong in all.")
        )
    if run.data is not None and not run.points:
        blocks += samples.suspects(run.data, rows)
    else:
        blocks.append(Table(rows[:_MOST_SUSPECTS], "The first of suspect_labels.csv."))
    return Section("Suspect labels", blocks)


def training_images(run: RunContents) -> Section:
    """What the networks have been shown."""
    blocks = _image_file(
        run, "generated/last.png", "What the generator makes, by the class that the teacher sees."
    )
    if run.data is not None and not run.points:
        blocks += [*samples.labeled(run.data), *samples.views(run.data)]
    return Section("Training images", blocks)


def robustness(run: RunContents) -> Section:
    """What `recipes.evaluate` has measured of changed images."""
    figures: list[Block] = []
    if (known := run.evaluation_of("corruptions")) is not None:
        split, roles = known
        errors = {role: roles[role]["corruptions"]["errors"] for role in _shown(roles, run.final)}
        count = next(iter(roles.values()))["corruptions"]["count"]
        names = {role: role_name(role) for role in errors}
        caption = f"Error under corruptions of {count:,} {split} images."
        figures.append(Plot(plots.corruption_errors(errors, names=names), caption))
    if (known := run.evaluation_of("fgsm")) is not None:
        split, roles = known
        attacks = {role: roles[role]["fgsm"] for role in _shown(roles, run.final)}
        names = {role: role_name(role) for role in attacks}
        caption = f"Accuracy under FGSM attacks on {split} images."
        figures.append(Plot(plots.attack_accuracies(attacks, names=names), caption))
    return Section("Robustness", [Columns(figures)] if figures else [])


def _shown(roles, final):
    """At most three networks: a drawing of more would say less."""
    wanted = [role for role in ("supervised", "teacher", final) if role in roles]
    return wanted or list(roles)[:3]


def _image_file(run, name, caption) -> list[Block]:
    path = run.folder.path / name
    return [ImageFile(path.read_bytes(), caption)] if path.exists() else []
