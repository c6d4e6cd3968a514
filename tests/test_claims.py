"""The page of claims: counts, verdicts, commands and links that are true of its rows and of this repository."""

import collections
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "claims.md"
MEASURED = ("confirmed", "not confirmed", "mixed", "one run")
UNMEASURED = ("not measured", "needs an accelerator", "needs data")
IDS = [f"M{n}" for n in range(1, 17)] + [f"D{n}" for n in range(17, 34)] + [f"A{n}" for n in range(34, 60)]

Row = collections.namedtuple("Row", "id says measured verdict command")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows_of(page: str) -> list[Row]:
    return [Row(*cells(line)) for line in page.splitlines() if re.match(r"\| [A-Z]\d+ \|", line)]


def counts_of(page: str) -> dict[str, int]:
    """The table at the top: verdict → number of rows, and `"all"`."""
    table = page.partition("| verdict | rows |\n|---|---|\n")[2].partition("\n\n")[0]
    return {name: int(number) for name, number in map(cells, table.splitlines())}


def files_of(page: str) -> set[pathlib.Path]:
    """What the page links in this repository, without the places in it."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page)
    return {(PAGE.parent / link).resolve() for link in links if "://" not in link}


@functools.cache
def names_in_the_code() -> set[str]:
    files = [path for folder in ("mpl_tf", "recipes") for path in (ROOT / folder).rglob("*.py")]
    return {name for path in files for name in re.findall(r"\w+", path.read_text("utf-8"))}


def mistakes(row: Row) -> list[str]:
    """What is not true of a row's verdict, links and commands."""
    found = []
    if row.verdict not in MEASURED + UNMEASURED:
        found.append(f"{row.verdict!r} is no verdict")
    if row.verdict in MEASURED and not re.search(r"\d|\]\(", row.measured):
        found.append("a verdict without a number or a link")
    commands = re.findall(r"`(python [^`]+|make [^`]+)`", row.command)
    if not commands and (row.command, row.verdict) != ("no program", "not measured"):
        found.append("no command")
    for command in commands:
        if recipe := re.match(r"python -m recipes\.(\w+)", command):
            target = ROOT / "recipes" / f"{recipe[1]}.py"
        elif tests := re.match(r"python -m pytest (\S+)", command):
            target = ROOT / tests[1]
        elif program := re.match(r"python (benchmarks/\S+)", command):
            target = ROOT / program[1]
        else:
            found.append(f"{command} is no recipe, benchmark or test")
            continue
        if not target.is_file():
            found.append(f"{command}: there is no {target.relative_to(ROOT)}")
    for preset in re.findall(r"--preset=([\w-]+)", row.command):
        if not (ROOT / "recipes" / "presets" / f"{preset}.flags").is_file():
            found.append(f"there is no preset {preset}")
    for flag in re.findall(r"--(\w+)", row.command):
        # As --nohard, and --feedback_floor is the field `floor` of the feedback's settings.
        if not {flag, flag.removeprefix("no"), flag.removeprefix("feedback_")} & names_in_the_code():
            found.append(f"there is no flag {flag}")
    return found


def test_every_claim_has_one_row():
    ids = [row.id for row in rows_of(PAGE.read_text("utf-8"))]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(IDS)


@pytest.mark.parametrize("row", rows_of(PAGE.read_text("utf-8")), ids=lambda row: row.id)
def test_a_row_is_true_of_this_repository(row):
    assert mistakes(row) == []


def test_the_counts_are_those_of_the_rows():
    page = PAGE.read_text("utf-8")
    counted = collections.Counter(row.verdict for row in rows_of(page))
    counts = counts_of(page)
    assert counts.pop("all") == len(IDS)
    assert counts == {verdict: counted[verdict] for verdict in MEASURED + UNMEASURED}
    measured = sum(counted[verdict] for verdict in MEASURED)
    assert f"Of the {len(IDS)} rows {measured} are measured" in page


def test_what_the_page_links_exists():
    files = files_of(PAGE.read_text("utf-8"))
    assert len(files) > 5
    assert [path for path in files if not path.exists()] == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"verdict": "great"}, "no verdict"),
        ({"measured": "as hoped"}, "without a number"),
        ({"command": "run it"}, "no command"),
        ({"command": "no program"}, "no command"),
        ({"command": "`python -m recipes.magic`"}, "no recipes/magic.py"),
        ({"command": "`python benchmarks/magic.py`"}, "no benchmarks/magic.py"),
        ({"command": "`python -m pytest tests/test_magic.py`"}, "no tests/test_magic.py"),
        ({"command": "`python -m recipes.mpl --preset=magic`"}, "no preset magic"),
        ({"command": "`python -m recipes.mpl --magic_weight=1`"}, "no flag magic_weight"),
        ({"command": "`python magic.py`"}, "is no recipe"),
    ],
)
def test_an_untrue_row_is_found(change, expected):
    row = Row("M1", "a claim", "+1.0 ± 0.1", "confirmed", "`python -m recipes.mpl --preset=digits`")
    assert mistakes(row) == []
    assert expected in "; ".join(mistakes(row._replace(**change)))
