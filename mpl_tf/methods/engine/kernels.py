"""While a training pass is made: the time in which layers compute in ways of their own, which change no result.

`pointwise` and `normalization` say which layers and which ways. Outside of it, in inference and in whatever is saved,
cloned or exported, a layer is as Keras has it.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class _Pass:
    statistics: bool
    transposable: bool


# Per thread: the replicas of a MirroredStrategy trace in threads of their own, on the same layers.
_PASS: contextvars.ContextVar[_Pass | None] = contextvars.ContextVar("the training pass", default=None)


@contextlib.contextmanager
def training_pass(*, statistics: bool = True, transposable: bool = False) -> Iterator[None]:
    """While a training pass is traced, or run eagerly.

    Args:
        statistics: whether anybody wants the moving statistics that the pass leaves behind.
        transposable: whether the pass's gradient will be differentiated with respect to the gradient that comes in at
            the logits, in which it is linear, and with respect to nothing else.
    """
    token = _PASS.set(_Pass(statistics, transposable))
    try:
        yield
    finally:
        _PASS.reset(token)


def in_training_pass() -> bool:
    """Whether one is being made."""
    return _PASS.get() is not None


def moves_statistics() -> bool:
    """Whether the one that is being made is to leave moving statistics behind."""
    made = _PASS.get()
    return made is not None and made.statistics


def is_transposable() -> bool:
    """Whether the gradient of the one that is being made will be transposed."""
    made = _PASS.get()
    return made is not None and made.transposable
