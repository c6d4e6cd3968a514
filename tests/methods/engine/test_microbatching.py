"""Passes that save memory, beside passes over the same rows that keep everything on one tape."""

import functools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from mpl_tf import models
from mpl_tf.methods.engine.microbatching import TrainingPass
from mpl_tf.methods.engine.rematerialization import Segments
from mpl_tf.methods.feedback import estimators
from mpl_tf.methods.supervised import Supervised
from tests.conformance.cases import CASES
from tests.support import tiny

DIFFERENT = {name: CASES[name] for name in ("supervised", "uda", "mpl per_example", "mpl dot_product")}
EVERY_KIND = pytest.mark.parametrize("case", DIFFERENT.values(), ids=DIFFERENT)
# Four labeled images and six unlabeled ones do not divide by three, nor do UDA's sixteen.
SAVINGS = {
    "micro-batches": {"micro_batches": 3},
    "rematerialized": {"rematerialize": True},
    "both": {"micro_batches": 3, "rematerialize": True},
}
EVERY_SAVING = pytest.mark.parametrize("saving", SAVINGS.values(), ids=SAVINGS)


class KeepingPass:
    """Every so many rows together, by calls of the network of which one tape keeps everything."""

    is_plain = True

    def __init__(self, network, count):
        self.network, self.count = network, count

    def logits(self, images, *, transposable=False):
        parts = [self.network(rows, training=True) for rows in self._parts(images)]
        return self._in_order(parts, images)

    def __call__(self, images, weights, state, *, statistics=True):
        parts = []
        for rows in self._parts(images):
            part, state = self.network.stateless_call(list(weights), state, rows, training=True)
            parts.append(part)
        return self._in_order(parts, images), state

    def derivative(self, images, weights, state, *, along, method):
        return tf.convert_to_tensor(method(lambda weights: self(images, weights, state)[0], weights, along))

    def _parts(self, images):
        count = min(self.count, len(images))
        return [images[first::count] for first in range(count)]

    def _in_order(self, parts, images):
        rows = [list(range(first, len(images), len(parts))) for first in range(len(parts))]
        return tf.dynamic_stitch(rows, parts)


def everything(method):
    """Weights, averages, statistics, optimizers; and the seeds apart, which have to be equal."""
    optimizers = [v for role in method.micro_batches for v in getattr(method, f"{role}_optimizer").variables]
    return tiny.values(method.weights + optimizers), tiny.values(method.random_states())


def assert_same(one, other, tolerance=1e-5):
    (values, seeds), (other_values, other_seeds) = everything(one), everything(other)
    assert all(map(np.array_equal, seeds, other_seeds))
    for value, expected in zip(values, other_values, strict=True):
        assert np.allclose(value, expected, rtol=tolerance, atol=tolerance)


def keeping(case, micro_batches=1):
    """The same method, all of whose passes keep their activations; eagerly, so that nothing is reordered."""
    method = case.compiled(run_eagerly=True)
    for role in method.micro_batches:
        if micro_batches > 1:
            setattr(method, f"{role}_pass", KeepingPass(getattr(method, role), micro_batches))
    return method


@functools.cache
def kept(name, micro_batches=1):
    """The same method after two steps."""
    method = keeping(CASES[name], micro_batches)
    method.fit(tiny.dataset(batches=2), verbose=0)
    return method


# --- the same weights --------------------------------------------------------------------------------------


@EVERY_SAVING
@pytest.mark.parametrize("name", DIFFERENT)
def test_saving_memory_changes_no_weight_no_statistic_and_no_seed(name, saving):
    method = CASES[name].compiled(run_eagerly=True, **saving)
    method.fit(tiny.dataset(batches=2), verbose=0)
    assert len(everything(method)[1]) >= 1
    assert_same(method, kept(name, saving.get("micro_batches", 1)))


def test_nor_does_it_in_a_graph():
    method = CASES["uda"].compiled(**SAVINGS["both"])
    method.fit(tiny.dataset(batches=2), verbose=0)
    assert_same(method, kept("uda", 3))


@EVERY_KIND
def test_without_batch_norm_and_dropout_the_number_of_micro_batches_is_all_one(case):
    one, three = (
        case.compiled(tiny.plain_network, run_eagerly=True, micro_batches=count) for count in (1, 3)
    )
    for each in (one, three):
        each.fit(tiny.dataset(batches=2), verbose=0)
    assert_same(one, three)


def test_roles_may_differ():
    case, counts = CASES["mpl per_example"], {"teacher": 2, "student": 5}
    method, expected = case.compiled(run_eagerly=True, micro_batches=counts), keeping(case)
    for role, count in counts.items():
        setattr(expected, f"{role}_pass", KeepingPass(getattr(expected, role), count))
    for each in (method, expected):
        each.fit(tiny.dataset(batches=1), verbose=0)
    assert_same(method, expected)


@pytest.mark.parametrize("count", [1, 3])
def test_derivatives_along_a_direction_by_both_modes(count):
    student, images = tiny.network("student"), tiny.batch()["unlabeled"]["strong"]
    weights = [tf.constant(v) for v in student.trainable_variables]
    state = [tf.constant(v) for v in student.non_trainable_variables]
    along = [tf.constant(np.random.normal(size=weight.shape), tf.float32) for weight in weights]
    expected = KeepingPass(student, count).derivative(
        images, weights, state, along=along, method=estimators.directional_derivative
    )
    training_pass = TrainingPass(student, micro_batches=count)
    for method in (estimators.directional_derivative, estimators.directional_derivative_by_reverse):
        derivative = tf.function(training_pass.derivative, autograph=False)
        value = derivative(images, weights, state, along=along, method=method)
        assert np.allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_that_starts_with_its_labeled_images_is_dealt_out_evenly():
    seen = []
    student = tiny.network("student")
    call = student.call
    student.call = lambda images, **options: (
        seen.append(np.array(images[:, 0, 0, 0])) or call(images, **options)
    )
    method = Supervised(student=student)
    method.compile("sgd", run_eagerly=True, micro_batches=3)
    rows = tf.range(8.0)[:, tf.newaxis, tf.newaxis, tf.newaxis] * tf.ones([8, *tiny.IMAGE_SHAPE])
    seen.clear()  # of the check that the outputs are logits
    method.training_logits("student", rows)
    assert [list(each) for each in seen] == [[0, 3, 6], [1, 4, 7], [2, 5]]


# --- segments ----------------------------------------------------------------------------------------------


def test_segments_of_a_wide_resnet_are_its_blocks():
    network = models.build("wrn-16-1", 3, (8, 8, 3), dropout=0.1, stochastic_depth=0.2)
    segments = Segments(network).segments
    ends = [segment.layers[-1].name for segment in segments]
    blocks = [f"group{group}_block{block}_add" for group in (1, 2, 3) for block in (0, 1)]
    assert ends == [*blocks, "logits"]


@pytest.mark.parametrize("name", ["wrn-10-1", "efficientnetv2-b0", "convnet"])
def test_segments_together_are_the_network(name):
    size = 32 if name == "efficientnetv2-b0" else 8
    network = models.build(name, 3, (size, size, 3), dropout=0.1)
    segments = Segments(network)
    assert len(segments.segments) > 2
    layers = [layer.name for segment in segments.segments for layer in segment.layers[1:]]
    assert sorted(layers) == sorted(layer.name for layer in network.layers[1:])


def test_a_network_whose_layers_are_used_elsewhere_is_refused():
    network, inputs = tiny.network("student"), keras.Input(tiny.IMAGE_SHAPE)
    x = inputs
    for layer in network.layers[1:]:
        x = layer(x)
    with pytest.raises(
        ValueError, match=r"rematerialize=True needs .*'again' has some that are used more often"
    ):
        Segments(keras.Model(inputs, x, name="again"))


# --- what is refused, and what is kept ---------------------------------------------------------------------


@pytest.mark.parametrize("saving", [{"micro_batches": {"student": 2}}, {"rematerialize": True}])
def test_the_unrolled_feedback_keeps_everything(saving):
    with pytest.raises(ValueError, match=r"'unrolled' differentiates .* twice .*: pass micro_batches=1 for"):
        CASES["mpl unrolled"].compiled(run_eagerly=True, **saving)


def test_the_unrolled_feedback_lets_its_teacher_save():
    method = CASES["mpl unrolled"].compiled(run_eagerly=True, micro_batches={"teacher": 2})
    method.fit(tiny.dataset(batches=1), verbose=0)
    assert int(method.step) == 1


def test_a_batch_of_unknown_size():
    method = CASES["supervised"].compiled(micro_batches=2)
    batches = tf.data.Dataset.from_tensor_slices(tiny.batch()["labeled"]).batch(2)
    with pytest.raises(ValueError, match=r"unknown number of images .*: batch the dataset with drop_remaind"):
        method.fit(batches.map(lambda labeled: {"labeled": labeled}), verbose=0)


def test_a_saved_method_goes_on_in_its_micro_batches(tmp_path):
    method = CASES["mpl none"].compiled(micro_batches={"teacher": 3}, rematerialize=True)
    layers = len(method.student.layers)
    method.save(tmp_path / "method.keras")
    loaded = keras.saving.load_model(tmp_path / "method.keras", safe_mode=True)
    assert loaded.micro_batches == {"teacher": 3, "student": 1}
    assert loaded.teacher_pass.segments
    assert loaded.student_pass.segments
    assert len(loaded.student.layers) == layers


@pytest.mark.slow
def test_memory_is_saved():
    root = pathlib.Path(__file__).parents[3]
    small = ["--model=wrn-16-2", "--labeled=8", "--ratio=7"]
    command = [sys.executable, "benchmarks/memory.py", *small]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root)}
    shown = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    ).stdout
    shares = [float(line[41:46]) for line in shown.splitlines()[3:]]
    print(shown)
    whole, halves, quarters, rematerialized, both = shares
    assert whole == 1.0
    assert halves < 0.8
    assert quarters < 0.65
    assert rematerialized < 0.65
    assert both < 0.5
