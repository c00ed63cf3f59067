"""A process that has imported what commands need, and becomes one at a time by a fork: torch is imported once.

Started as ``python forked.py``. A line of JSON on stdin is a command: its arguments, folder, environment, and files for
stdout and stderr. The first answer on stdout is its process, the second its exit code, negative for a signal. A
command's conversion worker is a fork of the command.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from brief import measure_briefly  # beside this file

WARM = ("torch.export._trace", "torch.fx.experimental.proxy_tensor", "networkx", "sklearn.datasets", "onnx")


def warm() -> None:
    """Import what commands import. Raises RuntimeError where that leaves threads, which a fork would lose."""
    import edgekd

    for name in WARM:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(edgekd.__path__, "edgekd."):
        # the agent runs by itself, and the runtimes that it imports start threads
        if not module.name.startswith("edgekd.agent.") and not module.name.endswith("__main__"):
            with suppress(ImportError):  # of an extra that isn't installed
                importlib.import_module(module.name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise RuntimeError(f"{threads} threads after the imports: a fork of this process may hang")


class ForkedWorker(subprocess.Popen):
    """A conversion worker that need not import again what the command has imported."""

    def _execute_child(self, args, *options):
        env, (read_in, _, _, write_out, _, write_err) = options[5], options[9:15]
        self.pid = os.fork()
        if self.pid == 0:
            for number, end in enumerate((read_in, write_out, write_err)):
                os.dup2(end, number)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # locks of the command too
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.environ.clear()
            os.environ.update(env)
            sys.argv, sys.stdin = args[args.index("-m") + 1 :], open(0, encoding="utf-8")  # noqa: SIM115  # the process' own
            sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            from edgekd.export.worker import main

            try:
                main()
            finally:
                sys.excepthook(*sys.exc_info())
                os._exit(1)  # never back into the command
        self._child_created = True
        os.close(read_in)
        os.close(write_out)


def become(command: dict[str, Any]) -> NoReturn:
    """Be this command to its end, as if it had been started by itself."""
    os.environ.clear()
    os.environ.update(command["environment"])
    os.chdir(command["folder"])
    sys.argv, sys.path[0] = ["edgekd", *command["arguments"]], command["folder"]
    for number, path in enumerate((os.devnull, command["stdout"], command["stderr"])):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # the process' own
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    from edgekd.cli.main import main
    from edgekd.export import converter

    measure_briefly()
    converter.subprocess = SimpleNamespace(Popen=ForkedWorker, PIPE=subprocess.PIPE)
    code = main()
    threading._shutdown()  # waits for threads, as the end of every Python does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # taking 4,000 imported modules apart costs more than most commands


def serve() -> None:
    warm()
    gc.freeze()  # what is imported stays shared with the forks: no collection touches it
    commands, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    for line in commands:
        pid = os.fork()
        if pid == 0:
            become(json.loads(line))
        answers.write(f"{pid}\n")
        answers.flush()
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    serve()
