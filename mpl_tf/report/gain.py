"""What the unlabeled images of a run have brought, and how far more time might go: no more than the numbers say."""

import math
import statistics
from collections.abc import Mapping, Sequence

from mpl_tf.evaluation.selection import STANDARD_ERRORS
from mpl_tf.report.summary import adjusted, counted, percent
from mpl_tf.runs.roles import role_name


def gain_summary(metrics: Mapping, *, noun: str = "image") -> str:
    """Says in a sentence what the unlabeled images have brought, over supervised training for the same time.

    Args:
        metrics: what metrics.json of `recipes.auto` holds, with `gain`: the method that is served or else did best on
            validation images, the reference, and split → difference, its standard error, and the count of images.
        noun: what the examples are called, in the singular.

    Returns:
        Plain text, about the test images where there are any, since nothing was chosen by them.
    """
    gain = metrics.get("gain")
    if gain is None:
        return _without_gain(metrics.get("plan", {}).get("steps", {}), noun)
    split = _headline_split(gain)
    found, roles = gain[split], (gain["method"], gain["reference"])
    accuracy, other = (percent(metrics[split][role]["accuracy"]) for role in roles)
    method, reference = map(role_name, roles)
    images = counted(found["count"], f"{split} {noun}")
    facts = f"the {method} is right on {accuracy} of {images}, the {reference} on {other}."
    low, high = _interval(found)
    if low <= 0 <= high:
        return (
            f"What the unlabeled {noun}s have brought, {_points(found)} percentage points, cannot be told from "
            f"chance: {facts}"
        )
    verb = "brought" if found["difference"] > 0 else "cost"
    return f"The unlabeled {noun}s have {verb} {_points(found).lstrip('+−')} percentage points: {facts}"


def _without_gain(stages, noun):
    """Why nothing is known of the gain, by the stages that were trained."""
    if not set(stages) - {"supervised", "supervised_longer"}:
        return (
            f"No method that uses unlabeled {noun}s was trained, so what they could bring is not known: give more of "
            "them, or more minutes."
        )
    missing = (
        f"there were no {noun}s to compare networks on"
        if "supervised_longer" in stages
        else "no supervised network has trained for as long as the methods that use them"
    )
    return f"What the unlabeled {noun}s have brought is not known, since {missing}."


def gain_details(metrics: Mapping, *, noun: str = "image") -> str:
    """Says what stands behind the sentence of `gain_summary`, which takes the same arguments; empty for no gain."""
    gain = metrics.get("gain")
    if gain is None:
        return ""
    split = _headline_split(gain)
    low, high = (_signed(100 * end) for end in _interval(gain[split]))
    length = "the same time" if is_planned(metrics.get("plan")) else "as many steps as were given for each"
    sentences = [
        f"The 95 % interval of the difference is {low} to {high} points; both networks start from the supervised "
        f"baseline and have trained for {length}."
    ]
    if split == "test" and "validation" in gain:
        found = gain["validation"]
        sentences.append(
            f"On the {counted(found['count'], f'validation {noun}')} by which networks were compared it is "
            f"{_points(found)} points."
        )
    elif split == "validation" and gain["methods"] > 1:
        sentences.append(
            f"The method is one of {gain['methods']} that were compared on these very {noun}s, and may be ahead "
            f"partly by chance: test {noun}s would say it without that."
        )
    return " ".join(sentences)


def is_planned(plan: Mapping | None) -> bool:
    """Whether the stages have had equal time, which they have not where `--stage_steps` says how long each trains.

    Args:
        plan: what metrics.json has of it, with planned `seconds` where there were minutes to divide.
    """
    return plan is None or bool(plan.get("seconds"))


def _headline_split(gain):
    return "test" if "test" in gain else "validation"


def _interval(found):
    """The 95 % interval of a paired difference, Agresti, Min 2005, as `evaluation.choose` tells networks apart by."""
    middle = found["difference"] * found["count"] / (found["count"] + 2)
    margin = STANDARD_ERRORS * found["standard_error"]
    return middle - margin, middle + margin


def _points(found):
    return f"{_signed(100 * found['difference'])} ± {100 * found['standard_error']:.1f}"


def trend(accuracies: Sequence[float], count: int) -> dict:
    """How a validation accuracy went at the end of a stage: its last quarter beside the quarter before.

    Args:
        accuracies: of the epochs, in 0…1.
        count: of the validation images.

    Returns:
        Plain numbers: the mean of the last `quarter`, its `rise` over the quarter before, and the `standard_error` of
        an accuracy on so many images, with one success and one failure added, which is more than that of a rise on
        the same ones. Empty for less than eight epochs.
    """
    size = len(accuracies) // 4
    if size < 2 or not count:
        return {}
    last, before = (statistics.mean(part) for part in (accuracies[-size:], accuracies[-2 * size : -size]))
    return {
        "quarter": last,
        "rise": last - before,
        "standard_error": math.sqrt(adjusted(last, count)[1]),
    }


def outlook(trends: Mapping[str, Mapping], longer: Mapping | None, *, count: int, noun: str = "image") -> str:
    """Says whether another hour might help, as far as the validation accuracies tell; never a number for it.

    Args:
        trends: stage → what `trend` returns.
        longer: what `evaluation.paired_difference` says of the supervised network after its longer training and
            before it; None where there was none.
        count: of the validation images.
        noun: what the examples are called, in the singular.

    Returns:
        Plain text.
    """
    known = {stage: found for stage, found in trends.items() if found}
    # What is right on all images rises no more.
    rising = [
        stage
        for stage, found in known.items()
        if found["rise"] > found["standard_error"] and found["quarter"] < 1
    ]
    flat = [stage for stage in known if stage not in rising]
    parts = []
    if rising:
        rises = ", ".join(
            f"the {role_name(stage)} by {100 * known[stage]['rise']:.1f} points" for stage in rising
        )
        parts.append(
            f"Over the last quarter of its training the validation accuracy was still rising ({rises}), so that more "
            "minutes would probably bring more."
        )
    if flat:
        error = 100 * max(known[stage]["standard_error"] for stage in flat)
        parts.append(
            f"{_capital(_listed([f'the {role_name(stage)}' for stage in flat]))} ended flat, as far as "
            f"{counted(count, f'validation {noun}')} can tell (± {error:.1f} points). The learning rate ends at "
            "zero, which flattens every end: a longer plan is laid out anew and may still gain."
        )
    if longer is not None:
        low, high = _interval(longer)
        if high < 0:
            lost = _points(longer).lstrip("−")
            parts.append(f"The supervised network lost {lost} points in its longer training.")
        else:
            proof = ": more time is worth something here." if low > 0 else ", which is no proof."
            parts.append(
                f"The supervised network gained {_points(longer)} points from its longer training{proof}"
            )
    if not parts:
        return "The stages were too short to tell how far another hour might go."
    return " ".join(parts)


def _signed(points):
    return f"{points:+.1f}".replace("-", "−")


def _listed(names):
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _capital(text):
    return text[:1].upper() + text[1:]
