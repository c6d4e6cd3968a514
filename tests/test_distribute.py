"""Strategies: two processes that really train together, and refusals of what is not there."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import distribute
from mpl_tf.data import pipeline
from mpl_tf.run_folder import RunFolder
from tests import test_training, tiny
from tests.test_tensorboard import written

ROOT = pathlib.Path(__file__).parents[1]


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def start(folder, strategy, *, config=None, kill_at=()):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    if config:
        environment["TF_CONFIG"] = json.dumps(config)
    command = [sys.executable, "-m", "tests.worker_program", str(folder), strategy, *map(str, kill_at)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(processes):
    """Exit status and output of each."""
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def two_workers(folder, *, kill_second_at=()):
    addresses = free_addresses(2)
    configs = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}} for i in range(2)]
    killed = [(), kill_second_at]
    return finish(
        [
            start(folder, "multi_worker", config=config, kill_at=at)
            for config, at in zip(configs, killed, strict=True)
        ]
    )


def test_two_workers_of_which_one_is_killed_end_as_one_process_does(tmp_path):
    ((status, output),) = finish([start(tmp_path / "one", "default")])
    assert status == 0, output

    (first, output), (second, _) = two_workers(tmp_path / "two", kill_second_at=[6])
    assert second == -signal.SIGKILL
    assert first == 1
    assert "WorkerLostError: Another worker has ended or cannot be reached any more" in output
    checkpoints = RunFolder(tmp_path / "two" / "run").checkpoints()
    assert [path.name for path in checkpoints] == ["step_000000004.weights.h5"]

    (first, output), (second, other_output) = two_workers(tmp_path / "two")
    assert (first, second) == (0, 0), output + other_output
    # One of the two prints the course of the training.
    assert "val_accuracy" in output
    assert "val_accuracy" not in other_output

    for role in ("teacher", "student", "finetuned"):
        files = [tmp_path / name / "run" / "networks" / f"{role}.keras" for name in ("one", "two")]
        networks = [keras.saving.load_model(file, safe_mode=True) for file in files]
        for one, two in zip(*(network.get_weights() for network in networks), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5)
    histories = [RunFolder(tmp_path / name / "run").read_history() for name in ("one", "two")]
    assert [row["step"] for row in histories[1]] == ["4", "8", "12", "14"]
    for one, two in zip(*histories, strict=True):
        assert set(one) == set(two)
        for name in set(one) - {"seconds"}:
            assert float(one[name] or 0) == pytest.approx(float(two[name] or 0), abs=1e-4), name
    shown = [written(tmp_path / name / "run", "train") for name in ("one", "two")]
    assert set(shown[0]) == set(shown[1])
    assert [step for step, _ in shown[1]["loss"]] == [4, 8, 12, 14]
    metrics = [RunFolder(tmp_path / name / "run").read_metrics() for name in ("one", "two")]
    assert metrics[0]["test"]["student"]["nll"] == pytest.approx(
        metrics[1]["test"]["student"]["nll"], abs=1e-5
    )
    assert (tmp_path / "two" / "exported" / "1" / "saved_model.pb").exists()
    assert not (tmp_path / "two" / "exported" / "2").exists()


# --- shares of a batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_the_shares_of_a_batch_are_the_batch(count):
    data = test_training.run_data()
    options = {"batch_size": 6, "unlabeled_ratio": 2, "seed": 3, "start": 5}
    whole = list(data.batches(**options).take(3))
    shares = [list(data.batches(**options, share=(index, count)).take(3)) for index in range(count)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        joined = tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)
        tf.nest.map_structure(np.testing.assert_array_equal, joined, batch)


def test_the_shares_of_numbers_are_the_numbers():
    (whole,) = pipeline.numbered_batches(6, start=2).take(1)
    parts = [next(iter(pipeline.numbered_batches(6, start=2, share=(i, 3)))) for i in range(3)]
    joined = np.concatenate([part["generated"]["index"] for part in parts])
    np.testing.assert_array_equal(joined, whole["generated"]["index"])


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        None,
        "host:1",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    ],
)
def test_a_cluster_that_is_not_described_is_refused(monkeypatch, config):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(
        ValueError, match=r"strategy='multi_worker' with TF_CONFIG=.*: set it, before the start"
    ):
        distribute.make_strategy("multi_worker")


def test_a_tpu_that_is_not_there_is_refused(monkeypatch):
    def no_answer(*arguments):
        raise ValueError("nobody there")

    monkeypatch.setattr(tf.distribute.cluster_resolver.TPUClusterResolver, "connect", no_answer)
    with pytest.raises(
        ValueError, match=r"strategy='tpu', but no TPU answers \(nobody there\): start on a TPU"
    ):
        distribute.make_strategy("tpu")


class ReplicasOn:
    """As much of a strategy as the choice of XLA looks at."""

    def __init__(self, *devices):
        self.num_replicas_in_sync, self.extended = len(devices), self
        self.worker_devices = devices


@pytest.mark.parametrize(
    ("devices", "automatic"),
    [(("/gpu:0", "/gpu:1"), True), (("/cpu:0", "/cpu:1"), False), (("/gpu:0", "/cpu:0"), False)],
)
def test_xla_on_several_replicas_is_for_accelerators(monkeypatch, devices, automatic):
    strategy = ReplicasOn(*(device.upper() for device in devices))
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: strategy)
    assert distribute.use_xla("auto") is automatic
    assert distribute.use_xla(False) is False
    if automatic:
        assert distribute.use_xla(True) is True
        return
    with pytest.raises(
        ValueError, match="jit_compile=True on 2 replicas that are not all GPUs: XLA has no sums"
    ):
        distribute.use_xla(True)


def test_one_process_writes_and_the_others_read(tmp_path):
    method = test_training.build_baseline()
    reader, writer = RunFolder(tmp_path, writes=False), RunFolder(tmp_path)
    with reader.locked(), writer.locked():
        reader.claim({"steps": 1})
        reader.save_checkpoint(method)
        reader.write_history([{"step": 1}])
        reader.stage("finetune").save_network("student", tiny.network("student"))
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    writer.claim({"steps": 1})
    with pytest.raises(ValueError, match="holds another configuration"):
        reader.claim({"steps": 2})
