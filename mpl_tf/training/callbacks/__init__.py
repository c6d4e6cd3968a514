"""What watches a run while it trains: Keras callbacks."""

from mpl_tf.training.callbacks.generator_monitors import DrawGenerated, WarnOnCollapse
from mpl_tf.training.callbacks.monitors import (
    CollapseError,
    ConfirmationBias,
    EndEpoch,
    NonFiniteLossError,
    Record,
    StopOnNonFinite,
    WarnOnDisagreement,
    WarnOnEmptyMask,
)
from mpl_tf.training.callbacks.preemption import ContinueEpoch, PreemptedError, StopOnSignal
from mpl_tf.training.callbacks.tensorboard import WriteSummaries

__all__ = [
    "CollapseError",
    "ConfirmationBias",
    "ContinueEpoch",
    "DrawGenerated",
    "EndEpoch",
    "NonFiniteLossError",
    "PreemptedError",
    "Record",
    "StopOnNonFinite",
    "StopOnSignal",
    "WarnOnCollapse",
    "WarnOnDisagreement",
    "WarnOnEmptyMask",
    "WriteSummaries",
]
