"""What is measured of the labels that a run gives its unlabeled images."""

import dataclasses

import numpy as np
import pytest

from mpl_tf.runs.folder import RunFolder
from mpl_tf.training import loop
from mpl_tf.training.callbacks import monitors
from tests.support.runs import QUIET, build, build_pseudo_labels, run_data, stage


@pytest.mark.parametrize("build", [build, build_pseudo_labels], ids=["mpl", "stored pseudo labels"])
def test_measuring_the_confirmation_bias_does_not_change_the_run(tmp_path, build):
    methods, rows = [], []
    for count in (0, 30):
        method, folder = build(), RunFolder(tmp_path / str(count))
        monitoring = dataclasses.replace(QUIET, confirmation_images=count)
        loop.fit(method, run_data(), stage(steps=4, epoch_steps=2), folder, monitoring)
        methods.append(method)
        rows.append(folder.read_history()[-1])
    for one, other in zip(methods[0].variables, methods[1].variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert {*rows[1]} - {*rows[0]} >= {"confident_fraction"}


def test_the_stored_labels_that_are_measured_are_the_refreshed_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(monitors.ConfirmationBias.__init__, "__defaults__", (0.0, None))
    method, data_of_run = build_pseudo_labels(), run_data()
    folder = RunFolder(tmp_path)
    monitoring = dataclasses.replace(QUIET, confirmation_images=20)
    loop.fit(method, data_of_run, stage(steps=4), folder, monitoring)
    (row,) = folder.read_history()
    measured = data_of_run.unlabeled_sample(20)
    labels = data_of_run.source.train.labels[measured]
    wrong = method.stored_labels.numpy()[measured].argmax(axis=-1) != labels
    assert float(row["confident_fraction"]) == 1.0
    assert float(row["confirmation_bias"]) == pytest.approx(wrong.mean())


def test_confirmation_bias_is_measured_where_the_class_is_known_and_not_among_the_labels():
    known = run_data()
    known.source.train.labels[known.split.unlabeled[::2]] = -1
    expected = [place for place in known.split.unlabeled[1::2] if place not in known.split.labeled]
    assert list(known.unlabeled_sample(1000)) == expected
    assert len(set(known.unlabeled_sample(7)) & set(expected)) == 7
    known.source.train.labels[known.split.unlabeled] = -1
    # Where no class is known, the predicted ones are still counted.
    assert set(known.unlabeled_sample(1000)) == {*known.split.unlabeled} - {*known.split.labeled}
