"""The model card of an exported network: what it takes and answers, where it comes from, how good it is."""

import dataclasses
import pathlib
from collections.abc import Sequence

import keras

from mpl_tf import models
from mpl_tf.data.images.image_files import shown
from mpl_tf.data.splits import Split
from mpl_tf.export import signatures, warmup
from mpl_tf.runs.roles import DESCRIPTIONS
from mpl_tf.utils.markdown import table

_LEGEND = {
    "standard_error": "±: the standard error of the accuracy over these images.",
    "balanced_accuracy": "Balanced: the mean of the classes' accuracies.",
    "macro_f1": "Macro F1: the mean of the classes' F1 scores.",
    "nll": "NLL: negative log-likelihood, in nats.",
    "brier": "Brier: Brier score, in 0…2.",
    "ece": "ECE: expected calibration error.",
}
_COLUMNS = {
    "accuracy": "accuracy %",
    "standard_error": "± %",
    "balanced_accuracy": "balanced %",
    "macro_f1": "macro F1 %",
    "top5_accuracy": "top-5 %",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE %",
    "count": "how many",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a network comes from and how good it is.

    Args:
        role: of the network in its run: `"finetuned"`, `"student"`, `"teacher"`, …
        data: name of the dataset.
        split: name of the split; None without one.
        labels_per_class: class name → labeled images.
        trusted: how many of the labels somebody has checked; 0 where nothing says so of any.
        ignored: how many cheap labels were not looked at.
        label_noise: the noise that cheap labels were given for an experiment; None for none.
        flip: whether views mirrored half of the images; None for points, and where it was not recorded.
        method: name of the method's class.
        command: that trained it.
        results: split (`"validation"`, `"test"`) → what `evaluation.evaluate` returns.
        temperature: fitted on the validation split; None where it was not.
        versions: package → version.
        run: name of the run and of the weights that it ended with, which no other run has; None for an export that
            is made each time it is asked for. `saved_model` writes a run's own once, however often it is killed.
        reason: why this network of the run is served, in a sentence.
    """

    role: str
    data: str
    split: str | None = None
    labels_per_class: dict | None = None
    trusted: int = 0
    ignored: int = 0
    label_noise: str | None = None
    flip: bool | None = None
    method: str | None = None
    command: str = ""
    results: dict = dataclasses.field(default_factory=dict)
    temperature: float | None = None
    versions: dict = dataclasses.field(default_factory=dict)
    run: str | None = None
    reason: str | None = None

    @classmethod
    def of_run(
        cls,
        metrics: dict,
        role: str,
        *,
        data: str,
        split: Split,
        flip: bool | None = None,
        run: str | None = None,
    ) -> "Provenance":
        """Reads it from what a run's metrics.json holds.

        Args:
            metrics: the contents of metrics.json.
            role: of the network.
            data: name of the dataset.
            split: of its images.
            flip: whether views mirrored half of its images.
            run: name of the run and of its weights, where the run itself exports.
        """
        splits = [split for split in ("validation", "test") if role in metrics.get(split, {})]
        evaluated = metrics.get("evaluation", {}).get("test", {}).get(role, {})
        return cls(
            role=role,
            data=data,
            split=split.name,
            labels_per_class=split.labels_per_class,
            trusted=len(split.trusted),
            ignored=len(split.ignored),
            label_noise=split.label_noise,
            flip=flip,
            method=metrics.get("method"),
            command=metrics.get("command", ""),
            results={split: metrics[split][role] for split in splits},
            temperature=evaluated.get("calibration", {}).get("temperature"),
            versions=metrics.get("versions", {}),
            run=run,
            reason=metrics["served"]["reason"] if role == metrics.get("served", {}).get("role") else None,
        )


def write_card(
    folder: pathlib.Path,
    network: keras.Model,
    *,
    name: str,
    class_names: Sequence[str],
    provenance: Provenance | None,
    litert: Sequence = (),
) -> None:
    """Writes `card.md` into the folder of a SavedModel.

    Args:
        folder: of the SavedModel.
        network: that was exported.
        name: of the model.
        class_names: in the order of the logits.
        provenance: where the network comes from; None says that nothing was recorded.
        litert: `litert.Measurement`s of the variants beside it.
    """
    names = ", ".join(class_names[:20]) + (", …" if len(class_names) > 20 else "")
    shape = " × ".join(str(side or "any") for side in network.input_shape[1:])
    kind = "images, raw pixels in 0…255" if len(network.input_shape) == 4 else "points"
    warmed = (folder / warmup.FILE).exists()
    parts = [
        f"# {name}",
        f"- network: `{network.name}`, {network.count_params():,} weights\n"
        f"- input: {shape}, {kind}\n"
        f"{_resizing(network)}"
        f"- {len(class_names)} classes: {names} (all in `assets/labels.txt`)\n"
        f"- signatures: {', '.join(f'`{signature}`' for signature in _signature_names(network))}\n"
        f"- warm-up requests: {f'`{warmup.FILE}`' if warmed else 'none (tensorflow-serving-api was not there)'}",
        *(_origin(provenance) if provenance else ["The data and the training were not recorded."]),
    ]
    if litert:
        rows = [measurement.row() for measurement in litert]
        parts += ["## LiteRT", "On the validation split; latency of one image on one thread.", table(rows)]
    # The command may name files by bytes that are no text.
    (folder / "card.md").write_text(shown("\n\n".join(parts)) + "\n", encoding="utf-8")


def _resizing(network):
    if not signatures.takes_files(tuple(network.input_shape[1:])):
        return ""
    resize, interpolation = models.get_resizing(network)
    done = {
        "crop": "the shorter side is fitted and the middle kept",
        "stretch": "both sides are fitted",
        "pad": "the longer side is fitted, and gray added",
    }[resize]
    return f"- files of other sizes: {done} ({interpolation})\n"


def is_of_run(folder: pathlib.Path, run: str) -> bool:
    """Whether the folder of a SavedModel has a card that names this run."""
    path = folder / "card.md"
    return path.is_file() and _run_line(run) in path.read_text("utf-8", errors="replace").splitlines()


def _run_line(run):
    return f"- run: `{run}`"


def _signature_names(network):
    offered = signatures.signatures(network, [""] * network.output_shape[-1], top_k=1)
    return [signatures.DEFAULT, *offered]


def _origin(provenance):
    yield "## Training"
    lines = [f"- exported network: `{provenance.role}`"]
    if provenance.role in DESCRIPTIONS:
        lines[0] += f", {DESCRIPTIONS[provenance.role]}"
    if provenance.reason:
        lines.append(f"- chosen: {provenance.reason}")
    lines.append(f"- data: {provenance.data}")
    if provenance.split:
        lines.append(f"- split: {provenance.split}")
    if provenance.labels_per_class:
        counts = sorted(provenance.labels_per_class.values())
        each = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
        lines.append(f"- labels: {sum(counts):,}, {each} per class")
    if provenance.trusted:
        others = f"; {provenance.ignored:,} cheap labels ignored" if provenance.ignored else ""
        lines.append(f"- trusted labels: {provenance.trusted:,} of these, checked by somebody{others}")
    if provenance.label_noise:
        lines.append(
            f"- label noise: {provenance.label_noise} of the cheap labels, made wrong for an experiment"
        )
    if provenance.flip is not None:
        said = (
            "half of the images, which have the class that they had"
            if provenance.flip
            else "none: left is not right"
        )
        lines.append(f"- mirrored in training: {said}")
    if provenance.method:
        lines.append(f"- method: {provenance.method}")
    if provenance.command:
        lines.append(f"- command: `{provenance.command}`")
    if provenance.versions:
        versions = (f"{package} {version}" for package, version in provenance.versions.items())
        lines.append(f"- versions: {', '.join(versions)}")
    if provenance.run:
        lines.append(_run_line(provenance.run))
    yield "\n".join(lines)
    if provenance.results:
        yield "## Results"
        rows = [_result_row(split, result) for split, result in provenance.results.items()]
        yield table(rows)
        yield _legend(set().union(*rows), provenance.temperature)


def _result_row(split, result):
    row = {"images": split}
    for key, column in _COLUMNS.items():
        # Of all images or none that are right it would be 0, as if that were certain.
        if key in result and not (key == "standard_error" and result["accuracy"] in (0.0, 1.0)):
            value = result[key]
            percent = f"{100 * value:.2f}" if column.endswith("%") else f"{value:.3f}"
            row[column] = f"{value:,}" if key == "count" else percent
    return row


def _legend(columns, temperature):
    sentences = [text for key, text in _LEGEND.items() if _COLUMNS[key] in columns]
    if temperature is None:
        sentences.append("The probabilities are the plain softmax of the logits.")
    else:
        sentences.append(
            "The probabilities are the plain softmax of the logits; logits divided by the temperature "
            f"{temperature:.3f}, fitted on the validation split, are better calibrated."
        )
    return " ".join(sentences)
