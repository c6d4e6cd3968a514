"""What recipes.auto tries, and with which settings.

Two tables, one for networks that have learned elsewhere and one for random weights. To retune it, change the numbers
here and nowhere else.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """A method with its settings.

    Args:
        method: name of its class in `mpl_tf`.
        options: of its constructor.
        alignment: of the pseudo labels' classes, as --distribution_alignment.
        learning_rate: peak; None for the table's.
    """

    method: str
    options: dict[str, Any]
    alignment: str = "none"
    learning_rate: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How all stages train, and which methods are tried.

    Args:
        model: the student where --model is not given.
        weights: its weights.
        image_size: of photographs of many sizes, or of a larger one, in pixels.
        largest_side: up to which images that all have one size keep it.
        batch_size: B, labeled images per update.
        unlabeled_ratio: μ, unlabeled images per labeled one.
        optimizer: of Keras, by name.
        optimizer_options: its further arguments.
        learning_rate: peak of a cosine to zero, in every stage.
        warmup_fraction: of a stage's steps, over which the learning rate rises.
        views: flags of the views that are not at their defaults.
        supervised: the method of the warm start, and of the longer training that methods are compared with.
        warm_start_fraction: of the minutes, for the supervised network that all methods start from.
        most_methods: tried at most, however many minutes there are.
        fewest_steps: of a method, where there are several: one that would make fewer is left out.
        methods: stage → method, in the order of preference. The first `most_methods` are timed; where the validation
            images cannot tell two of them apart, the former is served.
    """

    model: str
    weights: str
    image_size: int
    largest_side: int
    batch_size: int
    unlabeled_ratio: int
    optimizer: str
    optimizer_options: dict[str, Any]
    learning_rate: float
    warmup_fraction: float
    views: dict[str, Any]
    supervised: Candidate
    warm_start_fraction: float
    most_methods: int
    fewest_steps: int
    methods: dict[str, Candidate]


# Of Meta Pseudo Labels under both tables.
_MPL = {
    "feedback": "per_example",
    "student_targets": "strong",
    "student_labeled_weight": 1.0,
    "uda_targets": "average",
    "uda_ramp_steps": 0,
}

# BatchNorm is frozen and the head starts from the linear probe, as everywhere under weights from elsewhere.
PRETRAINED = Settings(
    model="mobilenetv2",
    weights="imagenet",
    image_size=96,
    largest_side=128,
    batch_size=32,
    unlabeled_ratio=3,
    optimizer="adamw",
    optimizer_options={},
    learning_rate=3e-4,
    warmup_fraction=0.1,
    views={},
    supervised=Candidate(method="Supervised", options={"ema_decay": 0.98}),
    warm_start_fraction=0.2,
    most_methods=3,
    fewest_steps=80,
    methods={
        "uda": Candidate(
            method="UDA",
            options={
                "targets": "average",
                "consistency_weight": 2.0,
                "temperature": 0.4,
                "threshold": 0.4,
                "ema_decay": 0.97,
            },
            alignment="labels",
        ),
        "mpl": Candidate(
            method="MetaPseudoLabels",
            options=_MPL
            | {
                "uda_weight": 2.0,
                "uda_temperature": 0.4,
                "uda_threshold": 0.4,
                "teacher_ema_decay": 0.97,
                "ema_decay": 0.97,
            },
            alignment="labels",
        ),
        "fixmatch": Candidate(
            method="FixMatch", options={"targets": "average", "threshold": 0.7, "ema_decay": 0.97}
        ),
        "freematch": Candidate(
            method="FreeMatch", options={"targets": "average", "threshold_decay": 0.95, "ema_decay": 0.97}
        ),
    },
)

FROM_SCRATCH = Settings(
    model="wrn-10-1",
    weights="none",
    image_size=32,
    largest_side=48,
    batch_size=32,
    unlabeled_ratio=3,
    optimizer="sgd",
    optimizer_options={"momentum": 0.9, "nesterov": True},
    learning_rate=0.05,
    warmup_fraction=0.02,
    views={},
    supervised=Candidate(method="Supervised", options={"ema_decay": 0.99, "weight_decay": 5e-4}),
    warm_start_fraction=0.25,
    most_methods=3,
    fewest_steps=200,
    methods={
        "uda": Candidate(
            method="UDA",
            options={
                "targets": "average",
                "consistency_weight": 1.0,
                "temperature": 0.5,
                "threshold": 0.6,
                "ema_decay": 0.99,
                "weight_decay": 5e-4,
            },
            alignment="labels",
            learning_rate=0.02,
        ),
        "mpl": Candidate(
            method="MetaPseudoLabels",
            options=_MPL
            | {
                "uda_weight": 1.0,
                "uda_temperature": 0.5,
                "teacher_ema_decay": 0.99,
                "ema_decay": 0.99,
                "weight_decay": 5e-4,
            },
            alignment="labels",
            learning_rate=0.02,
        ),
        "fixmatch": Candidate(
            method="FixMatch",
            options={"targets": "average", "threshold": 0.95, "ema_decay": 0.99, "weight_decay": 5e-4},
            learning_rate=0.02,
        ),
        "freematch": Candidate(
            method="FreeMatch", options={"ema_decay": 0.99, "weight_decay": 5e-4}, learning_rate=0.02
        ),
    },
)
