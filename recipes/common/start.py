"""Starting a recipe: presets, flags before TensorFlow is imported, and errors of the user as one sentence.

A recipe defines its flags, calls `parse_flags` where it is the program, and only then imports what brings TensorFlow
along: `--help` and a wrong flag are answered at once.
"""

import contextlib
import difflib
import math
import os
import pathlib
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags

import recipes
from recipes.common import terminal

FLAGS = flags.FLAGS

PRESETS = pathlib.Path(recipes.__file__).parent / "presets"

flags.DEFINE_string(
    "preset",
    None,
    "Reads the flags of recipes/presets/<name>.flags first; the path of a flagfile is fine too.",
)

# What a shell reports for a process that Ctrl-C has ended, and for one whose output nobody reads any more.
_INTERRUPTED, _UNREAD = 130, 141
# What TensorFlow says of a machine without a GPU, in lines that look like errors.
_NOTES = re.compile(
    r"absl::InitializeLog\(\)|Could not find cuda drivers|oneDNN custom operations|cpu_feature_guard|To enable the "
    r"following instructions|Could not find TensorRT|Unable to register cu"
)
# The arguments of the running program that are no flags.
_rest: list[str] = []
# The flags that the command line gives itself, and not by a preset.
_given: set[str] = set()
# The clock of the wall when the flags were read.
_started = [time.perf_counter()]


def preset_path(name: str) -> pathlib.Path:
    """The flagfile of a preset.

    Args:
        name: of a preset, or the path of a flagfile.

    Raises:
        absl.app.UsageError: for a name that is neither, with the nearest ones.
    """
    for path in (PRESETS / f"{name}.flags", pathlib.Path(os.path.expandvars(name)).expanduser()):
        if path.is_file():
            return path
    known = sorted(path.stem for path in PRESETS.glob("*.flags"))
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise app.UsageError(
        f"--preset={name!r} is unknown: {hint}Choose one of {', '.join(known)}, or a flagfile."
    )


def with_presets(arguments: list[str]) -> list[str]:
    """Replaces each preset, however absl lets one write it, by the flags that it stands for.

    `--preset=name`, `--preset name`, either with one dash, and all of these in a flagfile. Flags after it override
    the preset's. Of a preset that comes with the recipes, flags that are for another recipe are passed over.

    Args:
        arguments: the command line without the program's name.

    Raises:
        absl.app.UsageError: for a preset that is unknown, or none after the flag.
    """
    try:
        waiting = FLAGS.read_flags_from_files(arguments, force_gnu=False)
    except flags.Error as error:
        raise app.UsageError(str(error)) from None
    expanded = []
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            return [*expanded, argument, *waiting]
        found = re.fullmatch(r"--?preset(?:(?:=|\s+)(.*))?", argument.strip(), re.DOTALL)
        if found is None:
            expanded.append(argument)
            # The value of a flag, as in --name --preset: not a preset of its own.
            if _takes_next(argument) and waiting:
                expanded.append(waiting.pop(0))
            continue
        if found[1] is None and not waiting:
            raise app.UsageError("--preset names no preset: write --preset=<name>.")
        name = waiting.pop(0) if found[1] is None else found[1]
        expanded += with_presets(_lines(preset_path(name.strip())))
    return expanded


def given() -> frozenset[str]:
    """The flags that the command line gives itself, or a flagfile, and not a preset."""
    return frozenset(_given)


def started(clock: str) -> float:
    """When this program began, as one of `mpl_tf.training.rehearsal.CLOCKS` tells the time."""
    return _started[0] if clock == "wall" else 0.0


def _flag_names(arguments: list[str]) -> set[str]:
    try:
        arguments = FLAGS.read_flags_from_files(arguments, force_gnu=False)
    except flags.Error:
        return set()
    names = {argument.lstrip("-").partition("=")[0] for argument in arguments if argument.startswith("-")}
    return {name if name in FLAGS else name.removeprefix("no") for name in names}


def _takes_next(argument: str) -> bool:
    name = argument.lstrip("-")
    return argument.startswith("-") and "=" not in name and name in FLAGS and not FLAGS[name].boolean


def _lines(path: pathlib.Path) -> list[str]:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith(("#", "//"))]
    return [line for line in lines if path.parent != PRESETS or _is_known(line)]


def _is_known(line: str) -> bool:
    name = line.lstrip("-").partition("=")[0]
    return name in FLAGS or name.removeprefix("no") in FLAGS


def parse_flags(*, expand_presets: bool = True, takes_arguments: bool = False) -> None:
    """Reads the command line, and then imports TensorFlow without its notes.

    Args:
        expand_presets: whether a preset stands for its flags, and is not a flag of the program itself.
        takes_arguments: whether the program has arguments that are no flags.
    """
    sys.excepthook = _without_traceback_of_ctrl_c
    warnings.formatwarning = _warning
    # `--help` shows the flags that the recipes share, too.
    for module, defined in FLAGS.flags_by_module_dict().items():
        for flag in defined if module.startswith("recipes.") else ():
            FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.define_help_flags()
    try:
        program, *arguments = sys.argv
        _started[0] = time.perf_counter()
        _given.clear()
        _given.update(_flag_names(arguments))
        if expand_presets:
            arguments = with_presets(arguments)
        with _quietly_where_nobody_reads():
            # absl would turn TensorFlow's own notes on; a --verbosity of the user's comes later and wins.
            _rest[:] = app.parse_flags_with_usage([program, "--verbosity=-2", *arguments])
    except app.UsageError as error:
        sys.exit(str(error))
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"A flagfile cannot be read ({error}): give one that is text in UTF-8.")
    if len(_rest) > 1 and not takes_arguments:
        sys.exit(
            f"{_rest[1]!r} is no flag: write --name=value, and --name or --noname for what is on or off, without "
            "spaces around the equals sign."
        )
    for name in FLAGS:
        # Neither is out of the bounds of a flag that has some.
        if isinstance(FLAGS[name].value, float) and not math.isfinite(FLAGS[name].value):
            sys.exit(
                f"--{name}={FLAGS[name].value} is no number that anything can be made of: pass a finite one."
            )
    if FLAGS.only_check_args:
        sys.exit()
    terminal.spell_out_what_cannot_be_printed()
    try:
        with _without_notes():
            import tensorflow  # noqa: F401
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    _resolve_paths()


@contextlib.contextmanager
def _quietly_where_nobody_reads() -> Iterator[None]:
    """Ends without a word where the block prints help into a pipe that nobody reads any more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _end_unread()


def _end_unread() -> None:
    """Exits, and spares Python's own end the error of printing what nobody reads."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
    sys.exit(_UNREAD)


def _without_traceback_of_ctrl_c(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """Python's excepthook, but for Ctrl-C while modules are imported."""
    if issubclass(kind, KeyboardInterrupt):
        print("\nStopped by Ctrl-C before anything began.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning to the user as a sentence, and one to a programmer with where it comes from."""
    if issubclass(category, UserWarning):
        return f"Warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def define_path(name: str, default: str | None, description: str, parser: "PathParser | None" = None) -> None:
    """Defines a flag that names a file or a folder; `~` and variables in it are filled in.

    Args:
        name: of the flag.
        default: its default.
        description: for `--help`.
        parser: of its text; None takes any.
    """
    flags.DEFINE(parser or PathParser(), name, default, description, serializer=flags.ArgumentSerializer())


class PathParser(flags.ArgumentParser):
    """Takes any text, and marks the flag as one of a path."""

    syntactic_help = ""

    def flag_type(self) -> str:
        """For the flag's help."""
        return "path"


def _resolve_paths() -> None:
    from mpl_tf.utils.files import user_path

    for name in FLAGS:
        if isinstance(FLAGS[name].parser, PathParser) and FLAGS[name].value:
            try:
                FLAGS[name].value = str(user_path(FLAGS[name].value))
            except ValueError as error:
                sys.exit(f"--{name}: {error}")


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Passes on what the block prints to stderr at its end, without TensorFlow's notes on the machine."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as printed:
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            printed.seek(0)
            lines = printed.read().decode(errors="replace").splitlines()
            for line in lines:
                if not _NOTES.search(line):
                    print(line, file=sys.stderr)


def run(main: Callable[[list[str]], None]) -> None:
    """Runs `main` after `parse_flags`; errors of the user are one sentence, and so are SIGTERM and Ctrl-C.

    Args:
        main: takes the arguments that are left.
    """
    from tensorflow import errors

    from mpl_tf.distribute import workers
    from mpl_tf.training.callbacks import preemption
    from mpl_tf.utils.files import LockedError

    def guarded(arguments):
        try:
            main(arguments)
            sys.stdout.flush()
        except preemption.PreemptedError as error:
            print(f"\n{error}", file=sys.stderr)
            sys.exit(error.exit_status)
        except KeyboardInterrupt:
            print(
                "\nStopped by Ctrl-C: start the same command again to go on from what has been saved.",
                file=sys.stderr,
            )
            sys.exit(_INTERRUPTED)
        except workers.WorkerLostError as error:
            print(f"\n{error}", file=sys.stderr, flush=True)
            # Without the interpreter's own clean-up, in which TensorFlow would wait for the worker that is gone.
            os._exit(1)
        except BrokenPipeError:
            print(
                "\nNobody reads any more what is printed here, so it stops: start the same command again to go on "
                "from what has been saved.",
                file=sys.stderr,
            )
            _end_unread()
        except errors.ResourceExhaustedError as error:
            if FLAGS.verbosity > 0:
                raise
            lines = error.message.splitlines()
            reason = next((line for line in lines if "OOM" in line), *lines[:1]).strip()
            sys.exit(
                f"\nThere is not enough memory ({reason}): --rematerialize takes less, and so do a smaller "
                "--batch_size or --image_size and more --student_micro_batches, see docs/memory.md.\n"
                "(--verbosity=1 shows where.)"
            )
        except (ValueError, ArithmeticError, OSError, LockedError) as error:
            if FLAGS.verbosity > 0:
                raise
            sys.exit(f"\n{type(error).__name__}: {error}\n(--verbosity=1 shows where.)")

    app.run(guarded, argv=sys.argv, flags_parser=lambda arguments: _rest)
