"""Sections of a profile, each measured in an open session: one deployment, memory, and behaviour."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import DeviceSession, Fingerprint, Job, Load, Measurement, MeasurePlan, Outcome
from edgekd.errors import EdgeKDError
from edgekd.evidence import Figure, find_figure
from edgekd.export.kernels.read import kernels_of_file
from edgekd.ir.kernels import Kernels, counted_macs
from edgekd.ir.numerics import Precision
from edgekd.measure.bandwidth import measure_bandwidth
from edgekd.measure.compare import aa_noise
from edgekd.measure.contention import DriftBaseline, measure_uncontended
from edgekd.measure.figures import figures_of
from edgekd.measure.prediction.choosing import choose_to_measure
from edgekd.measure.prediction.predictor import FEWEST, fit_predictor
from edgekd.measure.sequential import measure_stable
from edgekd.measure.tables import LatencyTable, TableRow, add_rows
from edgekd.profiling.builder import BuildsProbes
from edgekd.profiling.depthwise import Depthwise
from edgekd.profiling.operators import operator_kinds, why_none
from edgekd.profiling.probes import NETWORKS, Probe, candidates, overhead, peak, usual, width_sweep
from edgekd.profiling.record import (
    BehaviourProfile,
    DeploymentProfile,
    MemoryProfile,
    OperatorKind,
    Probed,
    Streamed,
    Sustained,
    Threaded,
)
from edgekd.store.predicted import Observation

__all__ = ["Profiler"]

_AT_ONCE = 7  # files measured side by side: with the sentinel, as many processes as the agent keeps
_RATE_HZ = 30.0
_CACHES = (256 << 10, 2 << 20, 16 << 20, 128 << 20)  # bytes: from a first cache to memory
_ROUND_MS = 500.0  # of sustained work
_STRETCHES, _ROUNDS = 12, 10  # fresh processes one after the other, each of which reports temperature and clock

ReportStep = Callable[[str, int, int], None]
"""Progress of a section: current step, steps finished, steps in all. Raises Interrupted."""


@dataclass(frozen=True)
class ProbeFile:
    """File of a probe on a backend."""

    probe: Probe
    artefact: Artefact


@dataclass(frozen=True)
class Profiler:
    """Measures one section at a time. A quick one repeats nothing that a busy machine disturbed."""

    device: str
    session: DeviceSession
    fingerprint: Fingerprint
    make: BuildsProbes
    depthwise: Depthwise
    quick: bool
    drift_baseline: DriftBaseline
    stop: Callable[[], None]  # raises Interrupted where the person asked for that
    threads: int = 1  # of the deployments
    kernels_of: Callable[[Artefact], Kernels] = kernels_of_file

    @property
    def plan(self) -> MeasurePlan:
        """Measurement plan as in a search, on one thread."""
        return MeasurePlan(processes=2 if self.quick else 3, rounds=5, round_ms=12.0, warmup_ms=40.0)

    def deployment(self, backend: Backend, precision: Precision, report_step: ReportStep) -> DeploymentProfile:
        """Measure every probe on one backend and precision; its networks go into the device's latency table."""
        begun = time.monotonic()
        plain = DeploymentProfile(backend=backend, precision=precision, threads=self.threads, quick=self.quick)
        made, measured, missed = list[ProbeFile](), list[Measurement](), dict[Probe, str]()
        total = 2 * (2 + len(width_sweep(self.quick)) + (0 if self.quick else NETWORKS))

        def add(probes: Sequence[Probe]) -> str:
            """Make and measure them; why one could not be made, or most could not be timed, or nothing."""
            new, tried = list[ProbeFile](), 2 * (len(made) + len(missed))
            for probe in probes:
                report_step("converting", tried + len(new), total)
                artefact, why = self.make(probe, backend, precision)
                if artefact is None:
                    return why
                new.append(ProbeFile(probe, artefact))
            before = tried + len(new)
            found = self._measured(new, backend, lambda done: report_step("measuring", before + done, total))
            for one, measurement in zip(new, found, strict=True):
                if measurement.outcome is Outcome.OK:
                    made.append(one)
                    measured.append(measurement)
                else:
                    missed[one.probe] = f"{measurement.outcome.value} {measurement.detail}".strip()
            return next(iter(missed.values())) if len(missed) > len(made) else ""

        why = add([overhead(), peak(), *width_sweep(self.quick)])
        for _ in range(0 if self.quick or why else 2):  # first with expected deviations, then with this device's
            why = why or add(_next(made, measured, missed))
        probed, not_kept = self._kept(backend, precision, made, measured)
        if why:
            return plain.but(refused=why, not_kept=not_kept, seconds=time.monotonic() - begun)
        operators, none = ((), "") if self.quick else self._operators(backend, precision, report_step)
        widths = width_sweep(self.quick)
        small = probed.get(overhead())
        return plain.but(
            overhead=small.p5_us.but(metric="latency.overhead") if small else None,
            peak=_rate(max(probed.values(), key=lambda one: one.macs / one.p5_us.value), precision),
            width_sweep=tuple(probed[probe] for probe in widths if probe in probed),
            table=tuple(one for probe, one in probed.items() if probe not in {overhead(), peak(), *widths}),
            operators=operators,
            operators_detail=none,
            missed=tuple(f"{probe.name}: {detail}" for probe, detail in missed.items()),
            not_kept=not_kept,
            seconds=time.monotonic() - begun,
        )

    def memory(self, report_step: ReportStep) -> MemoryProfile:
        """Measure reading and writing in working sets from a cache to memory."""
        begun = time.monotonic()
        sizes = _CACHES[::2] if self.quick else _CACHES
        report_step("streaming", 0, 1)
        found = measure_bandwidth(self.session, sizes, self.plan, self.drift_baseline, self.stop, again=not self.quick)
        streams = [
            Streamed(working_bytes=size, bandwidth=rate)
            for size, rate in zip(sizes, found, strict=True)
            if rate is not None
        ]
        return MemoryProfile(quick=self.quick, streams=tuple(streams), seconds=time.monotonic() - begun)

    def behaviour(self, backend: Backend, report_step: ReportStep) -> BehaviourProfile:
        """Measure one network with more threads, for a minute without pause, with pauses, and against itself."""
        begun, probe = time.monotonic(), usual()
        plain = BehaviourProfile(quick=self.quick, backend=backend, probe=probe.name)
        report_step("converting", 0, 5)
        artefact, why = self.make(probe, backend, Precision.FLOAT32)
        if artefact is None:
            return plain.but(probe=f"{probe.name}: {why}", seconds=time.monotonic() - begun)
        job, threads = Job(artefact=artefact, backend=backend), list[tuple[int, Figure | None]]()
        counts = _threads(self.fingerprint.cores)
        for count in dict.fromkeys((counts[0], counts[-1])) if self.quick else counts:
            report_step("threads", 1, 5)
            (measured,) = self._measure([job], self.plan.but(threads=count))
            threads.append((count, find_figure(figures_of(measured), "latency.p5")))
        report_step("without pause", 2, 5)
        plan = self._without_pause()
        (sustained,) = self.session.measure([job], plan)
        report_step("at a rate", 3, 5)
        calls = MeasurePlan(processes=1 if self.quick else 5, rounds=4, round_ms=100.0, sentinel=False)
        slow = calls.but(rounds=1 if self.quick else 2, round_ms=1000.0)
        (closed,) = self.session.measure([job], calls)
        (periodic,) = self.session.measure([job], slow.but(load=Load(pattern="periodic", rate_hz=_RATE_HZ)))
        report_step("noise", 4, 5)
        pairs = self.plan.but(processes=3 if self.quick else 5)
        pair = self.session.measure([job, job], pairs) if self.quick else measure_stable(self.session, [job] * 2, pairs)
        sentinel = pair[0].sentinel
        return plain.but(
            threads=tuple(Threaded(threads=count, p5_us=low) for count, low in threads if low is not None),
            sustained=_curve(sustained),
            busy=plan.load.busy,
            closed=find_figure(figures_of(closed), "latency.p50"),
            periodic=find_figure(figures_of(periodic), "latency.p50"),
            rate_hz=_RATE_HZ,
            noise=aa_noise(pair),
            drift=sentinel.drift if sentinel is not None else 0.0,
            seconds=time.monotonic() - begun,
        )

    def _kept(
        self, backend: Backend, precision: Precision, made: Sequence[ProbeFile], measured: Sequence[Measurement]
    ) -> tuple[dict[Probe, Probed], str]:
        """Probes with their figures, also added to the device's latency table, and the reason where adding failed.

        A table that can't be written is no reason to lose the measurements.
        """
        rows, probed = list[TableRow](), dict[Probe, Probed]()
        for one, measurement in zip(made, measured, strict=True):
            kernels, figures = self.kernels_of(one.artefact), figures_of(measurement)
            low, memory = find_figure(figures, "latency.p5"), find_figure(figures, "memory.model")
            assert low is not None
            probed[one.probe] = Probed(
                name=one.probe.name,
                width=one.probe.widths[0],
                macs=counted_macs(kernels),
                elements=sum(kernel.reads + kernel.writes + kernel.weights for kernel in kernels),
                p5_us=low,
            )
            rows.append(
                TableRow(
                    kernels=kernels,
                    p5_us=low.value,
                    memory_bytes=int(memory.value) if memory else None,
                    sha256=one.artefact.sha256,
                )
            )
        if not rows:
            return probed, ""
        table = LatencyTable(
            device=self.device,
            fingerprint=self.fingerprint,
            backend=backend,
            precision=precision,
            threads=self.threads,
            kind=measured[0].kind,
            rows=tuple(rows),
        )
        try:
            add_rows(table)
        except (OSError, EdgeKDError) as error:
            return probed, str(error)
        return probed, ""

    def _operators(
        self, backend: Backend, precision: Precision, report_step: ReportStep
    ) -> tuple[tuple[OperatorKind, ...], str]:
        """Operator kinds by the runtime's own profile, of a network with dense and one with depthwise convolutions; why
        none.
        """
        kinds, none = list[OperatorKind](), list[str]()
        probes: tuple[Probe | Depthwise, ...] = usual(), self.depthwise
        for done, probe in enumerate(probes):
            report_step("operators", done, 2)
            artefact, why = self.make(probe, backend, precision)
            if artefact is not None:
                job = Job(artefact=artefact, backend=backend)
                plan = self.plan.but(processes=1, sentinel=False, profile=True, threads=self.threads)
                (measured,) = self.session.measure([job], plan)
                kinds += operator_kinds(probe.name, self.kernels_of(artefact), measured)
                why = why_none(measured)
            none += [f"{probe.name}: {why}"] if why else []
        return tuple(kinds), "; ".join(none)

    def _without_pause(self) -> MeasurePlan:
        """Plan of sustained work: all other cores work too, for one alone hardly heats a phone.

        A device that waits until it is cool would do so before each process: there it is a single one.
        """
        single = self.quick or bool(self.fingerprint.cooling)
        stretches = 1 if single else _STRETCHES
        return MeasurePlan(
            processes=stretches,
            rounds=6 if self.quick else _STRETCHES * _ROUNDS // stretches,
            round_ms=_ROUND_MS,
            sentinel=False,
            load=Load(busy=max(0, self.fingerprint.cores - 1)),
        )

    def _measured(
        self, made: Sequence[ProbeFile], backend: Backend, report_step: Callable[[int], None]
    ) -> list[Measurement]:
        found, plan = list[Measurement](), self.plan.but(threads=self.threads)
        for start in range(0, len(made), _AT_ONCE):
            report_step(start)
            jobs = [Job(artefact=one.artefact, backend=backend) for one in made[start : start + _AT_ONCE]]
            found += self._measure(jobs, plan)
        return found

    def _measure(self, jobs: Sequence[Job], plan: MeasurePlan) -> Sequence[Measurement]:
        if self.quick:
            return self.session.measure(jobs, plan)
        return measure_uncontended(self.session, jobs, plan, self.drift_baseline, stop=self.stop)


def _rate(probed: Probed, precision: Precision) -> Figure:
    """Highest operations a second among the networks: a multiply-add is two."""
    low, whole = probed.p5_us, precision.weights.is_integer
    rate = 2e-3 * probed.macs
    return low.but(
        metric="compute.peak",
        value=rate / low.value,
        unit="GOP/s" if whole else "GFLOP/s",
        low=rate / low.upper,
        high=rate / low.lower,
        method=f"two operations a multiply-add of {probed.name} ({probed.macs:,}), by the {low.method}",
    )


def _next(made: Sequence[ProbeFile], measured: Sequence[Measurement], missed: Collection[Probe]) -> list[Probe]:
    """Half of the networks for the predictor: the most informative of those not tried."""
    known = [(one.probe.kernels(), figures_of(m)) for one, m in zip(made, measured, strict=True)]
    lows = [(kernels, find_figure(figures, "latency.p5")) for kernels, figures in known]
    observations = [Observation(kernels=kernels, p5_us=low.value) for kernels, low in lows if low is not None]
    taken = {*missed, *(one.probe for one in made)}
    left = [probe for probe in candidates() if probe not in taken]
    begun = any(probe in taken for probe in candidates())
    fitted = fit_predictor(observations) if begun and len(observations) >= FEWEST else None
    seen = () if fitted else [reading.kernels for reading in observations]
    places = choose_to_measure([probe.kernels() for probe in left], NETWORKS // 2, fitted, seen)
    return [left[place] for place in places]


def _threads(cores: int) -> tuple[int, ...]:
    """Numbers of threads: powers of two, and all cores."""
    return tuple(dict.fromkeys([2**power for power in range(int(math.log2(max(1, cores))) + 1)] + [max(1, cores)]))


def _curve(measurement: Measurement) -> tuple[Sustained, ...]:
    """Rounds of the fresh processes one after the other, in seconds since the first began."""
    if measurement.outcome is not Outcome.OK:
        return ()
    step_s, curve = measurement.plan.round_ms * 1e-3, list[Sustained]()
    for process in measurement.processes:
        begun_s, last = process.started_at_s - measurement.processes[0].started_at_s, len(process.round_p5_us) - 1
        for at, low in enumerate(process.round_p5_us):
            conditions = process.after if at == last else process.before if at == 0 else None
            curve.append(
                Sustained(
                    at_s=begun_s + step_s * (at + 1),
                    p5_us=low,
                    temperature_c=conditions.temperature_c if conditions else None,
                    clock_mhz=conditions.clock_mhz if conditions else None,
                )
            )
    return tuple(curve)
