"""The benchmark for GPUs: that its lines can be measured, in a small form and on the CPU."""

import argparse
import runpy

import keras
import numpy as np
import pytest

from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "gpu.py"))
OPTIONS = argparse.Namespace(model="mlp-8x1", size=8, labeled=2, ratio=1, steps=2)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The functions of the program share its globals; nothing is found out about this machine."""
    shared = PROGRAM["measure"].__globals__
    monkeypatch.setitem(shared, "arithmetic", lambda dtype: 1e9)
    monkeypatch.setitem(shared, "IMAGES", 40)
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", PROGRAM["METHODS"])
def test_a_method_is_measured(name):
    measured = PROGRAM["measure"](OPTIONS, name=name, precision="float32", jit=False, mirrored=False)
    assert len(measured["losses"]) == OPTIONS.steps
    assert np.isfinite(measured["losses"]).all()
    images = OPTIONS.labeled * (1 if name == "Supervised" else 1 + OPTIONS.ratio)
    assert measured["rate"] == pytest.approx(images / measured["seconds"])
    assert measured["fraction"] > 0


@pytest.mark.filterwarnings("ignore:.* held out for validation")
@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_a_training_with_its_views_is_measured(augment_on):
    measured = PROGRAM["measure_augmented"](OPTIONS, augment_on=augment_on)
    assert measured["rate"] == pytest.approx(4 / measured["seconds"])


def test_several_gpus_are_measured_together_too():
    plan = PROGRAM["plan"]("UDA", several=True)
    assert plan[0] == {"name": "UDA", "precision": "float32", "jit": False, "mirrored": False}
    assert len(plan) == 12
    assert sum(settings["mirrored"] for settings in plan) == 6
    assert len(PROGRAM["plan"]("UDA", several=False)) == 6
