"""A model that does nothing: what it costs is the harness's own cost. Its file is one line of text.

``null`` returns its input; the other words make it misbehave on purpose, so that every way a real model can end is
diagnosed on a real process: ``null:spin=US`` is busy for that long, ``null:crash`` dies in its first call,
``null:hang`` never returns from it, ``null:alloc=BYTES`` takes memory while loading, ``null:refuse`` will not load.
``null:stream=BYTES`` adds one to half of so much memory into the other half: how fast the device moves bytes.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, List, Sequence

import numpy as np

from edgekd.agent.runtimes.base import Refusal, Runtime, Tensor, TimedOperator, check_inputs

__all__ = ["PROVIDERS", "Null", "open_runtime"]

PROVIDERS = ("none",)

_TENSOR = Tensor("x", "float32", (1, 1))


class Null(Runtime):
    """See the file's description."""

    def __init__(self) -> None:
        self.held: List[bytes] = []

    def load(self, path: str) -> None:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(200).strip()
        name, _, rest = text.partition(":")
        word, _, value = rest.partition("=")
        if name != "null" or word not in ("", "spin", "crash", "hang", "alloc", "refuse", "stream"):
            raise Refusal("not a null model: %r" % text[:80])
        if word == "refuse":
            raise Refusal("this null model refuses to load, as it was asked to")
        if word == "alloc":
            self.held.append(b"\x01" * int(value))
        if word == "stream":
            self.halves = np.ones(int(value) // 8, np.float32), np.zeros(int(value) // 8, np.float32)
        self.word, self.value = word, float(value or 0)

    def prepare(self, inputs: Sequence[np.ndarray[Any, Any]]) -> None:
        check_inputs([_TENSOR], inputs)
        self.value_in = inputs[0].copy()
        calls = {"spin": self._spin, "crash": self._crash, "hang": self._hang, "stream": self._stream}
        self.call = calls.get(self.word, self._nothing)

    def inputs(self) -> List[Tensor]:
        return [_TENSOR]

    def outputs(self) -> List[Tensor]:
        return [_TENSOR]

    def read(self) -> List[np.ndarray[Any, Any]]:
        return [self.value_in.copy()]

    def profile(self, path: str, calls: int) -> List[TimedOperator]:
        del path, calls
        return []

    def _nothing(self) -> None:
        return

    def _spin(self) -> None:
        end = time.perf_counter() + self.value * 1e-6
        while time.perf_counter() < end:
            pass

    def _stream(self) -> None:
        np.add(self.halves[0], np.float32(1), out=self.halves[1])  # a copy is ten times slower at some alignments

    def _crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(60)

    def _hang(self) -> None:
        while True:
            time.sleep(3600)


def open_runtime(provider: str, threads: int) -> Runtime:
    """The null runtime; it has neither providers nor threads."""
    del provider, threads
    return Null()
