"""What recipes.evaluate prints."""

from mpl_tf import report
from mpl_tf.runs.roles import role_name

COVERAGES = (1.0, 0.9, 0.8, 0.5)


def tables(results: dict[str, dict], *, baseline: str | None) -> str:
    """Writes all tables.

    Args:
        results: role → sections, as recipes.evaluate makes them.
        baseline: the role that mCE and mFR are relative to, if any.

    Returns:
        Markdown.
    """
    first = next(iter(results.values()))
    parts = [_accuracy(results), _coverage(results)]
    if "corruptions" in first:
        parts.append(_corruptions(results, baseline))
        parts.append(_perturbations(results, baseline))
    if "fgsm" in first:
        parts.append(_fgsm(results))
    if "natural_adversarial" in first:
        parts.append(_natural(results))
    return "\n\n".join(parts)


def _accuracy(results):
    rows = []
    for role, sections in results.items():
        found, calibration = sections["clean"], sections["calibration"]
        row = {"network": role_name(role), "accuracy %": report.accuracy_with_error(found)}
        if "top5_accuracy" in found:
            row["top-5 %"] = _percent(found["top5_accuracy"])
        row |= {
            "NLL": f"{found['nll']:.3f}",
            "Brier": f"{found['brier']:.3f}",
            "ECE %": _percent(found["ece"]),
            "temperature": f"{calibration['temperature']:.3f}" if "temperature" in calibration else None,
            "ECE % after": _percent(calibration["scaled"]["ece"]) if "scaled" in calibration else None,
        }
        rows.append(row)
    return report.table(rows)


def _coverage(results):
    rows = []
    for role, sections in results.items():
        at = {round(point["coverage"], 6): point["accuracy"] for point in sections["selective"]["curve"]}
        row = {"network": role_name(role)}
        row |= {f"accuracy % at {coverage:.0%} coverage": _percent(at[coverage]) for coverage in COVERAGES}
        rows.append(row | {"AURC": f"{sections['selective']['aurc']:.4f}"})
    return report.table(rows)


def _corruptions(results, baseline):
    names = next(iter(results.values()))["corruptions"]["errors"]
    rows = []
    for name in names:
        errors = {role: sections["corruptions"]["errors"][name] for role, sections in results.items()}
        row = {"error % under": name.replace("_", " ")}
        rows.append(
            row | {role_name(role): _percent(sum(values) / len(values)) for role, values in errors.items()}
        )
    rows.append(_row(results, "mean", "corruptions", "mean_error"))
    if baseline:
        rows.append(_row(results, f"mCE %, {role_name(baseline)} = 100", "corruptions", "mce"))
    return report.table(rows)


def _perturbations(results, baseline):
    names = next(iter(results.values()))["perturbations"]["flip_probabilities"]
    rows = [
        {"flips % under": name.replace("_", " ")}
        | {
            role_name(role): _percent(sections["perturbations"]["flip_probabilities"][name])
            for role, sections in results.items()
        }
        for name in names
    ]
    rows.append(_row(results, "mean", "perturbations", "mean_flip_probability", column="flips % under"))
    if baseline:
        label = f"mFR %, {role_name(baseline)} = 100"
        rows.append(_row(results, label, "perturbations", "mfr", column="flips % under"))
    return report.table(rows)


def _fgsm(results):
    epsilons = next(iter(results.values()))["fgsm"]["epsilon"]
    rows = []
    for index, epsilon in enumerate(epsilons):
        row = {"accuracy % at FGSM ε": f"{epsilon:g}"}
        rows.append(
            row
            | {
                role_name(role): _percent(sections["fgsm"]["accuracy"][index])
                for role, sections in results.items()
            }
        )
    label = "images % without a gradient"
    if any(sections["fgsm"]["without_gradient"] for sections in results.values()):
        rows.append(_row(results, label, "fgsm", "without_gradient", column="accuracy % at FGSM ε"))
    return report.table(rows)


def _natural(results):
    rows = []
    for role, sections in results.items():
        found = sections["natural_adversarial"]
        row = {
            "natural adversarial": role_name(role),
            "accuracy %": report.accuracy_with_error(found),
            "ECE %": _percent(found["ece"]),
        }
        rows.append(row | {"images": str(found["count"]), "classes": str(len(found["classes"]))})
    return report.table(rows)


def _row(results, label, section, key, *, column="error % under"):
    return {column: label} | {
        role_name(role): _percent(sections[section][key]) for role, sections in results.items()
    }


def _percent(fraction):
    return None if fraction is None else f"{100 * fraction:.2f}"
