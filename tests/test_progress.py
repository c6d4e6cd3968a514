import keras
import pytest

from mpl_tf.progress import Progress


class Clock:
    """Shows the time that it is told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def work(progress, clock, *, parts, seconds, count=10):
    for _ in range(parts):
        clock.now += seconds
        progress.add(count)


def test_the_time_left_follows_from_the_rate_after_the_first_part(clock):
    progress = Progress(1000, "work", verbose=0, clock=clock)
    assert progress.seconds_left() == float("inf")
    # Ten pictures in a minute, in which everything was compiled: until there is more, nothing else is known.
    work(progress, clock, parts=1, seconds=60.0)
    assert progress.rate() == pytest.approx(10 / 60)
    assert progress.seconds_left() == pytest.approx(990 * 6)
    # From then on five per second.
    work(progress, clock, parts=4, seconds=2.0)
    assert progress.rate() == pytest.approx(5.0)
    assert progress.seconds_left() == pytest.approx(950 / 5)
    work(progress, clock, parts=95, seconds=1.0)
    assert progress.rate() == pytest.approx(990 / 103)
    assert progress.seconds_left() == 0.0


def test_lines_come_after_some_seconds_and_at_the_end(clock, capsys):
    with Progress(10_000, "corruptions", verbose=2, every=30.0, clock=clock) as progress:
        work(progress, clock, parts=1, seconds=20.0)
        assert capsys.readouterr().out == ""
        work(progress, clock, parts=1, seconds=9.9)
        assert capsys.readouterr().out == ""
        work(progress, clock, parts=1, seconds=0.1, count=1980)
        # 1,990 in 10 seconds after the first ten.
        assert capsys.readouterr().out == (
            "corruptions: 2,000 of 10,000 pictures, 199 per second, 40 s left\n"
        )
        work(progress, clock, parts=1, seconds=29.0, count=2000)
        work(progress, clock, parts=1, seconds=1.0, count=5990)
        assert capsys.readouterr().out == "corruptions: 9,990 of 10,000 pictures, 250 per second, 0 s left\n"
        work(progress, clock, parts=1, seconds=60.0)
    assert capsys.readouterr().out == "corruptions: 10,000 of 10,000 pictures, 100 per second, in 2:00 min\n"


@pytest.mark.parametrize(
    ("missing", "shown"), [(59, "59 s"), (150, "2:30 min"), (3600, "1:00 h"), (9000, "2:30 h")]
)
def test_times_are_told_in_the_unit_that_suits_them(clock, capsys, missing, shown):
    progress = Progress(20 + missing, "work", verbose=2, clock=clock)
    work(progress, clock, parts=2, seconds=10.0)
    progress.tell("half")
    assert capsys.readouterr().out.endswith(f"1 per second, {shown} left\n")


def test_a_line_before_the_first_picture_promises_nothing(clock, capsys):
    Progress(5, "work", verbose=2, clock=clock).tell("work")
    assert capsys.readouterr().out == "work: 0 of 5 pictures, 0 per second, unknown time left\n"


def test_nothing_is_told_in_silence_of_nothing_and_after_an_error(clock, capsys):
    with Progress(100, "work", verbose=0, clock=clock) as progress:
        work(progress, clock, parts=10, seconds=100.0)
    with Progress(0, "work", verbose=2, clock=clock):
        pass
    with pytest.raises(KeyError), Progress(10, "work", verbose=2, clock=clock):
        raise KeyError
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("terminal", "kind"), [(True, "bar"), (False, "lines")])
def test_a_bar_in_a_terminal_and_lines_elsewhere(clock, monkeypatch, capsys, terminal, kind):
    made = []

    class Bar:
        def __init__(self, target, unit_name):
            self.target, self.shown = target, 0
            made.append(self)

        def add(self, count):
            self.shown += count

    monkeypatch.setattr(keras.utils, "Progbar", Bar)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    with Progress(20, "work", clock=clock) as progress:
        work(progress, clock, parts=2, seconds=1.0)
    assert [(bar.target, bar.shown) for bar in made] == ([(20, 20)] if kind == "bar" else [])
    assert capsys.readouterr().out == (
        "work\n" if kind == "bar" else "work: 20 of 20 pictures, 10 per second, in 2 s\n"
    )
