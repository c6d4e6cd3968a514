import io
import re

import pytest

from mpl_tf.utils.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Shows tqdm the time that it is set to."""

    class Clock:
        now = 1000.0

        def __call__(self):
            return self.now

    monkeypatch.setattr("tqdm.std.time", clock := Clock())
    return clock


def work(progress, clock, *, parts, seconds, count=10):
    for _ in range(parts):
        clock.now += seconds
        progress.update(count)


def test_lines_come_after_some_seconds_and_at_the_end(clock, capsys):
    with Progress(10_000, "corruptions", verbose=2, every=30.0) as progress:
        work(progress, clock, parts=1, seconds=29.0, count=500)
        assert capsys.readouterr().out == ""
        work(progress, clock, parts=1, seconds=1.0, count=1500)
        line = capsys.readouterr().out
        assert re.fullmatch(
            r"corruptions: 2,000 of 10,000 images, [\d.]+ per second, 00:30 so far, \d\d:\d\d left\n", line
        )
        # An image costs the same as before: 2,000 in 30 seconds, and 8,000 are left.
        assert line.split(", ")[-1] in ("01:59 left\n", "02:00 left\n")
        work(progress, clock, parts=1, seconds=29.0, count=2000)
        assert capsys.readouterr().out == ""
        work(progress, clock, parts=1, seconds=1.0, count=6000)
        assert capsys.readouterr().out.startswith("corruptions: 10,000 of 10,000 images, ")
    assert capsys.readouterr().out.endswith(", 01:00 so far, 00:00 left\n")


def test_a_remark_stands_at_the_end_of_the_line(clock, capsys):
    with Progress(20, "labels", verbose=2) as progress:
        progress.set_postfix_str("shard 2 of 5", refresh=False)
        work(progress, clock, parts=2, seconds=1.0)
    assert capsys.readouterr().out.endswith(", 00:02 so far, 00:00 left, shard 2 of 5\n")


def test_nothing_is_shown_in_silence_and_of_nothing(clock, capsys):
    with Progress(100, "work", verbose=0) as progress:
        work(progress, clock, parts=10, seconds=100.0)
    for verbose in (1, 2):
        with Progress(0, "work", verbose=verbose):
            pass
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""


def test_lines_elsewhere(clock, capsys):
    with Progress(20, "work") as progress:
        work(progress, clock, parts=2, seconds=1.0)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["work: 20 of 20 images, 10.0 per second, 00:02 so far, 00:00 left"]
    assert shown.err == ""


def test_a_bar_in_a_terminal(clock, monkeypatch):
    # Not in a fixture, after which pytest would put its own stream there.
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    with Progress(20, "work") as progress:
        work(progress, clock, parts=2, seconds=1.0)
    shown = terminal.getvalue()
    # It is drawn over itself, and left at the end.
    assert shown.startswith("\rwork:   0%|")
    assert "50%|" in shown
    assert "| 20/20 [00:02<00:00" in shown
    assert shown.count("\n") == 1
