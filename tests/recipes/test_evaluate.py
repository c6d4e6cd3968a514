"""recipes.evaluate as a user starts it, on run folders that are written here."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from mpl_tf import data, evaluation, models
from mpl_tf.runs.folder import RunFolder
from tests.programs import forked


def evaluate(*options):
    finished = forked.run("recipes.evaluate", *options)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


@pytest.fixture
def folder(tmp_path):
    """A finished run of seed 3 with two networks."""
    folder = RunFolder(tmp_path / "run")
    folder.verify_or_write_config(
        {"dataset": "digits", "labels": 20, "seed": 3, "model": "mlp-16x1", "baseline": True}
    )
    for seed, role in enumerate(("student", "supervised")):
        folder.save_network(role, models.build("mlp-16x1", 10, (8, 8, 1), seed=seed))
    other = {"student": {"fgsm": "old", "something": "else"}}
    # What a run saves besides the networks that it evaluates, DAFL's generator, is not touched.
    folder.save_network("generator", models.build("mlp-16x1", 64, (2,)))
    measured = {"test": {"student": {}, "supervised": {}}, "steps": 5}
    folder.write_metrics(measured | {"evaluation": {"test": other, "validation": {"teacher": {}}}})
    return folder


def test_a_run_is_evaluated_on_its_own_images_and_keeps_its_metrics(folder, tmp_path):
    for name in ("3", "7"):
        (tmp_path / "natural" / name).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), 200 + int(name), np.uint8)).save(
            tmp_path / "natural" / name / "one.png"
        )
    shown = evaluate(
        f"--run_dir={folder.path}",
        "--baseline=supervised",
        "--robustness",
        "--max_images=5",
        "--fgsm=8,64",
        f"--adversarial_dir={tmp_path / 'natural'}",
    )
    metrics = folder.read_metrics()
    assert metrics["steps"] == 5
    assert set(metrics["evaluation"]["test"]) == {"student", "supervised"}
    assert metrics["evaluation"]["validation"] == {"teacher": {}}
    student, supervised = (metrics["evaluation"]["test"][role] for role in ("student", "supervised"))
    assert student["something"] == "else"

    source = data.load("digits")
    network = models.build("mlp-16x1", 10, (8, 8, 1), seed=0)
    expected = evaluation.evaluate(network, data.evaluation_batches(source.test))
    assert set(student["clean"]) == set(expected) - {"confusion"}
    confusion = folder.read_confusions()["evaluation/test/student/clean"]
    assert confusion.tolist() == expected["confusion"]
    assert student["clean"]["nll"] == pytest.approx(expected["nll"], rel=1e-5)
    split = data.draw_split(source, num_labeled=20, seed=3)
    held_out = data.evaluation_batches(source.train, split.validation)
    temperature = evaluation.fit_temperature(*evaluation.predict(network, held_out))
    assert student["calibration"]["temperature"] == pytest.approx(temperature, rel=1e-4)
    assert student["calibration"]["fitted_on"] == len(split.validation)
    assert student["calibration"]["scaled"]["nll"] < student["calibration"]["raw"]["nll"]
    assert student["selective"]["curve"][-1]["accuracy"] == pytest.approx(expected["accuracy"])
    assert student["fgsm"]["epsilon"] == [0.0, 8.0, 64.0]
    assert student["fgsm"]["count"] == student["corruptions"]["count"] == 5
    assert len(student["corruptions"]["errors"]["frost"]) == 5
    mce = evaluation.mean_corruption_error(
        student["corruptions"]["errors"], supervised["corruptions"]["errors"]
    )
    assert student["corruptions"]["mce"] == mce
    assert student["natural_adversarial"]["classes"] == ["3", "7"]
    for text in (
        "accuracy and calibration: 1,008 of 1,008 images, ",
        "corruptions: 375 of 375 images, ",
        "perturbations: 50 of 50 images, ",
        "FGSM: 10 of 10 images, ",
        "360 test images",
        "ECE % after",
        "mCE %, supervised baseline = 100",
        "jpeg compression",
        "FGSM ε",
        "tilt",
    ):
        assert text in shown


def test_one_network_with_the_data_flags_and_what_is_refused(folder, tmp_path):
    network = folder.path / "networks" / "student.keras"
    given = f"--run_dir={folder.path}"
    (tmp_path / "empty").mkdir()
    called_baseline = shutil.copy(network.with_name("supervised.keras"), tmp_path / "baseline.keras")
    # A place that cannot be written to does not lose the tables of what has been measured.
    blocked = shutil.copy(network, tmp_path / "blocked.keras")
    (tmp_path / "blocked.evaluation.json").mkdir()
    damaged = shutil.copy(network, tmp_path / "damaged.keras")
    (tmp_path / "damaged.evaluation.json").write_text("")
    cases = {
        "Give either --run_dir": [],
        "holds no finished run": [f"--run_dir={tmp_path / 'empty'}"],
        "--seed=4 is not what the run": [given, "--seed=4"],
        "--resize=pad is not what the run": [given, "--resize=pad"],
        "--roles are those of a run": [f"--network={network}", "--roles=student"],
        "role='teacher' is unknown: Choose one of 'student', 'supervised'": [given, "--roles=teacher"],
        "missing.keras does not exist": [given, "--baseline=missing.keras"],
        "is no list of numbers as 1,2,4,8": [given, "--fgsm=1;2"],
        "fgsm=-1.0 is out of range": [given, "--fgsm=2,-1", "--baseline=missing.keras"],
        "| blocked |": [f"--network={blocked}", "--labels=20", "--split=validation"],
        "damaged.evaluation.json is damaged (JSONDecodeError": [f"--network={damaged}", "--labels=20"],
        "'two_moons' has points": [f"--network={network}", "--dataset=two_moons", "--robustness"],
        "--baseline needs a .keras file": [f"--network={network}", "--baseline=supervised"],
        "digits.0@20, 144 validation images": [
            f"--network={network}",
            f"--baseline={network}",
            "--labels=20",
            "--split=validation",
        ],
        "| network": [
            f"--network={called_baseline}",
            f"--baseline={network}",
            "--labels=20",
            "--split=validation",
        ],
    }
    # One process for all command lines.
    program = (
        "import json, sys; from absl import flags; from recipes import evaluate\n"
        "for options in json.loads(sys.argv[1]):\n"
        "    for name in flags.FLAGS: flags.FLAGS[name].unparse()\n"
        "    flags.FLAGS(['evaluate', *options])\n"
        "    try: evaluate.main([])\n"
        "    except Exception as error: print(error)\n"
        "    print('-----')\n"
    )
    finished = forked.run(program, json.dumps(list(cases.values())))
    assert finished.returncode == 0, finished.stderr[-2000:]
    for message, said in zip(cases, finished.stdout.split("-----\n")[:-1], strict=True):
        assert message in said
    written = json.loads(network.with_suffix(".evaluation.json").read_text())
    assert set(written["validation"]["student"]) == {"clean", "calibration", "selective"}
    assert written["validation"]["student"]["clean"]["count"] == 144
    assert written["validation"]["baseline"] == written["validation"]["student"]
    # The network that is measured is there, whatever it is called.
    written = json.loads(called_baseline.with_suffix(".evaluation.json").read_text())["validation"]
    assert set(written) == {"network", "baseline"}
    assert written["network"]["clean"] != written["baseline"]["clean"]
