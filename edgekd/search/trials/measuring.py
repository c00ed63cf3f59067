"""Measurement of candidates: built with untrained weights, converted in a worker, measured side by side.

A failed conversion or a runtime crash is a result with its reason and ends no batch. Files are deleted once measured:
their digest and their figures are kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekd.artefacts import Artefact
from edgekd.devices._protocol import DeviceSession, Job, Measurement, MeasurePlan, Outcome, Progress
from edgekd.errors import ConfigurationError, EdgeKDError
from edgekd.evidence import EvidenceKind, Figure, find_figure
from edgekd.export._protocol import ConversionOutcome, ConversionResult
from edgekd.export.integer import float_figure
from edgekd.ir.kernels import Kernels
from edgekd.ir.plan import Candidate
from edgekd.measure.compare import aa_noise
from edgekd.measure.contention import DriftBaseline, measure_uncontended
from edgekd.measure.figures import figures_for_limits
from edgekd.measure.tables import LatencyTable, TableRow, add_rows
from edgekd.search._protocol import ArtefactBuilder
from edgekd.search.space.feasible import P5
from edgekd.search.trials.files import keep_only, place
from edgekd.store.records import Deployment, DeploymentObservation
from edgekd.store.run import Run
from edgekd.targets.target import Target

__all__ = ["Bench", "Measured", "observation_of", "outcome_of"]

Stop = Callable[[], None]
"""Raises Interrupted when the person asked to stop."""

TrialOutcome = Literal["measured", "over-budget", "refused", "crashed", "hung", "out-of-memory", "unstable"]


@dataclass(frozen=True)
class Measured:
    """Result of converting and measuring one candidate's file."""

    candidate: Candidate
    conversion: ConversionResult
    measurement: Measurement | None
    figures: tuple[Figure, ...]
    seconds: Mapping[str, float]
    kernels: Kernels = ()  # of the file; none where they can't be read

    @property
    def outcome(self) -> TrialOutcome:
        """Outcome of conversion and measurement, before any budget is checked."""
        return outcome_of(self.conversion, self.measurement)

    @property
    def detail(self) -> str:
        """Reason why there is no file or no figure."""
        return self.conversion.detail or (self.measurement.detail if self.measurement else "")


@dataclass(frozen=True)
class Bench:
    """Makes and measures batches of candidates."""

    builder: ArtefactBuilder
    session: DeviceSession
    target: Target
    run: Run
    now: Callable[[], float]
    kernels_of: Callable[[Artefact], Kernels] | None = None  # None: nothing is kept in the device's tables
    drift_baseline: DriftBaseline = field(default_factory=DriftBaseline)
    report: Callable[[str], None] = lambda _: None

    def measure(
        self,
        candidates: Sequence[Candidate],
        plan: MeasurePlan,
        pair: bool = False,
        progress: Progress | None = None,
        stop: Stop = lambda: None,
        known: Sequence[DeploymentObservation] = (),
    ) -> tuple[list[Measured], float]:
        """Make all, then measure all in one interleaved batch. With ``pair``, one file is measured twice.

        A file with the bytes of a ``known`` one, measured by the same plan, is not measured again. Returns the result
        of each, in order, and the noise between the two identical jobs (0 without a pair).
        """
        scratch = self.run.scratch / "bench"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        try:
            return self._measure(candidates, plan, pair, progress, stop, scratch, known)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            keep_only(self.run.artefacts, {f.artefact.sha256 for f in self.run.finalists() if f.artefact})

    def _measure(
        self,
        candidates: Sequence[Candidate],
        plan: MeasurePlan,
        pair: bool,
        progress: Progress | None,
        stop: Stop,
        scratch: Path,
        known: Sequence[DeploymentObservation],
    ) -> tuple[list[Measured], float]:
        conversions = []
        for number, candidate in enumerate(candidates):
            stop()
            if progress:
                progress("converting", number, len(candidates))
            result = self.builder.make(candidate, scratch / f"{number:04d}" / "model")
            if result.artefact is not None:
                result = result.but(artefact=place(result.artefact, self.run.artefacts))
            conversions.append(result)
        jobs = {
            number: Job(artefact=result.artefact, backend=candidate.backend)
            for number, (candidate, result) in enumerate(zip(candidates, conversions, strict=True))
            if result.artefact is not None and candidate.backend is not None
        }
        before = {(m.sha256, m.backend): (m, each.seconds) for each in known if (m := each.measurement)}
        taken = {
            number: found
            for number, job in jobs.items()
            if (found := before.get((job.artefact.sha256, job.backend))) and _alike(found[0].plan, plan)
        }
        waiting = [number for number in jobs if number not in taken]
        batch = [jobs[number] for number in waiting]
        if pair and batch:
            batch.append(batch[0])
        stop()
        begun = self.now()
        measurements = (
            list(measure_uncontended(self.session, batch, plan, self.drift_baseline, progress, stop)) if batch else []
        )
        share_s = (self.now() - begun) / max(1, len(batch))
        taken.update((number, (each, share_s)) for number, each in zip(waiting, measurements, strict=False))
        noise = aa_noise(measurements) if pair and batch else 0.0
        measured = []
        for number, (candidate, result) in enumerate(zip(candidates, conversions, strict=True)):
            measurement, measure_s = taken.get(number, (None, 0.0))
            figures = figures_for_limits(self.target, measurement, result.artefact)
            if self.target.fully_integer and figures and result.artefact and result.float_operators is not None:
                figures = (*figures, float_figure(result.float_operators, result.artefact.sha256))
            seconds = {"convert": result.seconds, "measure": measure_s}
            kernels = self._kernels(result.artefact) if figures else ()
            measured.append(Measured(candidate, result, measurement, figures, seconds, kernels))
        if plan.load.pattern == "closed":  # calls with sleep in between give another figure
            self._keep(measured)
        return measured, noise

    def _kernels(self, artefact: Artefact | None) -> Kernels:
        """Kernels of a file; none for a file that only its runtime can read: it was measured all the same."""
        if artefact is None or self.kernels_of is None:
            return ()
        try:
            return self.kernels_of(artefact)
        except ConfigurationError:
            return ()

    def _keep(self, measured: Sequence[Measured]) -> None:
        """Add the measurements to the device's latency tables, for later searches."""
        rows: dict[tuple[Deployment, EvidenceKind], list[TableRow]] = {}
        for one in measured:
            low, memory = find_figure(one.figures, P5), find_figure(one.figures, "memory.model")
            if one.kernels and low is not None:
                row = TableRow(
                    kernels=one.kernels,
                    p5_us=low.value,
                    memory_bytes=int(memory.value) if memory else None,
                    sha256=one.conversion.artefact.sha256 if one.conversion.artefact else "",
                )
                rows.setdefault((Deployment.of(one.candidate), low.kind), []).append(row)
        for (deployment, kind), found in rows.items():
            self._add(
                LatencyTable(
                    device=self.target.device,
                    fingerprint=self.run.header.fingerprint,
                    backend=deployment.backend,
                    precision=deployment.precision,
                    threads=self.target.threads,
                    kind=kind,
                    rows=tuple(found),
                )
            )

    def _add(self, table: LatencyTable) -> None:
        """Add rows to a latency table. A failure is reported, and is no reason to lose the measured batch."""
        try:
            add_rows(table)
        except (OSError, EdgeKDError) as error:
            self.report(f"note: nothing is kept in the device's latency table: {error}")


def _alike(one: MeasurePlan, other: MeasurePlan) -> bool:
    """Tell whether two plans differ in their seed, or in the profile of operators, at most."""
    return one.but(seed=0, profile=False) == other.but(seed=0, profile=False)


def observation_of(deployment: Deployment, measured: Measured) -> DeploymentObservation:
    """Observation of one measured candidate, for the comparison of deployments."""
    artefact = measured.conversion.artefact
    return DeploymentObservation(
        deployment=deployment,
        arch=measured.candidate.arch,
        measurement=measured.measurement,
        size_bytes=artefact.size_bytes if artefact else None,
        detail=measured.detail or ("" if measured.outcome == "measured" else measured.outcome),
        p5_us=find_figure(measured.figures, P5),
        kernels=measured.kernels,
        seconds=measured.seconds.get("measure", 0.0),
    )


def outcome_of(conversion: ConversionResult, measurement: Measurement | None) -> TrialOutcome:
    """Outcome of a trial in one word. A file that loads but can't be timed ends as its runtime did."""
    if conversion.outcome is not ConversionOutcome.OK or conversion.artefact is None:
        return _WORDS[conversion.outcome.value]
    if measurement is None:
        return "refused"
    return "measured" if measurement.outcome is Outcome.OK else _WORDS[measurement.outcome.value]


_WORDS: Mapping[str, TrialOutcome] = {
    "refused": "refused",
    "crashed": "crashed",
    "hung": "hung",
    "out-of-memory": "out-of-memory",
}
