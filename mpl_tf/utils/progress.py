"""How far a long piece of work is and how long it still takes: a bar in a terminal, lines elsewhere, or nothing."""

import math
import sys
from typing import Any

import tqdm

_LINE = "{desc}: {n:,} of {total:,} images, {speed} per second, {elapsed} so far, {remaining} left{postfix}"


class Progress(tqdm.tqdm):
    """Counts what is done: `update(count)`, and shows it with the time that is left.

    Where lines are wanted there is one every few seconds, and one at the end.

    Args:
        total: how many images there are to do.
        title: what is done with them.
        verbose: 0 for silence, 1 for a bar, 2 for lines, `"auto"` for the bar in a terminal and lines elsewhere.
        every: seconds between two lines.
    """

    def __init__(self, total: int, title: str, *, verbose: int | str = "auto", every: float = 10.0):
        if verbose == "auto":
            verbose = 1 if sys.stdout.isatty() else 2
        self.as_lines = verbose == 2
        how: dict[str, Any] = (
            {"bar_format": _LINE, "mininterval": every, "delay": every} if self.as_lines else {}
        )
        super().__init__(
            total=total,
            desc=title,
            unit=" images",
            disable=not verbose or not total,
            file=sys.stdout,
            dynamic_ncols=not self.as_lines,
            **how,
        )

    @property
    def format_dict(self) -> dict:
        """What a line or the bar may show."""
        known = super().format_dict
        rate = known["rate"] or known["n"] / max(known["elapsed"], 1e-6)
        return {**known, "speed": f"{rate:,.1f}"}

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows the bar where it is, or prints a line below the last one."""
        if not self.as_lines:
            super().display(msg, pos)
        elif msg is None:
            print(self, file=self.fp, flush=True)

    def close(self) -> None:
        """Ends the bar, or prints the last line."""
        if self.as_lines and not self.disable:
            self.display()
            # As of one that was never shown, tqdm then leaves the cursor alone.
            self.delay = math.inf
        super().close()


def no_progress(count: int) -> None:
    """Takes the place of `Progress.update` where nothing is to be shown."""
