"""Converter on the host's side: one worker process, watched, restarted after it crashed, hung or grew too large.

Every conversion ends in one of five outcomes (`ConversionOutcome`), none of them an exception: a search goes on. Faults
outside the model (a full disk, a killed worker, a machine without the memory that a conversion may take) are a
MissingError: they say nothing of the model, and the same conversion may work later. The worker stays for the next
conversion, so that imports are paid once; a file gets its name only when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
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

from edgekd.agent.faults import MEMORY_WORDS
from edgekd.artefacts import Artefact, Backend, Format
from edgekd.devices._protocol import Fingerprint
from edgekd.errors import MissingError
from edgekd.export._protocol import ConversionOutcome, ConversionResult, ExportOptions
from edgekd.export.worker import ENVIRONMENT, FAULT

__all__ = ["Converter"]

_START_S = 180.0  # imports of a format's converter on a busy machine
_POLL_S = 0.02
_PATIENCE = 4  # times its deadline by the clock, on a machine with other work
_ROOM = 0.75  # of a machine's memory that is free where nothing else runs
_LOG_TAIL = 1500
_FREE_MEMORY = "free memory, or stop whatever kills processes here; the same command then continues"


class _End(NamedTuple):
    outcome: ConversionOutcome
    detail: str
    float_operators: tuple[str, ...] | None = None
    fault: bool = False  # of the surroundings, not of the model


class _Before(NamedTuple):
    """State before a request to the worker, to find out why it died."""

    kernel_kills: int  # processes that the kernel has killed for lack of memory
    logged_bytes: int
    cpu_s: float


class Converter:
    """Owner of one conversion worker. A context manager; threads take turns.

    ``deadline_s`` bounds the processor time of one conversion on each of its threads (not the imports before the first
    of a format), and four times as much bounds its time by the clock: other work on the machine is not the model's.
    ``memory_limit_bytes`` bounds the worker's resident memory in all: its imports take 0.3 to 0.6 GB (ONNX) and more
    (TFLite), depending on the machine. ``kernel_counters`` is the file in which the kernel counts processes it killed
    for lack of memory.
    """

    def __init__(
        self,
        scratch: Path,
        deadline_s: float = 300.0,  # a large user's own model is built anew in each worker
        memory_limit_bytes: int = 4 * 1024**3,
        threads: int = 1,
        kernel_counters: Path = Path("/proc/vmstat"),
    ) -> None:
        self._scratch, self._log_path = scratch, scratch / "worker.log"
        self._deadline_s = deadline_s
        self._memory_limit_bytes = memory_limit_bytes
        self._threads = threads
        self._kernel_counters = kernel_counters
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._received = b""
        self._last_id = 0
        self._converted = 0  # by this worker
        self._turn = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, file_format: Format) -> None:
        """Start the worker and its imports for a format, without waiting for them: nothing may be timed meanwhile."""
        with self._turn:
            self._start()
            self._send({"do": "warm", "format": file_format.value})  # its answer is not read: a conversion asks again

    def close(self) -> None:
        """End the worker. Never raises; a converter can be used again after it."""
        with self._turn:
            self._kill()  # idle, since this thread has the turn: nothing is lost

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
        """Convert a saved student to a file at ``path``, with metadata inside it (see `edgekd.export.facts`).

        Raises ValueError when ``path`` has not the format's suffix, and MissingError when no worker can be started, or
        it failed for a reason outside the model.
        """
        request = {
            "do": "convert",
            "student": str(student_folder.resolve()),
            "options": options.model_dump(mode="json"),
            "backend": str(backend),
            "fingerprint": None if fingerprint is None else fingerprint.model_dump(mode="json"),
            "facts": dict(facts),
        }
        return self._written(request, format, path)

    def _written(self, request: Mapping[str, Any], format: Format, path: Path) -> ConversionResult:
        if path.suffix != format.suffix:
            raise ValueError(f"a {format.value} model is named *{format.suffix}, not {path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        request = {**request, "format": format.value, "path": str(unfinished.resolve())}
        with self._turn:
            try:
                self._ready(format)
                started, earlier = time.monotonic(), self._converted
                end = self._ask(request, self._deadline_s, self._memory_limit_bytes, _PATIENCE)
                if end.fault or (end.outcome is ConversionOutcome.OUT_OF_MEMORY and earlier):
                    self._ready(format)  # a new worker, without what earlier conversions left behind in this one
                    end = self._ask(request, self._deadline_s, self._memory_limit_bytes, _PATIENCE)
                self._converted += 1
                seconds = time.monotonic() - started
                if end.fault:
                    raise MissingError(
                        f"{path.name} could not be converted: {end.detail}",
                        _FREE_MEMORY,
                    )
                if end.outcome is not ConversionOutcome.OK:
                    return ConversionResult(outcome=end.outcome, detail=end.detail, seconds=seconds)
                _put_in_place(format, unfinished, path)
            except BaseException:
                self._kill()  # interrupted in the middle: the worker's next answer would have no reader
                raise
            finally:
                for rest in format.files(unfinished):
                    rest.unlink(missing_ok=True)
        return ConversionResult(
            outcome=end.outcome, artefact=Artefact.of(path), seconds=seconds, float_operators=end.float_operators
        )

    def _ready(self, file_format: Format) -> None:
        """Ensure a running worker that has imported this format's converter."""
        for attempt in range(2):
            self._start()
            end = self._ask({"do": "warm", "format": file_format.value}, _START_S, None, 1)
            if end.outcome is ConversionOutcome.OK:
                return
            if end.outcome is ConversionOutcome.HUNG:
                load, cores = os.getloadavg()[0], os.cpu_count() or 1
                raise MissingError(
                    f"the {file_format.value} converter took over {_START_S:g} s to start "
                    f"(load {load:.0f} on {cores} cores)",
                    "wait until other work is done, and run the same command again",
                )
            if end.outcome is ConversionOutcome.REFUSED:
                break
            if attempt == 0:
                continue  # it may have died while idle
        if end.fault or end.outcome is ConversionOutcome.OUT_OF_MEMORY:
            raise MissingError(f"the {file_format.value} converter can't be loaded: {end.detail}", _FREE_MEMORY)
        raise MissingError(
            f"the {file_format.value} converter can't be loaded: {end.detail}",
            "see `edgekd doctor`; reinstall edgekd's dependencies",
        )

    def _start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._kill()
        self._converted = 0
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._log = self._log_path.open("wb")
        environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": str(self._threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgekd.export.worker", str(os.getpid())],  # -P: no onnx.py of the folder here
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
            pass  # it has died: the wait for its answer finds the cause
        return self._last_id

    def _ask(
        self, request: Mapping[str, Any], deadline_s: float, memory_limit_bytes: int | None, patience: int
    ) -> _End:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._log is not None
        watched = psutil.Process(self._process.pid)
        before = _Before(self._kernel_kills(), os.fstat(self._log.fileno()).st_size, _cpu_s(watched))
        wanted = self._send(request)
        end_s, cpu_end_s = time.monotonic() + patience * deadline_s, before.cpu_s + self._threads * deadline_s
        room = psutil.virtual_memory().total  # least memory available to the worker
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                for answer in self._answers():
                    if answer["id"] == wanted and answer["outcome"] == FAULT:
                        raise MissingError(
                            f"the converter could not do its work: {answer['detail']}",
                            "free some space, or correct what the system refuses; the same command then goes on",
                        )
                    if answer["id"] == wanted:
                        left = answer["float_operators"]
                        outcome = ConversionOutcome(answer["outcome"])
                        return _End(
                            outcome,
                            str(answer["detail"]),
                            None if left is None else tuple(left),
                            outcome is ConversionOutcome.OUT_OF_MEMORY and self._is_short(room),
                        )
                if selector.select(timeout=_POLL_S):
                    data = os.read(self._process.stdout.fileno(), 65536)
                    self._received += data
                    if not data:
                        return self._died(before, room)
                late = time.monotonic() > end_s
                if late or _cpu_s(watched) > cpu_end_s:
                    self._kill()
                    spent = f"{patience * deadline_s:g} s" if late else f"{deadline_s:g} s of a processor"
                    return _End(ConversionOutcome.HUNG, f"no answer within {spent}; the worker was killed")
                resident = _resident_bytes(watched)
                if resident:
                    room = min(room, psutil.virtual_memory().available + resident)
                if memory_limit_bytes is not None and resident > memory_limit_bytes:
                    self._kill()
                    return _End(
                        ConversionOutcome.OUT_OF_MEMORY,
                        f"the worker took {resident} B, more than its limit of {memory_limit_bytes} B",
                    )

    def _answers(self) -> list[dict[str, Any]]:
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]

    def _died(self, before: _Before, room: int) -> _End:
        assert self._process is not None
        code = self._process.wait()
        log = self._log_path.read_bytes()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        by_kernel = code == -signal.SIGKILL and self._kernel_kills() > before.kernel_kills
        if by_kernel:
            how += " by the kernel, which had no memory left"
        # an allocator's last message; messages of earlier conversions do not count
        lack = by_kernel or any(mark.encode() in log[before.logged_bytes :] for mark in MEMORY_WORDS)
        self._kill()
        said = log[-_LOG_TAIL:].decode(errors="replace").strip()
        outcome = ConversionOutcome.OUT_OF_MEMORY if lack else ConversionOutcome.CRASHED
        # a worker within its limits that is killed, or finds less than these: the machine's fault, not the model's
        fault = -code in (signal.SIGKILL, signal.SIGTERM) or (lack and self._is_short(room))
        return _End(outcome, f"the worker died: {how}" + (f"\n{said}" if said else ""), fault=fault)

    def _is_short(self, room: int) -> bool:
        """Tell whether other work, or a limit of processes, left the worker less memory than a conversion may take.

        ``room`` is the memory that the worker had and could have had. A small machine that nothing else uses is not
        short: a model too large for it is too large every time.
        """
        limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
        bounds = [limit for limit in limits if limit != resource.RLIM_INFINITY]
        return min([room, *bounds]) < min(self._memory_limit_bytes, _ROOM * psutil.virtual_memory().total)

    def _kernel_kills(self) -> int:
        """Number of processes the kernel has killed for lack of memory since it started; 0 where it reports none."""
        try:
            counters = self._kernel_counters.read_text(encoding="ascii").splitlines()
        except OSError:
            return 0  # no Linux: a kill is then a crash like any other
        return next((int(line.split()[1]) for line in counters if line.startswith("oom_kill ")), 0)

    def _kill(self) -> None:
        process, self._process = self._process, None
        self._received = b""
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


def _put_in_place(file_format: Format, unfinished: Path, path: Path) -> None:
    beside = zip(file_format.files(unfinished)[1:], file_format.files(path)[1:], strict=True)
    for made, place in beside:
        if made.exists():
            made.replace(place)
    unfinished.replace(path)  # last: a model without the files beside it must not be found


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0  # it has just ended; the pipe says so
    return float(times.user + times.system)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it has just ended; the pipe says so
