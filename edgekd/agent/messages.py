"""Messages between host, agent and worker: one JSON object a line, bounded in length, with deadlines.

Tensors and models never travel here: they are files, named by path and SHA-256.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

__all__ = [
    "MAX_LINE_BYTES",
    "PROTOCOL",
    "BadMessage",
    "Closed",
    "JobRequest",
    "Late",
    "LineReader",
    "PlanRequest",
    "decode",
    "encode",
    "field",
    "read_shapes",
]

PROTOCOL = 3
"""Version of this protocol. Host and agent refuse to work together when theirs differ."""

MAX_LINE_BYTES = 4 * 1024 * 1024

Message = Dict[str, Any]


class BadMessage(Exception):
    """A line that is no message: not JSON, not an object, too long, or a field is missing or of a wrong type."""


class Closed(Exception):
    """The other end has closed the pipe."""


class Late(Exception):
    """A deadline that passed before a whole line came."""


class JobRequest(NamedTuple):
    """A model file and what runs it."""

    runtime: str
    provider: str
    path: str
    sha256: str  # of the file, as the host computed it; empty where there's nothing to check
    threads: int
    shapes: Dict[str, List[int]]  # of inputs with free axes; under no name that of the only input

    @staticmethod
    def read(message: Message) -> JobRequest:
        """Take a job out of a message. Raises BadMessage."""
        runtime, provider, path, sha256 = (field(message, name, str) for name in JobRequest._fields[:4])
        return JobRequest(runtime, provider, path, sha256, field(message, "threads", int), read_shapes(message))


class PlanRequest(NamedTuple):
    """Plan of a measurement; the fields mean what the host's plan says. Times carry their unit in the name."""

    processes: int
    rounds: int
    round_ms: float
    min_calls: int
    warmup_ms: float
    busy: int  # cores that other processes keep busy meanwhile
    rate_hz: float  # 0 is back to back
    sentinel: bool
    profile: bool
    energy: bool
    energy_window_s: float
    load_deadline_s: float
    call_deadline_s: float
    memory_limit_bytes: int  # 0 is none
    seed: int

    @staticmethod
    def read(message: Message) -> PlanRequest:
        """Take a plan out of a message. Raises BadMessage."""
        return PlanRequest(*(field(message, name, kind) for name, kind in zip(PlanRequest._fields, _PLAN_KINDS)))


_PLAN_KINDS = (int, int, float, int, float, int, float, bool, bool, bool, float, float, float, int, int)


def field(message: Message, name: str, kind: type) -> Any:
    """A field of the given type; whole numbers are taken for floats. Raises BadMessage."""
    value = message.get(name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise BadMessage("field `%s` should be %s, found %r" % (name, kind.__name__, value))
    return value


def read_shapes(message: Message) -> Dict[str, List[int]]:
    """Positive sizes of axes by input name. Raises BadMessage."""
    found: Dict[str, List[int]] = field(message, "shapes", dict)
    if not all(
        isinstance(axes, list) and all(type(size) is int and size > 0 for size in axes) for axes in found.values()
    ):
        raise BadMessage("field `shapes` should hold lists of positive numbers, found %r" % (found,))
    return found


def encode(message: Message) -> bytes:
    """Encode a message as a line. Raises ValueError on NaN and infinity, BadMessage when it is too long to send."""
    line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if len(line) > MAX_LINE_BYTES:
        raise BadMessage("a message of %d bytes, more than the %d allowed" % (len(line), MAX_LINE_BYTES))
    return line


class LineReader:
    """Reads messages from a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.buffer = b""
        self.seen = 0  # bytes of the buffer known to hold no line end

    def read(self, deadline_s: Optional[float] = None, waiting: Optional[Callable[[], None]] = None) -> Message:
        """The next message. ``waiting`` is called every few seconds of silence. Raises Late, Closed, BadMessage."""
        end = None if deadline_s is None else time.monotonic() + deadline_s
        while True:
            at = self.buffer.find(b"\n", self.seen)
            if at >= 0:
                line, self.buffer, self.seen = self.buffer[:at], self.buffer[at + 1 :], 0
                return decode(line)
            self.seen = len(self.buffer)
            if self.seen > MAX_LINE_BYTES:
                raise BadMessage("a line longer than the %d bytes allowed" % MAX_LINE_BYTES)
            if end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    raise Late("no answer within %g s" % (deadline_s or 0.0))
                if not select.select([self.descriptor], [], [], min(left, 5.0))[0]:
                    if waiting is not None:
                        waiting()
                    continue
            data = os.read(self.descriptor, 65536)
            if not data:
                raise Closed("the pipe was closed")
            self.buffer += data


def decode(line: bytes) -> Message:
    """A line as a message. Raises BadMessage."""
    try:
        message = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadMessage("not a message: %r" % line[:80]) from None
    if not isinstance(message, dict):
        raise BadMessage("not a message: %r" % line[:80])
    return message
