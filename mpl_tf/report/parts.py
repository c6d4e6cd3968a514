"""The sections of a run's page; each is empty where the run has nothing for it."""

import numpy as np

from mpl_tf import evaluation
from mpl_tf.report import diagrams, markup, samples
from mpl_tf.report.history import curve_panels
from mpl_tf.report.markup import Section, element, escape, figure, section
from mpl_tf.report.run_view import RunView
from mpl_tf.report.verdict import NAMES, counted, interval
from mpl_tf.run_folder import RunFolder

_MATRIX_UP_TO = 20
_STAGES = {"supervised": "Supervised baseline", "finetune": "Fine-tuning", "teacher": "Teacher"}
_CAPTIONS = {
    "Pictures the teacher is sure of": "Mask rate: unlabeled pictures that are sure enough to count",
    "Unlabeled pictures with a confident label": "Unlabeled pictures with a label at 95 % confidence or more",
}
_ROLES = {"supervised": "supervised, same labels", "finetuned": "student, fine-tuned"}


def accuracy(run: RunView) -> Section:
    """How often each network is right, with intervals."""
    rows = []
    for role in run.metrics.get(run.domain, {}):
        row = {"network": _ROLES.get(role, role.replace("_", " "))}
        for domain in ("test", "validation"):
            found = run.metrics.get(domain, {}).get(role)
            if found:
                low, high = interval(found)
                row[f"{domain} %"] = f"{100 * found['accuracy']:.2f}"
                row[f"{domain}: 95 % interval"] = f"{100 * low:.1f} – {100 * high:.1f}"
        found = run.metrics[run.domain][role]
        row[f"{run.domain} NLL"] = f"{found['nll']:.3f}"
        if "ece" in found:
            row[f"{run.domain} ECE %"] = f"{100 * found['ece']:.1f}"
        rows.append(row)
    caption = (
        f"Accuracy, with Wilson's 95 % interval over the {run.thing}s. One run with one seed: other seeds and other "
        "labels vary too, which these intervals do not show."
    )
    parts = [markup.table(rows, caption)] if rows else []
    boundaries = run.image_file("boundaries.png", "Regions in which each network sees each class")
    parts.append(
        figure(boundaries, "Regions of the networks, training points, and labels as stars.", wide=True)
    )
    return section("Accuracy", *parts)


def curves(run: RunView) -> Section:
    """How every loss, rate and accuracy went, in the method itself and in the stages before and after it."""
    folders = {name: path for name, path in run.stages.items() if RunFolder(path).read_history()}
    # A method of several rounds has its curves in its stages alone: the last round is open.
    rounds = [name for name in folders if name not in _STAGES]
    shown = []
    for name, folder in folders.items():
        drawn = _panels(folder / "history.csv")
        if name:
            title = _STAGES.get(name, name.replace("_", " ").capitalize())
            unfolded = {"open": "open"} if "" not in folders and [name] == rounds[-1:] else {}
            drawn = element("details", element("summary", escape(title)), drawn, **unfolded)
        shown.append(drawn)
    return section("Curves", *shown)


def _panels(history_csv):
    panels = curve_panels(history_csv)
    accuracy = panels.pop("Accuracy", "")
    drawn = [figure(panel, _CAPTIONS.get(title, title)) for title, panel in panels.items()]
    wide = figure(accuracy, "Accuracy after each epoch, of the split named at the line.", wide=True)
    return wide + (element("div", *drawn, class_="plots") if drawn else "")


def errors(run: RunView) -> Section:
    """What the final network takes for what, how far its confidence can be trusted, and what it gets wrong."""
    parts = []
    found = run.metrics.get("validation", {}).get(run.final)
    whose = NAMES.get(run.final)
    if found and "confusion" in found:
        confusion = np.array(found["confusion"])
        names = run.class_names or [str(label) for label in range(len(confusion))]
        parts.append(_confusion(confusion, names, whose))
    plots = []
    if run.judged is not None:
        outcomes = run.judged.outcomes
        bins = evaluation.reliability(outcomes.confidence, outcomes.correct)
        error = evaluation.expected_calibration_error(outcomes.confidence, outcomes.correct)
        plots.append(_reliability(bins, error, whose, "validation", len(outcomes.label), run.thing))
    elif (known := _evaluated(run, "calibration")) is not None:
        domain, calibration = known[0], known[1][run.final]["calibration"]["raw"]
        count = sum(entry["count"] for entry in calibration["reliability"])
        drawn = _reliability(calibration["reliability"], calibration["ece"], whose, domain, count, run.thing)
        plots.append(drawn)
    if run.judged is not None:
        drawn, how = samples.feature_map(run.networks[run.final], run.data, run.judged)
        caption = f"Features of the {whose} before its last layer ({how}); rings are misclassified."
        plots.append(figure(drawn, caption))
    parts.append(element("div", *plots, class_="pair") if any(plots) else "")
    if run.judged is not None and not run.points:
        parts.append(samples.mistakes(run.data, run.judged, whose))
    return section("Mistakes and confidence", *parts)


def _reliability(bins, error, whose, domain, count, thing):
    caption = (
        f"Reliability of the {whose} on {counted(count, f'{domain} {thing}')}: accuracy over confidence; on the "
        f"dashed line they are equal. Expected calibration error {100 * error:.1f} %."
    )
    return figure(diagrams.reliability(bins), caption)


def _confusion(confusion, names, whose):
    """The matrix for few classes, the most frequent confusions for many."""
    total = counted(int(confusion.sum()), "validation example")
    if len(confusion) > _MATRIX_UP_TO:
        off = confusion - np.diag(np.diag(confusion))
        worst = [divmod(int(place), len(off)) for place in np.argsort(-off, axis=None, kind="stable")[:15]]
        rows = [
            {"class": names[label], "taken for": names[other], "times": f"{off[label, other]:,}"}
            for label, other in worst
            if off[label, other]
        ]
        return markup.table(rows, f"Most frequent confusions of the {whose} among {total}.")
    head = element("tr", element("td"), *(element("th", escape(name), scope="col") for name in names))
    lines = []
    for label, counts in enumerate(confusion):
        cells = [element("th", escape(names[label]), scope="row")]
        for other, count in enumerate(counts):
            color = "--color-0" if label == other else "--color-1"
            style = f"--cell: var({color}); --share: {count / max(1, counts.sum()):.3f}"
            cells.append(element("td", escape(count), style=style, **({} if count else {"class_": "none"})))
        lines.append(element("tr", *cells))
    inner = element("table", element("thead", head), element("tbody", *lines), class_="matrix")
    caption = f"Confusion of the {whose} on {total}: true classes in rows, predicted ones in columns."
    return markup.scrolling(inner, caption)


def pseudo_labels(run: RunView) -> Section:
    """What the student has learned from: classes over time, the surest labels right and wrong."""
    parts = []
    for title, folder in run.stages.items():
        rows = RunFolder(folder).read_rows("pseudo_label_classes.csv")
        if rows:
            stage = f" in {title.replace('_', ' ')}" if title else ""
            caption = (
                f"Predicted classes of {int(rows[-1]['pictures']):,} unlabeled training {run.thing}s after each epoch"
                f"{stage}, as shares. A band that swallows the others is a collapse."
            )
            parts.append(figure(diagrams.class_shares(rows, run.class_names), caption, wide=True))
    before = [role for role in run.networks if role not in ("supervised", "finetuned")]
    if before and not run.points and len(run.data.split.unlabeled):
        # The one that labeled for the student; a student without a teacher labels for itself.
        whose = before[max(0, before.index("student") - 1)] if "student" in before else before[-1]
        parts.append(samples.pseudo_labels(run.data, run.networks[whose], whose.replace("_", " ")))
    return section("Pseudo labels", *parts)


def pictures(run: RunView) -> Section:
    """What the networks have been shown."""
    generated = run.image_file("generated/last.png", "Generated pictures, a row per class")
    parts = [figure(generated, "What the generator makes, by the class that the teacher sees.", wide=True)]
    if run.data is not None and not run.points:
        parts += [samples.labeled(run.data), samples.views(run.data)]
    return section("Training pictures", *parts)


def robustness(run: RunView) -> Section:
    """What `recipes.evaluate` has measured of changed pictures."""
    plots = []
    if (known := _evaluated(run, "corruptions")) is not None:
        domain, roles = known
        errors = {role: found["corruptions"]["errors"] for role, found in roles.items()}
        count = next(iter(roles.values()))["corruptions"]["count"]
        plots.append(
            figure(
                diagrams.corruption_bars(errors), f"Error under corruptions of {count:,} {domain} pictures."
            )
        )
    if (known := _evaluated(run, "fgsm")) is not None:
        domain, roles = known
        attacks = {role: found["fgsm"] for role, found in roles.items()}
        plots.append(figure(diagrams.attack_curves(attacks), f"Accuracy under FGSM on {domain} pictures."))
    return section("Robustness", element("div", *plots, class_="pair") if plots else "")


def _evaluated(run, part):
    """What `recipes.evaluate` has left of some part: the domain, and role → sections; None where it has nothing."""
    for domain in ("test", "validation"):
        roles = run.metrics.get("evaluation", {}).get(domain, {})
        roles = {role: found for role, found in roles.items() if part in found}
        if run.final in roles or (part != "calibration" and roles):
            return domain, {role: roles[role] for role in _shown(roles, run.final)}
    return None


def _shown(roles, final):
    """At most three networks: a drawing of more would say less."""
    wanted = [role for role in ("supervised", "teacher", final) if role in roles]
    return wanted or list(roles)[:3]
