"""The networks of a run: the roles that they play, and the words for them."""

from collections.abc import Iterable, Mapping

NAMES = {
    "supervised": "supervised baseline",
    "teacher": "teacher",
    "student": "student",
    "finetuned": "fine-tuned student",
    "probe": "linear probe",
    "supervised_longer": "longer trained baseline",
    "uda": "UDA student",
    "fixmatch": "FixMatch student",
    "freematch": "FreeMatch student",
    "mpl": "student of Meta Pseudo Labels",
}
DESCRIPTIONS = {
    "supervised": "the baseline, trained on the labeled images alone",
    "teacher": "the teacher",
    "student": "the student as it is served (the moving average of its weights, where the method keeps one)",
    "finetuned": "the student as it is served (the moving average of its weights, where the method keeps one), then "
    "fine-tuned on the labeled images",
    "probe": "a logistic regression on the features that the network brought along",
    "supervised_longer": "the baseline, trained on the labeled images alone for as long as the methods",
    "uda": "the student of UDA, from the baseline on",
    "fixmatch": "the student of FixMatch, from the baseline on",
    "freematch": "the student of FreeMatch, from the baseline on",
    "mpl": "the student of Meta Pseudo Labels, from the baseline on",
}


def role_name(role: str) -> str:
    """What a network is called, in the middle of a sentence: `"finetuned"` is the `"fine-tuned student"`."""
    return NAMES.get(role, role.replace("_", " "))


def chosen_role(metrics: Mapping) -> str | None:
    """The network that a run has chosen to serve, or else the one that it ends with; None where there is none.

    Args:
        metrics: what metrics.json holds.
    """
    networks: Mapping = next((metrics[split] for split in ("test", "validation") if metrics.get(split)), {})
    return metrics.get("served", {}).get("role") or final_role(networks)


def baseline_role(roles: Iterable[str], stages: Iterable[str] = ()) -> str | None:
    """The network that was trained on the labeled images alone; None where there is none.

    Args:
        roles: of the run's networks.
        stages: of its training. A teacher with a stage of its own has learned before the method did.
    """
    known = set(roles)
    # Where there are two, the one that has trained for as long as the methods.
    for role in ("supervised_longer", "supervised"):
        if role in known:
            return role
    return "teacher" if "teacher" in known & set(stages) else None


def final_role(roles: Iterable[str]) -> str | None:
    """The network that a run ends with: the fine-tuned student, or else the student; None where there is neither."""
    known = set(roles)
    return next((role for role in ("finetuned", "student") if role in known), None)
