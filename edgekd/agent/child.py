"""A worker seen from the parent: spawned, asked with a deadline, and its end put into words."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from typing import Any, Callable, Dict, Optional

from edgekd.agent.faults import MEMORY_WORDS, Fault
from edgekd.agent.limits import Yard
from edgekd.agent.messages import BadMessage, Closed, JobRequest, Late, LineReader, encode

__all__ = ["Child", "Failed", "Killed", "NotStarted"]

Message = Dict[str, Any]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_STDERR_KEPT_BYTES = 4000


class Failed(Exception):
    """The end of a worker: ``outcome`` is refused, crashed, hung or out-of-memory."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail


class Killed(Failed):
    """Ended by SIGKILL, and not at a limit: for want of the device's memory, or by whoever ends processes there."""


class NotStarted(Failed):
    """There was no memory for a process: it says nothing of the model, which was never loaded."""


class Child:
    """A spawned worker. Use it as a context manager: leaving kills it.

    Raises NotStarted where there is no memory for one, and Fault where none can be had for another reason.
    """

    def __init__(self, job: JobRequest, memory_limit_bytes: int, yard: Yard, waiting: Callable[[], None]) -> None:
        self.job = job
        self.memory_limit_bytes = memory_limit_bytes
        self.waiting = waiting
        self.kills = _kernel_kills()
        self.memory_total_bytes = yard.rlimit_bytes
        self.first_s = 0.0
        try:
            self._begin(yard)
        except OSError as error:
            if error.errno not in (errno.ENOMEM, errno.EAGAIN):  # those: a fork that finds no room
                raise Fault("no process can be started: %s" % error) from error
            raise NotStarted("out-of-memory", "no process can be started: %s" % error) from error
        assert self.process.stdin is not None  # asked for, just above
        assert self.process.stdout is not None
        self.stdin = self.process.stdin
        self.lines = LineReader(self.process.stdout.fileno())

    def _begin(self, yard: Yard) -> None:
        """Start it in its groups; where something is refused, what was made goes again. Raises OSError."""
        environment = dict(os.environ)
        for name in _THREAD_VARIABLES:
            environment[name] = str(self.job.threads)
        with ExitStack() as made:
            self.stderr = made.enter_context(tempfile.TemporaryFile())
            self.cage = yard.cage()
            if self.cage is not None:
                made.callback(self.cage.remove)
            self.process = made.enter_context(
                subprocess.Popen(
                    [sys.executable, "-B", sys.argv[0], "worker", str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self.stderr,
                    env=environment,
                    bufsize=0,
                )
            )
            made.callback(self.process.kill)
            if self.cage is not None:
                self.cage.hold(self.process.pid)
            made.pop_all()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, op: str, deadline_s: float, **fields: Any) -> Message:
        """Send a request, return its answer. Raises Failed, or Fault where it isn't the model's; the worker is gone."""
        try:
            self.stdin.write(encode(dict(fields, op=op)))
            while True:
                answer = self.lines.read(deadline_s, self.waiting)
                self.waiting()
                if "alive" not in answer:
                    break
        except Late:
            self.close()
            raise Failed("hung", "no answer within %g s while asked to %s" % (deadline_s, _DOING[op])) from None
        except (Closed, OSError):
            raise self._ended(op) from None
        except BadMessage as error:
            self.close()
            raise Failed("crashed", "the worker wrote something else than answers: %s" % error) from None
        if "fault" in answer:
            self.close()
            raise Fault(str(answer["fault"]))
        if "failed" in answer:
            self.close()
            raise Failed(str(answer["failed"]), str(answer.get("detail", "")))
        return answer

    def open(self, deadline_s: float) -> None:
        """Import the runtime and load the model. Raises Failed."""
        self.ask(
            "open",
            deadline_s,
            runtime=self.job.runtime,
            provider=self.job.provider,
            threads=self.job.threads,
            memory_limit_bytes=self.memory_limit_bytes,
            memory_total_bytes=self.memory_total_bytes,
        )

    def load(self, deadline_s: float, seed: int) -> None:
        """Load the model. Raises Failed."""
        self.ask("load", deadline_s, path=self.job.path, shapes=self.job.shapes, seed=seed)

    def first(self, deadline_s: float) -> None:
        """The first inference; ``first_s`` then tells later deadlines what to expect. Raises Failed."""
        self.first_s = float(self.ask("first", deadline_s)["first_us"]) * 1e-6

    def close(self) -> None:
        """Kill the worker, if it still lives, and wait for its end."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.stdin, self.process.stdout, self.stderr):
            if stream is not None:
                stream.close()
        if self.cage is not None:
            self.cage.remove()

    def _ended(self, op: str) -> Exception:
        """The error of its end: Failed, or Fault where it was asked to."""
        try:
            code: Optional[int] = self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            code = None
        said = self._said()
        held = self.cage is not None and self.cage.killed()
        self.close()
        doing = "while asked to %s" % _DOING[op]
        after = ": " + said if said else ""
        if code is None:
            return Failed("hung", "the worker closed its pipe and went on %s" % doing)
        if code >= 0:
            return Failed("crashed", "the process ended by itself with exit code %d %s%s" % (code, doing, after))
        name = signal.Signals(-code).name
        if any(word in said for word in MEMORY_WORDS):
            return Failed("out-of-memory", "killed by %s %s%s" % (name, doing, after))
        if held:
            return Failed("out-of-memory", "killed at the limit of what a process may take, %s" % doing)
        if code == -signal.SIGKILL and _kernel_kills() > self.kills:
            return Killed("out-of-memory", "killed by the kernel, which had no memory left, %s" % doing)
        if code == -signal.SIGTERM:
            return Fault("a process that measures was ended by SIGTERM %s" % doing)
        kind = Killed if code == -signal.SIGKILL else Failed
        return kind("crashed", "killed by %s %s%s" % (name, doing, after))

    def _said(self) -> str:
        """The last lines the process wrote on stderr."""
        size = self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, size - _STDERR_KEPT_BYTES))
        text = self.stderr.read().decode("utf-8", "replace").strip()
        return " | ".join(text.splitlines()[-3:])


_DOING = {
    "open": "import the runtime",
    "load": "load the model",
    "first": "answer for the first time",
    "warm": "warm up",
    "round": "run a round",
    "rest": "rest",
    "finish": "sum up",
    "place": "tell where operators run",
    "profile": "time operators",
    "run": "answer samples",
}


def _kernel_kills() -> int:
    """Number of processes that the kernel has killed for want of memory since it started; 0 where it doesn't say."""
    try:
        with open("/proc/vmstat", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return 0
