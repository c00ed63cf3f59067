"""Never slower: a compressed finalist against the same student in float32, same backend, same batch."""

from __future__ import annotations

from edgekd.devices._protocol import Job, Measurement, Outcome
from edgekd.ir.numerics import Precision
from edgekd.measure.never_slower import never_slower
from edgekd.store.records import Deployment, FinalistRecord, NeverSlower
from edgekd.targets.target import Target

__all__ = ["against_float_baseline", "can_help"]


def against_float_baseline(
    finalist: FinalistRecord, measurement: Measurement, twin: Measurement | None, job: Job | None, noise: float | None
) -> NeverSlower | None:
    """Compare a compressed file with its float32 baseline; None where there is none, or one of them did not run."""
    if finalist.candidate.backend is None or finalist.artefact is None or twin is None or job is None:
        return None
    if measurement.outcome is not Outcome.OK or twin.outcome is not Outcome.OK:
        return None
    found = never_slower(twin, measurement, noise, job.artefact.size_bytes, finalist.artefact.size_bytes)
    return NeverSlower(
        deployment=Deployment(backend=finalist.candidate.backend, precision=finalist.candidate.plan.precision),
        ratio=found.comparison.ratio,
        faster=found.faster,
        smaller=found.smaller,
        regressed=found.regressed,
    )


def can_help(target: Target, finalist: FinalistRecord) -> bool:
    """Tell whether this compression gains speed, or size where the target limits size or memory."""
    beside = finalist.never_slower
    if finalist.candidate.plan.precision is Precision.FLOAT32 or beside is None:
        return True
    limited = {limit.metric.partition(".")[0] for limit in target.limits if limit.hard}
    return beside.faster or (beside.smaller and bool(limited & {"size", "memory"}))
