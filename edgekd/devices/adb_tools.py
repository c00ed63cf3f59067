"""A phone without a Python, measured by the vendors' own programs: times, and nothing but times.

``benchmark_model`` (TensorFlow's, LiteRT's) and ``onnxruntime_perf_test`` (ONNX Runtime's) are pushed to it. Each run
of one is a fresh process, jobs in turn as in any batch. They tell neither memory nor answers, have no sentinel beside
them, and call back to back alone: what they can't do is refused with its reason, and `edgekd bench`
says ``times only``.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import FilePath, model_validator

from edgekd.agent.fingerprint import cpu_of, extensions_of, memory_bytes_of
from edgekd.devices._protocol import (
    NO_PYTHON,
    Fingerprint,
    Job,
    Measurement,
    MeasurePlan,
    Outcome,
    ProcessSample,
    Progress,
    RunResult,
)
from edgekd.devices.adb import AdbDevice
from edgekd.devices.files import RemoteFiles, path_there
from edgekd.devices.lock import DeviceLock
from edgekd.devices.phone import state_of
from edgekd.devices.remote import new_token
from edgekd.devices.shell import Shell, ask, command_line, last_line
from edgekd.devices.tool_output import NotUnderstood, read_benchmark_model, read_perf_test
from edgekd.errors import ConnectionLost, DeviceUnreachable, MissingError, Problem
from edgekd.evidence import EvidenceKind
from edgekd.ir.backends import BACKENDS
from edgekd.records import digest_file

__all__ = ["AdbToolsDevice", "ToolsSession"]

_TOOLS = {"litert": "benchmark_model", "onnxruntime": "onnxruntime_perf_test"}
_RESOLUTION_US = {"litert": 1.0}  # benchmark_model's quantiles are whole microseconds
_KILLED, _TIMED_OUT = 137, 124
_GRACE_S = 15.0
_MOST_SAID_BYTES = 400_000
_MOST_PULLED_BYTES = 16 << 20
_MOST_CALLS = 20_000
_DESCRIBE = """
for F in /proc/cpuinfo /proc/meminfo; do echo "== $F"; cat "$F"; done
echo "== governor"; cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor 2>/dev/null
echo "== machine"; uname -m; echo "== kernel"; uname -r; echo "== cores"; nproc
echo "== model"; getprop ro.product.model 2>/dev/null; echo "== android"; getprop ro.build.version.release 2>/dev/null
true"""
_TIDY = r"""
find blobs tools -type f -mtime +6 -exec rm -f {} \; 2>/dev/null
find blobs -mindepth 1 -type d -mtime +6 -exec rmdir {} \; 2>/dev/null
true"""
"""What was not used for a week goes, as where an agent tidies; `-mtime +6` is more than six whole days."""


class AdbToolsDevice(AdbDevice):
    """``benchmark_model`` and ``onnxruntime_perf_test`` are files of this computer, built for the phone's processor."""

    benchmark_model: FilePath | None = None
    onnxruntime_perf_test: FilePath | None = None

    @model_validator(mode="after")
    def _some_tool(self) -> AdbToolsDevice:
        if not self.tools:
            raise ValueError("expected `benchmark_model`, `onnxruntime_perf_test`, or both: files of this computer")
        for name in ("python", "limits", "meter", "cooling", "on_cores"):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` needs a Python on the phone (kind: adb)")
        return self

    @property
    def tools(self) -> dict[str, Path]:
        """Programs by runtime."""
        found = {runtime: getattr(self, name) for runtime, name in _TOOLS.items()}
        return {runtime: path for runtime, path in found.items() if path is not None}

    def open(self) -> ToolsSession:  # type: ignore[override]  # both are sessions
        """Take the lock and push the programs. Raises DeviceBusy, DeviceUnreachable."""
        lock = DeviceLock(self.name)
        try:
            return ToolsSession(self, lock.release)
        except BaseException:
            lock.release()
            raise

    def describe(self) -> Fingerprint:
        """Its fingerprint, also while another run holds its lock. Raises DeviceUnreachable."""
        session = ToolsSession(self, lambda: None)
        session.close()
        return session.describe()


class ToolsSession:
    """A DeviceSession."""

    def __init__(self, device: AdbToolsDevice, release: Callable[[], None]) -> None:
        self.device = device
        self._release = release
        self._shell: Shell = device.shell()
        self._open = True
        place = path_there(device.folder)
        made = ask(self._shell, f"umask 077; mkdir -p {place}/blobs {place}/tools || exit 1\ncd {place} && pwd", 30.0)
        self._files = RemoteFiles(self._shell, made, new_token(), None)
        self._tools: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._p50_us: dict[tuple[str, int], float] = {}  # by the model's place and threads: tells how many calls to ask
        for runtime, path in device.tools.items():
            digest = digest_file(path)
            there = f"tools/{digest[:32]}"
            self._files.bring({there: path}, [digest], "tools")
            self._files.ask(f"chmod 700 {there}")
            self._tools[runtime], self._digests[runtime] = there, digest
        self._files.ask(_TIDY)
        self._fingerprint = self._describe()

    def describe(self) -> Fingerprint:
        """See DeviceSession. A program's version is its digest: it tells no other."""
        return self._fingerprint

    def prepare(self, jobs: Sequence[Job]) -> Mapping[Job, Problem | None]:
        """See DeviceSession."""
        plan = MeasurePlan(rounds=1, min_calls=1, round_ms=1.0, warmup_ms=1.0)
        found: dict[Job, Problem | None] = {}
        for job in dict.fromkeys(jobs):
            outcome, detail, _ = self._once(job, plan)
            found[job] = None if outcome is Outcome.OK else Problem(f"{job.backend} can't use it: {detail}")
        return found

    def measure(
        self, jobs: Sequence[Job], plan: MeasurePlan, progress: Progress | None = None
    ) -> Sequence[Measurement]:
        """See DeviceSession. Raises MissingError on a plan that these programs can't follow."""
        self._require_open()
        if plan.memory_limit_bytes is not None:
            raise MissingError("a memory limit can't be enforced by the vendors' programs", _NEEDS_PYTHON)
        if plan.load.pattern != "closed" or plan.load.busy:
            raise MissingError(f"the vendors' programs call back to back alone, not with {plan.load}", _NEEDS_PYTHON)
        state = str(state_of(self._shell))
        samples: list[list[ProcessSample]] = [[] for _ in jobs]
        failed: dict[int, tuple[Outcome, str]] = {}
        steps, total = 0, len(jobs) * plan.processes
        for generation in range(plan.processes):
            order = [index for index in range(len(jobs)) if index not in failed]
            random.Random(f"{plan.seed}/{generation}").shuffle(order)
            for index in order:
                outcome, detail, sample = self._once(jobs[index], plan)
                if sample is None:
                    failed[index] = (outcome, detail)
                else:
                    samples[index].append(sample)
                steps += 1
                if progress is not None:
                    progress(f"process {generation + 1}", steps, total)
        if progress is not None:
            progress("measured", total, total)
        return tuple(
            Measurement(
                sha256=job.artefact.sha256,
                backend=job.backend,
                fingerprint=self._fingerprint.digest(job.backend),
                kind=EvidenceKind.MEASURED,
                plan=plan.but(threads=job.threads or plan.threads),
                shapes=job.shapes,
                resolution_us=_RESOLUTION_US.get(job.backend.runtime, 0.0),
                state=", ".join(word for word in (f"times only, by {_TOOLS.get(job.backend.runtime)}", state) if word),
                outcome=failed[index][0] if index in failed else Outcome.OK,
                detail=failed[index][1] if index in failed else "",
                processes=() if index in failed else tuple(samples[index]),
                operators_detail="the vendors' programs are not asked for operators" if plan.profile else "",
                energy_detail="energy needs a Python on the phone" if plan.energy else "",
            )
            for index, job in enumerate(jobs)
        )

    def run(self, job: Job, inputs: Sequence[Path], threads: int = 1) -> RunResult:  # noqa: ARG002  the Protocol's names
        """See DeviceSession: these programs keep their answers. Raises MissingError."""
        raise MissingError("the vendors' programs tell times, not answers", _NEEDS_PYTHON)

    def close(self) -> None:
        """See DeviceSession."""
        if self._open:
            self._open = False
            self._shell.close()
            self._release()

    def _once(self, job: Job, plan: MeasurePlan) -> tuple[Outcome, str, ProcessSample | None]:
        """Run a fresh process of a job."""
        self._require_open()
        runtime = job.backend.runtime
        if runtime not in self._tools:
            return Outcome.REFUSED, f"no program for {job.backend} was given", None
        if job.shapes:
            return Outcome.REFUSED, "a shape can't be asked for from the vendors' programs", None
        model = self._files.put(job.artefact.files)
        if runtime == "onnxruntime" and (model, job.threads or plan.threads) not in self._p50_us:
            outcome, detail, one = self._run(job, model, _perf_test(self._tools[runtime], model, job, plan, 3), plan)
            if one is None:
                return outcome, detail, None
            self._p50_us[model, job.threads or plan.threads] = one.p50_us
        return self._run(job, model, self._words(job, model, plan), plan)

    def _words(self, job: Job, model: str, plan: MeasurePlan) -> list[str]:
        """A program and its arguments: as long as a process of the agent measures, and at least so many calls."""
        tool = self._tools[job.backend.runtime]
        if job.backend.runtime == "litert":
            return _benchmark_model(tool, model, job, plan)
        fill = 1e3 * plan.rounds * plan.round_ms / self._p50_us[model, job.threads or plan.threads]
        return _perf_test(tool, model, job, plan, round(min(_MOST_CALLS, max(2 * plan.min_calls, fill))))

    def _run(
        self, job: Job, model: str, words: Sequence[str], plan: MeasurePlan
    ) -> tuple[Outcome, str, ProcessSample | None]:
        longest_s = plan.load_deadline_s + 2 * plan.call_deadline_s + (plan.rounds * plan.round_ms) / 1e3
        times, output = command_line([f"{model}.times"]), command_line([f"{model}.said"])
        script = f"""
rm -f {times} {output}
timeout -s KILL {int(longest_s) + 1} {command_line(words)} >{output} 2>&1 </dev/null; S=$?
tail -c {_MOST_SAID_BYTES} {output}; echo; echo "== status $S"
: >>{times}; rm -f {output}"""
        began_s = time.monotonic()
        text, _, status = self._files.ask(script, longest_s + _GRACE_S).rpartition("== status ")
        if not status.isdigit():
            raise ConnectionLost(
                f"the phone's answer makes no sense: {last_line(status)}", "see whether it is still on"
            )
        code, name = int(status), _TOOLS[job.backend.runtime]
        if code in (_KILLED, _TIMED_OUT) and time.monotonic() - began_s >= longest_s:
            return Outcome.HUNG, f"no end within {longest_s:g} s", None
        if 128 < code <= 192:
            return Outcome.CRASHED, f"{name} was killed by signal {code - 128}: {last_line(text)}", None
        if code:
            return Outcome.REFUSED, f"{name} ended with status {code}: {last_line(text)}", None
        try:
            if job.backend.runtime == "litert":
                return Outcome.OK, "", read_benchmark_model(text, began_s)
            return Outcome.OK, "", read_perf_test(text, self._pulled(f"{model}.times"), began_s)
        except NotUnderstood as error:
            return Outcome.REFUSED, f"{error} (it said: {last_line(text)})", None

    def _pulled(self, place: str) -> str:
        """A file that a program wrote, and that is not left there."""
        with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
            here = Path(folder) / "times"
            self._shell.pull(place, here, _MOST_PULLED_BYTES)
            self._files.ask(f"rm -f {command_line([place])}")
            return here.read_text(encoding="utf-8", errors="replace")

    def _describe(self) -> Fingerprint:
        parts: dict[str, str] = {}
        for part in ask(self._shell, _DESCRIBE, 30.0).split("== ")[1:]:
            name, _, text = part.partition("\n")
            parts[name] = text.strip()
        info = parts.get("/proc/cpuinfo", "")
        processor = cpu_of(info, "/nowhere", "")
        names = [word for word in (parts.get("model", ""), processor) if word]
        cores = parts.get("cores", "")
        return Fingerprint(
            cpu=", ".join(names),
            architecture=parts.get("machine", "") or "unknown",
            cores=int(cores) if cores.isdigit() else max(1, info.count("processor\t")),
            extensions=tuple(extensions_of(info)),
            memory_bytes=memory_bytes_of(parts.get("/proc/meminfo", "")),
            governor=", ".join(sorted(set(parts.get("governor", "").split()))) or None,
            os=f"Android {parts.get('android') or 'unknown'}, Linux {parts.get('kernel', '')}",
            python=NO_PYTHON,
            runtimes={runtime: f"{_TOOLS[runtime]} {digest[:12]}" for runtime, digest in self._digests.items()},
            providers={runtime: _providers(runtime) for runtime in self._digests},
        )

    def _require_open(self) -> None:
        if not self._open:
            raise DeviceUnreachable(f"the session with {self.device.name} is closed", "open the device again")


_NEEDS_PYTHON = "put a Python on the phone (Termux), and reach it by kind: adb"


def _providers(runtime: str) -> tuple[str, ...]:
    return tuple(name.partition("/")[2] for name in BACKENDS if name.startswith(f"{runtime}/"))


def _benchmark_model(tool: str, model: str, job: Job, plan: MeasurePlan) -> list[str]:
    seconds = plan.rounds * plan.round_ms / 1e3
    return [
        f"./{tool}",
        f"--graph={model}",
        f"--num_threads={job.threads or plan.threads}",
        f"--use_xnnpack={'true' if job.backend.provider == 'xnnpack' else 'false'}",
        "--warmup_runs=1",
        f"--warmup_min_secs={max(plan.warmup_ms / 1e3, 0.001):g}",
        f"--num_runs={2 * plan.min_calls}",
        f"--min_secs={max(seconds, 0.001):g}",
        f"--max_secs={seconds + plan.call_deadline_s:g}",
    ]


def _perf_test(tool: str, model: str, job: Job, plan: MeasurePlan, calls: int) -> list[str]:
    threads = str(job.threads or plan.threads)
    how = ["-I", "-e", "cpu", "-x", threads, "-y", "1", "-m", "times", "-r", str(calls)]
    return [f"./{tool}", *how, model, f"{model}.times"]
