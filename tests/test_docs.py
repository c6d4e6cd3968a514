"""What the pages name of the package exists: their imports, and the names that they spell out."""

import importlib.util
import pathlib
import re
import runpy

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = [str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.md"))]
PACKAGES = "data|distribute|evaluation|export|inference|losses|models|report|schedules|training"
# What runs on a device and need not be installed here, and the file that goes there with the model.
OPTIONAL = ("ai_edge_litert", "upright")
FILES = "csv|jsonl?|keras|md|npz|png|py|txt"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)


def exists(name):
    """Whether a dotted name is a module of the package, or found by attributes from one."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join(parts[:number]))
            except ModuleNotFoundError:
                return False
        found = getattr(found, part)
    return True


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_the_imports_of_python_blocks_work(page):
    for block in blocks(page):
        for statement in re.findall(r"^(?:from \S+ )?import (?:\([^)]*\)|.+)$", block, re.MULTILINE):
            package = statement.split()[1].split(".")[0]
            if package not in OPTIONAL or importlib.util.find_spec(package):
                imported = {}
                exec(statement, imported)
                assert imported.keys() > {"__builtins__"}, statement


@pytest.mark.parametrize("page", PAGES)
def test_the_names_that_a_page_spells_out_exist(page):
    text = (DOCS / page).read_text("utf-8")
    names = set(re.findall(r"\bmpl_tf(?:\.[A-Za-z_]\w*)+", text))
    # With the name of a package in front, between backticks and in blocks of Python.
    short = rf"(?<![\w./\"])(?:{PACKAGES})(?:\.[A-Za-z_]\w*)+(?![\w/.\"])"
    for code in [*re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text), *blocks(page)]:
        names |= {f"mpl_tf.{name}" for name in re.findall(short, code)}
    unknown = [name for name in sorted(names) if not re.search(rf"\.({FILES})$", name) and not exists(name)]
    assert not unknown


def test_the_page_of_all_flags_has_those_of_a_recipe():
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    section = runpy.run_path(str(DOCS / "hooks.py"))["_recipe"]("finetune")
    rows = dict(re.findall(r"^\| `--(\w+)` \| (.*?) \|", section, re.MULTILINE))
    # Its own, the shared ones, and none of absl's.
    assert {"network", "frozen_fraction", "labeled_dir", "steps", "run_dir", "minutes"} <= set(rows)
    assert len(rows) == section.count("| `--")
    assert rows["batch_size"] == "`64`"
    assert "as &lt;export_dir>/&lt;version>/" in section
    assert not {"logtostderr", "help", "verbosity"} & set(rows)
