"""A draft of a run: later stages are built of stand-ins, and nothing trains."""

import dataclasses

import pytest

from mpl_tf import data
from mpl_tf.methods.distillation import Distillation
from mpl_tf.runs.settings import StageSettings
from mpl_tf.training.rehearsal import Draft
from tests.support import runs

SETTINGS = StageSettings(steps=6, epoch_steps=3, batch_size=4)


def distilled(draft, **options):
    method = Distillation(teacher=draft.networks["teacher"], student=draft.stand_in())
    method.compile("sgd", **options)
    return method


def test_the_first_stage_is_not_built_and_the_others_are(tmp_path):
    draft = Draft(tmp_path, runs.run_data())
    draft.train("teacher", lambda: pytest.fail("built"), SETTINGS)
    draft.add_network("other", lambda: pytest.fail("loaded"))
    draft.train("method", lambda: distilled(draft), SETTINGS)
    draft.finetune(steps=2)
    assert list(draft.networks) == ["teacher", "other", "student", "finetuned"]
    shapes = {(network.input_shape[1:], network.output_shape[1:]) for network in draft.networks.values()}
    source = runs.run_data().source
    assert shapes == {(source.image_shape, (source.num_classes,))}
    assert not list(tmp_path.iterdir())


def test_steps_that_a_later_stage_cannot_make(tmp_path):
    draft = Draft(tmp_path, runs.run_data())
    draft.train("teacher", lambda: pytest.fail("built"), SETTINGS)
    with pytest.raises(ValueError, match="steps=6 is not a multiple of steps_per_execution=4"):
        draft.train("method", lambda: distilled(draft, steps_per_execution=4), SETTINGS)


def test_points_have_stand_ins_too(tmp_path):
    source = data.load("two_moons")
    split = data.draw_split(source, num_labeled=4, seed=0)
    draft = Draft(tmp_path, dataclasses.replace(runs.run_data(), source=source, split=split))
    assert draft.stand_in().input_shape == (None, 2)
