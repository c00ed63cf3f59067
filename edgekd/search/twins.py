"""Never slower: a compressed finalist against the same student in float32, same backend, same batch."""

from __future__ import annotations

import statistics

from edgekd.artefacts import Precision
from edgekd.devices._protocol import Job, Measurement, Outcome
from edgekd.store.records import Arm, FinalistRecord, NeverSlower
from edgekd.store.run import Run
from edgekd.targets.target import Target

__all__ = ["against_twin", "can_help"]


def against_twin(
    run: Run, finalist: FinalistRecord, measurement: Measurement, twin: Measurement | None, job: Job | None
) -> NeverSlower | None:
    """How the compressed file compares; None where there is no twin, or one of them didn't run."""
    if finalist.candidate.backend is None or finalist.artefact is None or twin is None or job is None:
        return None
    if measurement.outcome is not Outcome.OK or twin.outcome is not Outcome.OK:
        return None
    ratio = _low(measurement) / _low(twin)
    return NeverSlower(
        arm=Arm(backend=finalist.candidate.backend, precision=finalist.candidate.plan.precision),
        ratio=ratio,
        faster=ratio < 1.0 - (run_noise(run)),
        smaller=finalist.artefact.size_bytes < job.artefact.size_bytes,
    )


def can_help(target: Target, finalist: FinalistRecord) -> bool:
    """Whether this compression gains something here: speed, or size where the target limits size or memory."""
    beside = finalist.never_slower
    if finalist.candidate.plan.precision is Precision.FLOAT32 or beside is None:
        return True
    limited = {limit.metric.partition(".")[0] for limit in target.limits if limit.hard}
    return beside.faster or (beside.smaller and bool(limited & {"size", "memory"}))


def run_noise(run: Run) -> float:
    """The run's A/A noise; 0 in a run without a comparison of arms."""
    arms = run.arms()
    return arms.noise if arms is not None else 0.0


def _low(measurement: Measurement) -> float:
    return statistics.median(process.low_us for process in measurement.processes)
