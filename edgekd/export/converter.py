"""Conversions from the host's side: one worker process, watched, restarted after it crashed, hung or grew too large.

Every conversion ends in one of five outcomes (`ConversionOutcome`), none of them an exception: a search goes on. The
worker stays for the next conversion, so that imports are paid once; a file appears under its name when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import psutil

from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import MissingError
from edgekd.export._protocol import ConversionOutcome, ConversionResult, ExportOptions
from edgekd.export.worker import ENVIRONMENT

__all__ = ["Converter"]

_SUFFIX = {Format.ONNX: ".onnx", Format.TFLITE: ".tflite", Format.OPENVINO: ".xml"}
_START_S = 180.0  # imports of a format's converter on a busy machine
_POLL_S = 0.02
_LOG_TAIL = 1500


class _End(NamedTuple):
    outcome: ConversionOutcome
    detail: str


class Converter:
    """Owns one conversion worker. A context manager; threads take turns.

    ``deadline_s`` bounds one conversion (not the imports before the first of a format), ``memory_limit_bytes`` the
    worker's resident memory in all: its imports take 0.3 (ONNX) to 0.7 GB (TFLite).
    """

    def __init__(
        self,
        scratch: Path,
        deadline_s: float = 120.0,
        memory_limit_bytes: int = 4 * 1024**3,
        threads: int = 1,
    ) -> None:
        self._scratch = scratch
        self._deadline_s = deadline_s
        self._memory_limit_bytes = memory_limit_bytes
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._received = b""
        self._last_id = 0
        self._warmed: set[Format] = set()
        self._turn = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker. Never raises; a converter can be used again after it."""
        with self._turn:
            self._kill()  # idle, since we have the turn: it holds nothing that could be lost

    def warm(self, *formats: Format) -> None:
        """Start the worker and let it import what these formats need, without waiting for it."""
        with self._turn:
            self._start()
            for file_format in formats:
                if file_format not in self._warmed:
                    self._warmed.add(file_format)
                    self._send({"do": "warm", "format": file_format.value})

    def convert(
        self,
        student_folder: Path,
        format: Format,
        options: ExportOptions,
        backend: Backend,
        fingerprint: Fingerprint | None,
        path: Path,
        facts: Mapping[str, str] = {},
    ) -> ConversionResult:
        """Convert a saved student to a file at ``path``, with facts inside it.

        Raises ValueError when ``path`` has not the format's suffix, MissingError when no worker can be started.
        """
        if path.suffix != _SUFFIX[format]:
            raise ValueError(f"a {format.value} model is named *{_SUFFIX[format]}, not {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        request = {
            "do": "convert",
            "student": str(student_folder.resolve()),
            "format": format.value,
            "options": options.model_dump(mode="json"),
            "backend": str(backend),
            "fingerprint": None if fingerprint is None else fingerprint.model_dump(mode="json"),
            "path": str(unfinished.resolve()),
            "facts": dict(facts),
        }
        with self._turn:
            try:
                self._ready(format)
                started = time.monotonic()
                outcome, detail = self._ask(request, self._deadline_s, self._memory_limit_bytes)
                seconds = time.monotonic() - started
                if outcome is not ConversionOutcome.OK:
                    return ConversionResult(outcome=outcome, detail=detail, seconds=seconds)
                _put_in_place(unfinished, path)
            except BaseException:
                self._kill()  # interrupted in the middle: what the worker would say next belongs to nobody
                raise
            finally:
                for rest in (unfinished, unfinished.with_suffix(".bin")):
                    rest.unlink(missing_ok=True)
        return ConversionResult(outcome=outcome, artefact=Artefact.of(path), seconds=seconds)

    def _ready(self, file_format: Format) -> None:
        """A running worker that has imported this format's converter."""
        for attempt in range(2):
            self._start()
            self._warmed.add(file_format)
            end = self._ask({"do": "warm", "format": file_format.value}, _START_S, None)
            if end.outcome is ConversionOutcome.OK:
                return
            if end.outcome is ConversionOutcome.REFUSED:
                break
            if attempt == 0:
                continue  # it may have died while idle
        raise MissingError(
            f"the {file_format.value} converter can't be loaded: {end.detail}",
            "see `edgekd doctor`; reinstall edgekd's dependencies",
        )

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._kill()
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._log = (self._scratch / "worker.log").open("wb")
        environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(self._threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "edgekd.export.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )

    def _send(self, request: Mapping[str, Any]) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        self._last_id += 1
        try:
            self._process.stdin.write(json.dumps({"id": self._last_id, **request}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            pass  # it has died: the wait for its answer finds that out, and how
        return self._last_id

    def _ask(self, request: Mapping[str, Any], deadline_s: float, memory_limit_bytes: int | None) -> _End:
        assert self._process is not None
        assert self._process.stdout is not None
        wanted = self._send(request)
        end_s = time.monotonic() + deadline_s
        watched = psutil.Process(self._process.pid)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                for answer in self._answers():
                    if answer["id"] == wanted:
                        return _End(ConversionOutcome(answer["outcome"]), str(answer["detail"]))
                if selector.select(timeout=_POLL_S):
                    data = os.read(self._process.stdout.fileno(), 65536)
                    self._received += data
                    if not data:
                        return self._died()
                if time.monotonic() > end_s:
                    self._kill()
                    return _End(ConversionOutcome.HUNG, f"no answer within {deadline_s:g} s; the worker was killed")
                resident = _resident_bytes(watched)
                if memory_limit_bytes is not None and resident > memory_limit_bytes:
                    self._kill()
                    return _End(
                        ConversionOutcome.OUT_OF_MEMORY,
                        f"the worker took {resident} B, more than its limit of {memory_limit_bytes} B",
                    )

    def _answers(self) -> list[dict[str, Any]]:
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]

    def _died(self) -> _End:
        assert self._process is not None
        code = self._process.wait()
        tail = b""
        if self._log is not None:
            self._log.flush()
            tail = (self._scratch / "worker.log").read_bytes()[-_LOG_TAIL:]
        how = f"exit code {code}"
        if code < 0:
            how = signal.Signals(-code).name
            if -code == signal.SIGKILL:
                how += " (the system kills a process so when memory runs out)"
        self._kill()
        said = tail.decode(errors="replace").strip()
        return _End(ConversionOutcome.CRASHED, f"the worker died: {how}" + (f"\n{said}" if said else ""))

    def _kill(self) -> None:
        process, self._process = self._process, None
        self._received, self._warmed = b"", set()
        if process is not None:
            if process.poll() is None:
                process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # a broken pipe has nothing left to flush
                        stream.close()
        if self._log is not None:
            self._log.close()
            self._log = None


def _put_in_place(unfinished: Path, path: Path) -> None:
    weights = unfinished.with_suffix(".bin")
    if weights.exists():
        weights.replace(path.with_suffix(".bin"))
    unfinished.replace(path)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it has just ended; the pipe says so
