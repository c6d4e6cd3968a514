"""What is printed where standard output lacks some characters, a terminal in ASCII or Latin-1, say."""

import codecs
import sys
import unicodedata

_SPELLED = {
    "±": "+-", "–": "-", "—": "-", "…": "...", "·": "-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "∞": "inf",
    "ε": "epsilon", "μ": "mu", "’": "'", "“": '"', "”": '"', "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip
_ERRORS = "mpl_tf.spell_out"


def spell_out_what_cannot_be_printed() -> None:
    """Lets standard output and standard error write `+-` for `±` and so on where their encoding lacks the character.

    A run of many hours must not end with an error over the last line that it prints.
    """
    codecs.register_error(_ERRORS, _spell_out)
    for stream in (sys.stdout, sys.stderr):
        # What takes their place in a notebook has no encoding, and no such method.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


def _spell_out(error):
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(map(_spelled, text)), error.end


def _spelled(character):
    if character in _SPELLED:
        return _SPELLED[character]
    # An accented letter without its accent, else its number.
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return plain or character.encode("ascii", "backslashreplace").decode()
