"""A measured process: imports one runtime, loads one model, and does what the parent says, one request at a time.

It dies with its parent, and the runtime's own chatter goes to stderr, never among the messages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from edgekd.agent import memory, timing
from edgekd.agent.conditions import conditions
from edgekd.agent.faults import Fault, is_fault, is_want_of_memory
from edgekd.agent.messages import MAX_LINE_BYTES, BadMessage, Closed, LineReader, encode, field, read_shapes

if TYPE_CHECKING:
    from edgekd.agent.runtimes.base import Runtime

__all__ = ["die_with", "main"]

Message = Dict[str, Any]
_PR_SET_PDEATHSIG = 1
_MOST_OPERATORS = 4096


class Worker:
    """The state of a measured process. Each request's method has the request's name."""

    runtime: Runtime
    base_bytes: Optional[int] = None  # resident once the runtime is there; None where this machine can't tell
    model_bytes: Optional[int] = None  # at most beyond that, before times of calls are kept: they take memory too
    load_ms = 0.0
    first_us = 0.0
    before: Optional[Message] = None
    after: Optional[Message] = None

    def __init__(self, send: Callable[[Message], None]) -> None:
        self.send = send
        self.rounds: List[timing.Round] = []
        self.started_at_s = time.monotonic()

    def open(self, message: Message) -> Message:
        """Import the runtime, note what it holds, and set the limit for what comes on top."""
        from edgekd.agent.runtimes import open_runtime
        from edgekd.agent.runtimes.base import Tensor, made_up

        # numpy loads its random parts late: that is not the model's cost
        made_up([Tensor("x", kind, (1,)) for kind in ("float32", "int8")], 0)
        threads = field(message, "threads", int)
        self.runtime = open_runtime(field(message, "runtime", str), field(message, "provider", str), threads)
        limit = field(message, "memory_limit_bytes", int)
        total = field(message, "memory_total_bytes", int)
        if total:
            left = total - memory.status_bytes().get("VmRSS", 0)
            if left <= 0:
                raise MemoryError("the runtime alone takes more than the %d bytes a process may" % total)
            limit = min(limit or left, left)
        if limit:
            memory.limit_data(limit)
        # a peak that the import left would be told as the model's
        self.base_bytes = memory.status_bytes().get("VmRSS") if memory.reset_peak() else None
        return {}

    def load(self, message: Message) -> Message:
        """Load the model and make its tensors ready."""
        from edgekd.agent.runtimes.base import made_up

        begin = time.perf_counter_ns()
        self.runtime.shapes = read_shapes(message)
        path = field(message, "path", str)
        try:
            self.runtime.load(_native(path))
        except Exception:
            with open(path, "rb"):  # raises where the file can't be opened at all: then it isn't the model's fault
                raise
        loaded = time.perf_counter_ns()
        inputs = made_up(self.runtime.inputs(), field(message, "seed", int))
        ready = time.perf_counter_ns()
        self.runtime.prepare(inputs)
        self.load_ms = (loaded - begin + time.perf_counter_ns() - ready) / 1e6
        return {}

    def first(self, _: Message) -> Message:
        """The first inference."""
        begin = time.perf_counter_ns()
        self.runtime.call()
        self.first_us = (time.perf_counter_ns() - begin) / 1e3
        return {"first_us": self.first_us}

    def warm(self, message: Message) -> Message:
        """Warm up, then note the conditions: an idle core would tell its idle clock."""
        calls = timing.warm_up(self.runtime.call, field(message, "warmup_ms", float))
        peak = memory.status_bytes().get("VmHWM")
        self.model_bytes = None if peak is None or self.base_bytes is None else max(0, peak - self.base_bytes)
        self.before = conditions()
        return {"calls": calls}

    def round(self, message: Message) -> Message:
        """Time a round of calls."""
        round_ms, least = field(message, "round_ms", float), field(message, "min_calls", int)
        rate_hz, runtime = field(message, "rate_hz", float), self.runtime
        begin = time.perf_counter()
        if rate_hz > 0:
            done = timing.run_periodic(runtime.call, runtime.clock_us, round_ms, least, rate_hz)
        else:
            done = timing.run_closed(runtime.call, runtime.clock_us, round_ms, least)
        elapsed_s = time.perf_counter() - begin
        self.rounds.append(done)
        if field(message, "last", bool):
            self.after = conditions()
        return {"calls": len(done.calls_ns), "elapsed_s": elapsed_s}

    def rest(self, message: Message) -> Message:
        """Wait, so that a meter tells what the loaded process draws without work."""
        time.sleep(field(message, "seconds", float))
        return {}

    def finish(self, _: Message) -> Message:
        """The sample this process is: its figures over all rounds."""
        times, lows = timing.summary_us(self.rounds)
        own = sorted(value for one in self.rounds for value in one.runtime_us)
        return {
            "p5_us": timing.quantile(times, 0.05),
            "min_us": times[0],
            "p50_us": timing.quantile(times, 0.5),
            "p95_us": timing.quantile(times, 0.95),
            "p99_us": timing.quantile(times, 0.99),
            "mean_us": sum(times) / len(times),
            "round_p5_us": lows,
            "calls": len(times),
            "first_us": self.first_us,
            "load_ms": self.load_ms,
            "runtime_us": timing.quantile(own, 0.05) if own else None,
            "runtime_p50_us": timing.quantile(own, 0.5) if own else None,
            "missed": sum(one.missed for one in self.rounds),
            "memory_model_bytes": self.model_bytes,
            "memory_process_bytes": memory.status_bytes().get("VmHWM"),
            "started_at_s": self.started_at_s,
            "before": self.before,
            "after": self.after,
        }

    def place(self, _: Message) -> Message:
        """Placement of the operators."""
        placement = self.runtime.placement()
        return {"placement": None if placement is None else placement._asdict()}

    def profile(self, message: Message) -> Message:
        """Time in each operator."""
        operators = self.runtime.profile(_native(field(message, "path", str)), field(message, "calls", int))
        return {"operators": [operator._asdict() for operator in operators[:_MOST_OPERATORS]]}

    def run(self, message: Message) -> Message:
        """Answer samples given as .npy files, into .npy files."""
        from edgekd.agent.samples import run_samples

        inputs = [str(path) for path in field(message, "inputs", list)]
        paths = run_samples(self.runtime, inputs, field(message, "folder", str), lambda: self.send({"alive": True}))
        return {"outputs": paths}


def main(parent: int) -> int:
    """Serve requests on stdin until it closes. ``parent`` is the process to die with."""
    die_with(parent)
    # What a runtime prints to its stdout must not land among the messages.
    out = os.dup(1)
    os.dup2(2, 1)
    lines = LineReader(0)

    def send(message: Message) -> None:
        line = encode(message)
        while line:
            line = line[os.write(out, line) :]

    worker = Worker(send)
    requests = {
        name: getattr(worker, name)
        for name in ("open", "load", "first", "warm", "round", "rest", "finish", "place", "profile", "run")
    }
    while True:
        try:
            message = lines.read()
            answer = requests[field(message, "op", str)](message)
        except Closed:
            return 0
        except Exception as error:  # noqa: BLE001 - runtimes raise anything; it becomes the outcome, in their words
            if is_want_of_memory(error):
                answer = {"failed": "out-of-memory", "detail": _words(error)}
            elif is_fault(error):
                answer = {"fault": _words(error)}
            else:
                answer = {"failed": "refused", "detail": _words(error)}
        try:
            send(answer)
        except BadMessage as error:
            send({"failed": "refused", "detail": str(error)})


def _native(path: str) -> str:
    """A path as runtimes take it: UTF-8, whatever the locale has made of its bytes. Raises Fault on any other."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise Fault("the path %r is not UTF-8, and no runtime can open it: rename the folder or file" % path) from None


def _words(error: BaseException) -> str:
    from edgekd.agent.runtimes.base import Refusal

    text = str(error).strip()
    plain = text if isinstance(error, Refusal) else "%s: %s" % (type(error).__name__, text)
    return plain[: min(4000, MAX_LINE_BYTES)]


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; where it can't, look every second."""
    asked = False
    try:
        asked = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0
    except (OSError, AttributeError):
        pass
    if os.getppid() != parent:
        sys.exit("the agent is gone")
    if not asked:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
