"""Starting a recipe: presets by name, and errors of the user as one sentence instead of a traceback."""

import difflib
import os
import pathlib
import sys
from collections.abc import Callable

from absl import app, flags

from mpl_tf.distribute import workers
from mpl_tf.training.callbacks import preemption
from mpl_tf.utils.files import DiskFullError
from recipes.common import terminal

PRESETS = pathlib.Path(__file__).parents[1] / "presets"

flags.DEFINE_string(
    "preset", None, "Reads the flags of recipes/presets/<name>.flags first; a path is fine too."
)


def preset_path(name: str) -> pathlib.Path:
    """The flagfile of a preset.

    Args:
        name: of a preset, or the path of a flagfile.

    Raises:
        absl.app.UsageError: for a name that is neither, with the nearest ones.
    """
    for path in (PRESETS / f"{name}.flags", pathlib.Path(name)):
        if path.is_file():
            return path
    known = sorted(path.stem for path in PRESETS.glob("*.flags"))
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise app.UsageError(
        f"--preset={name!r} is unknown: {hint}Choose one of {', '.join(known)}, or a flagfile."
    )


def with_presets(arguments: list[str]) -> list[str]:
    """Replaces each `--preset=name` by the `--flagfile` that it stands for.

    Flags after it override the preset's, as with any flagfile.

    Args:
        arguments: the command line.
    """
    return [
        f"--flagfile={preset_path(argument.partition('=')[2])}"
        if argument.startswith(("--preset=", "-preset="))
        else argument
        for argument in arguments
    ]


def run(main: Callable) -> None:
    """Parses the command line and runs `main`; a user's error is one sentence, and so is a SIGTERM, with status 143.

    Args:
        main: takes the arguments that are left.
    """

    def guarded(arguments):
        try:
            main(arguments)
        except preemption.PreemptedError as error:
            print(f"\n{error}", file=sys.stderr)
            sys.exit(error.exit_status)
        except workers.WorkerLostError as error:
            print(f"\n{error}", file=sys.stderr, flush=True)
            # Without the interpreter's own clean-up, in which TensorFlow would wait for the worker that is gone.
            os._exit(1)
        except (ValueError, FileNotFoundError, ArithmeticError, DiskFullError) as error:
            if flags.FLAGS.verbosity > 0:
                raise
            sys.exit(f"\n{type(error).__name__}: {error}\n(--verbosity=1 shows where.)")

    terminal.spell_out_what_cannot_be_printed()
    try:
        # absl would turn TensorFlow's own notes on; a --verbosity of the user's comes later and wins.
        program, *arguments = with_presets(sys.argv)
        arguments = [program, "--verbosity=-2", *arguments]
    except app.UsageError as error:
        sys.exit(str(error))
    app.run(guarded, argv=arguments)
