"""Bench of given models, timed side by side: the order, the undecided pairs, and the gain of int8 over float.

The batch holds the first job twice: the difference of the two is the A/A noise, below which no difference is real.
Processes are added while noise leaves a reader's questions open: which model is the fastest, whether a compressed model
is faster than its float baseline, whether a model became slower than in an earlier report. They are up to four times
the plan's, within two minutes; two other models of equal rank stay equal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgekd.artefacts import Artefact, Backend
from edgekd.devices._protocol import (
    Device,
    DeviceSession,
    Fingerprint,
    Job,
    Measurement,
    MeasurePlan,
    Outcome,
    Progress,
    Shapes,
)
from edgekd.errors import ConfigurationError, Interrupted, MissingError, Place, Problem, UsageError
from edgekd.evidence import Figure
from edgekd.ir.backends import BACKENDS, can, formats_of
from edgekd.measure.benches.against import Against, hold_against, match, read_report, require_like
from edgekd.measure.compare import ALPHA, Comparison, aa_noise, alpha_among, compare, order, p5_us
from edgekd.measure.conditions import cores_of
from edgekd.measure.figures import figures_of
from edgekd.measure.models import find_models, names_of, pair_twins
from edgekd.measure.never_slower import TwinComparison, never_slower
from edgekd.measure.quality import Quality, assess
from edgekd.measure.sequential import measure_until
from edgekd.records import Digest, Record, Shown

__all__ = [
    "BenchReport",
    "BenchRow",
    "BenchTwin",
    "measure_for_ranking",
    "name_of",
    "numbers_of_threads",
    "run_bench",
    "undecided_pairs",
]

_MOST = 4  # times the plan's processes
_LONGEST_S = 120.0  # of further batches, together
_TIE_WITHIN = 0.03  # a tie is final once its interval lies within this of 1: a difference of 5 % must not pass for none


class BenchRow(Record):
    """Row of one model on one backend. ``order`` is 0 where it has no timings."""

    model: str
    backend: Backend
    sha256: Digest
    size_bytes: int
    outcome: Outcome
    detail: str
    order: int
    against_fastest: Comparison | None  # None for the fastest itself and for failures
    figures: tuple[Figure, ...]
    measurement: Measurement

    @property
    def threads(self) -> int:
        """Number of threads of the runtime."""
        return self.measurement.plan.threads

    def name(self, with_threads: bool) -> str:
        """Name of the row: ``net.onnx on onnxruntime/cpu, 2 threads``."""
        return name_of(self.model, self.backend, self.threads if with_threads else None)


class BenchTwin(Record):
    """Comparison of a compressed model with its float baseline on one backend."""

    float_model: str
    compressed_model: str
    backend: Backend
    threads: int | None = None  # None where the bench had one number of threads
    result: TwinComparison


class BenchReport(Shown):
    """Report of a bench. ``undecided`` lists pairs that can't be told apart because of noise, not of the models."""

    schema_: Literal["edgekd.bench/1"] = Field(default="edgekd.bench/1", alias="schema")
    device: str
    fingerprint: Fingerprint
    plan: MeasurePlan
    processes: int
    quality: Quality
    rows: tuple[BenchRow, ...]
    twins: tuple[BenchTwin, ...]
    undecided: tuple[tuple[str, str], ...]
    against: Against | None = None
    exit_code: int  # 0, 3 where a model runs nowhere, 1 where one is worse than before, 6 where noise decides

    @property
    def threads(self) -> tuple[int, ...]:
        """Numbers of threads in the table."""
        return tuple(dict.fromkeys(row.threads for row in self.rows))

    def lines(self) -> list[str]:
        """Format as text lines of 80 columns."""
        from edgekd.measure.benches.text import bench_lines

        return bench_lines(self)

    def markdown_lines(self) -> list[str]:
        """Format as Markdown."""
        from edgekd.measure.benches.text import bench_markdown

        return bench_markdown(self)

    def detail_lines(self) -> list[str]:
        """Conditions reported by the machine during the bench, one line a row."""
        from edgekd.measure.benches.text import condition_lines

        return condition_lines(self)


def run_bench(
    models: Sequence[Path],
    device: Device,
    backends: Sequence[Backend] | None,
    threads: int | Sequence[int] | None,
    plan: MeasurePlan,
    progress: Progress | None = None,
    twins: Sequence[tuple[str, str]] = (),
    stop: Callable[[], bool] = lambda: False,
    previous: Path | None = None,
    shapes: Shapes = (),
) -> BenchReport:
    """Time every model on every given backend that loads it, by default on every installed one, in one batch.

    Several numbers of ``threads`` are rows of that batch too; None is the plan's. ``shapes`` are those of inputs with
    free axes.

    ``twins`` names (float, compressed) pairs by file name beyond those found by name. ``stop`` is called before each
    batch and after each process of a model. ``previous`` is an earlier report to compare with.

    Raises ConfigurationError on files that are missing or no models, or a ``previous`` that can't be compared with,
    MissingError where no backend is there for one, Interrupted where ``stop`` says so, and what opening raises.
    """
    counts = numbers_of_threads(threads, plan)
    plan = plan.but(threads=counts[0])
    artefacts = find_models(models)
    called = dict(zip((found.path for found in artefacts), names_of([a.path for a in artefacts]), strict=True))
    pairs = pair_twins(artefacts, twins)
    before = read_report(previous) if previous is not None else None
    for backend in backends or ():
        formats_of(backend)  # raises UnknownName on one that can't be driven, before the device is taken
    session = device.open()
    try:
        fingerprint = session.describe()
        if plan.load.busy > fingerprint.cores:
            raise UsageError(f"{plan.load.busy} busy cores: {device.name} has {fingerprint.cores}", "ask for fewer")
        if before is not None and previous is not None:
            require_like(before, fingerprint, counts, plan.load, previous)
        jobs = _jobs(artefacts, _usable(fingerprint, backends), counts, shapes)
        matched = match(jobs, before, previous) if before is not None and previous is not None else ()
        names = [
            name_of(called[job.artefact.path], job.backend, job.threads if len(counts) > 1 else None) for job in jobs
        ]
        related = _related(artefacts, jobs, pairs)
        earlier = [None if row is None else row.measurement for row in matched]
        measured = measure_for_ranking(session, jobs, plan, progress, stop, related, names, earlier)
    finally:
        session.close()
    noise = aa_noise(measured)
    quality = assess(measured, cores_of(measured))
    measurements = measured[:-1]  # the last is the first one's A/A repeat
    rows = _rows(jobs, measurements, noise, called)
    names = [row.name(len(counts) > 1) for row in rows]
    undecided = tuple((names[a], names[b]) for a, b in undecided_pairs(measurements, noise, related))
    against = (
        hold_against(rows, matched, noise, before, previous, quality.unstable)
        if before is not None and previous is not None
        else None
    )
    worse = against is not None and against.worse
    ran = {job.artefact.sha256 for job, m in zip(jobs, measurements, strict=True) if m.outcome is Outcome.OK}
    runs_nowhere = any(artefact.sha256 not in ran for artefact in artefacts)
    return BenchReport(
        device=device.name,
        fingerprint=fingerprint,
        plan=plan,
        processes=max((len(m.processes) for m in measurements), default=0),
        quality=quality,
        rows=rows,
        twins=_twins(artefacts, jobs, measurements, pairs, noise, len(counts) > 1, called),
        undecided=undecided,
        against=against,
        exit_code=3 if runs_nowhere else 1 if worse else 6 if undecided or quality.unstable else 0,
    )


def numbers_of_threads(threads: int | Sequence[int] | None, plan: MeasurePlan) -> tuple[int, ...]:
    """Requested numbers of threads, each once; the plan's by default. Raises UsageError."""
    if threads is None:
        threads = plan.threads
    counts = (threads,) if isinstance(threads, int) else tuple(dict.fromkeys(threads))
    if not counts or min(counts) < 1:
        raise UsageError(
            f"threads {threads}: one number at least is expected, none below 1", "for example threads=[1, 4]"
        )
    return counts


def _usable(fingerprint: Fingerprint, backends: Sequence[Backend] | None) -> tuple[Backend, ...]:
    """Requested backends, or all that are installed. Raises MissingError where a requested one is not."""
    if backends is not None:
        absent = [str(backend) for backend in backends if backend.runtime not in fingerprint.runtimes]
        if absent:
            raise MissingError(f"not installed on this device: {', '.join(absent)}", "see what is there: edgekd doctor")
        untimed = [str(backend) for backend in backends if not (fingerprint.simulates or can(backend, "measure"))]
        if untimed:
            raise MissingError(f"never timed on a device: {', '.join(untimed)}", "name another backend")
        return tuple(dict.fromkeys(backends))
    known = [Backend.model_validate(name) for name in BACKENDS]
    timed = [backend for backend in known if fingerprint.simulates or can(backend, "measure")]
    return tuple(b for b in timed if b.provider in fingerprint.providers.get(b.runtime, ()))


def _jobs(
    artefacts: Sequence[Artefact], usable: Sequence[Backend], threads: Sequence[int], shapes: Shapes
) -> tuple[Job, ...]:
    jobs, problems = [], []
    for artefact in artefacts:
        backends = [backend for backend in usable if artefact.format in formats_of(backend)]
        fitting = [
            Job(artefact=artefact, backend=b, threads=count, shapes=shapes) for b in backends for count in threads
        ]
        jobs.extend(fitting)
        if not fitting:
            able = [name for name, spec in BACKENDS.items() if artefact.format in spec.formats]
            problems.append(
                Problem(
                    f"none of {', '.join(map(str, usable)) or 'no backend'} loads {artefact.format.value} files",
                    f"use one of {', '.join(able)}",
                    Place(str(artefact.path)),
                )
            )
    if not usable:
        raise MissingError("no runtime is installed on this device", "pip install ai-edge-litert onnxruntime openvino")
    if problems:
        raise ConfigurationError(problems)
    # by backend first: neighbours in the table are compared with one another
    return tuple(dict.fromkeys(sorted(jobs, key=lambda j: (list(BACKENDS).index(str(j.backend)), j.threads or 1))))


def measure_for_ranking(
    session: DeviceSession,
    jobs: Sequence[Job],
    plan: MeasurePlan,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
    related: Sequence[tuple[int, int]] = (),
    names: Sequence[str] = (),
    earlier: Sequence[Measurement | None] = (),
    now: Callable[[], float] = time.monotonic,
) -> Sequence[Measurement]:
    """Measure every job, and the first once more as its A/A repeat, with more processes while noise decides.

    ``related`` are (float, compressed) pairs of jobs (`undecided_pairs`), ``earlier`` each job's measurement in an
    earlier report. Progress uses ``names`` of jobs in its reasons for a further batch.
    """

    def step(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(what, done, total)
        if stop():  # a bench keeps nothing of an unfinished batch, so there is nothing to wait for
            raise Interrupted("stopped; a bench that isn't finished keeps nothing", "run it again")

    def why(known: Sequence[Measurement]) -> str:
        noise = aa_noise(known)
        called = dict(enumerate(names))
        pairs = [(called.get(a, a), called.get(b, b)) for a, b in undecided_pairs(known[:-1], noise, related)]
        reasons = [f"{a} and {b} can't be told apart yet" for a, b in pairs]
        unsure = _unsure(known, earlier, noise)
        reasons += [f"{called.get(place, place)} can't be told from the earlier report yet" for place in unsure]
        more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        return f"{reasons[0]}{more} (at most {_LONGEST_S:g} s)" if reasons else ""

    return measure_until(
        session, [*jobs, jobs[0]], plan, lambda known: not why(known), _MOST * plan.processes, step, stop,
        why, _LONGEST_S, now,
    )  # fmt: skip


def undecided_pairs(
    measurements: Sequence[Measurement], noise: float, related: Sequence[tuple[int, int]] = ()
) -> list[tuple[int, int]]:
    """Pairs (faster, slower) of equal rank although their interval still allows a relevant difference.

    Only those that matter: the fastest with any other, and the ``related`` ones.
    """
    timed = sorted(
        (i for i, m in enumerate(measurements) if m.is_timed),
        key=lambda i: p5_us(measurements[i]),
    )
    alpha = alpha_among(len(timed))
    twins = [pair for pair in related if set(pair) <= set(timed)]
    pairs = dict.fromkeys([(timed[0], other) for other in timed[1:]] if timed else [])
    pairs |= dict.fromkeys((a, b) if timed.index(a) < timed.index(b) else (b, a) for a, b in twins)
    return [
        (fast, slow)
        for fast, slow in pairs
        if _undecided(compare(measurements[slow], measurements[fast], noise, alpha))
    ]


def _undecided(reasons: Comparison) -> bool:
    return not reasons.distinguishable and (reasons.high > 1 + _TIE_WITHIN or reasons.low < 1 - _TIE_WITHIN)


def _unsure(known: Sequence[Measurement], earlier: Sequence[Measurement | None], noise: float) -> list[int]:
    """Indices of models that may still be slower or faster than in an earlier report."""
    both = [
        (place, now, then)
        for place, (now, then) in enumerate(zip(known, earlier, strict=False))
        if then is not None and now.is_timed
    ]
    return [place for place, now, then in both if _undecided(compare(now, then, noise, ALPHA / len(both)))]


def _related(
    artefacts: Sequence[Artefact], jobs: Sequence[Job], pairs: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Indices of (float, compressed) jobs that differ in nothing but their file."""
    places = {job: place for place, job in enumerate(jobs)}
    found = []
    for before, after in pairs:
        for job in [job for job in jobs if job.artefact == artefacts[before]]:
            other = places.get(job.but(artefact=artefacts[after]))
            if other is not None:
                found.append((places[job], other))
    return found


def _rows(
    jobs: Sequence[Job], measurements: Sequence[Measurement], noise: float, names: Mapping[Path, str]
) -> tuple[BenchRow, ...]:
    places = order(measurements, noise)
    alpha = alpha_among(sum(place > 0 for place in places))
    first = min((i for i, place in enumerate(places) if place == 1), key=lambda i: p5_us(measurements[i]), default=None)
    return tuple(
        BenchRow(
            model=names[job.artefact.path],
            backend=job.backend,
            sha256=job.artefact.sha256,
            size_bytes=job.artefact.size_bytes,
            outcome=measurement.outcome,
            detail=measurement.detail,
            order=place,
            against_fastest=compare(measurement, measurements[first], noise, alpha)
            if place and first not in (None, i)
            else None,
            figures=figures_of(measurement, size_bytes=job.artefact.size_bytes),
            measurement=measurement,
        )
        for i, (job, measurement, place) in enumerate(zip(jobs, measurements, places, strict=True))
    )


def _twins(
    artefacts: Sequence[Artefact],
    jobs: Sequence[Job],
    measurements: Sequence[Measurement],
    pairs: Sequence[tuple[int, int]],
    noise: float,
    with_threads: bool,
    names: Mapping[Path, str],
) -> tuple[BenchTwin, ...]:
    timed = {job: m for job, m in zip(jobs, measurements, strict=True) if m.is_timed}
    alpha = alpha_among(len(timed))  # as in the rows, so that two lines never contradict each other on one pair
    found = []
    for before, after in pairs:
        plain, small = artefacts[before], artefacts[after]
        for job in [job for job in jobs if job.artefact == plain]:
            a, b = (timed.get(job.but(artefact=artefact)) for artefact in (plain, small))
            if a is not None and b is not None:
                result = never_slower(a, b, noise, plain.size_bytes, small.size_bytes, alpha)
                found.append(
                    BenchTwin(
                        float_model=names[plain.path],
                        compressed_model=names[small.path],
                        backend=job.backend,
                        threads=job.threads if with_threads else None,
                        result=result,
                    )
                )
    return tuple(found)


def name_of(model: str, backend: Backend, threads: int | None) -> str:
    """Name of a row, with threads where there may be several of one model."""
    several = f", {threads} thread{'s' if threads != 1 else ''}" if threads else ""
    return f"{model} on {backend}{several}"
