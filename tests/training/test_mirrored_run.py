import json

import pytest
import tensorflow as tf

from mpl_tf.runs.folder import RunFolder
from tests.programs import forked
from tests.support.runs import run_data


@pytest.mark.slow
def test_a_run_on_two_replicas_ends_like_any_other(tmp_path):
    finished = forked.run("tests.programs.mirrored_run", tmp_path)
    assert finished.returncode == 0, finished.stderr[-3000:]
    metrics = json.loads(finished.stdout.splitlines()[-1])
    data, confusions = run_data(), RunFolder(tmp_path / "run").read_confusions()
    for domain, count in (("validation", len(data.split.validation)), ("test", len(data.source.test))):
        assert set(metrics[domain]) == {"supervised", "teacher", "student", "finetuned"}
        # Each image once, not once per replica.
        assert all(confusions[f"{domain}/{role}"].sum() == count for role in metrics[domain])
    assert (tmp_path / "run" / "report.html").stat().st_size > 0
    assert "could not be drawn" not in finished.stderr
    assert all(any((tmp_path / "run" / "tensorboard" / name).iterdir()) for name in ("train", "validation"))
    warm = metrics["warm"]
    assert warm["difference"] == 0.0
    assert warm["selected"] == pytest.approx(warm["best"], abs=1e-5) == warm["measured"]
    served = tf.saved_model.load(str(tmp_path / "exported" / "1"))
    assert "serving_default" in served.signatures
