"""How a recipe starts: presets, flags before TensorFlow, errors of the user."""

import importlib
import os
import pathlib
import platform
import re
import shlex
import subprocess
import sys
import types

import pytest
from absl import app, flags

import recipes
from recipes.common import start
from tests.programs import forked

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = sorted(
    path.stem
    for path in (ROOT / "recipes").glob("*.py")
    if "start.parse_flags(" in path.read_text() and path.stem != "start"
)


@pytest.fixture
def flags_of_a_recipe():
    """Flags of a recipe, in place of those that other tests have defined."""
    known = flags.FlagValues()
    flags.DEFINE_string("model", "wrn", "A network.", flag_values=known)
    flags.DEFINE_integer("steps", 1, "Updates.", flag_values=known)
    flags.DEFINE_bool("resume", True, "Whether to go on.", flag_values=known)
    return known


SPELLINGS = [
    ["--preset=digits"], ["--preset", "digits"], ["-preset=digits"], ["-preset", "digits"], ["--preset= digits "],
    ["--model=mlp", "--preset", "digits"], ["--noresume", "--preset", "digits"], ["--resume", "-preset", "digits"],
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS, ids=" ".join)
def test_every_spelling_of_a_preset_reads_its_flags(monkeypatch, flags_of_a_recipe, spelling):
    monkeypatch.setattr(start, "FLAGS", flags_of_a_recipe)
    arguments = start.with_presets([*spelling, "--steps=5"])
    assert "--model=convnet" in arguments
    assert not any("preset" in argument for argument in arguments)
    # Flags after it override it, and those that the recipe does not have are not there.
    assert flags_of_a_recipe(["recipe", *arguments]) == ["recipe"]
    assert (flags_of_a_recipe.model, flags_of_a_recipe.steps) == ("convnet", 5)


@pytest.mark.parametrize("line", ["--preset=digits", "--preset digits", "-preset=digits", "-preset digits"])
@pytest.mark.parametrize("how", [["--flagfile={}"], ["--flagfile", "{}"], ["-flagfile={}"], ["--preset={}"]])
def test_a_preset_in_a_flagfile_is_read_however_the_file_is_given(
    monkeypatch, flags_of_a_recipe, tmp_path, line, how
):
    monkeypatch.setattr(start, "FLAGS", flags_of_a_recipe)
    (tmp_path / "inner.flags").write_text(f"# a comment\n\n{line}\n--steps=7\n")
    (tmp_path / "outer.flags").write_text(f"--flagfile={tmp_path / 'inner.flags'}\n")
    for file in ("inner.flags", "outer.flags"):
        arguments = start.with_presets([part.format(tmp_path / file) for part in how])
        flags_of_a_recipe.unparse_flags()
        flags_of_a_recipe(["recipe", *arguments])
        assert (flags_of_a_recipe.model, flags_of_a_recipe.steps) == ("convnet", 7)


def test_what_only_looks_like_a_preset_is_left_alone(monkeypatch, flags_of_a_recipe):
    monkeypatch.setattr(start, "FLAGS", flags_of_a_recipe)
    for arguments in (
        ["--", "--preset=digits"],
        ["--model", "--preset=digits"],
        ["--presets=digits"],
        ["preset=x"],
    ):
        assert start.with_presets(arguments) == arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=digit"], r"--preset='digit' is unknown: did you mean 'digits'\? Choose one of"),
        (["--preset", "digit"], "--preset='digit' is unknown"),
        (["--preset"], "names no preset"),
        (["--preset="], "--preset='' is unknown"),
        (["--flagfile=missing.flags"], "Unable to open flagfile"),
    ],
)
def test_a_preset_that_is_not_there_is_refused(monkeypatch, flags_of_a_recipe, arguments, message):
    monkeypatch.setattr(start, "FLAGS", flags_of_a_recipe)
    with pytest.raises(app.UsageError, match=message):
        start.with_presets(arguments)


def test_flags_for_another_recipe_in_a_file_of_the_users_are_refused(
    monkeypatch, flags_of_a_recipe, tmp_path
):
    monkeypatch.setattr(start, "FLAGS", flags_of_a_recipe)
    (tmp_path / "own.flags").write_text("--uda_weight=2\n")
    with pytest.raises(flags.UnrecognizedFlagError, match="uda_weight"):
        flags_of_a_recipe(["recipe", *start.with_presets([f"--preset={tmp_path / 'own.flags'}"])])


@pytest.mark.parametrize("recipe", RECIPES)
def test_help_and_wrong_flags_are_answered_without_tensorflow(recipe, tmp_path):
    """Importing TensorFlow or Keras ends the process with another message."""
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")

    def run(*options):
        return subprocess.run(
            [sys.executable, "-m", f"recipes.{recipe}", *options],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
            capture_output=True,
            text=True,
        )

    shown = run("--help")
    assert "--preset" in shown.stdout
    assert "imported" not in shown.stdout + shown.stderr
    # A command over several lines has the backslashes that a shell needs.
    assert not re.search(r"[^\\\s]\n +--|\S {4,}--", shown.stdout.partition("\nflags:")[0])
    wrong = run("--no_such_flag=1")
    assert wrong.returncode == 1
    assert "Unknown command line flag 'no_such_flag'" in wrong.stderr
    assert "imported" not in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (
            "mpl",
            ["--schedule=drops", "--student_wait_steps=5"],
            "--student_wait_steps is laid into the cosine",
        ),
        ("supervised", ["--schedule=constant", "--warmup_steps=5"], "--warmup_steps is laid into the cosine"),
        ("uda", ["--optimizer=Adam", "--momentum=0.8"], "--momentum is that of SGD"),
        ("mpl", ["--clock=cpu"], "--clock says what --minutes are of"),
        ("mpl", ["--features=top", "--model=mlp"], "--features names a layer of a network in a file"),
    ],
)
def test_flags_that_do_not_fit_each_other_are_refused(recipe, options, message, tmp_path):
    done = forked.run(f"recipes.{recipe}", *options, "--steps=1", f"--run_dir={tmp_path / 'run'}")
    assert done.returncode == 1
    assert message in done.stderr
    assert not any(tmp_path.iterdir())


def shell(command, **options):
    """A shell's line that starts `python -m recipes.…`, for what TensorFlow is not needed for."""
    line = command.replace("python", shlex.quote(sys.executable), 1)
    return subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, **options)


@pytest.mark.parametrize("recipe", ["mpl", "compare"])
def test_help_whose_reader_has_gone_ends_without_a_word(recipe):
    # Of a long text and of one that waits in a buffer until the program ends.
    finished = shell(f"python -m recipes.{recipe} --help | true; exit ${{PIPESTATUS[0]}}")
    assert (finished.returncode, finished.stderr) == (141, "")


@pytest.mark.parametrize(
    ("recipe", "argument"), [("mpl", "steps=500"), ("mpl", "false"), ("evaluate", "-"), ("compare", "mpl")]
)
def test_arguments_that_are_no_flags_are_refused_where_there_are_none(recipe, argument):
    required = ["--run_dir=nowhere"] if recipe == "compare" else []
    finished = shell(f"python -m recipes.{recipe} --only_check_args {shlex.join([*required, argument])}")
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"{argument!r} is no flag")


@pytest.mark.parametrize("option", ["--learning_rate=nan", "--minutes=inf"])
def test_numbers_that_are_not_finite_are_refused(option):
    finished = shell(f"python -m recipes.mpl --only_check_args {option}")
    assert finished.returncode == 1
    assert finished.stderr.startswith(f"{option} is no number")


@pytest.mark.parametrize("flag", ["preset", "flagfile"])
def test_a_flagfile_that_is_no_text_is_refused_with_a_sentence(flag, tmp_path):
    (tmp_path / "own.flags").write_bytes("--optimizer=größe".encode("utf-16"))
    finished = shell(f"python -m recipes.mpl --only_check_args --{flag}={tmp_path / 'own.flags'}")
    assert finished.returncode == 1
    assert finished.stderr.startswith("A flagfile cannot be read")
    assert "Traceback" not in finished.stderr


STARTED = """
import os, sys, warnings
from recipes.common import start
start.parse_flags()
{what}
"""


def test_ctrl_c_while_modules_are_imported_leaves_no_traceback():
    # As Python calls it at the end.
    hook = "try:\n    raise {}\nexcept BaseException:\n    sys.excepthook(*sys.exc_info())"
    finished = forked.run(STARTED.format(what=hook.format("KeyboardInterrupt")))
    assert finished.stderr.strip() == "Stopped by Ctrl-C before anything began."
    assert "Traceback" in forked.run(STARTED.format(what=hook.format("KeyError(1)"))).stderr


def test_a_warning_is_a_sentence_and_says_no_line_of_python():
    finished = forked.run(STARTED.format(what="warnings.warn('Few images are left.', stacklevel=1)"))
    assert (finished.returncode, finished.stderr) == (0, "Warning: Few images are left.\n")
    # Of a library's programmers, who have to know where.
    finished = forked.run(STARTED.format(what="warnings.warn('Overflow.', RuntimeWarning, stacklevel=1)"))
    assert re.match(r"<string>:\d+: RuntimeWarning: Overflow\.", finished.stderr)


def test_a_run_whose_reader_has_gone_says_how_to_go_on(monkeypatch, capfd):
    monkeypatch.setattr(start, "FLAGS", types.SimpleNamespace(verbosity=-2))
    monkeypatch.setattr(start.app, "run", lambda main, **_: main([]))
    with open(writer_of_a_closed_pipe(), "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        for last in (lambda _: print("a line", flush=True), lambda _: print("a line that waits")):
            with pytest.raises(SystemExit) as ended:
                start.run(last)
            assert ended.value.code == 141
            said = capfd.readouterr().err
            assert "go on from what has been saved" in said
            # What is printed from here on goes nowhere.
            print("more", flush=True)
            os.dup2(writer_of_a_closed_pipe(), stdout.fileno())


def writer_of_a_closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_all_recipes_are_tested():
    assert {"mpl", "compare", "label", "predict", "evaluate", "export", "finetune", "dafl"} <= {*RECIPES}


def test_notes_of_tensorflow_are_left_out_and_all_else_is_passed_on(capfd):
    with start._without_notes():
        os.write(
            2,
            b"I0000 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be used.\n",
        )
        os.write(
            2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        )
        os.write(2, b"something that matters\n")
    assert capfd.readouterr().err == "something that matters\n"


@pytest.mark.parametrize(
    "cause",
    [NotADirectoryError(20, "Not a directory", "a.txt/b"), OSError(30, "Read-only", "b"), ValueError("b")],
)
def test_what_a_path_or_a_value_is_refused_for_is_a_sentence(monkeypatch, cause):
    monkeypatch.setattr(start, "FLAGS", types.SimpleNamespace(verbosity=-2))
    monkeypatch.setattr(start.app, "run", lambda main, **_: main([]))

    def fail(_):
        raise cause

    with pytest.raises(SystemExit, match=rf"{type(cause).__name__}: .*b'?\n\(--verbosity=1 shows where"):
        start.run(fail)


def test_memory_that_a_step_lacks_is_a_sentence_with_what_saves_some(monkeypatch):
    from tensorflow import errors

    monkeypatch.setattr(start, "FLAGS", types.SimpleNamespace(verbosity=-2))
    monkeypatch.setattr(start.app, "run", lambda main, **_: main([]))

    def fail(_):
        raise errors.ResourceExhaustedError(
            None, None, "Graph execution error:\n\nOOM when allocating tensor with shape[64,32]\n\t [[Op]]"
        )

    with pytest.raises(
        SystemExit, match=r"There is not enough memory \(OOM when .*shape\[64,32\]\).*--batch_size"
    ):
        start.run(fail)


@pytest.mark.parametrize(
    ("machine", "before", "after"),
    [("x86_64", None, "1"), ("AMD64", None, "1"), ("x86_64", "0", "0"), ("arm64", None, None)],
)
def test_onednn_is_on_for_x86_unless_the_user_says_otherwise(monkeypatch, machine, before, after):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if before:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", before)
    importlib.reload(recipes)
    assert os.environ.get("TF_ENABLE_ONEDNN_OPTS") == after


@pytest.mark.skipif(os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "1", reason="oneDNN is left as it is")
def test_tensorflow_convolves_with_onednn():
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images, kernel = (tf.random.uniform(shape) for shape in ([4, 8, 8, 3], [3, 3, 3, 4]))
        outputs = tf.nn.conv2d(images, kernel, 1, "SAME")
        looked_at = v1.RunMetadata()
        options = v1.RunOptions(output_partition_graphs=True)
        session.run(outputs, options=options, run_metadata=looked_at)
    operations = {node.op for graph in looked_at.partition_graphs for node in graph.node}
    assert any("Mkl" in operation for operation in operations), operations
