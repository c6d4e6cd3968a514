"""The networks of a run: the roles that they play, and the words for them."""

from collections.abc import Iterable, Mapping

NAMES = {
    "supervised": "supervised baseline",
    "teacher": "teacher",
    "student": "student",
    "finetuned": "fine-tuned student",
}
DESCRIPTIONS = {
    "supervised": "the baseline, trained on the labeled images alone",
    "teacher": "the teacher",
    "student": "the student as it is served (the moving average of its weights, where the method keeps one)",
    "finetuned": "the student as it is served (the moving average of its weights, where the method keeps one), then "
    "fine-tuned on the labeled images",
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
    if "supervised" in known:
        return "supervised"
    return "teacher" if "teacher" in known & set(stages) else None


def final_role(roles: Iterable[str]) -> str | None:
    """The network that a run ends with: the fine-tuned student, or else the student; None where there is neither."""
    known = set(roles)
    return next((role for role in ("finetuned", "student") if role in known), None)
