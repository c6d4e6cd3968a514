"""Probing and fine-tuning a user's own network as a user does it, with a command line."""

import json

import keras
import numpy as np
import pytest

from mpl_tf import data, models
from recipes.common import builders
from tests.programs import forked


def run(recipe, *options, expect_success=True):
    finished = forked.run(f"recipes.{recipe}", *options)
    assert (finished.returncode == 0) == expect_success, finished.stderr[-3000:]
    return finished


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A network of a user's for gray images of another size and other classes, with BatchNorm."""
    file = tmp_path_factory.mktemp("own") / "own.keras"
    models.save(models.build("convnet", 5, (12, 12, 1), seed=4, class_names="vwxyz"), file)
    return file


def accuracy(file, source, indices):
    images = source.train.fetch(indices).numpy().astype(np.float32)
    predicted = keras.saving.load_model(file, compile=False).predict(images, verbose=0).argmax(axis=1)
    return (predicted == source.train.labels[indices]).mean()


def test_probe_then_fine_tuning(own, tmp_path):
    options = ["--dataset=digits", "--labels=40", f"--model={own}", "--noreport", "--progress=none"]
    options.append(f"--feature_cache={tmp_path / 'features'}")
    probing = [*options, f"--run_dir={tmp_path / 'probe'}", f"--export_dir={tmp_path / 'exported'}"]
    assert "validation accuracy %" in run("probe", *probing).stdout
    metrics = json.loads((tmp_path / "probe" / "metrics.json").read_text())
    assert metrics["method"] == "LinearProbe"
    assert set(metrics["seconds"]) == {"features", "probe"}
    assert metrics["regularization"] in models.REGULARIZATIONS
    assert (tmp_path / "exported" / "1" / "saved_model.pb").exists()

    # The network that is saved makes from pixels what the regression made from features.
    network = tmp_path / "probe" / "networks" / "student.keras"
    source = data.load("digits")
    split = json.loads((tmp_path / "probe" / "split.json").read_text())
    validation = np.asarray(split["validation"])
    measured = metrics["validation"]["student"]["accuracy"]
    assert accuracy(network, source, validation) == pytest.approx(measured)
    assert measured > 0.3
    assert models.get_class_names(models.load(network)) == source.class_names

    # With a learning rate of 0 for all but the head, and of next to nothing there, fine-tuning starts at the probe.
    tuning = [*options, "--steps=2", "--epoch_steps=1", "--batch_size=8", "--notensorboard", "--ema_decay=0"]
    # AdamW is the default here: SGD, which is elsewhere, has no beta_2.
    tuning += ["--optimizer_options=beta_2=0.99", "--decoupled_weight_decay=0.1"]
    tuning += ["--learning_rate=1e-9", "--backbone_learning_rate_factor=0"]
    run("supervised", *tuning, f"--run_dir={tmp_path / 'tuned'}")
    tuned = json.loads((tmp_path / "tuned" / "metrics.json").read_text())
    assert tuned["validation"]["student"]["accuracy"] == measured


class Flags(dict):
    __getattr__, __setattr__ = dict.__getitem__, dict.__setitem__


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ({"model": "convnet", "weights": "none"}, ("sgd", 0.05)),
        ({"model": "mobilenetv2", "weights": "none"}, ("sgd", 0.05)),
        ({"model": "mobilenetv2", "weights": "imagenet"}, ("adamw", 3e-4)),
        ({"model": "own.keras", "weights": "none"}, ("adamw", 3e-4)),
        ({"model": "own.keras", "weights": "none", "optimizer": "LAMB"}, ("lamb", 3e-4)),
        ({"model": "own.keras", "weights": "none", "learning_rate": 0.0}, ("adamw", 0.0)),
    ],
)
def test_the_optimizer_is_gentle_to_weights_from_elsewhere(given, settled, monkeypatch):
    values = Flags({"optimizer": None, "learning_rate": None} | given)
    monkeypatch.setattr(builders, "FLAGS", values)
    builders.settle_optimizer()
    assert (values.optimizer, values.learning_rate) == settled


def test_a_network_of_other_classes_is_refused(tmp_path):
    network = tmp_path / "network.keras"
    models.save(models.build("convnet", 10, (8, 8, 1), seed=4, class_names="0123456798"), network)
    options = ["--dataset=digits", "--labels=40", f"--network={network}", "--noreport", "--progress=none"]
    refused = run("finetune", *options, f"--run_dir={tmp_path / 'run'}", "--steps=2", expect_success=False)
    assert "output 8 is '9' for the network and '8' for the data" in refused.stderr
