"""Contention filter: processes slowed by other work on the machine are detected by the sentinel and left out.

On a shared machine other work on the same core makes everything slower by a third for seconds at a time. The 5th
percentile of a process measured mostly under contention is not the model's, and contention only ever adds time: so of a
disturbed batch those processes count that came within 5 % of its fastest. Whether it was disturbed is decided by the
sentinel alone, which never changes: where beside some process too few of its rounds came within 5 % of its best.

Where a whole batch was slow, as a few seconds of measuring may well be, no process of it shows that. So a measuring
loop remembers the sentinel's best (`DriftBaseline`) and repeats batches that never came near it.

Only the ranking quantile (`latency.p5`) is taken from uncontended processes alone. Figures that a budget usually binds
(p50, p95, mean) are over all processes, disturbed or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from edgekd.devices._protocol import DeviceSession, Job, Measurement, MeasurePlan, Outcome, ProcessSample, Progress
from edgekd.measure.sequential import measure_stable

__all__ = ["DriftBaseline", "measure_uncontended", "uncontended_processes"]

_WITHIN = 0.05  # the sentinel's level differs by about 0.7 % (one standard deviation) between undisturbed processes
_ENOUGH = 0.3  # of a process's rounds: enough for its 5th percentile to be of calls at that speed
_REPEATS = 3
_ANOTHER_SEED = 104729  # a prime beside that of `edgekd.measure.sequential`


class DriftBaseline:
    """Drift baseline: the sentinel's best on a device so far, in microseconds; infinite before any measurement."""

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        self.best_us = min((_fastest(measurement) for measurement in measurements), default=float("inf"))

    def slow(self, batch: Sequence[Measurement]) -> list[int]:
        """Indices of measurements whose sentinel never came near its best, which is updated first."""
        fastest = [_fastest(measurement) for measurement in batch]
        self.best_us = min([self.best_us, *fastest])
        return [at for at, us in enumerate(fastest) if (1.0 + _WITHIN) * self.best_us < us < float("inf")]


def measure_uncontended(
    session: DeviceSession,
    jobs: Sequence[Job],
    plan: MeasurePlan,
    drift_baseline: DriftBaseline,
    progress: Progress | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Sequence[Measurement]:
    """Measure a stable batch; jobs measured while the sentinel was above its baseline are repeated, three times at
    most.

    Of each job, the measurement with the fastest sentinel is kept; a failure in a repeated batch replaces none, because
    a disturbed machine is no fault of the file. ``stop`` is called before each further batch, and raises Interrupted
    where the person asked for that.
    """
    known = list(measure_stable(session, jobs, plan, progress))
    for attempt in range(1, _REPEATS + 1):
        slow = [at for at in drift_baseline.slow(known) if known[at].outcome is Outcome.OK]
        if not slow:
            break
        stop()
        again = plan.but(seed=plan.seed + _ANOTHER_SEED * attempt)
        for at, measurement in zip(
            slow, measure_stable(session, [jobs[at] for at in slow], again, progress), strict=True
        ):
            known[at] = min(known[at], measurement, key=lambda one: (one.outcome is not Outcome.OK, _fastest(one)))
    slow = drift_baseline.slow(known)
    if slow:  # slower for good: a hot device does not get faster while it works
        drift_baseline.best_us = min(_fastest(known[at]) for at in slow)
    return known


def _fastest(measurement: Measurement) -> float:
    observation = measurement.sentinel
    return min(observation.p5_us, default=float("inf")) if observation is not None else float("inf")


def uncontended_processes(measurement: Measurement) -> tuple[ProcessSample, ...]:
    """Uncontended processes of a measurement; all on a quiet machine, and where no sentinel was timed beside each."""
    sentinel, processes = measurement.sentinel, measurement.processes
    if measurement.plan.load.busy:  # it is disturbed on purpose
        return processes
    if sentinel is None or not processes or len(sentinel.p5_us) % len(processes):
        return processes
    rounds = np.asarray(sentinel.p5_us, dtype=np.float64).reshape(len(processes), -1)
    shares = (rounds <= (1.0 + _WITHIN) * rounds.min()).mean(axis=1)
    if shares.min() >= _ENOUGH:
        return processes
    fastest = min(process.p5_us for process in processes)
    return tuple(process for process in processes if process.p5_us <= (1.0 + _WITHIN) * fastest)
