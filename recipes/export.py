"""Exports a network of a finished run: a SavedModel for TensorFlow Serving, LiteRT models for devices, a model card.

python -m recipes.export --run_dir=runs/digits --export_dir=saved_models/digits --litert=float16,int8_full

Writes <export_dir>/<next version>/ in one step and touches no version that exists. Before that the SavedModel is read
back in a process that has only TensorFlow, and every LiteRT model runs on the validation split. See docs/serving.md.
"""

from absl import flags

from recipes.common import parameters, shared_flags, start
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_progress_flag("LiteRT models are measured")

define_path("run_dir", None, "The folder of a finished run; its flags.txt says which images.")
flags.DEFINE_string(
    "role", None, "Which network of the run; the one that it has chosen to serve if not given."
)
define_path("export_dir", None, "Folder of the versions; its name is the model's.")
KINDS = parameters.constant("mpl_tf.export.litert", "KINDS")
flags.DEFINE_list("litert", [], f"LiteRT variants to add: {', '.join(KINDS)}.")
flags.DEFINE_integer("top_k", 5, "How many classes an answer names.", lower_bound=1)
flags.DEFINE_float(
    "max_accuracy_drop", 0.02, "Of a LiteRT variant below the network, else it is left out.", 0.0, 1.0
)
flags.DEFINE_integer("representative", 200, "Labeled images at most, for the ranges of int8_full.", 1)
flags.mark_flags_as_required(["run_dir", "export_dir"])

if __name__ == "__main__":
    start.parse_flags()

import pathlib
import sys

import keras
import numpy as np

from mpl_tf import data, export, report
from mpl_tf.data.run_data import RunData
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.roles import chosen_role
from mpl_tf.utils.progress import Progress
from mpl_tf.utils.validation import check_choice
from recipes.common import completed_run, program


def main(_):
    """Exports, compares, prints the table."""
    for kind in FLAGS.litert:
        check_choice("litert", kind, KINDS)
    program.prepare()
    folder = RunFolder(FLAGS.run_dir)
    completed_run.adopt_flags(folder)
    run = program.load_data(FLAGS.run_dir)
    metrics = folder.read_metrics()
    role = FLAGS.role or chosen_role(metrics) or "student"
    network = completed_run.networks(folder, [role])[role]
    if warning := completed_run.warning(folder, role):
        print(f"\n{warning}\n")
    described = {
        "name": model_name(),
        "class_names": run.source.class_names,
    }
    provenance = export.Provenance.of_run(
        metrics,
        role,
        data=run.source.name,
        split=run.split,
        flip=run.source.flip if len(run.source.image_shape) == 3 else None,
    )
    measured = []

    def write(version):
        export.write_saved_model(network, version, **described, top_k=FLAGS.top_k, in_new_process=True)
        measured[:] = write_litert(network, version, run) if FLAGS.litert else []
        export.write_card(version, network, **described, provenance=provenance, litert=measured)

    version = export.new_version(FLAGS.export_dir, write)
    if measured:
        print(f"\n{run.split.name}, {len(run.split.validation):,} validation images, {role}\n")
        print(report.table([measurement.row() for measurement in measured]))
    print(f"\nexported {role}: {version}\nmodel card: {version / 'card.md'}")
    if left_out := [kind for kind in FLAGS.litert if kind not in {found.kind for found in measured}]:
        # What was asked for is not all there, which a script has to know.
        sys.exit(
            f"\nNot in this export: the LiteRT variant {', '.join(left_out)}; the warning above says why."
        )


def model_name() -> str:
    """What the model is called, also where --export_dir is `.`: as the folder of its versions."""
    return pathlib.Path(FLAGS.export_dir).resolve().name


def write_litert(network: keras.Model, folder: pathlib.Path, run: RunData) -> list:
    """Writes and measures the LiteRT variants."""
    drawn = np.sort(np.random.default_rng(0).permutation(run.split.labeled)[: FLAGS.representative])
    images, labels = decoded_images(run.source.train, run.split.validation)
    total = len(images) * (1 + len(FLAGS.litert))
    with Progress(total, "LiteRT models, measured", verbose=program.verbose()) as progress:
        return export.litert.write_variants(
            network,
            folder,
            name=model_name(),
            kinds=FLAGS.litert,
            representative=decoded_images(run.source.train, drawn)[0],
            images=images,
            labels=labels,
            max_accuracy_drop=FLAGS.max_accuracy_drop,
            advance=progress.update,
        )


def decoded_images(source: data.Images, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 and their labels, as arrays."""
    if not len(indices):
        return np.zeros((0, *source.image_shape), np.float32), np.zeros(0, np.int64)
    batches = list(data.evaluation_batches(source, indices).as_numpy_iterator())
    return tuple(np.concatenate([batch[key] for batch in batches]) for key in ("image", "label"))


if __name__ == "__main__":
    start.run(main)
