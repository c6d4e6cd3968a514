"""Python programs in processes that are forked from one that has imported TensorFlow, Keras and mpl_tf.

Importing them takes 5 s in each process that starts from nothing. A forked one behaves like `python -m <module>`:
its own arguments, folder, environment, output and exit status, and TensorFlow not started yet, so that logical
devices and `TF_CONFIG` still count.
"""

import atexit
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import os
import pathlib
import runpy
import shutil
import signal
import socket
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


def start(program, *arguments, cwd=ROOT, environment=None, python=None) -> Running:
    """Starts `python -m <program> <arguments>`, or `python -c <program> <arguments>`.

    Args:
        program: a module's name, or lines of Python.
        *arguments: of the program.
        cwd: the folder that it runs in.
        environment: variables beside this process's.
        python: what the program takes for the path of Python when it starts others; None for the real one.
    """
    folder = tempfile.TemporaryDirectory()
    for stream in ("stdout", "stderr"):
        pathlib.Path(folder.name, stream).touch()
    variables = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", **(environment or {})}
    process = FORKS.Process(
        target=_main, args=(program, [*map(str, arguments)], str(cwd), variables, folder.name, python)
    )
    with contextlib.chdir(ROOT):  # The server, started now where it is not, looks for this module there.
        process.start()
    return Running([program, *map(str, arguments)], process, folder)


def run(program, *arguments, **options) -> subprocess.CompletedProcess:
    """The same as `start`, and waits for the end."""
    return start(program, *arguments, **options).finish()


@functools.cache
def python_command() -> str:
    """Path of a `python` for programs that start others: `python -m <module>` runs in a forked process, too.

    It hands its arguments, folder, environment and streams to a server that forks, and ends as the forked one does.
    """
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, command = pathlib.Path(folder, "server"), pathlib.Path(folder, "python")
    command.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    command.chmod(0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()
    with contextlib.chdir(ROOT):
        FORKS.Process(target=_serve, args=(listener,), daemon=True).start()
    listener.close()
    return str(command)


_CLIENT = """#!{python} -ESs
import json, os, socket, sys
if sys.argv[1:2] != ["-m"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"+"], [0, 1, 2])
    server.sendall(json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    answer = server.makefile().read()
status = int(answer or 1)
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def _serve(listener):
    """Forks a process for each that connects, and another one for the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        listener.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        (program, *arguments), cwd, environment = json.loads(connection.makefile().read())
        child = os.fork()
        if not child:
            connection.close()
            _enter(program, arguments, cwd, environment, dict(enumerate(streams)))
            # The streams that came with the process take a pipe for the file that they were opened on.
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
            with _exit_status() as status:
                _execute(program)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status[0])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        connection.sendall(str(status).encode())
        os._exit(0)


@contextlib.contextmanager
def _exit_status():
    """A list that gets the exit status with which Python would end, having printed what it would print."""
    status = []
    try:
        yield status
        status.append(0)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status.append(end.code if isinstance(end.code, int) else int(end.code is not None))


def _main(program, arguments, cwd, environment, folder, python):
    """In the forked process."""
    streams = {
        number: os.open(pathlib.Path(folder, name), os.O_WRONLY | os.O_APPEND)
        for number, name in ((1, "stdout"), (2, "stderr"))
    }
    if python is not None:
        sys.executable = python
    _enter(program, arguments, cwd, environment, streams)
    _execute(program)


def _enter(program, arguments, cwd, environment, streams):
    """Makes this process look as if it had been started with these arguments, there, with these streams."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number, descriptor in streams.items():
        os.dup2(descriptor, number)
    sys.stdout.reconfigure(line_buffering=False)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, cwd)
    is_module = _is_module(program)
    sys.argv = [program if is_module else "-c", *arguments]


def _is_module(program):
    return all(part.isidentifier() for part in program.split("."))


def _execute(program):
    try:
        if _is_module(program):
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
