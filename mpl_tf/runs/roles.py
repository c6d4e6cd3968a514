"""The networks of a run: the roles that they play, and the words for them."""

from collections.abc import Iterable

NAMES = {
    "supervised": "supervised baseline",
    "teacher": "teacher",
    "student": "student",
    "finetuned": "fine-tuned student",
    "probe": "linear probe",
    "supervised_longer": "supervised (longer)",
    "uda": "UDA",
    "fixmatch": "FixMatch",
    "freematch": "FreeMatch",
    "mpl": "Meta Pseudo Labels",
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


def final_role(roles: Iterable[str]) -> str | None:
    """The network that a run ends with: the fine-tuned student, or else the student; None where there is neither."""
    known = set(roles)
    return next((role for role in ("finetuned", "student") if role in known), None)
