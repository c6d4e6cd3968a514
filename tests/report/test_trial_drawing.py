"""A page is drawn before the first step, so that one that cannot be drawn is known of then."""

import jinja2
import pytest
from matplotlib.backends import backend_agg

from mpl_tf import report


def no_templates(monkeypatch):
    def fail(*_):
        raise ValueError("The 'mpl_tf.report.html' package was not installed in a way that is understood")

    monkeypatch.setattr(jinja2, "PackageLoader", fail)


def a_template_lacks_a_value(monkeypatch):
    monkeypatch.setattr(
        "mpl_tf.report.html.run_page._footer", lambda run: run.metrics["nothing of this name"]
    )


def no_png(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("libpng error")

    monkeypatch.setattr(backend_agg.FigureCanvasAgg, "print_png", fail)


def no_font(monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError("DejaVuSans.ttf")

    monkeypatch.setattr("matplotlib.font_manager.FontManager.findfont", fail)
    monkeypatch.setattr("matplotlib.font_manager.FontManager._find_fonts_by_props", fail)


@pytest.mark.parametrize("broken", [no_templates, a_template_lacks_a_value, no_png, no_font])
def test_what_would_fail_at_the_end_fails_at_the_start(broken, monkeypatch):
    broken(monkeypatch)
    with pytest.raises(ValueError, match=r"could not be drawn .*: install .*, or pass --noreport"):
        report.check_can_draw(("cat", "dog"))


@pytest.mark.parametrize(
    "names",
    [
        ("cat", "dog"),
        ("$x$", r"\\frac{1}{2}", "<b>", "a & b", "{{ x }}", "{% raw %}"),
        ("日本", "猫", "\N{CAT FACE}", "عربى"),
        ("x" * 300, "y"),
        tuple(map(str, range(1000))),
    ],
    ids=["plain", "markup", "scripts", "long", "many"],
)
def test_any_class_names_can_be_drawn(names, warned):
    report.check_can_draw(names)
    assert warned() == []
