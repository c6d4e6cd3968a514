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

Row = collections.namedtuple("Row", "id says measured verdict")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows_of(page: str) -> list[Row]:
    return [Row(*cells(line)) for line in page.splitlines() if re.match(r"\| [A-Z]\d+ \|", line)]


def commands_of(page: str) -> dict[str, str]:
    """Id → the command in the blocks under the tables, and what its comment says: `# M5, M6: comment`."""
    found = {}
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for comment, command in re.findall(r"^# (.*)\n(.*)$", block, re.MULTILINE):
            ids, _, note = comment.partition(":")
            found |= dict.fromkeys(ids.split(", "), f"{command} # {note}")
    return found


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


def mistakes(row: Row, command: str | None) -> list[str]:
    """What is not true of a row's verdict and of its command."""
    found = []
    if row.verdict not in MEASURED + UNMEASURED:
        found.append(f"{row.verdict!r} is no verdict")
    if row.verdict in MEASURED and not ("](" in row.measured or re.search(r"\d", row.measured)):
        found.append("a verdict without a number or a link")
    if command is None:
        return found if "no program" in row.measured else [*found, "no command"]
    if match := re.match(r"python -m recipes\.(\w+)", command):
        program = f"recipes/{match[1]}.py"
    elif match := re.match(r"python -m pytest (\S+)|python (benchmarks/\S+)", command):
        program = match[1] or match[2]
    else:
        return [*found, f"{command} is no recipe, benchmark or test"]
    if not (ROOT / program).is_file():
        found.append(f"there is no {program}")
    for preset in re.findall(r"--preset=([\w-]+)", command):
        if not (ROOT / "recipes" / "presets" / f"{preset}.flags").is_file():
            found.append(f"there is no preset {preset}")
    # A benchmark's are its own.
    own = re.findall(r'"--(\w+)"', (ROOT / program).read_text("utf-8")) if not found else []
    for flag in re.findall(r"--(\w+)", command):
        # As --nohard, and --feedback_floor is the field `floor` of the feedback's settings.
        names = {flag, flag.removeprefix("no"), flag.removeprefix("feedback_")}
        if not names & (names_in_the_code() | set(own)):
            found.append(f"there is no flag {flag}")
    return found


def test_every_claim_has_one_row():
    ids = [row.id for row in rows_of(PAGE.read_text("utf-8"))]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(IDS)


@pytest.mark.parametrize("row", rows_of(PAGE.read_text("utf-8")), ids=lambda row: row.id)
def test_a_row_is_true_of_this_repository(row):
    assert mistakes(row, commands_of(PAGE.read_text("utf-8")).get(row.id)) == []


def test_every_command_belongs_to_a_row():
    assert set(commands_of(PAGE.read_text("utf-8"))) <= set(IDS)


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
    ("change", "command", "expected"),
    [
        ({"verdict": "great"}, "python -m recipes.mpl", "no verdict"),
        ({"measured": "as hoped"}, "python -m recipes.mpl", "without a number"),
        ({}, None, "no command"),
        ({}, "python -m recipes.magic", "no recipes/magic.py"),
        ({}, "python benchmarks/magic.py", "no benchmarks/magic.py"),
        ({}, "python -m pytest tests/test_magic.py", "no tests/test_magic.py"),
        ({}, "python -m recipes.mpl --preset=magic", "no preset magic"),
        ({}, "python -m recipes.mpl --magic_weight=1", "no flag magic_weight"),
        ({}, "python magic.py", "is no recipe"),
    ],
)
def test_an_untrue_row_is_found(change, command, expected):
    row = Row("M1", "a claim", "+1.0 ± 0.1", "confirmed")
    assert mistakes(row, "python -m recipes.mpl --preset=digits --feedback_weight=1 --nobaseline") == []
    assert expected in "; ".join(mistakes(row._replace(**change), command))
