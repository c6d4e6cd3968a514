"""What the recipes share that look at a finished run."""

from collections.abc import Sequence

import keras
from absl import flags

from mpl_tf import evaluation
from mpl_tf.runs.folder import RunFolder
from mpl_tf.runs.roles import role_name
from mpl_tf.utils.validation import check_choice
from recipes.common import program, shared_flags

FLAGS = flags.FLAGS


def adopt_flags(folder: RunFolder) -> None:
    """Sets the data flags as the run had them.

    Args:
        folder: of the run.

    Raises:
        FileNotFoundError: when it holds no finished run.
        ValueError: when the command line says otherwise than the run.
    """
    if folder.read_metrics() is None:
        raise FileNotFoundError(
            f"{folder.path} holds no finished run, as it has no metrics.json: train to the end first, or give the "
            "folder of another."
        )
    names = {flag.name for flag in FLAGS.flags_by_module_dict()[shared_flags.__name__]}
    known = folder.read_flags()
    for name in sorted(names - known.keys() - program.NOT_PART_OF_THE_RUN):
        if FLAGS[name].present and FLAGS[name].value != FLAGS[name].default:
            raise ValueError(
                f"--{name}={FLAGS[name].value} is not what the run in {folder.path} had, which was given none: leave "
                "it out, or choose another run."
            )
    for name, value in known.items():
        if name not in names:
            continue
        if FLAGS[name].present and str(FLAGS[name].value) != value:
            raise ValueError(
                f"--{name}={FLAGS[name].value} is not what the run in {folder.path} had, --{name}={value}: leave it "
                "out, or choose another run."
            )
        FLAGS[name].value = FLAGS[name].parser.parse(value)


def networks(folder: RunFolder, roles: Sequence[str] | None = None) -> dict[str, keras.Model]:
    """Loads a finished run's classifiers: a generator, say, lies beside them, but was not evaluated.

    Args:
        folder: of the run.
        roles: which of them; None for all, in the order of the training.

    Returns:
        Role → network.

    Raises:
        ValueError: for a role that the run does not have.
        FileNotFoundError: for a file that is missing.
    """
    known = classifiers(folder)
    for role in roles or ():
        check_choice("role", role, known)
    return {role: folder.load_network(role) for role in (known if roles is None else roles)}


def warning(folder: RunFolder, role: str) -> str | None:
    """That a role's network is worse than the baseline of its run, in a sentence; None where it is not."""
    chosen = (folder.read_metrics() or {}).get("served", {})
    if role == chosen.get("role"):
        return None
    options = {"baseline": chosen.get("baseline"), "name": role_name}
    return evaluation.choose(folder.read_outcomes(), order=[role], serve=role, **options).warning


def classifiers(folder: RunFolder) -> list[str]:
    """The roles that a run evaluated at its end, in the order of the training; all, where it could evaluate none."""
    metrics = folder.read_metrics()
    evaluated = [metrics[split] for split in ("validation", "test") if split in metrics]
    return (
        list(evaluated[0])
        if evaluated
        else sorted(file.stem for file in (folder.path / "networks").glob("*.keras"))
    )
