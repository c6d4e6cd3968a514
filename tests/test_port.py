"""The benchmark against PyTorch: the same network on both sides, and processes that take turns."""

import json
import runpy
import subprocess
import types

import numpy as np
import pytest

from mpl_tf import models
from tests.test_layout import ROOT

PROGRAM = runpy.run_path(str(ROOT / "benchmarks" / "port.py"))


def test_both_networks_give_the_same_logits():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    # Of an odd size both pad on all sides.
    ours = models.build("wrn-16-2", 10, (33, 33, 3), seed=0)
    theirs = PROGRAM["torch_wide_resnet"](16, 2, 10)
    learned = iter(theirs.parameters())
    for weight in ours.trainable_weights:
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(weight.shape)]
        parameter = next(learned)
        parameter.data = torch.tensor(np.transpose(weight.numpy(), axes).copy())
    assert next(learned, None) is None
    images = np.random.default_rng(0).uniform(0, 255, (4, 33, 33, 3)).astype(np.float32)
    scaled = torch.tensor(np.moveaxis(images, 3, 1) / 127.5 - 1)
    np.testing.assert_allclose(ours(images, training=True), theirs(scaled).detach(), atol=1e-4)


def test_processes_take_turns_until_all_are_done(monkeypatch):
    said = []

    class Child:
        """Answers each line as `take_turns` does, with one number more every time."""

        def __init__(self, command, env, **_):
            self.args, self.threads, self.steps = command, env["OMP_NUM_THREADS"], 0
            self.name = command[-1].removeprefix("--child=")
            self.stdin = types.SimpleNamespace(write=self.ask, flush=lambda: None, close=lambda: None)
            self.stdout = types.SimpleNamespace(readline=self.answer)

        def ask(self, line):
            said.append(self.name)
            self.steps += 1

        def answer(self):
            number = {"slow": 2.0, "fast": 1.0}[self.name]
            found = {"seconds": [number] * (self.steps - 1), "peak": 10 * number, "done": self.steps > 3}
            return json.dumps(found) + "\n"

        def wait(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Child)
    fast, slow = PROGRAM["compared"](["fast", "slow"], threads=1)
    assert said == ["fast", "slow"] * 4
    assert fast == {"seconds": [1.0] * 3, "peak": 10.0, "done": True}
    assert slow == {"seconds": [2.0] * 3, "peak": 20.0, "done": True}


def test_a_process_that_ends_is_named(monkeypatch):
    class Dead:
        args = ("python", "port.py", "--child=PyTorch")
        stdin = types.SimpleNamespace(write=lambda line: None, flush=lambda: None)
        stdout = types.SimpleNamespace(readline=lambda: "")

        def wait(self):
            return 1

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: Dead())
    with pytest.raises(SystemExit, match="--child=PyTorch has ended with exit status 1"):
        PROGRAM["compared"](["PyTorch"], threads=1)
