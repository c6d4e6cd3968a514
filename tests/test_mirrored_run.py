import json

import numpy as np
import pytest
import tensorflow as tf

from tests.programs import forked
from tests.test_training import run_data


@pytest.mark.slow
def test_a_run_on_two_replicas_ends_like_any_other(tmp_path):
    finished = forked.run("tests.mirrored_program", tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    metrics = json.loads(finished.stdout.splitlines()[-1])
    data = run_data()
    for domain, count in (("validation", len(data.split.validation)), ("test", len(data.source.test))):
        assert set(metrics[domain]) == {"supervised", "teacher", "student", "finetuned"}
        # Each picture once, not once per replica.
        assert all(np.sum(result["confusion"]) == count for result in metrics[domain].values())
    assert (tmp_path / "run" / "report.html").stat().st_size > 0
    assert "could not be drawn" not in finished.stderr
    assert all(any((tmp_path / "run" / "tensorboard" / name).iterdir()) for name in ("train", "validation"))
    served = tf.saved_model.load(str(tmp_path / "exported" / "1"))
    assert "serving_default" in served.signatures
