import numpy as np
import pytest

from mpl_tf.methods.mpl import MetaPseudoLabels
from mpl_tf.training import rehearsal
from mpl_tf.training.rehearsal import Rehearsal
from tests.support import runs


class Clock:
    """Shows a second for each step, and half a second for each evaluation, of the method that it is given."""

    def __init__(self):
        self.method, self.evaluations = None, 0

    def __call__(self):
        steps = 0 if self.method is None else int(np.asarray(self.method.step))
        return 1000.0 + steps + 0.5 * self.evaluations


def test_steps_and_evaluations_are_timed_and_stages_only_once(tmp_path, monkeypatch):
    clock = Clock()
    evaluate = MetaPseudoLabels.evaluate

    def counted(self, *arguments, **options):
        clock.evaluations += 1
        return evaluate(self, *arguments, **options)

    monkeypatch.setattr(MetaPseudoLabels, "evaluate", counted)

    def build():
        clock.method = runs.build("none")
        return clock.method

    data = runs.run_data()
    run = Rehearsal(tmp_path, data, monitoring=runs.QUIET, clock=clock, limit=2.0)
    run.train("method", build, runs.stage(steps=20, epoch_steps=8))
    times = run.times["method"]
    assert times.step == pytest.approx(1.0)
    # Of twenty images, by teacher and student.
    assert times.evaluation == pytest.approx(0.5 / 20)
    assert times.inference == pytest.approx(0.25 / 20)
    assert times.preparation == times.checkpoint == 0.0
    # Few enough: the limit is reached with the first that count.
    assert int(clock.method.step) == rehearsal._WARM_UP_CALLS + rehearsal._FEWEST_CALLS
    assert set(run.networks) == {"teacher", "student"}
    # 20 steps, 3 epochs with 20 validation and 71 unlabeled images without a label each.
    unlabeled = len(data.unlabeled_sample(1000))
    assert run.seconds_of("method") == pytest.approx(20 + 3 * (0.5 + unlabeled * 0.25 / 20))
    run.labels["method"] = 40
    assert run.seconds_of("method") == pytest.approx(20.5 + 3 * (0.5 + unlabeled * 0.25 / 20))
    # Validation and test images.
    assert run.seconds_of_evaluation() == pytest.approx((20 + 100) * 0.5 / 20)

    def must_not_be_called():
        raise AssertionError("a stage was timed twice")

    run.train("method", must_not_be_called, runs.stage(steps=5))
    assert run.settings["method"].steps == 5
    assert not any(tmp_path.iterdir())


def test_a_method_whose_labels_a_run_makes_before_its_steps_is_timed(tmp_path):
    run = Rehearsal(tmp_path, runs.run_data(), monitoring=runs.QUIET, limit=0.0)
    run.train("method", runs.build_pseudo_labels, runs.stage(steps=20, epoch_steps=8))
    assert run.times["method"].step > 0
