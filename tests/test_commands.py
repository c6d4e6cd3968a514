"""The commands on the pages and the trials of the studies: their recipes have these flags and take these values."""

import json
import pathlib
import re
import runpy
import shlex

from tests.programs import forked

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Reads each command line as its recipe would, the preset's flags first, and says which it cannot read. Two recipes
# cannot define the same flag, so that those of one are taken away before the next.
PARSE = """
import importlib, json, sys
from absl import flags
from recipes.common import start
common = set(flags.FLAGS)
for recipe, lines in json.loads(sys.argv[1]).items():
    importlib.import_module("recipes." + recipe)
    for words in lines:
        flags.FLAGS.unparse_flags()
        try:
            flags.FLAGS(["recipe", *(words if recipe == "compare" else start.with_presets(words))])
        except Exception as error:
            print(recipe, *words, "|", error)
    for name in set(flags.FLAGS) - common:
        delattr(flags.FLAGS, name)
"""


def words_of(command):
    """Recipe and flags; a trial's name between braces is one word."""
    return shlex.split(
        re.sub(r"\{([^{}]*)\}", lambda name: name[1].replace(" ", "_"), command), comments=True
    )


def commands_of(page):
    """Recipe and flags of every command on a page; those with something left open are passed over."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        block = block.replace("\\\n", " ")
        variables = dict(re.findall(r"^(\w+)=\"?(.*?)\"?$", block, re.MULTILINE))
        for command in re.findall(r"python -m recipes\.(.*)", block):
            for name, value in variables.items():
                command = re.sub(rf"\${name}\b", lambda _, value=value: value, command)
            # Something is left open, or the command is itself an argument.
            if "…" in command or "$" in command or command.count("'") % 2:
                continue
            recipe, *given = words_of(command)
            yield recipe, given
            preset = [word for word in given if word.startswith("--preset")]
            for trial in (word for word in given if recipe == "compare" and word.startswith("--trial=")):
                own, *flags = words_of(trial.partition(": ")[2])
                yield own, [*preset, *flags]


def trials_of_studies():
    """Recipe and flags of every trial of the programs in benchmarks/."""

    def program(name):
        return runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))

    for study in program("claims/digits")["STUDIES"].values():
        preset = [f"--preset={study.preset}"] if study.preset else []
        for trial in [*study.trials.values(), *([study.teacher] if study.teacher else [])]:
            recipe, *flags = words_of(trial)
            yield recipe, [*preset, *flags]
    few = program("few_labels")
    trials = [
        trial.partition(": ")[2]
        for task in few["TASKS"].values()
        for trial in task.trials("own.keras", placebo=True)
    ]
    trials += [trial.partition(": ")[2] for trial in few["fine_tuning_trials"]("own.keras")]
    for task in program("claims/trusted_labels")["TASKS"].values():
        trials += task.trials(noise="pairs:0.3", cheap=100, trusted=20, without_uda=True).values()
    pretraining = program("claims/pretraining")
    starts = pretraining["starts"](pathlib.Path("pretrained.keras"), "own.keras")
    trials += [*pretraining["trials"]([20], starts).values(), " ".join(pretraining["pretraining"]())]
    images = program("claims/unlabeled_images")
    for trial in trials:
        recipe, *flags = words_of(trial)
        yield recipe, flags
    for study, preset in images["PRESETS"].items():
        for trial in images["trials"](study, pathlib.Path("images")).values():
            recipe, *flags = words_of(trial)
            yield recipe, [f"--preset={preset}", *flags]


def test_every_flag_is_one_that_its_recipe_takes():
    found = [command for page in PAGES for command in commands_of(page.read_text("utf-8"))]
    assert len(found) > 100
    lines = {}
    for recipe, flags in [*found, *trials_of_studies()]:
        lines.setdefault(recipe, set()).add(tuple(flags))
    assert len(lines) > 15
    finished = forked.run(PARSE, json.dumps({recipe: sorted(commands) for recipe, commands in lines.items()}))
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert finished.stdout.splitlines() == []
