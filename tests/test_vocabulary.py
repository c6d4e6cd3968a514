"""The field's words: what a reader who knows the papers searches for, in every public name and flag."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Words that this code once had for what the field calls otherwise → the field's word.
WORDS = {
    "annealed": "tsa", "annealing": "tsa", "boost": "nesterov_factor", "cell": "trial", "cells": "trials",
    "claim": "verify_or_write_config", "course": "main", "dealt": "distribute", "descend": "apply_gradients",
    "digest": "fingerprint", "domain": "split or stream", "domains": "splits or streams", "ends": "heads",
    "finished": "completed", "finishing": "finalize", "judged": "predicted", "kept": "selected, stored or cached",
    "picture": "image", "pictures": "images", "place": "index or position", "places": "indices or positions",
    "rebuild": "surgery", "rebuilding": "surgery", "recompute": "rematerialize", "recomputed": "rematerialized",
    "recomputing": "rematerialization", "refusal": "validation", "refusals": "validation", "refuse": "check",
    "served": "inference_model", "share": "fraction", "shares": "fractions", "silent": "no-op",
    "sitting": "session", "sittings": "sessions", "slope": "tangent or jvp", "slopes": "tangents",
    "surest": "most_confident", "thing": "a noun", "things": "a noun", "told": "logged", "verdict": "summary",
}  # fmt: skip
NAMES = {
    "evaluated": "evaluation_models", "finish_step": "end_step", "gradient_clip_norm": "global_clipnorm",
    "numbered_batches": "index_batches", "one_of": "check_choice", "pixel_deviation": "pixel_std",
    "put_together": "merge", "rows_of_this_replica": "local_batch_slice", "select_rows": "select_indices",
    "takes_images": "uses_images", "track": "update_metrics", "whole": "check_integer", "within": "check_range",
}  # fmt: skip
# In these files a word means something else there.
ALLOWED = {
    # Of a table.
    "cell": ("mpl_tf/report/html",),
    "cells": ("mpl_tf/report/html",),
    # A shear's slope is the slope of a line, and so is that of a leaky ReLU.
    "slope": ("mpl_tf/data/augmentation/geometry.py", "mpl_tf/models"),
}


def words_of(name: str) -> list[str]:
    """`"LabelStore"`, `"label_store"` → `["label", "store"]`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", name)]


def public_names(path: pathlib.Path) -> set[str]:
    """The file's own name, and its public functions, classes, attributes, constants and arguments."""
    names = {part for part in path.relative_to(ROOT).with_suffix("").parts if not part.startswith("_")}

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                if child.name.startswith("_") and not child.name.startswith("__"):
                    continue
                names.add(child.name)
            if isinstance(child, ast.FunctionDef):
                arguments = child.args
                names.update(a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))
                for inner in ast.walk(child):
                    if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                        names.add(inner.attr)
            elif isinstance(child, ast.ClassDef):
                visit(child)
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                names.update(n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))

    visit(ast.parse(path.read_text("utf-8")))
    return {name for name in names if not name.startswith("_") or name.startswith("__")}


def flags_of(path: pathlib.Path) -> set[str]:
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text("utf-8")))


def old_words(names: set[str], path: pathlib.Path) -> list[str]:
    """What there is to say about each old word among some names."""
    where = str(path.relative_to(ROOT))
    found = [f"{where}: {name} (say {NAMES[name]})" for name in names if name in NAMES]
    for name in names:
        for word in words_of(name):
            if word in WORDS and not where.startswith(ALLOWED.get(word, ())):
                found.append(f"{where}: {name} (say {WORDS[word]} for {word})")
    return sorted(found)


@pytest.mark.parametrize("folder", ["mpl_tf", "recipes"])
def test_public_names_are_the_fields_words(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert len(files) > 10
    found = [line for path in files for line in old_words(public_names(path) | flags_of(path), path)]
    assert not found, "\n".join(found)


def test_presets_are_written_in_the_fields_words():
    presets = sorted((ROOT / "recipes" / "presets").glob("*.flags"))
    assert presets
    found = []
    for path in presets:
        given = set(re.findall(r"(?<=--)(?:no)?(\w+)", path.read_text("utf-8")))
        found += old_words({*given, path.stem}, path)
    assert not found, "\n".join(found)


def test_an_old_word_is_found_in_any_spelling():
    path = ROOT / "mpl_tf" / "losses.py"
    for name in ("frozen_share", "LabeledPictures", "PICTURES", "num_pictures", "finish_step", "slope"):
        assert old_words({name}, path), name
    for name in ("shared", "placeholder", "labels_per_class", "image", "finish", "sharded"):
        assert not old_words({name}, path), name
