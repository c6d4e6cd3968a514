import types
import warnings

import pytest

from mpl_tf import callbacks
from mpl_tf.run_folder import RunFolder


def test_a_mask_that_stays_silent_warns_once_with_the_remedy():
    callback = callbacks.WarnOnSilentMask(patience=2)
    callback.on_epoch_end(0, {"mask_rate": 0.001})
    with pytest.warns(UserWarning, match=r"only 0\.4% of the unlabeled pictures .* lower the threshold"):
        callback.on_epoch_end(1, {"mask_rate": 0.004})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callback.on_epoch_end(2, {"mask_rate": 0.0})


def test_a_mask_that_speaks_now_and_then_does_not_warn():
    callback = callbacks.WarnOnSilentMask(patience=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rate in (0.0, 0.5, 0.0, 0.02, 0.0):
            callback.on_epoch_end(0, {"mask_rate": rate})
        callback.on_epoch_end(0, {"loss": 1.0})
    assert callback.silent == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_stop_at_the_next_look(tmp_path, value):
    callback = callbacks.StopOnNonFinite(RunFolder(tmp_path), every=5)
    callback.set_model(types.SimpleNamespace(step=12))
    callback.on_train_batch_end(3, {"loss": value})
    callback.on_train_batch_end(4, {"loss": 1.0, "val_loss": value})
    with pytest.raises(callbacks.NonFiniteLossError, match=r"at step 12, where loss became .*no checkpoint"):
        callback.on_train_batch_end(9, {"loss": value})
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_000000007.weights.h5").touch()
    with pytest.raises(callbacks.NonFiniteLossError, match=r"last good checkpoint is .*step_000000007"):
        callback.on_epoch_end(0, {"loss": value})
