"""Tables for the terminal and for Markdown."""

import numbers
from collections.abc import Mapping, Sequence


def table(rows: Sequence[Mapping]) -> str:
    """Writes rows as a Markdown table that is also aligned in a terminal.

    Args:
        rows: one dict per line. The columns are all their keys, in the order of their first appearance; a
            missing key or None leaves the cell empty. Columns in which every cell starts with a number are
            aligned on the right.

    Returns:
        The table without a final line break; an empty string where there are no rows.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = {key: [_cell(row.get(key)) for row in rows] for key in columns}
    right = {key: all(text[:1] in "+-.0123456789" for text in cells[key]) for key in columns}
    widths = {key: max(3, len(_cell(key)), *map(len, cells[key])) for key in columns}

    def line(texts):
        padded = [
            text.rjust(widths[key]) if right[key] else text.ljust(widths[key])
            for key, text in zip(columns, texts, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (widths[key] - 1) + (":" if right[key] else "-") for key in columns]
    lines = [
        line(map(_cell, columns)),
        line(rule),
        *(line(texts) for texts in zip(*cells.values(), strict=True)),
    ]
    return "\n".join(lines) if columns else ""


def _cell(value):
    if value is None:
        return ""
    text = (
        f"{value:.4g}"
        if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
        else str(value)
    )
    return " ".join(text.split()).replace("|", "\\|")
