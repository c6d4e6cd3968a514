"""Labels images with a finished network, into a folder that other programs read.

Started again it makes what is missing. Several processes, also on machines that share the folder, divide the work.

python -m recipes.label --network=runs/digits/networks/student.keras --store=labels/digits --labels=20
"""

from absl import flags

from recipes.common import shared_flags, start
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_progress_flag("labeling")

define_path("network", None, "The .keras file that labels, as runs leave it in networks/.")
define_path("store", None, "Folder of the labels.")
flags.DEFINE_enum(
    "part", "unlabeled", ["unlabeled", "train", "all"],
    "Which training images: the split's unlabeled ones, all but its validation images, or all.",
)  # fmt: skip
define_path("split_file", None, "A run's split.json, for --part; drawn anew when not given.")
flags.DEFINE_integer("shard_size", 4096, "Images per file: what is lost at most when killed.", 1)
flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the numbers in the files.")
flags.DEFINE_integer("batch_size", 256, "Images at a time, over all replicas.", lower_bound=1)
flags.DEFINE_integer("workers", 1, "Processes that label into this folder.", lower_bound=1)
flags.DEFINE_integer("worker", 0, "The number of this one, from 0.", lower_bound=0)
flags.DEFINE_bool("teacher_noise", False, "Label with dropout and stochastic depth on.")
flags.DEFINE_enum("view", "none", ["none", "weak", "strong"], "Label images that are augmented so.")
flags.DEFINE_enum(
    "precision", None, ["float32", "mixed_bfloat16"], "Of the network's arithmetic; its own when not given."
)
flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "XLA; auto is on for GPUs and off for CPUs.")
flags.DEFINE_enum("strategy", "default", ["default", "mirrored"], "One device, or all of this machine.")
flags.DEFINE_float(
    "threshold", 0.3, "Confidence from which the table and the image count as selected.", 0.0, 1.0
)
flags.DEFINE_integer("per_class", None, "Selected per predicted class; the classes' mean when not given.", 1)
flags.DEFINE_bool("balance_selection", True, "Whether the selection makes the classes equal.")
define_path("image", None, "Also draws confidence, selection and examples into this .png file.")
flags.mark_flags_as_required(["network", "store"])

if __name__ == "__main__":
    start.parse_flags()

import hashlib
import pathlib

import keras
import numpy as np

from mpl_tf import data, report
from mpl_tf.data import LabelStore
from mpl_tf.distribute import replicas
from mpl_tf.inference import labeling
from mpl_tf.models import surgery
from mpl_tf.utils.validation import check_integer
from recipes.common import builders, program

SHOWN_THRESHOLDS = (0.0, 0.5, 0.8, 0.95)


def main(_):
    """Labels what is missing, then shows what the store holds."""
    check_integer("worker", FLAGS.worker, low=0, high=FLAGS.workers - 1)
    program.prepare()
    source = program.load_source()
    weak, strong = program.views(source)
    view = {"none": None, "weak": weak, "strong": data.Chain(weak, strong)}[FLAGS.view]
    with replicas.make_strategy(FLAGS.strategy).scope():
        store = labeling.label_into_store(
            load_network(source),
            source,
            FLAGS.store,
            index=images_to_label(source),
            teacher=teacher(view),
            shard_size=FLAGS.shard_size,
            dtype=FLAGS.dtype,
            batch_size=FLAGS.batch_size,
            workers=FLAGS.workers,
            worker=FLAGS.worker,
            training=FLAGS.teacher_noise,
            view=view,
            seed=FLAGS.seed,
            jit_compile=builders.jit_compile(),
            verbose=program.verbose(),
        )
    missing = store.missing()
    if missing:
        print(
            f"\nThis worker is done. {len(missing)} of {store.num_shards} shards are still missing: other workers "
            "make them, and the last one shows the table."
        )
        return
    show(source, store)
    if FLAGS.image:
        figure = report.plots.label_store(
            store,
            images=source.train,
            class_names=source.class_names,
            **selection_options(),
            title=f"{source.name}: {len(store):,} images labeled by {store.teacher['file']}",
        )
        report.plots.save_png(figure, FLAGS.image)
        print(f"\nimage: {FLAGS.image}")


def images_to_label(source: data.Source) -> np.ndarray:
    """The indices of the training images that --part names."""
    if FLAGS.part == "all":
        return np.arange(len(source.train))
    if FLAGS.split_file is None:
        split = data.draw_split(source, **program.split_options())
    elif pathlib.Path(FLAGS.split_file).is_file():
        split = data.load_or_draw_split(FLAGS.split_file, source, **program.split_options())
    else:
        raise FileNotFoundError(f"--split_file={FLAGS.split_file!r} is not there: give a run's split.json.")
    return split.unlabeled if FLAGS.part == "unlabeled" else np.union1d(split.labeled, split.unlabeled)


def teacher(view) -> dict:
    """All that the labels depend on besides the images, so that a folder is never filled by two teachers."""
    file = pathlib.Path(FLAGS.network)
    if not file.is_file():
        raise FileNotFoundError(f"--network={FLAGS.network!r} is not there: give a .keras file.")
    with file.open("rb") as stream:
        made_by = {"file": file.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
    made_by["precision"] = FLAGS.precision or "as saved"
    if FLAGS.teacher_noise or view is not None:
        made_by |= {"noise": FLAGS.teacher_noise, "view": repr(view), "seed": FLAGS.seed}
    return made_by


def load_network(source: data.Source) -> keras.Model:
    """The network that labels, in the precision that is asked for."""
    network = builders.load_network(FLAGS.network, source)
    return network if FLAGS.precision is None else surgery.in_precision(network, FLAGS.precision)


def show(source: data.Source, store: LabelStore) -> None:
    """Prints what the labels are like, over all images and by class."""
    confidence, classes = store.confidence(), store.classes()
    truth = source.train.labels[store.index]
    print(
        f"\n{len(store):,} images labeled by {store.teacher['file']}, mean confidence {confidence.mean():.3f}\n"
    )
    print(
        report.table(report.confidence_rows(confidence, classes, truth, {*SHOWN_THRESHOLDS, FLAGS.threshold}))
    )
    try:
        rows = data.select_indices(confidence, classes, source.num_classes, **selection_options())
    except ValueError as error:
        print(f"\nNothing would be selected: {error}")
    else:
        selected = data.selection_report(classes, rows, source.num_classes)
        copies = selected.duplicated.sum()
        print(
            f"\nselected from confidence {FLAGS.threshold:g}: {len(rows):,} images, {copies:,} of them copies\n"
        )
        print(report.table(report.class_rows(source.class_names, confidence, classes, selected)))
    print(f"\nlabels: {store.path}")


def selection_options() -> dict:
    """What the flags say about the selection."""
    return {"threshold": FLAGS.threshold, "per_class": FLAGS.per_class, "balance": FLAGS.balance_selection}


if __name__ == "__main__":
    start.run(main)
