"""Python programs in processes that are forked from one that has imported TensorFlow, Keras and mpl_tf.

Importing them takes 5 s in each process that starts from nothing. A forked one behaves like `python -m <module>`:
its own arguments, folder, environment, output and exit status, and TensorFlow not started yet, so that logical
devices and `TF_CONFIG` still count.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.programs.preloaded"])


@dataclasses.dataclass
class Running:
    """A program that was started.

    Args:
        arguments: module and arguments, for messages.
        process: runs it.
        folder: of its output.
    """

    arguments: list[str]
    process: multiprocessing.Process
    folder: tempfile.TemporaryDirectory

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.exitcode

    def output(self) -> str:
        """What it has printed so far."""
        return self._read("stdout")

    def wait_for(self, text: str, *, timeout: float = 120) -> str:
        """Returns what it has printed as soon as that contains a text."""
        end = time.monotonic() + timeout
        while text not in self.output():
            assert self.poll() is None, f"ended without {text!r}: {self._read('stderr')[-3000:]}"
            assert time.monotonic() < end, f"{text!r} is not printed: {self.output()[-3000:]}"
            time.sleep(0.01)
        return self.output()

    def send_signal(self, number: int):
        os.kill(self.pid, number)

    def finish(self, *, timeout: float = 600) -> subprocess.CompletedProcess:
        """Waits for its end; exit status and output, as of `subprocess.run(text=True)`."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.arguments, timeout, self.output(), self._read("stderr"))
        finished = subprocess.CompletedProcess(
            self.arguments, self.process.exitcode, self.output(), self._read("stderr")
        )
        self.folder.cleanup()
        return finished

    def _read(self, stream: str) -> str:
        return pathlib.Path(self.folder.name, stream).read_text("utf-8", errors="replace")


def start(program, *arguments, cwd=ROOT, environment=None) -> Running:
    """Starts `python -m <program> <arguments>`, or `python -c <program> <arguments>`.

    Args:
        program: a module's name, or lines of Python.
        *arguments: of the program.
        cwd: the folder that it runs in.
        environment: variables beside this process's.
    """
    folder = tempfile.TemporaryDirectory()
    for stream in ("stdout", "stderr"):
        pathlib.Path(folder.name, stream).touch()
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
    process = FORKS.Process(
        target=_main, args=(program, [*map(str, arguments)], str(cwd), variables, folder.name)
    )
    with contextlib.chdir(ROOT):  # The server, started now where it is not, looks for this module there.
        process.start()
    return Running([program, *map(str, arguments)], process, folder)


def run(program, *arguments, **options) -> subprocess.CompletedProcess:
    """The same as `start`, and waits for the end."""
    return start(program, *arguments, **options).finish()


def _main(program, arguments, cwd, environment, folder):
    """In the forked process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        os.dup2(os.open(pathlib.Path(folder, name), os.O_WRONLY | os.O_APPEND), stream.fileno())
    sys.stdout.reconfigure(line_buffering=False)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    is_module = all(part.isidentifier() for part in program.split("."))
    sys.argv = [program if is_module else "-c", *arguments]
    try:
        if is_module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit:
        raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)
