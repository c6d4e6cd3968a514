import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import data, export
from mpl_tf.export import warmup
from tests.export.networks import NAMES, network

RESULT = {"accuracy": 0.875, "standard_error": 0.0125, "nll": 0.4567, "ece": 0.0314, "count": 1440}


def run_metrics():
    return {
        "method": "MetaPseudoLabels",
        "validation": {"student": RESULT, "finetuned": RESULT | {"accuracy": 0.9}},
        "test": {"student": RESULT, "finetuned": RESULT | {"accuracy": 0.925}},
        "evaluation": {"test": {"finetuned": {"calibration": {"temperature": 1.25}}}},
        "command": os.fsdecode(b"python -m recipes.mpl --preset=pets --teacher=caf\xe9.keras"),
        "versions": {"tensorflow": "2.21.0"},
    }


def provenance(role="finetuned"):
    source = data.from_arrays(np.zeros((12, 4, 4, 1), np.uint8), np.arange(12) % 3, name="pets")
    split = data.draw_split(source, num_labeled=6, seed=3, validation=3)
    return export.Provenance.of_run(run_metrics(), role, data="pets", split=split, flip=False)


def test_the_card_says_what_is_served_where_it_comes_from_and_how_good_it_is(tmp_path):
    folder = export.saved_model(network(), tmp_path / "pets", class_names=NAMES, provenance=provenance())
    card = (folder / "card.md").read_text(encoding="utf-8")
    for text in (
        "# pets\n",
        "- input: 6 × 5 × 3, images, raw pixels in 0…255\n",
        "- 3 classes: zero, one, two (",
        "`serving_default`, `serve`, `serving_uint8`, `serving_bytes`, `tensorflow/serving/classify`",
        "- exported network: `finetuned`, the student as it is served (the moving average",
        "- split: pets.3@6\n",
        "- labels: 6, 2 per class\n",
        "- mirrored in training: none: left is not right\n",
        "- method: MetaPseudoLabels\n",
        # Its name is no text.
        "- command: `python -m recipes.mpl --preset=pets --teacher=caf\\xe9.keras`\n",
        "- versions: tensorflow 2.21.0",
        "| test       |      92.50 | 1.25 | 0.457 |  3.14 |    1,440 |",
        "±: the standard error of the accuracy over these images.",
        "divided by the temperature 1.250",
    ):
        assert text in card, text
    assert "87.50" not in card  # The student's, which is not what was exported.


def test_the_card_says_which_labels_are_trusted(tmp_path):
    source = data.from_arrays(np.arange(48, dtype=np.uint8).reshape(12, 2, 2, 1), np.arange(12) % 3)
    trust = {"trusted": 3, "cheap_labels": "ignore", "label_noise": "symmetric:0.5"}
    split = data.draw_split(source, num_labeled=9, seed=3, validation=0, **trust)
    origin = export.Provenance.of_run(run_metrics(), "student", data="pets", split=split)
    folder = export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES, provenance=origin)
    card = (folder / "card.md").read_text("utf-8")
    assert (
        "- labels: 3, 1 per class\n- trusted labels: 3 of these, checked by somebody; 6 cheap labels ignored\n"
        in card
    )
    assert "- label noise: symmetric:0.5 of the cheap labels, made wrong for an experiment\n" in card


def test_a_card_says_what_is_not_known(tmp_path, monkeypatch):
    monkeypatch.setattr(warmup, "available", lambda: False)
    folder = export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES)
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "The data and the training were not recorded." in card
    assert "- input: 2, points\n" in card
    assert "- warm-up requests: none (tensorflow-serving-api was not there)" in card
    assert not (folder / "assets.extra").exists()
    with pytest.raises(ValueError, match="warm_up=True needs tensorflow-serving-api: install"):
        export.saved_model(network(), tmp_path, class_names=NAMES, warm_up=True)


def test_uncalibrated_results_are_called_so(tmp_path):
    plain = dataclasses.replace(provenance("student"), temperature=None)
    folder = export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES, provenance=plain)
    assert "The probabilities are the plain softmax of the logits.\n" in (folder / "card.md").read_text()


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_no_result_is_called_certain(tmp_path, accuracy):
    few = {"validation": RESULT | {"accuracy": accuracy, "standard_error": 0.0, "count": 2}}
    certain = dataclasses.replace(provenance("student"), results=few)
    folder = export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES, provenance=certain)
    card = (folder / "card.md").read_text("utf-8")
    assert f" {100 * accuracy:.2f} |" in card
    assert "±" not in card


def test_warm_up_requests_that_cannot_be_read_back_leave_no_version(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

    class Forgetful(tf.io.TFRecordWriter):
        def write(self, record):
            super().write(record[:-1] + b"x")

    monkeypatch.setattr(tf.io, "TFRecordWriter", Forgetful)
    with pytest.raises(RuntimeError, match="are not those that were written"):
        export.saved_model(network(shape=(2,)), tmp_path, class_names=NAMES)
    assert list(tmp_path.iterdir()) == []
