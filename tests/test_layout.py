"""The layout: which package may import which, read from the source."""

import ast
import functools
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Each package of mpl_tf may import those in the lines above its own, and only those.
LEVELS = (
    ("utils", "version"),
    ("data", "losses", "models", "schedules"),
    ("distribute",),
    ("methods", "runs"),
    ("evaluation", "export"),
    ("inference", "report"),
    ("training",),
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
# What these may import at most, where the line above would allow more.
NARROWER = {
    "data": {"utils"},
    "distribute": {"models", "utils"},
    "models": {"utils"},
    "evaluation": {"data", "distribute", "losses", "models", "utils"},
    "export": {"data", "models", "runs", "utils"},
    "inference": {"data", "distribute", "export", "models", "utils"},
    "report": {"data", "distribute", "evaluation", "runs", "utils"},
}


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_files(*packages: str) -> dict[str, pathlib.Path]:
    return {module_name(path): path for package in packages for path in (ROOT / package).rglob("*.py")}


@functools.cache
def syntax_tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imported_names(path: pathlib.Path, *, executed: bool = False) -> set[str]:
    """Dotted names of everything that a file imports, inside of functions too.

    Args:
        path: of the file.
        executed: leave out what is imported for annotations alone.
    """
    names, nodes = set(), [syntax_tree(path)]
    while nodes:
        node = nodes.pop()
        if executed and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: write the import from its root"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        nodes += ast.iter_child_nodes(node)
    return names


@functools.cache
def imports(*, executed: bool = False) -> dict[str, set[str]]:
    """Module of mpl_tf or of the recipes → the modules of both that it imports."""
    files = module_files("mpl_tf", "recipes")
    graph = {}
    for module, path in files.items():
        names = imported_names(path, executed=executed)
        # The last part of `from module import name` may be a module or a name in one.
        targets = {name if name in files else name.rpartition(".")[0] for name in names}
        graph[module] = targets & files.keys() - {module}
    return graph


def package(module: str) -> str:
    """The part of mpl_tf that a module belongs to; mpl_tf itself offers them all."""
    return module.split(".")[1] if "." in module else ""


def test_every_package_has_its_level():
    assert {package(module) for module in module_files("mpl_tf")} == {*LEVEL, ""}


@pytest.mark.parametrize("name", LEVEL)
def test_a_package_imports_only_what_lies_below_it(name):
    allowed = NARROWER.get(name, {other for other, level in LEVEL.items() if level < LEVEL[name]})
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        if module.startswith("mpl_tf") and package(module) == name
        for target in sorted(targets)
        if package(target) not in {name, *allowed} or target.startswith("recipes")
    ]
    assert not wrong, f"{name} may import {', '.join(sorted(allowed)) or 'nothing of ours'}"


def test_no_module_imports_itself_over_others():
    try:
        graphlib.TopologicalSorter(imports(executed=True)).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_no_method_imports_another():
    methods = {
        module
        for module, path in module_files("mpl_tf/methods").items()
        for node in syntax_tree(path).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Method") for base in node.bases)
    }
    assert len(methods) >= 8
    graph = imports()
    assert [(module, graph[module] & methods) for module in methods if graph[module] & methods] == []


def test_the_library_knows_neither_command_lines_nor_tests():
    for module, path in module_files("mpl_tf").items():
        roots = {name.split(".")[0] for name in imported_names(path)}
        assert not roots & {"absl", "argparse", "recipes", "tests", "benchmarks"}, module


def unannotated(body, prefix=""):
    """Public functions and methods of a module that do not say all of their types, and what is missing."""
    for node in body:
        special = node.name.startswith("__") if hasattr(node, "name") else False
        if getattr(node, "name", "_").startswith("_") and not special:
            continue
        if isinstance(node, ast.ClassDef):
            yield from unannotated(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            given = node.args
            arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            arguments = [argument for argument in arguments if argument is not None]
            if prefix:
                arguments = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            missing = [argument.arg for argument in arguments if argument.annotation is None]
            if node.returns is None and not special:
                missing.append("the result")
            if missing:
                yield f"{prefix}{node.name}: {', '.join(missing)}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(x: int) -> int: ...", []),
        ("def f(x) -> int: ...", ["f: x"]),
        ("def f(*args, key: int, **others): ...", ["f: args, others, the result"]),
        ("class A:\n    def __init__(self, x, y: int = 0): ...", ["A.__init__: x"]),
        ("class A:\n    @classmethod\n    def make(cls) -> int: ...", []),
        ("class _A:\n    def f(self, x): ...\ndef _g(x): ...", []),
    ],
)
def test_missing_annotations_are_found(code, expected):
    assert list(unannotated(ast.parse(code).body)) == expected


def test_everything_public_says_its_types():
    wrong = {
        module: missing
        for module, path in module_files("mpl_tf").items()
        if (missing := list(unannotated(ast.parse(path.read_text(encoding="utf-8")).body)))
    }
    assert not wrong
