"""The method that docs/own_method.md writes, as somebody would paste it into a file."""

import importlib
import pathlib
import re

import keras
import numpy as np
import pytest

from recipes.common import parameters
from tests.support import oracles, tiny

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "own_method.md"


@pytest.fixture
def mean_teacher(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]
    (tmp_path / "mean_teacher.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("mean_teacher").MeanTeacher


def test_the_page_writes_a_method_that_learns_is_saved_and_has_flags(mean_teacher, tmp_path, batch):
    method = mean_teacher(student=tiny.plain_network("student"), ramp_steps=2)
    method.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    logs = []
    for _ in range(2):
        before = [
            {view: np.array(network(images), np.float64) for view, images in views.items()}
            for network, views in (
                (
                    method.student,
                    {"image": batch["labeled"]["image"], "strong": batch["unlabeled"]["strong"]},
                ),
                (method.student_average, {"weak": batch["unlabeled"]["weak"]}),
            )
        ]
        method.reset_metrics()
        logs.append({name: float(value) for name, value in method.train_step(batch).items()})
    student, average = before
    targets, predictions = oracles.softmax(average["weak"]), oracles.softmax(student["strong"])
    labels = oracles.one_hot(batch["labeled"]["label"].numpy(), 3)
    labeled = oracles.cross_entropies(labels, student["image"]).mean()
    consistency = ((predictions - targets) ** 2).sum(axis=-1).mean()
    assert logs[1]["labeled_loss"] == pytest.approx(labeled, rel=1e-4)
    assert logs[1]["consistency_loss"] == pytest.approx(consistency, rel=1e-3)
    # Half of the ramp's two steps.
    assert logs[1]["loss"] == pytest.approx(labeled + 0.5 * 10.0 * consistency, rel=1e-4)
    assert logs[0]["loss"] == logs[0]["labeled_loss"]

    method.save(tmp_path / "method.keras")
    loaded = keras.saving.load_model(tmp_path / "method.keras")
    images = batch["unlabeled"]["weak"]
    assert np.array_equal(loaded.student_average(images), method.student_average(images))
    assert (int(loaded.step), loaded.ramp_steps) == (2, 2)

    read = parameters.parameters("mean_teacher", "MeanTeacher")
    assert {name: parameter.default for name, parameter in read.items()} == {
        "consistency_weight": 10.0,
        "ramp_steps": 100,
        "ema_decay": 0.99,
    }
    assert all(parameter.description for parameter in read.values())
