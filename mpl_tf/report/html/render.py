"""Templates and their environment: every value is escaped, and a page is one file."""

import itertools
import os
import pathlib
import re
from typing import Any

import jinja2
from markupsafe import Markup, escape

from mpl_tf.data.images.image_files import shown
from mpl_tf.report.html.images import inline_image, inline_png
from mpl_tf.report.html.svg import inline_svg
from mpl_tf.utils import files

PAGE = "report.html"


def write_page(folder: str | os.PathLike, template: str, **context: Any) -> pathlib.Path:
    """Renders `<folder>/report.html`; an older page is replaced in one step.

    Args:
        folder: where the page goes.
        template: name of the file in `templates/`.
        **context: what the template shows; sections without blocks are left out.

    Returns:
        The path of the page.
    """
    context["sections"] = [section for section in context["sections"] if section.blocks]
    environment = _environment()
    text = environment.get_template(template).render(**context)
    path = pathlib.Path(folder) / PAGE
    with files.replacing(path) as temporary:
        # The command, or an image's name, may have bytes that are no text.
        temporary.write_text(shown(text), "utf-8")
    return path


def _environment():
    """One for each page, since its drawings are numbered."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mpl_tf.report.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = itertools.count(1)
    environment.filters["svg"] = lambda figure: inline_svg(figure, f"drawing-{next(numbers)}")
    environment.filters["inline_image"] = inline_image
    environment.filters["inline_png"] = inline_png
    environment.filters["prose"] = _prose
    environment.filters["anchor"] = lambda title: re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return environment


def _prose(text):
    """Plain text in which no line begins with the % of a number."""
    return Markup(str(escape(text)).replace(" %", "&nbsp;%"))
