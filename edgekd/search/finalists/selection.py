"""Finalist selection: side by side in fresh processes, then the winner once more in processes unseen by the choice.

Reads finalists/*.json and the target, and writes the finalists back with their measurements. The most accurate finalist
that holds every limit is measured anew for its certificate, because the best of several is partly the luckiest; if it
fails then, it is dropped and the next one tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekd.devices._protocol import DeviceSession, Job, Measurement, MeasurePlan, Outcome, Progress
from edgekd.events import Events, stop_if_asked
from edgekd.evidence import Figure, accuracy_of
from edgekd.export.integer import FLOAT_OPERATORS, float_figure
from edgekd.measure.figures import figures_for_limits
from edgekd.measure.sentinel import judge_measured
from edgekd.measure.sequential import measure_until
from edgekd.search._protocol import FinalistTrainer
from edgekd.search.budget import Budget
from edgekd.search.finalists.float_baseline import against_float_baseline, can_help
from edgekd.search.space.feasible import p5_us
from edgekd.store.records import FinalistRecord, OutcomeRecord
from edgekd.store.run import Run
from edgekd.targets.target import Target
from edgekd.targets.verdict import Answer, Verdict

__all__ = [
    "FinalistSelection",
    "accuracy_figure",
    "chosen_of",
    "forget_undecided",
    "is_simulated",
    "missed_limits",
    "next_to_certify",
    "ranked_by_merit",
]

_MOST_PROCESSES = 4  # times the plan's own: measured up to here before a verdict is called unstable


def ranked_by_merit(target: Target, finalists: Sequence[FinalistRecord]) -> tuple[FinalistRecord, ...]:
    """Finalists that held every limit side by side, best first.

    Ordered by accuracy; ties go to the faster. Compressed files that gain nothing over float32 come last.
    """
    held = [f for f in finalists if _ran(f.seen) and _held(target, f)]
    return tuple(sorted(held, key=lambda f: _merit(target, f)))


def next_to_certify(target: Target, finalists: Sequence[FinalistRecord]) -> FinalistRecord | None:
    """Return the best finalist that was not measured anew yet, or None."""
    return next((f for f in ranked_by_merit(target, finalists) if f.measurement is None), None)


def chosen_of(finalists: Sequence[FinalistRecord]) -> FinalistRecord | None:
    """Return the finalist whose certificate measurement held every limit, or None."""
    return next((f for f in finalists if _measured(f.measurement) and f.verdict and f.verdict.holds), None)


def is_simulated(finalist: FinalistRecord) -> bool:
    """Tell whether a finalist's figures come from a simulator; such a finalist cannot be certified."""
    return finalist.seen is not None and finalist.seen.simulated is not None


def missed_limits(verdict: Verdict) -> str:
    """Describe the hard limits that do not hold."""
    return ", ".join(
        f"{v.limit}: {v.answer.value}" for v in verdict.limits if v.limit.hard and v.answer != Answer.HOLDS
    )


def accuracy_figure(finalist: FinalistRecord) -> Figure | None:
    """Accuracy of a finalist as a `Figure` to check limits against; exact for the split it was scored on."""
    accuracy = finalist.accuracy
    subject = finalist.artefact.sha256 if finalist.artefact else finalist.student
    if accuracy is None or subject is None:
        return None
    method = f"{accuracy.method}, {accuracy.split} split, {accuracy.samples} samples, by {accuracy.kind.value}"
    return accuracy_of(accuracy.value, subject, method)


def forget_undecided(run: Run) -> None:
    """Remove the outcome of a run that was too noisy to decide, and what its undecided finalists measured.

    They are trained and exported: with the same command they are measured and judged again.
    """
    for finalist in run.finalists():
        if finalist.verdict is not None and finalist.verdict.answer is Answer.UNSTABLE:
            run.write(finalist.but(seen=None, measurement=None, figures=(), verdict=None, never_slower=None, reason=""))
    run.remove(OutcomeRecord)


@dataclass(frozen=True)
class FinalistSelection:
    """Finalist selection: measures finalists and chooses one."""

    run: Run
    plan: MeasurePlan
    session: DeviceSession
    trainer: FinalistTrainer
    events: Events
    budget: Budget

    def judge_side_by_side(self) -> None:
        """Measure every finalist not seen yet, together with its float32 baseline, and give each a verdict."""
        waiting = [f for f in self.run.finalists() if f.artefact and f.accuracy and f.verdict is None]
        if not waiting:
            return
        stop_if_asked(self.events)
        jobs = [self._job(finalist) for finalist in waiting]
        twins: dict[int, Job] = {}
        for finalist in waiting:
            twin = self.trainer.twin(finalist.candidate)
            if twin is not None and finalist.candidate.backend is not None:
                twins[finalist.rank] = Job(artefact=twin, backend=finalist.candidate.backend)

        def decided(measurements: Sequence[Measurement]) -> bool:
            verdicts = [self._judge(f, m)[1] for f, m in zip(waiting, measurements, strict=False)]
            return all(verdict.answer is not Answer.UNSTABLE for verdict in verdicts)

        measurements = self._measure([*jobs, *twins.values()], decided, "comparing")
        deployments = self.run.deployments()
        noise = deployments.noise if deployments is not None else None
        by_twin = dict(zip(twins, measurements[len(waiting) :], strict=True))
        for finalist, measurement in zip(waiting, measurements, strict=False):
            figures, verdict = self._judge(finalist, measurement)
            beside = against_float_baseline(
                finalist, measurement, by_twin.get(finalist.rank), twins.get(finalist.rank), noise
            )
            self.run.write(
                finalist.but(
                    seen=measurement,
                    figures=figures,
                    verdict=verdict,
                    never_slower=beside,
                    ended_s=self.budget.spent_s(),
                    reason=missed_limits(verdict) or measurement.detail or finalist.reason,
                )
            )

    def certify(self) -> FinalistRecord | None:
        """Measure the best anew until one holds. Return it, or None when none is left.

        With a simulator's estimates the best is returned, and not chosen: nothing ran that could be measured anew.
        """
        while True:
            finalists = self.run.finalists()
            winner = chosen_of(finalists)
            if winner is None:
                best = next_to_certify(self.run.target, finalists)
                if best is None or is_simulated(best):
                    return best
                winner = self._certify(best)
            if winner is not None:
                return winner

    def _certify(self, finalist: FinalistRecord) -> FinalistRecord | None:
        stop_if_asked(self.events)

        def decided(measurements: Sequence[Measurement]) -> bool:
            return self._judge(finalist, measurements[0])[1].answer is not Answer.UNSTABLE

        measurement = self._measure([self._job(finalist)], decided, "certifying")[0]
        figures, verdict = self._judge(finalist, measurement)
        holds = verdict.holds and _measured(measurement)
        if measurement.simulated is not None:
            reason = f"measured anew by an estimate of {measurement.simulated}: a certificate needs measured figures"
        elif holds:
            reason = "the most accurate that holds every limit"
            if not can_help(self.run.target, finalist):
                reason += "; its compression gains nothing here over float32, but nothing else holds"
        else:
            reason = f"held side by side, not in fresh processes: {missed_limits(verdict) or measurement.detail}"
        done = finalist.but(
            measurement=measurement,
            figures=figures,
            verdict=verdict,
            chosen=holds,
            reason=reason,
            ended_s=self.budget.spent_s(),
        )
        self.run.write(done)
        return done if holds else None

    def _measure(
        self, jobs: Sequence[Job], decided: Callable[[Sequence[Measurement]], bool], stage: str
    ) -> Sequence[Measurement]:
        progress: Progress = lambda what, done, total: self.events.progress(stage, done, total, what)  # noqa: E731
        limit = _MOST_PROCESSES * self.plan.processes
        return measure_until(self.session, jobs, self.plan, decided, limit, progress, self.events.stop)

    def _job(self, finalist: FinalistRecord) -> Job:
        if finalist.artefact is None or finalist.candidate.backend is None:
            raise ValueError(f"finalist {finalist.rank} has no file to measure")
        return Job(artefact=self.run.resolve(finalist.artefact), backend=finalist.candidate.backend)

    def _judge(self, finalist: FinalistRecord, measurement: Measurement) -> tuple[tuple[Figure, ...], Verdict]:
        target = self.run.target
        artefact = None if finalist.artefact is None else self.run.resolve(finalist.artefact)
        figures = list(figures_for_limits(target, measurement, artefact))
        accuracy = accuracy_figure(finalist)
        if accuracy is not None:
            figures.append(accuracy)
        if target.fully_integer and artefact is not None and finalist.float_operators is not None:
            figures.append(float_figure(finalist.float_operators, artefact.sha256))
        return tuple(figures), judge_measured(target, figures, measurement)


def _ran(measurement: Measurement | None) -> bool:
    # a target without limits holds for everything, even for a file that crashed
    return measurement is not None and measurement.outcome is Outcome.OK


def _measured(measurement: Measurement | None) -> bool:
    return _ran(measurement) and measurement is not None and measurement.simulated is None


def _held(target: Target, finalist: FinalistRecord) -> bool:
    """Tell whether a finalist held every limit side by side; after certification its own verdict is the later one."""
    if finalist.seen is None:
        return False
    if finalist.measurement is None:
        return finalist.verdict is not None and finalist.verdict.holds
    return judge_measured(target, _figures(target, finalist, finalist.seen), finalist.seen).holds


def _figures(target: Target, finalist: FinalistRecord, measurement: Measurement) -> tuple[Figure, ...]:
    figures = list(figures_for_limits(target, measurement, finalist.artefact))
    # figures of the file alone are equal in both measurements; the accuracy's figure is written with the first
    figures += [f for f in finalist.figures if f.metric in ("accuracy", "size.download", FLOAT_OPERATORS)]
    return tuple(figures)


def _merit(target: Target, finalist: FinalistRecord) -> tuple[bool, float, float, int]:
    accuracy = finalist.accuracy.value if finalist.accuracy else 0.0
    # figures of the side-by-side measurement: a certificate's own have no part in the choice
    low = p5_us(figures_for_limits(target, finalist.seen, None)) or float("inf")
    return not can_help(target, finalist), -accuracy, low, finalist.rank
