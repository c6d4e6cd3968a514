"""Label noise for experiments: a known fraction of wrong labels, symmetric or flipped to the next class."""

import dataclasses

import numpy as np

from mpl_tf.data.augmentation.stateless_random import fold_in

KINDS = ("symmetric", "pairs")


@dataclasses.dataclass(frozen=True)
class LabelNoise:
    """Which fraction of the labels is wrong, and in which way (Han et al. 2018, arXiv 1804.06872).

    Args:
        kind: `"symmetric"`, where a wrong label is any of the K-1 other classes alike, or `"pairs"`, where it is the
            next class, as where each class is mistaken for one that looks like it.
        fraction: of the labels that are wrong, in `[0, 1)`: exactly so many, to the nearest label. The true class is
            none of what wrong labels are drawn from, so that none of them is right by chance.
    """

    kind: str
    fraction: float

    @classmethod
    def parse(cls, text: str) -> "LabelNoise":
        """The noise that a text such as `"symmetric:0.3"` or `"pairs:0.4"` names.

        Args:
            text: the kind, a colon, the fraction.

        Raises:
            ValueError: for any other text.
        """
        kind, _, number = str(text).partition(":")
        try:
            fraction = float(number)
        except ValueError:
            fraction = -1.0
        if kind not in KINDS or not 0.0 <= fraction < 1.0:
            raise ValueError(
                f"label_noise={text!r} is no noise: pass {' or '.join(KINDS)}, a colon and the fraction of wrong "
                "labels, at least 0 and below 1, as in symmetric:0.3."
            )
        return cls(kind, fraction)

    def draw(
        self, labels: np.ndarray, indices: np.ndarray, *, num_classes: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws which labels are wrong, and what they are.

        Every image has numbers of its own under the seed, so that with a larger fraction, or with more labels, the
        wrong ones are for the most part the same.

        Args:
            labels: int `[N]`, the true ones of all training images.
            indices: int64 `[n]`, sorted: whose labels may become wrong.
            num_classes: K.
            seed: of the split.

        Returns:
            Int64 `[m]`, sorted, the images with a wrong label, and int32 `[m]`, these labels.
        """
        generator = np.random.default_rng(fold_in(seed, "label noise"))
        order, steps = generator.random(len(labels)), generator.integers(1, num_classes, len(labels))
        count = round(self.fraction * len(indices))
        wrong = np.sort(indices[np.argsort(order[indices], kind="stable")[:count]])
        step = steps[wrong] if self.kind == "symmetric" else 1
        return wrong, ((np.asarray(labels)[wrong] + step) % num_classes).astype(np.int32)
