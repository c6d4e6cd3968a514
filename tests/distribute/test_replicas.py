"""Strategies: two processes that really train together, and errors about what is not there."""

import json
import re
import signal
import socket
import types

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf.data import pipeline
from mpl_tf.data.soft_labels.store import LabelStore
from mpl_tf.distribute import replicas, workers
from mpl_tf.runs.folder import RunFolder
from tests.programs import forked
from tests.support import runs, tiny
from tests.training.callbacks import test_tensorboard


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def start(program, *arguments, config=None):
    return forked.start(program, *arguments, environment={"TF_CONFIG": json.dumps(config)} if config else {})


def finish(processes):
    """Exit status, output and errors of each."""
    finished = [process.finish() for process in processes]
    return [(each.returncode, each.stdout, each.stderr) for each in finished]


def two_workers(program, *arguments, also=((), ())):
    addresses = free_addresses(2)
    configs = [{"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}} for i in range(2)]
    return finish(
        [
            start(program, *arguments, *others, config=config)
            for config, others in zip(configs, also, strict=True)
        ]
    )


def assert_lost(folder, moment, *, index=1):
    """Two workers go on until one kills itself; returns what the other has printed, which says so."""
    also = [[], []]
    also[index] = [moment]
    ends = two_workers("tests.programs.worker_run", folder, "multi_worker", also=also)
    (status, output, errors), (killed, *_) = ends[1 - index], ends[index]
    assert killed == -signal.SIGKILL, errors
    assert status == 1, errors
    assert "WorkerLostError: Another worker has ended or cannot be reached any more" in output
    return output


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Folders of the same runs, in one process and in two of which one was killed, and what these printed."""
    folder = tmp_path_factory.mktemp("workers")
    ((status, _, errors),) = finish([start("tests.programs.worker_run", folder / "one", "default")])
    assert status == 0, errors

    two = folder / "two"
    assert_lost(two, 6)
    checkpoints = RunFolder(two / "run").checkpoints()
    assert [path.name for path in checkpoints] == ["step_000000004.weights.h5"]

    finished = two_workers("tests.programs.worker_run", two, "multi_worker")
    assert [status for status, *_ in finished] == [0, 0], finished
    return folder / "one", two, [output for _, output, _ in finished]


def assert_same_networks(one, two, *, bound=1e-5):
    files = sorted(path.relative_to(one) for path in one.rglob("*.keras"))
    assert files
    for file in files:
        networks = [keras.saving.load_model(folder / file, safe_mode=True) for folder in (one, two)]
        for left, right in zip(*(network.get_weights() for network in networks), strict=True):
            np.testing.assert_allclose(left, right, atol=bound, err_msg=str(file))


def stored_labels(checkpoint):
    """The only array of a row per image and a column per class."""
    found = []
    with h5py.File(checkpoint) as file:
        file.visititems(
            lambda name, item: found.append(item) if getattr(item, "shape", None) == (100, 3) else None
        )
        (table,) = [item[()] for item in found]
    return table


def test_two_workers_of_which_one_is_killed_end_as_one_process_does(ends):
    one, two, _ = ends
    assert_same_networks(one / "run", two / "run")
    histories = [RunFolder(folder / "run").read_history() for folder in (one, two)]
    assert [row["step"] for row in histories[1]] == ["4", "8", "12", "14"]
    for left, right in zip(*histories, strict=True):
        assert set(left) == set(right)
        for name in set(left) - {"seconds", "cpu_seconds"}:
            assert float(left[name] or 0) == pytest.approx(float(right[name] or 0), abs=1e-4), name
    losses = [RunFolder(folder / "run").read_metrics()["test"]["student"]["nll"] for folder in (one, two)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert [path.name for path in (two / "exported").iterdir()] == ["1"]


def test_batch_norm_of_two_workers_sees_the_global_batch(ends):
    one, two, _ = ends
    # Moving statistics too.
    assert_same_networks(one / "normalized", two / "normalized")


def test_stored_labels_of_two_workers_are_put_together(ends):
    one, two, _ = ends
    assert_same_networks(one / "stored", two / "stored")
    # The table of labels is a weight of the method, and in its checkpoint.
    tables = [stored_labels(RunFolder(folder / "stored").checkpoints()[-1]) for folder in (one, two)]
    assert tables[0].any(axis=1).all()
    np.testing.assert_allclose(*tables, atol=1e-5)


def test_two_workers_label_their_own_part_of_the_images(ends):
    one, two, outputs = ends
    assert_same_networks(one / "noisy", two / "noisy")
    labels = [LabelStore.open(folder / "noisy" / "round_1" / "labels") for folder in (one, two)]
    np.testing.assert_allclose(*(store.probabilities() for store in labels), atol=1e-5)
    written = [re.findall("(.*) is written", output) for output in outputs]
    assert written == [["round_1/shard_0", "round_1/shard_2"], ["round_1/shard_1", "round_1/shard_3"]]
    facts = [RunFolder(folder / "noisy").read_metrics()["rounds"] for folder in (one, two)]
    assert facts[0] == facts[1]


@pytest.mark.slow
def test_the_first_worker_is_killed_and_then_the_second_while_it_labels(ends, tmp_path):
    assert_lost(tmp_path, 6, index=0)
    output = assert_lost(tmp_path, "round_1/shard_3")
    assert re.findall("(.*) is written", output) == ["round_1/shard_0", "round_1/shard_2"]
    finished = two_workers("tests.programs.worker_run", tmp_path, "multi_worker")
    assert [status for status, *_ in finished] == [0, 0], finished
    # What had been written when the second was killed is not made again.
    assert [re.findall("(.*) is written", output) for _, output, _ in finished] == [[], ["round_1/shard_3"]]
    assert_same_networks(ends[0] / "noisy", tmp_path / "noisy")


@pytest.mark.slow
def test_a_whole_recipe_in_two_workers_of_which_one_prints(tmp_path):
    (first, output, errors), (second, silence, _) = two_workers(
        "recipes.mpl", "--strategy=multi_worker", "--model=mlp", "--labels=20", "--batch_size=10", "--steps=4",
        "--epoch_steps=2", "--unlabeled_ratio=2", "--progress=line", "--noreport",
        f"--run_dir={tmp_path / 'run'}", f"--export_dir={tmp_path / 'exported'}",
    )  # fmt: skip
    assert (first, second) == (0, 0), errors
    for text in ("Epoch 2/2", "val_accuracy", "test accuracy %"):
        assert text in output
    assert re.search("exported (student|teacher): ", output)
    assert silence == ""
    run = RunFolder(tmp_path / "run")
    assert [row["step"] for row in run.read_history()] == ["2", "4"]
    assert [path.name for path in run.checkpoints()] == [
        "step_000000002.weights.h5",
        "step_000000004.weights.h5",
    ]
    assert {"teacher", "student"} == set(run.read_metrics()["test"])
    summaries = test_tensorboard.written(tmp_path / "run", "validation")
    assert [step for step, _ in summaries["confusion"]] == [2, 4]
    assert [path.name for path in (tmp_path / "exported").iterdir()] == ["1"]


# --- shares of a batch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3])
def test_the_shares_of_a_batch_are_the_batch(count):
    data = runs.run_data()
    options = {"batch_size": 6, "unlabeled_ratio": 2, "seed": 3, "start": 5}
    whole = list(data.batches(**options).take(3))
    shares = [list(data.batches(**options, shard=(index, count)).take(3)) for index in range(count)]
    for step, batch in enumerate(whole):
        parts = [shard[step] for shard in shares]
        joined = tf.nest.map_structure(lambda *rows: np.concatenate(rows), *parts)
        tf.nest.map_structure(np.testing.assert_array_equal, joined, batch)


def test_the_shares_of_numbers_are_the_numbers():
    (whole,) = pipeline.index_batches(6, start=2).take(1)
    parts = [next(iter(pipeline.index_batches(6, start=2, shard=(i, 3)))) for i in range(3)]
    joined = np.concatenate([part["generated"]["index"] for part in parts])
    np.testing.assert_array_equal(joined, whole["generated"]["index"])


# --- validation ----------------------------------------------------------------------------------------------


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
        replicas.make_strategy("multi_worker")


def test_a_tpu_that_is_not_there_is_refused(monkeypatch):
    def no_answer(*arguments):
        raise ValueError("nobody there")

    monkeypatch.setattr(tf.distribute.cluster_resolver.TPUClusterResolver, "connect", no_answer)
    with pytest.raises(
        ValueError, match=r"strategy='tpu', but no TPU answers \(nobody there\): start on a TPU"
    ):
        replicas.make_strategy("tpu")


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
    assert replicas.use_xla("auto") is automatic
    assert replicas.use_xla(False) is False
    if automatic:
        assert replicas.use_xla(True) is True
        return
    with pytest.raises(
        ValueError, match="jit_compile=True on 2 replicas that are not all GPUs: XLA has no sums"
    ):
        replicas.use_xla(True)


@pytest.mark.parametrize("replica", [0, 1])
def test_a_replica_whose_number_only_the_device_knows_gets_its_rows(monkeypatch, replica):
    rows = tf.reshape(tf.range(12), [6, 2])

    @tf.function(jit_compile=True)
    def cut(number):
        context = types.SimpleNamespace(replica_id_in_sync_group=number)
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: context)
        return replicas.local_batch_slice(rows)

    monkeypatch.setattr(replicas, "replica_count", lambda: 2)
    assert np.array_equal(cut(tf.constant(replica)), rows[3 * replica : 3 * replica + 3])


# --- what an error means -----------------------------------------------------------------------------------

PROGRAM = (
    'Detected at node "Conv2D" (most recent call last):\n  File "/home/preempted/heartbeat.py", line 1\n'
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tf.errors.UnavailableError, "Collective ops is aborted by: recvmsg"),
        (tf.errors.InternalError, "Collective ops is aborted by: RecvBuf: Connection reset by peer"),
        (tf.errors.AbortedError, "RecvBuf expects a different device incarnation: 3"),
        (
            tf.errors.DeadlineExceededError,
            "task 1 heartbeat timeout. This indicates that the remote task has failed",
        ),
        (
            tf.errors.FailedPreconditionError,
            f"{PROGRAM}Device current incarnation doesn't match with the group",
        ),
    ],
)
def test_a_lost_worker_is_named(monkeypatch, error, message):
    monkeypatch.setattr(workers, "worker_count", lambda strategy: 2)
    named = pytest.raises(workers.WorkerLostError, match=rf"Another worker has ended .*\({error.__name__}\)")
    with named, workers.lost_workers_named(None):
        raise error(None, None, message)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (tf.errors.InternalError, f"{PROGRAM}Failed to run the convolution: CUDNN_STATUS_EXECUTION_FAILED"),
        (tf.errors.InternalError, "cudaMallocAsync failed to allocate 4294967296 bytes: out of memory"),
        (tf.errors.InternalError, "Collective Op has group_size 8 but that group has size 4"),
        (tf.errors.FailedPreconditionError, "Could not find variable conv/kernel"),
        (tf.errors.CancelledError, "Iterator resource was destroyed"),
        (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[4096,4096]"),
    ],
)
def test_this_workers_own_failure_keeps_its_name(monkeypatch, error, message):
    monkeypatch.setattr(workers, "worker_count", lambda strategy: 2)
    with pytest.raises(error), workers.lost_workers_named(None):
        raise error(None, None, message)


# --- who writes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "task", "index"),
    [
        (("worker", "worker"), ("worker", 1), 1),
        (("chief", "worker", "worker"), ("chief", 0), 0),
        (("chief", "worker", "worker"), ("worker", 1), 2),
    ],
)
def test_workers_are_counted_from_the_chief(monkeypatch, jobs, task, index):
    cluster = tf.train.ClusterSpec({job: [f"{job}:{i}" for i in range(jobs.count(job))] for job in set(jobs)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster, task_type=task[0], task_id=task[1]
    )
    strategy = types.SimpleNamespace(cluster_resolver=resolver)
    monkeypatch.setattr(workers, "worker_count", lambda strategy: len(jobs))
    assert workers.worker_index(strategy) == index
    assert workers.is_chief(strategy) == (index == 0)


def test_one_process_writes_and_the_others_read(tmp_path):
    method = runs.build_baseline()
    reader, writer = RunFolder(tmp_path, writes=False), RunFolder(tmp_path)
    with reader.locked(), writer.locked():
        reader.verify_or_write_config({"steps": 1})
        reader.save_checkpoint(method)
        reader.write_history([{"step": 1}])
        reader.stage("finetune").save_network("student", tiny.network("student"))
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    writer.verify_or_write_config({"steps": 1, "seed": 0})
    writer.save_checkpoint(method)
    with pytest.raises(ValueError, match="holds another configuration"):
        reader.verify_or_write_config({"steps": 1, "seed": 1})
