import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpl_tf.report import plots
from mpl_tf.report.plots import style

HISTORY = [{"step": step, "loss": 2 / step, "val_accuracy": step / 9} for step in range(1, 6)]


def saved() -> bytes:
    stream = io.BytesIO()
    plots.curves(HISTORY, title="A title").savefig(stream, format="png")
    return stream.getvalue()


def test_a_figure_is_drawn_once_and_saved_as_matplotlib_itself_saves_it(monkeypatch):
    drawn, draw = [], Axes.draw
    monkeypatch.setattr(Axes, "draw", lambda axes, renderer: (drawn.append(axes), draw(axes, renderer)))
    once = saved()
    assert len(drawn) == len(set(drawn)) == 2
    monkeypatch.setattr(style._Figure, "draw", Figure.draw)
    assert once == saved()
    assert len(drawn) == 2 + 2 * 2
