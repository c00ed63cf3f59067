"""A device that exists only on paper: scripted latencies, outcomes and disturbances, real `Measurement` records.

Everything drawn at random comes from the seed, the batch's number and the job, so that the same calls give the same
measurements. Time passes on a `FakeClock`: thousands of batches take a second.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgekd.devices._protocol import (
    Conditions,
    Delegation,
    EnergySample,
    Fingerprint,
    Job,
    Measurement,
    MeasurePlan,
    OperatorTime,
    Outcome,
    ProcessSample,
    Progress,
    RunResult,
    SentinelReading,
    Simulated,
)
from edgekd.errors import DeviceBusy, DeviceUnreachable, Problem
from edgekd.evidence import EvidenceKind
from edgekd.ir.backends import formats_of
from edgekd.records import Record
from edgekd.testing.fakes.clock import FakeClock

__all__ = ["FakeDevice", "FakeSession", "Script", "TimingNoise", "fake_fingerprint"]

Answer = Callable[[Job, Sequence[NDArray[np.generic]]], Sequence[NDArray[np.generic]]]
"""What ``run`` answers: model inputs (first axis = samples) to model outputs."""

_SENTINEL_US = 50.0
_SIMULATOR, _SIMULATOR_VERSION = "paper-compiler", "1.0"
_OWN = ("null", "sentinel")  # the agent's own runtimes, which need no file
T = TypeVar("T")


class TimingNoise(Record):
    """Disturbances of the calls. All relative, as shares of the undisturbed latency."""

    low: float = 0.001  # process-to-process standard deviation of the 5th percentile
    busy: float = 0.0  # share of processes that meet a busy neighbour ...
    busy_by: float = 0.15  # ... and by how much their whole distribution is then raised, on average
    body: float = 0.05  # how far the median call lies above the 5th percentile, on average
    tail: float = 0.10  # how far p95 lies above the median, on average
    drift: float = 0.0  # the machine slows by this much an hour of device time
    throttle_after_s: float | None = None  # from this moment of device time on ...
    throttle_by: float = 0.5  # ... everything is slower by this much


class Script(Record):
    """Behaviour of a job beyond its latency."""

    outcome: Outcome = Outcome.OK
    detail: str = ""
    memory_model_bytes: int | None = None  # default: twice the file
    load_ms: float = 5.0
    operators: tuple[OperatorTime, ...] = ()
    delegation: Delegation | None = None
    joules: float | None = None  # of a call, by a meter that is never wrong; None: there is none
    after: int = Field(default=0, ge=0)  # processes that end well before the outcome comes


def fake_fingerprint(**changes: object) -> Fingerprint:
    """A fingerprint of a machine that doesn't exist, with some fields changed."""
    plain = Fingerprint(
        cpu="Fake CPU",
        architecture="x86_64",
        cores=4,
        extensions=("avx2", "avx512_vnni"),
        memory_bytes=8 << 30,
        governor="performance",
        os="Fake OS 1",
        python="3.11.0",
        runtimes={"litert": "2.3.0", "onnxruntime": "1.32.0", "openvino": "2026.4.0"},
        providers={"litert": ("xnnpack", "builtin"), "onnxruntime": ("cpu",), "openvino": ("cpu",)},
    )
    return plain.but(**changes)


class FakeDevice:
    """A `Device` by script.

    ``latency_us`` gives the undisturbed 5th percentile: a function of the job, or a mapping whose keys are tried in
    this order: SHA-256, file name, file stem, ``format``, ``backend``. ``outcomes`` does the same for what goes wrong.
    ``disconnect_after`` breaks the link after so many batches. ``answer`` serves ``run``. Every process tells
    ``conditions``, before and after, the ``load_average`` and the ``machine_cores``, by default the fingerprint's.
    One of ``kind`` SIMULATED runs no process: the scripted latency is a compiler's estimate.
    """

    def __init__(
        self,
        latency_us: Callable[[Job], float] | Mapping[str, float],
        *,
        noise: TimingNoise | float = TimingNoise(),
        seed: int = 0,
        outcomes: Callable[[Job], Script | Outcome | None] | Mapping[str, Script | Outcome] | None = None,
        answer: Answer | None = None,
        fingerprint: Fingerprint | None = None,
        kind: Literal[EvidenceKind.MEASURED, EvidenceKind.EMULATED, EvidenceKind.SIMULATED] = EvidenceKind.MEASURED,
        clock: FakeClock | None = None,
        disconnect_after: int | None = None,
        conditions: tuple[Conditions, Conditions] | None = None,
        load_average: float | None = None,
        machine_cores: int | None = None,
        name: str = "fake-device",
    ) -> None:
        self.name = name
        self.noise = noise if isinstance(noise, TimingNoise) else TimingNoise(low=noise)
        self.seed = seed
        self.clock = clock or FakeClock()
        simulator = f"{_SIMULATOR} {_SIMULATOR_VERSION}" if kind is EvidenceKind.SIMULATED else ""
        self.fingerprint = fingerprint or fake_fingerprint(simulator=simulator)
        self.kind = kind
        self.answer = answer
        self.disconnect_after = disconnect_after
        self.conditions = conditions
        self.load_average = load_average
        self.machine_cores = machine_cores or self.fingerprint.cores
        self.batches = 0  # batches measured so far, over all sessions
        self.is_open = False
        self._latency_us = latency_us
        self._outcomes = outcomes

    def open(self) -> FakeSession:
        """Take the lock. Raises DeviceBusy while another session is open."""
        if self.is_open:
            raise DeviceBusy(f"{self.name} is in use by another session", "close that one first")
        self.is_open = True
        return FakeSession(self)

    def latency_us(self, job: Job) -> float:
        """The scripted 5th percentile. Raises KeyError on a job nobody scripted."""
        if job.backend.runtime == "sentinel":
            return _SENTINEL_US
        if callable(self._latency_us):
            return self._latency_us(job)
        found = _look_up(self._latency_us, job)
        if found is None:
            raise KeyError(f"no latency is scripted for {job.artefact.path.name} on {job.backend}")
        return found

    def script(self, job: Job) -> Script:
        """Behaviour of the job; plain success where nothing is scripted."""
        if self._outcomes is None:
            return Script()
        found = self._outcomes(job) if callable(self._outcomes) else _look_up(self._outcomes, job)
        if isinstance(found, Outcome):
            return Script(outcome=found, detail="" if found is Outcome.OK else f"scripted: {found.value}")
        return found or Script()


class FakeSession:
    """An open `FakeDevice`."""

    def __init__(self, device: FakeDevice) -> None:
        self._device = device
        self._closed = False

    def describe(self) -> Fingerprint:
        """The scripted fingerprint. Raises DeviceUnreachable when closed."""
        self._reach()
        return self._device.fingerprint

    def prepare(self, jobs: Sequence[Job]) -> Mapping[Job, Problem | None]:
        """None for each job that is scripted to load."""
        self._reach()
        return {job: self._problem(job) for job in jobs}

    def measure(
        self, jobs: Sequence[Job], plan: MeasurePlan, progress: Progress | None = None
    ) -> Sequence[Measurement]:
        """Measure on paper: processes of all jobs interleaved in an order drawn from the plan's seed."""
        self._reach()
        device = self._device
        if device.disconnect_after is not None and device.batches >= device.disconnect_after:
            raise DeviceUnreachable(f"{device.name} went away during a batch", "connect it again and resume")
        device.batches += 1
        if device.kind is EvidenceKind.SIMULATED:
            return [self._estimate(job, plan) for job in jobs]
        generator = np.random.default_rng([device.seed, plan.seed, device.batches])
        scripts = [_within(plan, device.script(job)) for job in jobs]
        samples: list[list[ProcessSample]] = [[] for _ in jobs]
        sentinel: list[list[float]] = []
        steps = plan.processes * len(jobs)
        for generation in range(plan.processes):
            if plan.sentinel:
                level = _SENTINEL_US * self._machine(generator)
                sentinel.append([level * (1.0 + 0.002 * r) for r in generator.random(plan.rounds)])
                device.clock.advance(0.05)
            for step, index in enumerate(generator.permutation(len(jobs))):
                script = scripts[index]
                if script.outcome is Outcome.OK or generation < script.after:
                    samples[index].append(self._process(jobs[index], script, plan, generator))
                if progress is not None:
                    progress("measuring", generation * len(jobs) + step + 1, steps)
        reading = _reading(sentinel)
        return [
            self._measurement(job, script, plan, tuple(taken), reading)
            for job, script, taken in zip(jobs, scripts, samples, strict=True)
        ]

    def run(self, job: Job, inputs: Sequence[Path], threads: int = 1) -> RunResult:  # noqa: ARG002  the Protocol's name
        """Answers by the ``answer`` callable, written as .npy; a ValueError it raises is a refusal.

        Raises TypeError where no callable was given.
        """
        self._reach()
        script = self._device.script(job)
        if script.outcome is not Outcome.OK:
            return RunResult(outcome=script.outcome, detail=script.detail)
        if self._device.answer is None:
            raise TypeError("this FakeDevice was made without `answer`, so it can't run inputs")
        arrays = [np.load(path, allow_pickle=False) for path in inputs]
        try:
            answers = self._device.answer(job, arrays)
        except ValueError as refusal:
            return RunResult(outcome=Outcome.REFUSED, detail=str(refusal))
        folder = Path(tempfile.mkdtemp(prefix="edgekd-fake-"))
        outputs = []
        for number, array in enumerate(answers):
            outputs.append(folder / f"output-{number}.npy")
            np.save(outputs[-1], array)
        return RunResult(outcome=Outcome.OK, outputs=tuple(outputs))

    def close(self) -> None:
        """Give the lock back. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._device.is_open = False

    def _reach(self) -> None:
        if self._closed:
            raise DeviceUnreachable(f"the session on {self._device.name} is closed", "open the device again")

    def _problem(self, job: Job) -> Problem | None:
        if not _loads(job):
            return Problem(f"{job.backend} doesn't load {job.artefact.format.value} files")
        script = self._device.script(job)
        if script.outcome is Outcome.OK or script.after:
            return None
        return Problem(f"{job.artefact.path.name} on {job.backend}: {script.outcome.value}", script.detail)

    def _machine(self, generator: np.random.Generator) -> float:
        """Factor of the machine on a process's times at this moment, busy neighbours left out."""
        noise, now_s = self._device.noise, self._device.clock()
        factor = math.exp(abs(noise.low * generator.standard_normal())) * (1.0 + noise.drift * now_s / 3600.0)
        if noise.throttle_after_s is not None and now_s >= noise.throttle_after_s:
            factor *= 1.0 + noise.throttle_by
        return factor

    def _process(self, job: Job, script: Script, plan: MeasurePlan, generator: np.random.Generator) -> ProcessSample:
        noise, started_at_s = self._device.noise, self._device.clock()
        low = self._device.latency_us(job) * self._machine(generator)
        if generator.random() < noise.busy:
            low *= 1.0 + noise.busy_by * generator.standard_exponential()
        p50 = low * (1.0 + noise.body * generator.gamma(2.0, 0.5))
        p95 = p50 * (1.0 + noise.tail * generator.gamma(2.0, 0.5))
        calls = plan.rounds * max(plan.min_calls, round(plan.round_ms * 1e3 / p50))
        model = script.memory_model_bytes if script.memory_model_bytes is not None else 2 * job.artefact.size_bytes
        self._device.clock.advance((plan.warmup_ms + plan.rounds * plan.round_ms + script.load_ms) / 1e3)
        return ProcessSample(
            p5_us=low,
            min_us=low * 0.995,
            p50_us=p50,
            p95_us=p95,
            p99_us=p95 * 1.1,
            mean_us=p50 * 1.02,
            round_p5_us=tuple(low * (1.0 + 0.002 * r) for r in generator.random(plan.rounds)),
            calls=calls,
            first_us=5.0 * p50,
            load_ms=script.load_ms,
            runtime_us=low * 0.98,
            memory_model_bytes=model,
            memory_process_bytes=model + (40 << 20),
            started_at_s=started_at_s,
            before=self._device.conditions[0] if self._device.conditions else None,
            after=self._device.conditions[1] if self._device.conditions else None,
            load_average=self._device.load_average,
            machine_cores=self._device.machine_cores,
        )

    def _estimate(self, job: Job, plan: MeasurePlan) -> Measurement:
        script = _within(plan, self._device.script(job))
        plain = self._measurement(job, script, plan, (), None)
        if plain.outcome is not Outcome.OK:
            return plain
        memory = script.memory_model_bytes if script.memory_model_bytes is not None else 2 * job.artefact.size_bytes
        estimate = Simulated(
            compiler=_SIMULATOR,
            version=_SIMULATOR_VERSION,
            seconds=self._device.latency_us(job) * 1e-6,
            memory_bytes=memory,
        )
        return plain.but(simulated=estimate)

    def _measurement(
        self,
        job: Job,
        script: Script,
        plan: MeasurePlan,
        processes: tuple[ProcessSample, ...],
        sentinel: SentinelReading | None,
    ) -> Measurement:
        refused = not _loads(job)
        outcome = Outcome.REFUSED if refused else script.outcome
        return Measurement(
            sha256=job.artefact.sha256,
            backend=job.backend,
            fingerprint=self._device.fingerprint.digest(job.backend),
            kind=self._device.kind,
            plan=plan.but(threads=job.threads or plan.threads),
            shapes=job.shapes,
            outcome=outcome,
            detail=f"{job.backend} doesn't load {job.artefact.format.value} files" if refused else script.detail,
            processes=() if refused else processes,
            sentinel=sentinel,
            operators=script.operators if plan.profile and outcome is Outcome.OK else (),
            delegation=script.delegation,
            meter="a meter on paper" if plan.energy and script.joules is not None else "",
            energy=_energy(script.joules, plan) if script.joules is not None and outcome is Outcome.OK else (),
            energy_detail="no meter" if plan.energy and script.joules is None else "",
        )


def _energy(joules: float, plan: MeasurePlan) -> tuple[EnergySample, ...]:
    sample = EnergySample(joules=joules, busy_w=3.0, idle_w=1.0, calls=100, window_s=2.0, readings=100)
    return (sample,) * (plan.processes if plan.energy else 0)


def _within(plan: MeasurePlan, script: Script) -> Script:
    """The script as the plan's limits make it end."""
    limit, needs = plan.memory_limit_bytes, script.memory_model_bytes
    if script.outcome is Outcome.OK and limit is not None and needs is not None and needs > limit:
        detail = f"needs {needs} bytes, the limit is {limit}"
        return script.but(outcome=Outcome.OUT_OF_MEMORY, detail=detail, after=0)
    if script.outcome is Outcome.HUNG:
        return script.but(detail=f"no answer within {plan.call_deadline_s:g} s")
    return script


def _loads(job: Job) -> bool:
    return job.backend.runtime in _OWN or job.artefact.format in formats_of(job.backend)


def _look_up(table: Mapping[str, T], job: Job) -> T | None:
    path = job.artefact.path
    keys = (job.artefact.sha256, path.name, path.stem, job.artefact.format.value, str(job.backend))
    return next((table[key] for key in keys if key in table), None)


def _reading(rounds: Sequence[Sequence[float]]) -> SentinelReading | None:
    if not rounds:
        return None
    levels = [float(np.median(lows)) for lows in rounds]
    drift = (max(levels) - min(levels)) / float(np.median(levels))
    return SentinelReading(p5_us=tuple(low for lows in rounds for low in lows), drift=drift)
