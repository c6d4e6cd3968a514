"""The networks of a run: the roles that they play, and the words for them."""

from collections.abc import Iterable

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


def final_role(roles: Iterable[str]) -> str | None:
    """The network that a run ends with: the fine-tuned student, or else the student; None where there is neither."""
    known = set(roles)
    return next((role for role in ("finetuned", "student") if role in known), None)
