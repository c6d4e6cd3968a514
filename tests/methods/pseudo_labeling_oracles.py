"""FixMatch's, FreeMatch's and ReMixMatch's formulas in NumPy float64, written from the papers."""

import dataclasses

import numpy as np

from tests.support import oracles


def pseudo_labels(weak_logits, temperature):
    """One-hot where the temperature is 0, else the sharpened distribution."""
    if temperature == 0:
        return oracles.one_hot(weak_logits.argmax(axis=-1), weak_logits.shape[-1])
    return oracles.softmax(weak_logits / temperature)


def aligned(weak_logits, prior, mean, *, step, decay):
    """Normalize(q · p(y) / p̃(y)), after p̃(y) has moved towards this batch; and p̃(y)."""
    current = min(decay, (1 + step) / (10 + step))
    predictions = oracles.softmax(weak_logits)
    mean = current * mean + (1 - current) * predictions.mean(axis=0)
    weighted = predictions * (np.array(prior) + 1e-6) / (mean + 1e-6)
    return weighted / weighted.sum(axis=-1, keepdims=True), mean


@dataclasses.dataclass
class SelfAdaptive:
    """FreeMatch's τ_t, p̃_t and h̃_t; loops over images and classes, as the sums in the paper do."""

    num_classes: int
    decay: float

    def __post_init__(self):
        self.tau = 1 / self.num_classes
        self.p = np.full(self.num_classes, 1 / self.num_classes)
        self.h = np.full(self.num_classes, 1 / self.num_classes)

    def update(self, q):
        """Equations 5, 6 and 10."""
        self.tau = self.decay * self.tau + (1 - self.decay) * sum(max(row) for row in q) / len(q)
        for c in range(self.num_classes):
            self.p[c] = self.decay * self.p[c] + (1 - self.decay) * sum(row[c] for row in q) / len(q)
            count = sum(1 for row in q if list(row).index(max(row)) == c)
            self.h[c] = self.decay * self.h[c] + (1 - self.decay) * count / len(q)

    def class_thresholds(self):
        """Equation 7."""
        return self.p / max(self.p) * self.tau

    def confident(self, q):
        """The indicator of equations 8 and 9."""
        thresholds = self.class_thresholds()
        return np.array([max(row) >= thresholds[list(row).index(max(row))] for row in q])

    def fairness(self, q, strong):
        """Equation 11, from equation 9's sums over the confident images; `strong` may be complex."""
        confident = self.confident(q)
        p_bar = sum(
            (row for row, is_confident in zip(strong, confident, strict=True) if is_confident),
            np.zeros(self.num_classes),
        )
        h_bar = np.zeros(self.num_classes)
        for row, is_confident in zip(strong, confident, strict=True):
            h_bar[np.real(row).argmax()] += is_confident
        present = [c for c in range(self.num_classes) if h_bar[c] > 0]
        target = self.p / self.h / sum(self.p / self.h)
        total = sum(p_bar[c] / h_bar[c] for c in present)
        return sum(target[c] * np.log(p_bar[c] / h_bar[c] / total) for c in present)
