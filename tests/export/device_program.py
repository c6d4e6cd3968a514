"""The program for devices in docs/serving.md, as a test runs it."""

import pathlib
import re
import sys
import types

from mpl_tf.data.images import upright
from mpl_tf.export.interpreter import interpreter_class

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"


def compiled():
    """The one program of the page that imports LiteRT's interpreter."""
    (program,) = (
        code
        for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "ai_edge_litert" in code
    )
    return compile(program, str(PAGE), "exec")


def give_it_what_it_imports(monkeypatch):
    """An interpreter in the place of `ai_edge_litert`'s, and the module that lies beside it on a device."""
    real = interpreter_class(builtin=True)
    module = types.ModuleType("interpreter")
    module.Interpreter = lambda path: real(model_path=path)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", module)
    monkeypatch.syspath_prepend(pathlib.Path(upright.__file__).parent)
