"""Figures of a measurement: value, interval, unit, kind, subject and method.

Where the model ran, the value is the median over fresh processes of the per-process figure; the interval is a
prediction for one more fresh process (`edgekd.measure.interval`). A compiler's estimate is exact and has no interval.
Kind and subject are the measurement's own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from edgekd.artefacts import Artefact
from edgekd.devices._protocol import EnergySample, Measurement, Outcome, ProcessSample, Sampled, Simulated
from edgekd.evidence import EvidenceKind, Figure
from edgekd.ir.backends import BACKENDS
from edgekd.measure.contention import uncontended_processes
from edgekd.measure.interval import fresh_process_interval
from edgekd.records import Digest
from edgekd.targets.target import Target

__all__ = ["figure_of", "figures_for_limits", "figures_of", "file_figures"]


class _Metric(NamedTuple):
    """Metric of a process: ``words`` describes the figure; ``{load}`` stands where it depends on how calls arrive."""

    unit: str
    words: str
    of: Callable[[ProcessSample], float | None]


_METRICS: dict[str, _Metric] = {
    "latency.p5": _Metric("us", "5th percentile of call times {load}", lambda p: p.p5_us),
    "latency.p50": _Metric("us", "median of call times {load}", lambda p: p.p50_us),
    "latency.p95": _Metric("us", "95th percentile of call times {load}", lambda p: p.p95_us),
    "latency.p99": _Metric("us", "99th percentile of call times {load}", lambda p: p.p99_us),
    "latency.mean": _Metric("us", "mean of call times {load}", lambda p: p.mean_us),
    "latency.runtime": _Metric("us", "median of the runtime's own time of a call {load}", lambda p: p.runtime_p50_us),
    "latency.first": _Metric("us", "first inference", lambda p: p.first_us),
    "latency.load": _Metric("us", "time to load the model", lambda p: p.load_ms * 1e3),
    "memory.model": _Metric("B", "peak resident memory above the runtime alone", lambda p: p.memory_model_bytes),
    "memory.process": _Metric("B", "peak resident memory", lambda p: p.memory_process_bytes),
    "throughput": _Metric("/s", "calls that fit into a second, 1 / mean call time {load}", lambda p: 1e6 / p.mean_us),
}
_ENERGY: dict[str, tuple[str, str, Callable[[EnergySample], float], Callable[[EnergySample], float]]] = {
    "energy.per_inference": (
        "J",
        "energy of a call {load}, what the waiting process draws left out",
        lambda e: e.joules,
        lambda e: 2 * e.unsure_w * e.window_s / e.calls,  # of two powers
    ),
    "power.average": ("W", "power while calls go on {load}", lambda e: e.busy_w, lambda e: e.unsure_w),
    "power.idle": ("W", "power of the loaded process while it waits", lambda e: e.idle_w, lambda e: e.unsure_w),
}
"""Metric -> unit, words, the figure, and its uncertainty from the meter's resolution."""
_MISSED = "load.missed"
_ESTIMATED = ("latency.p5", "latency.p50", "latency.p95", "latency.p99", "latency.mean")


def _missed(rate_hz: float) -> _Metric:
    """Share of late calls. One that takes longer than a period is late for ever, though a round's few don't show it."""
    words = "share of calls {load} that began more than a period late, all where the mean call is longer than that"
    return _Metric("", words, lambda p: 1.0 if p.mean_us > 1e6 / rate_hz else p.missed / p.calls)


def figures_of(measurement: Measurement, confidence: float = 0.95, size_bytes: int | None = None) -> tuple[Figure, ...]:
    """Figures that the measurement supports; none of the timed ones where its outcome is not OK.

    ``latency.runtime`` exists for runtimes that report their own time, ``load.missed`` under a periodic load.
    ``energy.per_inference``, ``power.average`` and ``power.idle`` exist where a meter measured them, or, of the kind
    `modelled`, where a person stated the power. Units: us, B, J, W, /s, and none for shares. ``size_bytes`` is the
    artefact's, which the measurement doesn't know: with it ``size.file`` is among the figures, exact, the artefact's
    SHA-256 its subject.
    """
    return tuple(_figures(measurement, confidence, size_bytes))


def figure_of(measurement: Measurement, metric: str, confidence: float = 0.95) -> Figure:
    """Figure of one metric. Raises KeyError where the measurement has no such figure."""
    for figure in figures_of(measurement, confidence):
        if figure.metric == metric:
            return figure
    raise KeyError(f"{metric}: the measurement ended `{measurement.outcome.value}` and has no such figure")


def figures_for_limits(
    target: Target, measurement: Measurement | None, artefact: Artefact | None
) -> tuple[Figure, ...]:
    """Figures for the target's limits, each at its limit's confidence; no timed ones where timing failed."""
    if measurement is None or measurement.outcome is not Outcome.OK:
        return ()
    size_bytes = artefact.size_bytes if artefact else None
    found = {figure.metric: figure for figure in figures_of(measurement, size_bytes=size_bytes)}
    for confidence in {limit.confidence for limit in target.limits} - {0.95}:
        wanted = {limit.metric for limit in target.limits if limit.confidence == confidence}
        at = figures_of(measurement, confidence=confidence, size_bytes=size_bytes)
        found.update({figure.metric: figure for figure in at if figure.metric in wanted})
    if any(limit.metric == "delegation" for limit in target.limits):
        found.update({figure.metric: figure for figure in _delegation(measurement)})
    if artefact is not None and any(limit.metric == "size.download" for limit in target.limits):
        with suppress(FileNotFoundError):  # a trial's file is deleted once measured; its record has the figure
            found["size.download"] = _download(artefact)
    return tuple(found.values())


def file_figures(target: Target, artefact: Artefact) -> tuple[Figure, ...]:
    """Figures of a file's bytes, the same on every machine: ``size.file``, and ``size.download`` where a limit asks for
    it.
    """
    asked = any(limit.metric == "size.download" for limit in target.limits)
    return (_size(artefact.sha256, artefact.size_bytes), *([_download(artefact)] if asked else []))


def _energy(measurement: Measurement, confidence: float, load: str) -> Iterator[Figure]:
    """Energy figures from the meter's samples, or from the power that a person stated."""
    model, processes = measurement.power_model, measurement.processes
    samples = measurement.energy
    kind, method = measurement.kind, f"median over {len(samples)} fresh processes of the {{}}, by {measurement.meter}"
    if model is not None and processes:
        kind, method = EvidenceKind.MODELLED, f"{{}}: mean call time x watts, {measurement.meter}"
        drawn = (model.busy_w - model.idle_w) * 1e-6
        share = [p.mean_us * 1e-6 * _calls_a_second(measurement, p) for p in processes]
        samples = tuple(
            EnergySample(
                joules=drawn * process.mean_us,
                busy_w=model.idle_w + (model.busy_w - model.idle_w) * min(1.0, at),
                idle_w=model.idle_w,
                calls=process.calls,
                window_s=0.0,
                readings=0,
            )
            for process, at in zip(processes, share, strict=True)
        )
    for name, (unit, words, of, unsure) in _ENERGY.items() if samples else ():
        values = [of(sample) for sample in samples]
        low, high = _interval(values, confidence)
        widened = max(map(unsure, samples))
        yield Figure(
            metric=name,
            value=float(np.median(values)),
            unit=unit,
            kind=kind,
            subject=measurement.fingerprint,
            method=method.format(words.format(load=load)),
            low=max(low - widened, min(low, 0.0)),
            high=high + widened,
            confidence=confidence,
        )


def _calls_a_second(measurement: Measurement, process: ProcessSample) -> float:
    return measurement.plan.load.rate_hz or 1e6 / process.mean_us


def _interval(values: list[float], confidence: float) -> tuple[float, float]:
    """Interval for one more process; a call too cheap for its meter may come out negative, where logarithms fail."""
    if min(values) > 0:
        return fresh_process_interval(values, confidence)
    spread = float(np.ptp(values)) or abs(values[0])
    return min(values) - spread, max(values) + spread


def _delegation(measurement: Measurement) -> Iterator[Figure]:
    """Share of delegated operators: 1 on a backend with one place for all; none where nothing ran, or nothing tells."""
    where = measurement.delegation
    spec = BACKENDS.get(str(measurement.backend))
    one_place = where is None and measurement.simulated is None and spec is not None and not spec.delegates
    if where is not None or one_place:
        yield Figure(
            metric="delegation",
            value=1.0 if where is None or not where.total else where.delegated / where.total,
            unit="",
            kind=EvidenceKind.ANALYTIC if one_place else measurement.kind,
            subject=measurement.fingerprint,
            method="this backend runs every operator in one place"
            if one_place
            else "operators that a delegate took, of all, by the runtime's own list",
        )


def _size(sha256: Digest, size_bytes: int) -> Figure:
    return Figure(
        metric="size.file",
        value=float(size_bytes),
        unit="B",
        kind=EvidenceKind.MEASURED,
        subject=sha256,
        method="bytes of every file the model needs",
    )


def _download(artefact: Artefact) -> Figure:
    size = sum(len(zlib.compress(path.read_bytes(), 6)) for path in artefact.files)
    return Figure(
        metric="size.download",
        value=size,
        unit="B",
        kind=EvidenceKind.MEASURED,
        subject=artefact.sha256,
        method="zlib at level 6, every file the model needs",
    )


def _figures(measurement: Measurement, confidence: float, size_bytes: int | None) -> Iterator[Figure]:
    match measurement.taken:
        case Sampled(processes=processes):
            yield from _of_processes(measurement, processes, confidence)
        case Simulated() as estimate:
            yield from _of_estimate(measurement, estimate)
    if size_bytes is not None:
        yield _size(measurement.sha256, size_bytes)


def _of_processes(measurement: Measurement, processes: Sequence[ProcessSample], confidence: float) -> Iterator[Figure]:
    count = f"{len(processes)} fresh process{'es' if len(processes) != 1 else ''}"
    if measurement.disturbed:
        count += f" (and {measurement.disturbed} left out: the sentinel was slow in them too)"
    rate_hz = measurement.plan.load.rate_hz if measurement.plan.load.pattern == "periodic" else None
    load = f"at {rate_hz:g} calls a second" if rate_hz else "back to back"
    if busy := measurement.plan.load.busy:
        load += f" beside work that keeps {busy} core{'s' * (busy > 1)} busy"
    metrics = {**_METRICS, **({_MISSED: _missed(rate_hz)} if rate_hz else {})}
    for name, metric in metrics.items():
        taken = uncontended_processes(measurement) if name == "latency.p5" else processes
        found = [metric.of(process) for process in taken]
        values = [value for value in found if value is not None]
        if len(values) < len(found):
            continue
        calm = "" if len(taken) == len(processes) else " that is as little disturbed"
        those = f"{len(taken)} of {count}, the least disturbed by what the sentinel says," if calm else count
        low, high = fresh_process_interval(values, confidence)
        words = metric.words.format(load=load)
        yield Figure(
            metric=name,
            value=float(np.median(values)),
            unit=metric.unit,
            kind=measurement.kind,
            subject=measurement.fingerprint,
            method=f"median over {those} of the per-process {words}; "
            f"{confidence:.0%} interval for one more process{calm}",
            low=low,
            high=min(high, 1.0) if name == _MISSED else high,
            confidence=confidence,
        )
    yield from _energy(measurement, confidence, load)


def _of_estimate(measurement: Measurement, estimate: Simulated) -> Iterator[Figure]:
    """Figures of an estimate: exact, for it has no spread; the latency of a call that begins at once."""
    cycles = f"{estimate.cycles} cycles at {estimate.clock_mhz:g} MHz" if estimate.cycles is not None else "one call"
    values = dict.fromkeys(_ESTIMATED, estimate.latency_us)
    values["throughput"] = 1e6 / estimate.latency_us
    if estimate.memory_bytes is not None:
        values["memory.model"] = estimate.memory_bytes
    for name, value in values.items():
        what = "memory that it plans for a call" if name == "memory.model" else f"{cycles}, the same each time"
        yield Figure(
            metric=name,
            value=value,
            unit=_METRICS[name].unit,
            kind=measurement.kind,
            subject=measurement.fingerprint,
            method=f"estimate of the compiler {estimate}: {what}; nothing ran",
        )
