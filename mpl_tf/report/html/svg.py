"""Figures inside a page: SVG in the page's own colors, legible under its light and its dark theme."""

import io
import re
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from mpl_tf.report.plots import style
from mpl_tf.report.plots.accuracy import HALO

# What figures are drawn with → what the page shows it in.
_INKS = {
    style.INK: "currentColor",
    style.NEUTRAL: "var(--soft)",
    style.FAINT: "var(--faint)",
    style.RULE: "var(--rule)",
    style.PANEL: "var(--panel)",
    style.PAPER: "var(--paper)",
    **{color: f"var(--color-{index})" for index, color in enumerate(style.CLASS_COLORS)},
}


def inline_svg(figure: Figure, name: str) -> Markup:
    """A figure as an `<svg>` element, whose label becomes its description.

    Args:
        figure: that one of the functions of `report.plots` has returned.
        name: that no other figure of the page has; the names inside the drawing begin with it.
    """
    settings: dict[Any, Any] = {**style.STYLE, "svg.fonttype": "none", "svg.hashsalt": "mpl_tf"}
    stream = io.StringIO()
    with matplotlib.rc_context(settings):
        # 72 units an inch, as the text of the figure counts them.
        figure.savefig(stream, format="svg", transparent=True, dpi=72, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # The style sheet among these would hold for the whole page, which has it for its drawings alone.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    box = text.split('viewBox="', 1)[1].split('"', 1)[0]
    content = text[text.index(">") + 1 :]
    for color, ink in _INKS.items():
        content = re.sub(rf"(?<=[\s:\"]){color}(?=[;\"])", ink, content)
    content = re.sub(rf'id="{HALO}[^"]*"', f'class="{HALO}"', content)
    content = content.replace("xlink:href", "href")
    # Most names inside the drawing are referred to by nothing; the others must differ from other drawings'.
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', content))
    content = re.sub(
        r' id="([^"]*)"',
        lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "",
        content,
    )
    content = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", content)
    content = re.sub(r"\n\s*", "\n", content).strip()
    width = f"--width: {float(box.split()[2]):.0f}"
    start = f'<svg viewBox="{box}" style="{width}" role="img" aria-label="{escape(figure.get_label())}">'
    return Markup(start + content)
