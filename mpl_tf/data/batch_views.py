"""From the images that a batch has drawn to their views: the end of the input pipeline, or the start of a step."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

# Labeled and unlabeled streams, and their augmentations, draw from seeds that differ by these.
LABELED_STREAM, UNLABELED_STREAM = 1, 2


@dataclasses.dataclass(frozen=True)
class BatchViews:
    """Augments a drawn batch; a pure function of the images, their positions and the seed.

    Args:
        weak: callable `(images, seed=, position=) → float32 [n, …]`, the weakly augmented view.
        strong: the same for the strong view, which starts from the weak one; None where nothing unlabeled is drawn.
        labeled_view: the same for labeled images; None for the weak view.
        seed: of the run.
    """

    weak: Callable
    strong: Callable | None = None
    labeled_view: Callable | None = None
    seed: int = 0

    def __call__(self, drawn: dict) -> dict:
        """Makes the views.

        Args:
            drawn: `{"labeled": {"image", "position", …}, "unlabeled": {"image", "position", …}}`, images `[n, …]`
                in 0…255 of static shape and their positions int64 `[n]` in their streams; the second entry may lack.

        Returns:
            The batch that every `train_step` reads: `"image"` float32 in the labeled entry, `"weak"` and `"strong"`
            in the unlabeled one, and what else there was.
        """
        labeled = dict(drawn["labeled"])
        images, place = labeled.pop("image"), self._position(labeled, LABELED_STREAM)
        batch = {
            "labeled": {**labeled, "image": _like(images, (self.labeled_view or self.weak)(images, **place))}
        }
        if "unlabeled" in drawn:
            unlabeled = dict(drawn["unlabeled"])
            images, place = unlabeled.pop("image"), self._position(unlabeled, UNLABELED_STREAM)
            weak = _like(images, self.weak(images, **place))
            batch["unlabeled"] = {
                **unlabeled,
                "weak": weak,
                "strong": _like(images, self.strong(weak, **place)),
            }
        return batch

    def _position(self, entry, stream):
        # One number for the stream's own seed; the views mix it with the position.
        return {"seed": 2 * self.seed + stream, "position": entry.pop("position")}


def _like(images, view) -> tf.Tensor:
    return tf.ensure_shape(view, images.shape)
