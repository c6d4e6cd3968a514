"""Pages that MkDocs generates from the code, and links that lead out of the documentation."""

import ast
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
# Links to what the site does not hold: the code beside it, and the README.
OUTWARD = re.compile(
    r"\[([^\]]+)\]\((?:\.\./)+(?:mpl_tf|recipes|tests|benchmarks|notebooks|README|CONTRIBUTING)[^)]*\)"
)


def on_files(files: Files, config) -> Files:
    """Adds the pages `recipes.md` and `api.md`."""
    for path, content in (("recipes.md", recipes_page()), ("api.md", api_page())):
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Leaves the text of links to files that are not part of the site."""
    return OUTWARD.sub(r"\1", markdown)


def recipes_page() -> str:
    """Every program with what its docstring says and a table of its flags."""
    names = sorted(path.stem for path in (ROOT / "recipes").glob("*.py") if path.stem != "__init__")
    with ThreadPoolExecutor(max_workers=2) as pool:
        sections = list(pool.map(_recipe, names))
    head = (
        "# All flags\n\nEvery recipe is a program: `python -m recipes.<name> --flag=value`. Flags may also stand in "
        "a file (`--flagfile=my.flags`), and `--preset=name` reads one that comes with the recipes."
    )
    return "\n\n".join([head, *sections])


def _recipe(name: str) -> str:
    command = [sys.executable, "-m", f"recipes.{name}", "--helpxml"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    tree = ElementTree.fromstring(shown[shown.index("<?xml") :])
    # absl names a module, or the path of the program.
    flags = [flag for flag in tree.iter("flag") if "recipes" in re.split(r"[./]", flag.findtext("file", ""))]
    text = _with_commands(tree.findtext("usage", "").strip())
    table = "| flag | default | what |\n|---|---|---|\n" + "\n".join(map(_row, flags))
    return "\n\n".join([f"## {name}", text, table])


def _with_commands(docstring: str) -> str:
    """A program's docstring as Markdown: its commands are code, whether they are indented or not."""
    lines = docstring.splitlines()
    indented = [f"    {line}" if line.startswith("python -m") else line for line in lines]
    return re.sub(r"(?m)^(?!    )(.+)\n(?=    )", r"\1\n\n", "\n".join(indented))


def _row(flag: ElementTree.Element) -> str:
    what = re.sub(r"^<[^>]*>: ", "", " ".join(flag.findtext("meaning", "").split()))
    what = what.removesuffix("; repeat this option to specify a list of values")
    choices = [choice.text or "" for choice in flag.iter("enum_value")]
    if choices:
        what += f" One of {', '.join(choices)}."
    bounds = [flag.findtext(bound) for bound in ("lower_bound", "upper_bound")]
    if any(bounds):
        what += f" From {bounds[0]}" + (f" to {bounds[1]}." if bounds[1] else ".")
    default = f"`{flag.findtext('default')}`" if flag.findtext("default") else ""
    # What a table and HTML would take for their own.
    what = what.replace("|", chr(92) + "|").replace("<", "&lt;")
    return f"| `--{flag.findtext('name')}` | {default} | {what} |"


def api_page() -> str:
    """The public names: the method classes, then each package's `__all__`."""
    public = _public_names(ROOT / "mpl_tf" / "__init__.py")
    classes = [name for name in public if name[0].isupper()]
    packages = [name for name in public if name[0].islower()]
    sections = [
        "# API",
        "## Methods",
        *(f"::: mpl_tf.{name}\n    options: {{heading_level: 3}}" for name in classes),
    ]
    for package in packages:
        path = ROOT / "mpl_tf" / package
        found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        members = _public_names(found)
        options = f"options: {{heading_level: 2, members: {members}, show_submodules: false}}"
        sections.append(f"::: mpl_tf.{package}\n    {options}")
    return "\n\n".join(sections)


def _public_names(path: pathlib.Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return ast.literal_eval(node.value)
    defined = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    return [name for name in defined if not name.startswith("_")]
