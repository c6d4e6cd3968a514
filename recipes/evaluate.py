"""Evaluates finished networks: accuracy, calibration, coverage, and on request robustness.

python -m recipes.evaluate --run_dir=runs/digits --robustness --baseline=supervised --fgsm=1,2,4,8
python -m recipes.evaluate --network=pets.keras --dataset=folders --labeled_dir=train --test_dir=test --image_size=32

The numbers go into the run's metrics.json under "evaluation", or beside the network into <name>.evaluation.json. The
temperature is fitted on the validation split, everything else is measured on the test images: look at them once, at
the end, and at --split=validation before. See docs/evaluation.md.
"""

from absl import app, flags

from recipes.common import shared_flags, start
from recipes.common.start import define_path

FLAGS = flags.FLAGS

shared_flags.define_data_flags()
shared_flags.define_progress_flag("evaluating")

define_path("run_dir", None, "The folder of a finished run; its flags.txt says which images.")
define_path("network", None, "Or a .keras file; the data flags say which images.")
flags.DEFINE_list("roles", None, "Which networks of the run; all when not given.")
flags.DEFINE_string("baseline", None, "For mCE and mFR: a role of the run, or a .keras file.")
flags.DEFINE_enum("split", "test", ["test", "validation"], "The images that are measured on.")
flags.DEFINE_bool("robustness", False, "Also under 15 corruptions × 5 severities and 10 perturbations.")
flags.DEFINE_list("fgsm", [], "Also under attacks of these ε, in levels of 0…255, as 1,2,4,8.")
define_path("adversarial_dir", None, "Also on natural adversarial images, a folder per class.")
flags.DEFINE_integer("max_images", 1000, "Bound for --robustness and --fgsm; drawn at random.", 1)

if __name__ == "__main__":
    start.parse_flags()

import pathlib

import keras
import numpy as np

from mpl_tf import data, evaluation, models
from mpl_tf.evaluation.robustness import corruptions, perturbations
from mpl_tf.runs.folder import RunFolder, write_metrics
from mpl_tf.utils.files import read_json
from mpl_tf.utils.progress import Progress
from mpl_tf.utils.validation import check_range
from recipes.common import completed_run, evaluation_tables, program

# Not the run's: runs with different seeds are to meet the same corruptions of the same images.
ROBUSTNESS_SEED = 0


def main(_):
    """Evaluates, writes the numbers, prints tables."""
    if (FLAGS.run_dir is None) == (FLAGS.network is None):
        raise app.UsageError("Give either --run_dir=runs/<name> or --network=<file>.keras.")
    if FLAGS.network and FLAGS.roles:
        raise app.UsageError(
            "--roles are those of a run, and --network is one network: leave one of them out."
        )
    epsilons = parse_epsilons(FLAGS.fgsm)
    program.prepare()
    if FLAGS.run_dir:
        completed_run.adopt_flags(RunFolder(FLAGS.run_dir))
        loaded = program.load_data(FLAGS.run_dir)
        source, split = loaded.source, loaded.split
    else:
        source = program.load_source()
        split = data.draw_split(source, **program.split_options())
    if (FLAGS.robustness or epsilons) and len(source.image_shape) != 3:
        raise ValueError(
            f"{source.name!r} has points: leave out --robustness and --fgsm, which are for images."
        )
    networks = load_networks()
    for role, network in networks.items():
        models.check_class_names(network, source.class_names)
        models.warn_of_resizing(network, source.resizing, name=role)
    images, indices = images_of_split(source, split)

    results = measure(networks, source, split, images, indices)
    few = np.sort(np.random.default_rng(ROBUSTNESS_SEED).permutation(indices)[: FLAGS.max_images])
    batches = data.evaluation_batches(images, few)
    for role, network in networks.items():
        if FLAGS.adversarial_dir:
            results[role]["natural_adversarial"] = natural(network, source)
    if epsilons:
        add_attacks(results, networks, batches, epsilons, len(few))
    if FLAGS.robustness:
        add_robustness(results, networks, batches, len(few))
    print(f"\n{split.name}, {len(indices):,} {FLAGS.split} images\n")
    print(evaluation_tables.tables(results, baseline=baseline_role()))
    print(f"\nwritten to {write(results)}")


def parse_epsilons(texts: list[str]) -> list[float]:
    """The ε of `--fgsm`, with 0 before them."""
    try:
        epsilons = [float(text) for text in texts]
    except ValueError:
        raise app.UsageError(f"--fgsm={','.join(texts)} is no list of numbers as 1,2,4,8.") from None
    for epsilon in epsilons:
        check_range("fgsm", epsilon, low=0)
    return [0.0, *epsilons] if epsilons else []


def load_networks() -> dict[str, keras.Model]:
    """Role → network, the baseline among them.

    Raises:
        FileNotFoundError: for a file that is missing.
        ValueError: for a role that the run does not have.
    """
    given = FLAGS.baseline is not None
    files = {baseline_role(): pathlib.Path(FLAGS.baseline)} if given and is_file(FLAGS.baseline) else {}
    if FLAGS.network:
        if given and not files:
            raise ValueError(
                f"--baseline={FLAGS.baseline} is a role, and --network has none: --baseline needs a .keras file."
            )
        stem = pathlib.Path(FLAGS.network).stem
        # The baseline's name is not to hide a network that is called so.
        files = {"network" if stem in files else stem: FLAGS.network, **files}
        return {role: models.load(file) for role, file in files.items()}
    folder = RunFolder(FLAGS.run_dir)
    roles = list(FLAGS.roles or completed_run.classifiers(folder))
    if given and not files and FLAGS.baseline not in roles:
        roles.append(FLAGS.baseline)
    # The file first: it is the one whose name may be wrong.
    baseline = {role: models.load(file) for role, file in files.items()}
    return completed_run.networks(folder, roles) | baseline


def is_file(baseline: str) -> bool:
    """Whether `--baseline` is the path of a network and not a role."""
    return baseline.endswith(".keras")


def baseline_role() -> str | None:
    """The baseline's name in the results."""
    return "baseline" if FLAGS.baseline and is_file(FLAGS.baseline) else FLAGS.baseline


def images_of_split(source: data.Source, split: data.Split) -> tuple[data.Images, np.ndarray]:
    """The images to measure on and which of them."""
    if FLAGS.split == "validation":
        images, indices = source.train, split.validation
    else:
        images, indices = source.test, np.arange(0 if source.test is None else len(source.test))
    if not len(indices):
        raise ValueError(
            f"{source.name!r} has no {FLAGS.split} images: choose the other --split, or give --test_dir or "
            "--validation."
        )
    return images, indices


def measure(networks, source, split, images, indices) -> dict[str, dict]:
    """Accuracy, calibration and coverage of each network."""
    results = {}
    total = len(networks) * (len(indices) + len(split.validation))
    with progress(total, "accuracy and calibration") as done:
        for role, network in networks.items():
            batches = data.evaluation_batches(images, indices)
            logits, labels = evaluation.predict(network, batches, advance=done.update)
            outcomes = evaluation.outcomes(logits, labels)
            results[role] = {
                "clean": evaluation.summarize(outcomes, logits.shape[1]),
                "calibration": {"raw": calibration(outcomes)},
                "selective": evaluation.selective(outcomes.confidence, outcomes.correct),
            }
            if len(split.validation):
                held_out = data.evaluation_batches(source.train, split.validation)
                fitted_on = evaluation.predict(network, held_out, advance=done.update)
                temperature = evaluation.fit_temperature(*fitted_on)
                results[role]["calibration"] |= {
                    "temperature": temperature,
                    "fitted_on": len(split.validation),
                    "scaled": calibration(evaluation.outcomes(logits / temperature, labels)),
                }
    return results


def progress(total: int, title: str) -> Progress:
    """What tells how far an evaluation is, as --progress says."""
    return Progress(total, title, verbose=program.verbose())


def calibration(outcomes: evaluation.Outcomes) -> dict:
    """How far confidence and accuracy are apart."""
    return {
        "ece": evaluation.expected_calibration_error(outcomes.confidence, outcomes.correct),
        "nll": float(outcomes.loss.mean()),
        "brier": float(outcomes.brier.mean()),
        "reliability": evaluation.reliability(outcomes.confidence, outcomes.correct),
    }


def add_attacks(results, networks, batches, epsilons, count) -> None:
    """Adds the accuracy under FGSM to each network's results."""
    with progress(count * len(networks), "FGSM") as done:
        for role, network in networks.items():
            results[role]["fgsm"] = evaluation.fgsm(network, batches, epsilons, advance=done.update)


def add_robustness(results, networks, batches, count) -> None:
    """Adds the corruptions and the perturbations to each network's results."""
    corrupted = count * len(corruptions.NAMES) * len(corruptions.SEVERITIES)
    with progress(corrupted, "corruptions") as done:
        options = {"seed": ROBUSTNESS_SEED, "advance": done.update}
        errors = evaluation.corruption_errors(networks, batches, **options)
    with progress(count * len(perturbations.NAMES), "perturbations") as done:
        options = {"seed": ROBUSTNESS_SEED, "advance": done.update}
        flips = evaluation.flip_probabilities(networks, batches, **options)
    baseline = baseline_role()
    for role in networks:
        results[role]["corruptions"] = {
            "errors": errors[role],
            "mean_error": evaluation.mean_corruption_error(errors[role]),
            "count": count,
        }
        results[role]["perturbations"] = {
            "flip_probabilities": flips[role],
            "mean_flip_probability": evaluation.mean_flip_rate(flips[role]),
            "count": count,
        }
        if baseline:
            mce = evaluation.mean_corruption_error(errors[role], errors[baseline])
            mfr = evaluation.mean_flip_rate(flips[role], flips[baseline])
            results[role]["corruptions"] |= {"mce": mce, "baseline": FLAGS.baseline}
            results[role]["perturbations"] |= {"mfr": mfr, "baseline": FLAGS.baseline}


def natural(network, source) -> dict:
    """The accuracy on --adversarial_dir, among the classes that it has."""
    images, classes = evaluation.load_subset(
        FLAGS.adversarial_dir,
        source.class_names,
        network.input_shape[1:],
        resizing=source.resizing,
        skip_unreadable=FLAGS.skip_unreadable,
    )
    found = evaluation.evaluate(network, data.evaluation_batches(images), classes=classes)
    return found | {"classes": [source.class_names[index] for index in classes]}


def write(results: dict) -> pathlib.Path:
    """Adds the results to what is on disk, where newer numbers take the place of the same older ones."""
    if FLAGS.run_dir:
        folder = RunFolder(FLAGS.run_dir)
        with folder.locked():
            metrics = folder.read_metrics()
            merge(metrics.setdefault("evaluation", {}), results)
            folder.write_metrics(metrics)
        return folder.path / "metrics.json"
    destination = pathlib.Path(FLAGS.network).with_suffix(".evaluation.json")
    known = read_json(destination, "put back a copy of it, or remove it and measure again what it held") or {}
    merge(known, results)
    write_metrics(destination, known)
    return destination


def merge(known: dict, results: dict) -> None:
    """Puts each network's sections into `known[split][role]` and leaves the others there."""
    roles = known.setdefault(FLAGS.split, {})
    for role, sections in results.items():
        roles[role] = roles.get(role, {}) | sections


if __name__ == "__main__":
    start.run(main)
