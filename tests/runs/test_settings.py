"""The settings of a stage and of what is shown of it."""

import pytest

from mpl_tf.runs.settings import Monitoring
from tests.support.runs import stage


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (stage, {"steps": 0}),
        (stage, {"batch_size": 0}),
        (stage, {"unlabeled_ratio": -1}),
        (stage, {"epoch_steps": 0}),
        (Monitoring, {"confirmation_images": -1}),
    ],
)
def test_settings_out_of_range_are_refused(make, change):
    (name, value) = next(iter(change.items()))
    with pytest.raises(ValueError, match=f"{name}={value} is out of range"):
        make(**change)
