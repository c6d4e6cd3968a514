import io
import sys

import pytest

from recipes.common import terminal


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", "98.6 +- 0.6 - Apfel, a -> b..., \\u5b57"),
        ("latin-1", "98.6 ± 0.6 - Äpfel, a -> b..., \\u5b57"),
        ("utf-8", "98.6 ± 0.6 – Äpfel, a → b…, 字"),
    ],
)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_what_an_encoding_lacks_is_spelled_out(monkeypatch, name, encoding, expected):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, name, stream)
    terminal.spell_out_what_cannot_be_printed()
    print("98.6 ± 0.6 – Äpfel, a → b…, 字", end="", file=stream, flush=True)
    assert stream.buffer.getvalue().decode(encoding) == expected


def test_streams_without_an_encoding_are_left_alone(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.spell_out_what_cannot_be_printed()
    print("±", end="", file=stream)
    assert stream.getvalue() == "±"
