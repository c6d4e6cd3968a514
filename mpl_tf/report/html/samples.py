"""The parts of a page for which a run's data and networks are at hand: images, and what networks say of them."""

import dataclasses
import warnings

import keras
import numpy as np
import tensorflow as tf
import threadpoolctl
from matplotlib.figure import Figure
from sklearn import decomposition, manifold

from mpl_tf import evaluation
from mpl_tf.data import pipeline
from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import replicas
from mpl_tf.report import plots
from mpl_tf.report.html.blocks import Block, Paragraph, Tile, Tiles

MOST_PREDICTED, MOST_MAPPED, FEWEST_FOR_TSNE = 5000, 1000, 50
_LABELED, _VIEWS, _PSEUDO_LABELS, _MISTAKES, _SUSPECTS = 40, 9, 24, 32, 24


@dataclasses.dataclass(frozen=True)
class Predicted:
    """What a network said of some training images.

    Attributes:
        index: int64 `[N]`, their positions among the training images.
        outcomes: `evaluation.Outcomes` of them; a label of -1 where the class is unknown.
    """

    index: np.ndarray
    outcomes: evaluation.Outcomes

    def most_confident(self, members: np.ndarray, count: int) -> np.ndarray:
        """The rows of up to `count` of the members, bool `[N]`, in the order of falling confidence."""
        rows = np.flatnonzero(members)
        return rows[np.argsort(-self.outcomes.confidence[rows], kind="stable")][:count]


def predict(network: keras.Model, data: RunData, index: np.ndarray) -> Predicted:
    """Asks a network about some training images, about a random part of them where they are very many."""
    index = sample(index, MOST_PREDICTED)
    logits = replicas.predict_batches(network, pipeline.image_batches(data.source.train, index))
    return Predicted(index, evaluation.outcomes(logits, np.asarray(data.source.train.labels)[index]))


def sample(index: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` of the indices, drawn once and for all, in rising order."""
    return np.sort(np.random.default_rng(0).permutation(index)[:count])


def labeled(data: RunData) -> list[Block]:
    """The labeled images, by class."""
    labels = np.asarray(data.source.train.labels)
    index = data.split.labeled[np.argsort(labels[data.split.labeled], kind="stable")]
    shown = index[np.linspace(0, len(index) - 1, min(len(index), _LABELED)).round().astype(int)]
    if not len(shown):
        return []
    known = f"{len(shown)} of the {len(index):,}" if len(shown) < len(index) else f"All {len(index)}"
    entries = [
        Tile([image], data.source.class_names[label])
        for image, label in zip(_fetch(data, shown), labels[shown], strict=True)
    ]
    return [Tiles(entries, f"{known} labeled images")]


def views(data: RunData) -> list[Block]:
    """Unlabeled images beside the weak and the strong view that a step may draw of them."""
    index = sample(data.split.unlabeled, _VIEWS)
    if not len(index):
        return []
    plain = data.source.train.fetch(tf.constant(index, tf.int64))
    weak = data.weak(plain, seed=0, position=tf.constant(index, tf.int64))
    strong = data.strong(weak, seed=0, position=tf.constant(index, tf.int64))
    columns = [_bytes(images) for images in (plain, weak, strong)]
    entries = [Tile(images, "plain · weak · strong") for images in zip(*columns, strict=True)]
    return [Tiles(entries, "Views of unlabeled images: as they are, weakly and strongly augmented")]


def pseudo_labels(data: RunData, network: keras.Model, whose: str, count: int = 1000) -> list[Block]:
    """The unlabeled images that the labeling network is most confident about, right and wrong.

    Args:
        data: of the run.
        network: the one that labels.
        whose: what it is called.
        count: how many unlabeled images it is asked about.
    """
    index = data.unlabeled_sample(count)
    if not len(index):
        return []
    found = predict(network, data, index)
    known = found.outcomes.label >= 0
    if not known.any():
        rows = found.most_confident(~known, _PSEUDO_LABELS)
        return _predictions(data, found, rows, f"Most confident labels of unlabeled images by the {whose}")
    right, wrong = known & found.outcomes.correct, known & ~found.outcomes.correct
    blocks = []
    for name, members in (("Right", right), ("Wrong", wrong)):
        fraction = f"{members.sum():,} of {known.sum():,} unlabeled images"
        caption = f"{name} labels by the {whose}, the most confident first: {fraction}"
        rows = found.most_confident(members, _PSEUDO_LABELS)
        blocks += _predictions(data, found, rows, caption)
    note = "The true classes of these images were hidden from the training; they are looked at here only."
    return [*blocks, Paragraph(note)]


def mistakes(data: RunData, found: Predicted, whose: str) -> list[Block]:
    """The validation images that the final network gets wrong, the most confident mistakes first."""
    wrong = ~found.outcomes.correct
    if not wrong.any():
        return [Paragraph(f"The {whose} gets none of {len(wrong):,} validation images wrong.")]
    count = f"{wrong.sum():,} of {len(wrong):,} validation images"
    caption = f"Mistakes of the {whose}, the most confident first: {count}"
    return _predictions(data, found, found.most_confident(wrong, _MISTAKES), caption)


def suspects(data: RunData, rows: list[dict]) -> list[Block]:
    """The images of the first rows of suspect_labels.csv.

    Args:
        data: of the run.
        rows: of the file.
    """
    rows = rows[:_SUSPECTS]
    entries = []
    for row, image in zip(rows, _fetch(data, [int(row["index"]) for row in rows]), strict=True):
        wrong = row["label"] != row.get("true_label", row["label"])
        text = f"{row['label']}? rather {row['predicted']} · {float(row['confidence']):.0%}"
        entries.append(Tile([image], text, wrong))
    return [Tiles(entries, "Labels that the network contradicts, the most surely contradicted first")]


def _predictions(data, found, rows, caption):
    names, (outcomes, index) = data.source.class_names, (found.outcomes, found.index[rows])
    entries = []
    for row, image in zip(rows, _fetch(data, index), strict=True):
        text = f"{names[outcomes.prediction[row]]} · {outcomes.confidence[row]:.0%}"
        wrong = bool(outcomes.label[row] >= 0 and not outcomes.correct[row])
        text += f", is\N{NO-BREAK SPACE}{names[outcomes.label[row]]}" if wrong else ""
        entries.append(Tile([image], text, wrong))
    return [Tiles(entries, caption)] if entries else []


def feature_map(network: keras.Model, data: RunData, found: Predicted) -> tuple[Figure, str] | None:
    """Where the last features before the logits lie, in a plane.

    Returns:
        The figure and how it was made; None for fewer than three images, and for features that are the same of all.
    """
    rows = sample(np.arange(len(found.index)), MOST_MAPPED)
    if len(rows) < 3:
        return None
    features = keras.Model(network.inputs, _features(network))
    batches = pipeline.image_batches(data.source.train, found.index[rows])
    vectors = replicas.predict_batches(features, batches)
    vectors = vectors.reshape(len(vectors), -1).astype(np.float64)
    if vectors.shape[1] < 2 or _are_the_same(vectors):
        return None
    if len(rows) >= FEWEST_FOR_TSNE:
        perplexity = min(30.0, (len(rows) - 1) / 3)
        # Threads cost so few points more than they bring, most of all beside TensorFlow's own.
        with warnings.catch_warnings(), threadpoolctl.threadpool_limits(1):
            # That a spare core was not counted is nothing to tell.
            warnings.simplefilter("ignore")
            positions = manifold.TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(
                vectors
            )
        how = f"t-SNE, perplexity {perplexity:.0f}"
    else:
        positions, how = decomposition.PCA(2, random_state=0).fit_transform(vectors), "PCA"
    outcomes = found.outcomes
    wrong = ~outcomes.correct[rows]
    figure = plots.feature_map(positions, outcomes.label[rows], wrong, data.source.class_names)
    return figure, f"{how}, of {len(rows):,} in the validation split"


def _are_the_same(vectors):
    """Whether a network that has collapsed or diverged gives all images one vector, but for rounding.

    scikit-learn's t-SNE divides by their spread, and ends the process in native code where there is none.
    """
    if not np.isfinite(vectors).all():
        return True
    return np.ptp(vectors, axis=0).max() <= 1e-6 * np.abs(vectors).max()


def _features(network):
    """The layer called `features`, which all networks of `models.build` have, or what the last layer takes."""
    if any(layer.name == "features" for layer in network.layers):
        return network.get_layer("features").output
    return network.layers[-1].input


def _fetch(data, index):
    return _bytes(data.source.train.fetch(tf.constant(index, tf.int64)))


def _bytes(images):
    return np.clip(np.rint(np.asarray(images, np.float32)), 0, 255).astype(np.uint8)
