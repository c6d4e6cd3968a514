"""The cheap labels that a run's network contradicts, written down to be checked: suspect_labels.csv."""

import keras
import numpy as np

from mpl_tf import evaluation
from mpl_tf.data import pipeline
from mpl_tf.data.run_data import RunData
from mpl_tf.distribute import replicas
from mpl_tf.runs.folder import RunFolder

FILE = "suspect_labels.csv"
COLUMNS = ("image", "index", "label", "predicted", "confidence", "probability_of_label")
# Of more cheap labels, so many are looked at.
MOST_CHECKED = 100_000


def write_suspect_labels(folder: RunFolder, data: RunData, network: keras.Model) -> None:
    """Writes `suspect_labels.csv`: a row per contradicted cheap label, the most confident contradiction first.

    Cheap are all labels that nobody is known to have checked, learned from or ignored; trusted ones are not
    suspected. The columns are the `image`, by its name or else its index, its `index` among the training images, its
    `label` and what was `predicted` by their names, the `confidence` of that, and the `probability_of_label`. Where
    label noise has made labels wrong, `true_label` says what they were.

    Args:
        folder: of the run.
        data: images and split.
        network: that the run serves.
    """
    train, names = data.source.train, data.source.class_names
    cheap = np.sort(np.random.default_rng(0).permutation(data.split.cheap)[:MOST_CHECKED])
    if not len(cheap):
        return
    given = data.split.given_labels(train.true_labels)[cheap]
    logits = replicas.predict_batches(network, pipeline.image_batches(train, cheap))
    outcomes = evaluation.outcomes(logits, given)
    rows = []
    for row in evaluation.suspects(outcomes):
        index = int(cheap[row])
        rows.append({
            "image": index if train.names is None else train.names[index],
            "index": index,
            "label": names[given[row]],
            "predicted": names[outcomes.prediction[row]],
            "confidence": f"{outcomes.confidence[row]:.4f}",
            "probability_of_label": f"{np.exp(-outcomes.loss[row]):.4g}",
            **({"true_label": names[train.true_labels[index]]} if data.split.label_noise else {}),
        })  # fmt: skip
    # Also where no label is contradicted.
    folder.write_rows(FILE, rows, columns=COLUMNS)
