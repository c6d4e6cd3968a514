"""Trains the named cases on two logical CPUs and on one, and prints how far apart they end, as JSON.

A program of its own, because logical devices can be set only before TensorFlow has started.
"""

import contextlib
import functools
import json
import sys

import keras
import numpy as np
import tensorflow as tf

from mpl_tf.distribute import replicas
from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.methods.supervised import Supervised
from tests.conformance.cases import CASES
from tests.support import graphs, tiny

# Two roles, of which one learns from a derivative along the other's gradient.
IN_FLOAT16 = ("mpl per_example",)
# What a graph adds to two replicas is seen in a method of each kind: one network, two, and a generator that makes the
# images. The others that are not slow step eagerly; that a graph of theirs is the same, `test_methods.py` shows.
AS_GRAPHS = ("supervised", "mpl per_example", "dafl")


def largest_difference(left, right) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True))


def evaluated(method) -> list:
    # An odd number: the replicas do not get equally many.
    images = tf.data.Dataset.from_tensors(tiny.examples(7))
    return list(method.evaluate(images, return_dict=True, verbose=0).values())


@functools.cache
def on_both(name, network, strategy, *, first=0, batches=3, run_eagerly=True) -> tuple:
    """The method, trained on one replica and on two, and its weights before."""
    case = CASES[name]
    one = case.compiled(network, run_eagerly=True)
    one.step.assign(first)
    start = tiny.values(one.trainable_variables)
    one.fit(case.data(batches=batches), verbose=0)
    with strategy.scope():
        two = case.compiled(network, run_eagerly=run_eagerly)
        two.inference_model.run_eagerly = run_eagerly
        two.step.assign(first)
        two.fit(case.data(batches=batches), verbose=0)
    return one, two, start


def compare(name, strategy) -> dict:
    """Largest differences between one replica and two, and between the two."""
    case = CASES[name]
    if name in AS_GRAPHS or case.on_several_replicas == "slow":
        one, two, start = on_both(name, tiny.plain_network, strategy, run_eagerly=False)
        synchronized = on_both(name, tiny.synchronized_network, strategy, batches=1)[:2]
    else:
        # From a step on in which every ramp is under way.
        one, two, start = on_both(name, tiny.synchronized_network, strategy, first=2, batches=2)
        synchronized = one, two
    with strategy.scope():
        logs_of_two = evaluated(two)
        normalized = case.compiled(tiny.network, run_eagerly=True)
        normalized.fit(case.data(batches=1), verbose=0)
    # An odd number: the replicas do not get equally many.
    images, _ = tiny.examples(7)
    shown = (
        replicas.predict(two.inference_model, images),
        np.asarray(two.inference_model(images, training=False)),
    )
    copies = [tiny.values(strategy.experimental_local_results(v.value)) for v in normalized.weights]
    return {
        "replicas": strategy.num_replicas_in_sync,
        "moved": largest_difference(start, tiny.values(one.trainable_variables)),
        "weights apart": largest_difference(tiny.values(one.weights), tiny.values(two.weights)),
        "logs apart": largest_difference(evaluated(one), logs_of_two),
        "synchronized apart": largest_difference(*(tiny.values(method.weights) for method in synchronized)),
        "rows predicted": len(shown[0]),
        "predictions apart": largest_difference(shown[:1], shown[1:]) if len(shown[0]) == 7 else None,
        "replicas apart": max(largest_difference(copy[:1], copy[1:]) for copy in copies),
    }


def with_a_replica_without_images(strategy) -> dict:
    """Largest differences between one replica and two whose last batch is one image."""
    images, labels = tiny.examples(5)
    logs, logits, shown = [], [], []
    for scope in (contextlib.nullcontext(), strategy.scope()):
        with scope:
            method = CASES["supervised"].compiled(tiny.network, run_eagerly=True)
            method.inference_model.run_eagerly = True
        logs.append(method.evaluate(images, labels, batch_size=4, verbose=0))
        logits.append(method.predict(images, batch_size=4, verbose=0))
        shown.append(replicas.predict(method.inference_model, images[:1]))
    return {
        "logs apart": largest_difference(*logs),
        "logits apart": largest_difference(logits[:1], logits[1:]),
        "predictions apart": largest_difference(shown[:1], shown[1:]),
        "rows": [len(each) for each in (*logits, *shown)],
    }


def made_elsewhere(strategy) -> dict:
    """What was made outside of the strategy's scope → what is said of it."""

    def within(make, *, scope):
        with strategy.scope() if scope else contextlib.nullcontext():
            return make()

    def refused(*, student=True, method=True, optimizer=True, compiling=True, fitting=False):
        student = within(lambda: tiny.plain_network("student"), scope=student)
        method = within(lambda: Supervised(student=student), scope=method)
        optimizer = within(lambda: keras.optimizers.SGD(0.1), scope=optimizer)
        try:
            within(lambda: method.compile(optimizer), scope=compiling)
            within(lambda: method.fit(tiny.dataset(batches=1), verbose=0), scope=fitting)
        except ValueError as error:
            return str(error)
        return "trained"

    return {
        "nothing": refused(),
        "the student": refused(student=False),
        "the method": refused(method=False),
        "the optimizer": refused(optimizer=False),
        "compile": refused(compiling=False),
        "all but fit": refused(student=False, method=False, optimizer=False, compiling=False, fitting=True),
    }


def several_steps_per_call(strategy) -> dict:
    """Two replicas that make two steps per call from Python, until the data end in the second call, against one."""
    name = "mpl per_example"
    _, one, _ = on_both(name, tiny.plain_network, strategy, run_eagerly=False)
    with strategy.scope():
        two = CASES[name].compiled(tiny.plain_network, steps_per_execution=2)
    two.fit(CASES[name].data(), verbose=0)
    return {
        "steps": int(two.step.numpy()),
        "weights apart": largest_difference(tiny.values(one.weights), tiny.values(two.weights)),
        "metrics": [sorted(method.history.history) for method in (one, two)],
    }


def xla_is_inside_of_the_replicas(strategy) -> str:
    """What a step that XLA cannot compile says where each replica's step is to be compiled."""

    def step(data):
        return {"length": tf.strings.length(tf.strings.as_string(tf.reduce_sum(data)))}

    data = tf.data.Dataset.from_tensors(tf.ones([2])).repeat()
    iterator = iter(strategy.experimental_distribute_dataset(data.batch(2)))
    replicas.train_function(step, strategy, steps=2, jit_compile=False)(iterator)
    try:
        replicas.train_function(step, strategy, steps=2, jit_compile=True)(iterator)
    except tf.errors.InvalidArgumentError as error:
        return str(error)
    return "compiled"


def scales(method, strategy) -> dict:
    """Role → its loss scale on each replica."""
    optimizers = {role: getattr(method, f"{role}_optimizer", None) for role in method.roles}
    return {
        role: [float(scale) for scale in strategy.experimental_local_results(optimizer.dynamic_scale.value)]
        for role, optimizer in optimizers.items()
        if optimizer
    }


def compare_in_float16(name, strategy) -> dict:
    """Largest difference between one replica and two, beside the longest way, and the loss scales of both."""
    one, two, start = on_both(name, tiny.plain_network, strategy, batches=5, run_eagerly=False)
    return {
        "moved": largest_difference(start, tiny.values(one.trainable_variables)),
        "apart": largest_difference(tiny.values(one.weights), tiny.values(two.weights)),
        "scales": scales(two, strategy),
        "scales of one": scales(one, strategy),
    }


def with_an_overflowing_teacher():
    """Meta Pseudo Labels whose teacher is sure of class 0, with a scale that no gradient of an error survives."""
    networks = {"teacher": tiny.plain_network("teacher"), "student": tiny.plain_network("student", seed=1)}
    networks["teacher"].weights[-1].assign([20.0, 0.0, 0.0])
    method = MetaPseudoLabels(**networks)
    teacher_optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**20)
    method.compile(teacher_optimizer, keras.optimizers.SGD(0.1))
    return method


def overflow_on_the_second(strategy) -> dict:
    """One step in which the first replica's labels are what the teacher says and the second's are not."""
    batch = tiny.batch()
    batch["labeled"]["label"] = np.array([0, 0, 1, 1], np.int32)
    alone = []
    for replica in (0, 1):
        half = tf.nest.map_structure(lambda rows, replica=replica: np.split(rows, 2)[replica], batch)
        logs = with_an_overflowing_teacher().train_step(tiny.tensors(half))
        alone.append(float(logs["teacher_skipped_steps"]))
    with strategy.scope():
        method = with_an_overflowing_teacher()
        start = {role: tiny.values(getattr(method, role).weights) for role in method.roles}
        logs = method.fit(tf.data.Dataset.from_tensors(batch), verbose=0).history
    moved = {}
    for role in method.roles:
        weights = getattr(method, role).weights
        copies = zip(*(strategy.experimental_local_results(w.value) for w in weights), strict=True)
        moved[role] = [largest_difference(start[role], tiny.values(copy)) for copy in copies]
    return {
        "skipped alone": alone,
        "skipped": logs["teacher_skipped_steps"] + logs["student_skipped_steps"],
        "moved": moved,
        "scales": scales(method, strategy),
    }


def main(names: list[str]):
    # Rewritten for speed, as users' graphs are: the process that this one was forked from leaves graphs as they are.
    graphs.set_rewriting(True)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # One strategy for all: a second one in the same process mixes up its collective operations.
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    measured = {name: compare(name, strategy) for name in names}
    measured["several steps per call"] = several_steps_per_call(strategy)
    measured["a replica without images"] = with_a_replica_without_images(strategy)
    measured["made elsewhere"] = made_elsewhere(strategy)
    measured["xla"] = xla_is_inside_of_the_replicas(strategy)
    keras.config.set_dtype_policy("mixed_float16")
    measured["float16"] = {name: compare_in_float16(name, strategy) for name in IN_FLOAT16}
    measured["overflow"] = overflow_on_the_second(strategy)
    print(json.dumps(measured))


if __name__ == "__main__":
    keras.utils.disable_interactive_logging()
    main(sys.argv[1:])
