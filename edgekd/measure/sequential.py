"""Sequential measurement: more fresh processes until a decision holds, up to a limit; beyond it the caller says
`unstable`.

A batch whose sentinel shifted by more than its own noise is measured again, at most twice; the most stable is kept with
its own sentinel, so that `edgekd.measure.sentinel.is_unstable` and `edgekd.measure.quality` still call it unstable
where none was stable. A batch of a single process can't shift. The batch's times of the jobs play no part in that.

A stop may be requested: it is checked before each batch, and raises Interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from edgekd.devices._protocol import (
    DeviceSession,
    Job,
    Measurement,
    MeasurePlan,
    Outcome,
    Progress,
    SentinelReading,
)
from edgekd.errors import Interrupted
from edgekd.measure.compare import same_job
from edgekd.measure.disturbed_processes import without_disturbed
from edgekd.measure.sentinel import moved_by, moved_too_far

__all__ = ["measure_stable", "measure_until", "merge"]

_REPEATS = 2
_ANOTHER_SEED = 7919  # a prime, so that no later batch of a neighbouring seed draws the same order


def _never() -> bool:
    return False


def measure_until(
    session: DeviceSession,
    jobs: Sequence[Job],
    plan: MeasurePlan,
    decided: Callable[[Sequence[Measurement]], bool],
    limit: int,
    progress: Progress | None = None,
    stop: Callable[[], bool] = _never,
    why: Callable[[Sequence[Measurement]], str] = lambda _: "noise decides yet",
    longest_s: float = math.inf,
    now: Callable[[], float] = time.monotonic,
) -> Sequence[Measurement]:
    """Measure all jobs, then batch after batch of the same plan, until ``decided`` or ``limit`` processes each.

    ``why`` gives the reason of a further batch, for its progress; none is begun that would end later than ``longest_s``
    after the first, by the time of the last one, except one that makes up for disturbed processes.

    ``decided`` gets the measurements so far, one a job in their order. Jobs that failed are not measured again.
    Operators are profiled in the first batch only. Processes in which the machine was disturbed are left out, counted,
    and made up for (`edgekd.measure.disturbed_processes`). Raises Interrupted where ``stop`` says so before a batch.
    """
    begun = now()
    known = list(without_disturbed(measure_stable(session, jobs, plan, progress, stop)))
    taken, first_end = plan.processes, now()
    batch_s = first_end - begun
    made_up = False
    while taken < limit:
        enough = _enough(known, plan)
        late = now() + batch_s > first_end + longest_s
        if (enough and decided(known)) or (late and (enough or made_up)):
            break
        made_up = made_up or not enough
        shown = _with_reason(progress, why(known) if enough else "some processes were disturbed")
        begun = now()
        alive = [index for index, m in enumerate(known) if m.outcome is Outcome.OK]
        if not alive:
            break
        count = min(plan.processes, limit - taken)
        more = plan.but(processes=count, seed=plan.seed + _ANOTHER_SEED * taken, profile=False)
        batch = without_disturbed(measure_stable(session, [jobs[index] for index in alive], more, shown, stop))
        for index, measurement in zip(alive, batch, strict=True):
            known[index] = merge(known[index], measurement)
        taken += count
        batch_s = now() - begun
    return known


def _with_reason(progress: Progress | None, why: str) -> Progress | None:
    """Progress whose steps give the reason of the repetition."""
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{what}, again: {why}", done, total)


def _enough(known: Sequence[Measurement], plan: MeasurePlan) -> bool:
    return all(len(m.processes) >= plan.processes for m in known if m.outcome is Outcome.OK and m.simulated is None)


def measure_stable(
    session: DeviceSession,
    jobs: Sequence[Job],
    plan: MeasurePlan,
    progress: Progress | None = None,
    stop: Callable[[], bool] = _never,
) -> Sequence[Measurement]:
    """Measure a batch, repeated while the machine shifts. Returns the most stable; `is_unstable` where none was.

    A job that fails in a repetition keeps its measurement of before. Raises Interrupted where ``stop`` says so before a
    batch.
    """
    most_stable: Sequence[Measurement] = ()
    least = float("inf")
    for attempt in range(_REPEATS + 1):
        if stop():
            raise Interrupted("stopped before a batch of measurements", "run the same command again")
        shown = _with_reason(progress, "the machine changed during the batch") if attempt else progress
        measured = session.measure(jobs, plan.but(seed=plan.seed + attempt), shown)
        batch = [
            before if now.outcome is not Outcome.OK and before.outcome is Outcome.OK else now
            for before, now in zip(most_stable or measured, measured, strict=True)
        ]
        # jobs of a large batch are measured group by group, each beside a sentinel of its own
        sentinels = list(dict.fromkeys(m.sentinel for m in measured if m.sentinel is not None))
        shift = max((moved_by(sentinel, plan.rounds) for sentinel in sentinels), default=0.0)
        if shift < least:
            most_stable, least = batch, shift
        if not any(moved_too_far(sentinel, plan.rounds) for sentinel in sentinels):
            return batch
    return most_stable


def merge(a: Measurement, b: Measurement) -> Measurement:
    """Merge two measurements of one job: all processes, in order; a failure of either is a failure.

    The plan is the first's with all processes counted. Raises ValueError where the two are not of the same job, device
    and kind of evidence.
    """
    if not same_job(a, b) or a.kind is not b.kind:
        raise ValueError(
            f"can't merge measurements of different jobs: {a.backend} {a.sha256[:12]}, {b.backend} {b.sha256[:12]}"
        )
    return a.but(
        plan=a.plan.but(processes=a.plan.processes + b.plan.processes),
        outcome=b.outcome if a.outcome is Outcome.OK else a.outcome,
        detail=a.detail or b.detail,
        processes=a.processes + b.processes,
        disturbed=a.disturbed + b.disturbed,
        sentinel=_both(a.sentinel, b.sentinel),
        operators=a.operators or b.operators,
        operators_detail=a.operators_detail or b.operators_detail,
        delegation=a.delegation or b.delegation,
        state="; ".join(dict.fromkeys(word for word in (*a.state.split("; "), b.state) if word)),
        meter=a.meter or b.meter,
        energy=a.energy + b.energy,
        energy_detail=a.energy_detail or b.energy_detail,
        power_model=a.power_model or b.power_model,
    )


def _both(a: SentinelReading | None, b: SentinelReading | None) -> SentinelReading | None:
    if a is None or b is None:
        return a or b
    return SentinelReading(p5_us=a.p5_us + b.p5_us, drift=max(a.drift, b.drift))
