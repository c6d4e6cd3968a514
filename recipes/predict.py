"""Classifies the images in a folder with an exported model, into a CSV file: path, class, confidence.

Started again it goes on with the images that have no row yet.

python -m recipes.predict --model=saved_models/digits/1 images/
python -m recipes.predict --model=saved_models/digits --output=images.csv --top_k=3 images/
"""

from absl import app, flags

from recipes.common import shared_flags, start

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "model", None, "Folder of an exported version, or of its versions, of which the highest is taken."
)
flags.DEFINE_string(
    "output", "predictions.csv", "The CSV file; a note beside it says whose predictions it has."
)
flags.DEFINE_integer("top_k", 1, "Classes per image, at most as many as the export names.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Images per call of the model.", lower_bound=1)
shared_flags.define_progress_flag("images are classified")
flags.mark_flag_as_required("model")

if __name__ == "__main__":
    start.parse_flags(takes_arguments=True)

import collections

import numpy as np

from mpl_tf import report
from mpl_tf.export.exported_classifier import ExportedClassifier
from mpl_tf.inference import prediction
from recipes.common import program

SHOWN_UNREADABLE = 5


def main(arguments):
    """Classifies what is missing, then shows what the file holds."""
    if len(arguments) != 2:
        raise app.UsageError("Give one folder of images, as in --model=saved_models/digits photos/.")
    program.prepare()
    classifier = ExportedClassifier(FLAGS.model)
    table = prediction.predict_folder(
        classifier,
        arguments[1],
        FLAGS.output,
        top_k=FLAGS.top_k,
        batch_size=FLAGS.batch_size,
        verbose=program.verbose(),
    )
    show(table, classifier)


def show(table: prediction.PredictionTable, classifier: ExportedClassifier) -> None:
    """Prints how many images each class got and how confidently, and what could not be read."""
    confidences = collections.defaultdict(list)
    unreadable = []
    for name, label, confidence, *_, error in table.rows.values():
        if error:
            unreadable.append((name, error))
        else:
            confidences[label].append(float(confidence))
    rows = [
        {"class": label, "images": f"{len(found):,}", "mean confidence": f"{np.mean(found):.3f}"}
        for label, found in sorted(confidences.items())
    ]
    print(f"\n{table.reading}")
    print(f"\n{len(table.rows):,} images, classified by {classifier.path}\n\n{report.table(rows)}")
    if unreadable:
        print(f"\n{len(unreadable):,} of them cannot be read, and have a reason instead of a class:")
        for name, error in unreadable[:SHOWN_UNREADABLE]:
            print(f"  {name}: {error}")
        if len(unreadable) > SHOWN_UNREADABLE:
            print("  …")
    print(f"\npredictions: {table.path}")


if __name__ == "__main__":
    start.run(main)
