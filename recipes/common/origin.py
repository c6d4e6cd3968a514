"""Networks that other runs have left: what these held out stays held out."""

import os
import pathlib
import warnings

import numpy as np
from absl import flags

from mpl_tf.data.splits import Split
from mpl_tf.runs.folder import RunFolder

FLAGS = flags.FLAGS

# The flags that the validation images follow from; how many labels are drawn does not change them.
HELD_OUT_BY = ("seed", "validation")
# Those that say which labels are learned from, and as what.
LABELED_BY = ("trusted", "cheap_labels", "label_noise")


def run_of(network: str | os.PathLike) -> RunFolder | None:
    """The run that has left a network as `<run>/networks/<role>.keras`; None for any other file."""
    path = pathlib.Path(network).resolve()
    folder = RunFolder(path.parent.parent)
    return folder if path.parent.name == "networks" and folder.read_flags() else None


def adopt_data(network: str) -> None:
    """Holds out the images, and takes the labels, that the run of a network did, where the command line says nothing.

    Args:
        network: path of its file.
    """
    run = run_of(network)
    known = {} if run is None else run.read_flags()
    if known.get("dataset") != FLAGS["dataset"].value:
        return
    if adopted := _adopt(HELD_OUT_BY, known):
        print(f"{adopted}, so that what the run in {run.path} has held out stays held out.")
    # Other folders of trusted images say otherwise too.
    same_folder = str(known.get("trusted_dir")) == str(FLAGS["trusted_dir"].value)
    if same_folder and (adopted := _adopt(LABELED_BY, known)):
        print(f"{adopted}, so that labels are trusted, ignored and made wrong as in the run in {run.path}.")


def _adopt(names, known):
    """Sets flags that nobody gave, and returns those that had another value, as a command line has them."""
    adopted = []
    for name in names:
        flag = FLAGS[name]
        if name in known and not flag.present and str(flag.value) != known[name]:
            flag.value = flag.parser.parse(known[name])
            adopted.append(f"--{name}={known[name]}")
    return " ".join(adopted)


def warn_of_learned_validation(split: Split, networks: dict[str, str]) -> None:
    """Warns where validation images are among those whose labels a network has learned from before.

    Args:
        split: of the run.
        networks: flag → file of a network that the run is made of.
    """
    for flag, network in networks.items():
        run = run_of(network)
        before = {} if run is None else run.read_split()
        if before.get("fingerprint") != split.fingerprint:
            continue
        learned = np.intersect1d(before.get("labeled", ()), split.validation)
        if len(learned):
            known = run.read_flags()
            same = " ".join(f"--{name}={known[name]}" for name in HELD_OUT_BY if name in known)
            warnings.warn(
                f"The network of --{flag} has learned from {len(learned):,} of the {len(split.validation):,} "
                f"validation images, so that accuracies on them say too much: pass {same}, as its run had it.",
                stacklevel=2,
            )
