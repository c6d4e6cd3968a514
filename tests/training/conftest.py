import pathlib

import pytest

from mpl_tf.report import plots


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are not drawn, for tests that compare what whole runs have computed; others look at the figures."""

    def save_png(figure, path):
        pathlib.Path(path).touch()
        return pathlib.Path(path)

    monkeypatch.setattr(plots, "save_png", save_png)
    for name in ("curves", "label_store"):
        monkeypatch.setattr(plots, name, lambda *arguments, **options: None)
