"""How far a long piece of work is and how long it still takes: a bar in a terminal, lines elsewhere, or nothing."""

import sys
import time
from collections.abc import Callable

import keras


class Progress:
    """Counts what is done, and tells it with the time that is left.

    As a context manager it closes with a line of the whole. The rate leaves out the first part, in which functions
    are compiled and files are opened.

    Args:
        total: how many pictures there are to do.
        title: what is done with them.
        verbose: 0 for silence, 1 for a bar, 2 for lines, `"auto"` for the bar in a terminal and lines elsewhere, as
            in `keras.Model.fit`.
        every: seconds between two lines.
        clock: returns seconds.
    """

    def __init__(
        self,
        total: int,
        title: str,
        *,
        verbose: int | str = "auto",
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        if verbose == "auto":
            verbose = 1 if sys.stdout.isatty() else 2
        self.total, self.title, self.every, self.clock = total, title, every, clock
        self.done, self.lines = 0, verbose == 2
        self.started = self.told = clock()
        # Time and count at the end of the first part.
        self.first = None
        self.bar = None
        if verbose == 1:
            print(title, flush=True)
            self.bar = keras.utils.Progbar(total, unit_name="picture")

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        if error is None:
            self.tell(self.title)

    def add(self, count: int) -> None:
        """Counts some more pictures as done; a line tells of them when the last one is long ago."""
        self.done += count
        if self.first is None:
            self.first = self.clock(), self.done
        if self.bar is not None:
            self.bar.add(count)
        elif self.done < self.total and self.clock() - self.told >= self.every:
            self.tell(self.title)

    def tell(self, what: str) -> None:
        """Prints a line, where lines are wanted.

        Args:
            what: is being done, or has been done.
        """
        if not self.lines or not self.total:
            return
        self.told = self.clock()
        left = self.seconds_left()
        time_of = f"{_duration(left)} left" if left else f"in {_duration(self.told - self.started)}"
        count = f"{self.done:,} of {self.total:,} pictures"
        print(f"{what}: {count}, {self.rate():,.0f} per second, {time_of}", flush=True)

    def rate(self) -> float:
        """Pictures per second."""
        since, before = self.first or (self.started, 0)
        if before == self.done:
            since, before = self.started, 0
        return (self.done - before) / max(self.clock() - since, 1e-6)

    def seconds_left(self) -> float:
        """An estimate from the rate so far; infinite before the first picture."""
        missing = self.total - self.done
        return missing / self.rate() if self.done else float("inf" if missing else 0)


def silent(count: int) -> None:
    """Takes the place of `Progress.add` where nothing is to be told."""


def _duration(seconds):
    if seconds == float("inf"):
        return "unknown time"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes}:{seconds:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
