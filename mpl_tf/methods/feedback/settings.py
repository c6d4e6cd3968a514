"""Which feedback the teacher gets, and how strong: the settings around the estimators."""

import dataclasses
from typing import ClassVar

import keras

from mpl_tf.methods import constraints
from mpl_tf.methods.constraints import Boolean, Choice, Constraint, Integer, Number

# The normalizations that each estimator has; the first is its default.
NORMALIZATIONS = {
    "per_example": ("rms", "raw"),
    "unrolled": ("raw",),
    "dot_product": ("cosine", "raw"),
    "loss_difference": ("cosine", "raw"),
    "none": ("raw",),
}
# The labeled images that a student's success may be measured on.
FEEDBACK_ON = ("labeled", "trusted")


@keras.saving.register_keras_serializable("mpl_tf")
@dataclasses.dataclass(frozen=True)
class FeedbackSettings:
    """The student's feedback to the teacher in `MetaPseudoLabels`.

    Args:
        estimator: `"per_example"` (exact for a soft-label SGD step, no sampling noise), `"dot_product"` (the
            paper's equation 12), `"loss_difference"` (the released code's scalar, with the right sign),
            `"unrolled"` (autodiff through the student's step; slow) or `"none"` (the ablation).
        weight: factor on the feedback's gradient; 1 with `normalization="raw"` is the literal gradient.
        normalization: `"raw"`; `"rms"` divides the per-example values by their root mean square over the
            global batch; `"cosine"` divides a scalar by the norms of the two gradients it compares. None
            takes the estimator's first in `NORMALIZATIONS`.
        floor: fraction of its mean over the training so far, in `[0, 1]`, that the root mean square counts as at
            least, so that the feedback fades as v → 0. With 1 a step whose feedback is smaller than usual counts less
            in proportion; with 0 every step has the full strength.
        clip: bound on the normalized per-example values, or on the scalar; None for no bound.
        baseline_decay: decay of the moving average, starting at 0, that is subtracted from a scalar feedback;
            0 subtracts nothing.
        cross_entropy: whether a scalar multiplies the `"mean"` (the paper's pseudo-code) or the `"sum"` (the
            gradient of the expectation) of the teacher's cross-entropies to its samples.
        finite_difference: computes the per-example tangents with one plain forward pass of moved weights instead of
            transposing the student's gradient: one product per layer instead of two, and about one per cent off.
        warmup_steps: steps over which the weight rises linearly from 0.
        placebo: gives every image its neighbor's feedback, the ablation of what the feedback knows about an image:
            its size, its distribution and its cost stay. For `"per_example"`.

    Raises:
        ValueError: for a value out of range or a combination without a meaning.
    """

    parameter_constraints: ClassVar[dict[str, Constraint]] = {
        "estimator": Choice(*NORMALIZATIONS),
        "weight": Number(),
        "normalization": Choice("rms", "cosine", "raw", optional=True),
        "floor": Number(high=1.0),
        "clip": Number(low=1e-6, optional=True),
        "baseline_decay": Number(high=1.0),
        "cross_entropy": Choice("mean", "sum"),
        "finite_difference": Boolean(),
        "warmup_steps": Integer(),
        "placebo": Boolean(),
    }

    estimator: str = "per_example"
    weight: float = 0.1
    normalization: str | None = None
    floor: float = 1.0
    clip: float | None = 1.0
    baseline_decay: float = 0.0
    cross_entropy: str = "mean"
    finite_difference: bool = False
    warmup_steps: int = 0
    placebo: bool = False

    def __post_init__(self):
        # Under the name that it has in a method's own arguments.
        self.parameter_constraints["estimator"].check("feedback", self.estimator)
        if self.normalization is None:
            object.__setattr__(self, "normalization", NORMALIZATIONS[self.estimator][0])
        allowed = NORMALIZATIONS[self.estimator]
        if self.normalization not in allowed:
            raise ValueError(
                f"normalization={self.normalization!r} has no meaning for the feedback {self.estimator!r}: "
                f"choose {' or '.join(map(repr, allowed))}."
            )
        constraints.check(self)
        if self.baseline_decay and not self.is_scalar:
            raise ValueError(
                f"baseline_decay={self.baseline_decay} is for the scalar feedbacks; {self.estimator!r} has "
                "a value for every class and centers it exactly. Leave it at 0."
            )

        if self.placebo and self.estimator != "per_example":
            raise ValueError(
                f"placebo=True exchanges the feedback of single images, which {self.estimator!r} does not have: pass "
                "estimator='per_example', or placebo=False."
            )

    @property
    def is_scalar(self) -> bool:
        """Whether one number per batch stands for all images, which needs sampled student labels."""
        return self.estimator in ("dot_product", "loss_difference")

    def trusted_reader(self, feedback_on: str) -> str | None:
        """What needs to know which labels of a batch are trusted, as an error calls it; None where nothing does.

        Args:
            feedback_on: the labeled images that the student's success is measured on.
        """
        needs = self.estimator != "none" and feedback_on == "trusted"
        return f"feedback_on={feedback_on!r}" if needs else None

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "FeedbackSettings":
        """Builds the settings from what `get_config` returned."""
        return cls(**config)
