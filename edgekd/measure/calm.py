"""Which processes tell how fast a model can be here: those beside which the sentinel reached its own best speed.

On a shared machine somebody else's work on the same core makes everything slower by a third for seconds at a time. A
process that lived through nothing else has a low quantile that is not the model's. The sentinel knows: it never
changes, so a process is calm where enough of its rounds came within 5 % of the fastest of the whole batch. On a quiet
machine every process is.

Only the ranking quantile (`latency.low`) is taken from calm processes alone. Everything a budget usually binds (p50,
p95, mean) is of all of them, disturbed or not.
"""

from __future__ import annotations

import numpy as np

from edgekd.devices._protocol import Measurement, ProcessSample

__all__ = ["calm_processes"]

_WITHIN = 0.05  # the sentinel's level differs by about 0.7 % (one standard deviation) between undisturbed processes
_ENOUGH = 0.3  # of a process's rounds: so many that its 5th percentile is of calls at that speed


def calm_processes(measurement: Measurement) -> tuple[ProcessSample, ...]:
    """Those of a measurement; all of them where no sentinel was timed beside each."""
    sentinel, processes = measurement.sentinel, measurement.processes
    if sentinel is None or not processes or len(sentinel.low_us) % len(processes):
        return processes
    rounds = np.asarray(sentinel.low_us, dtype=np.float64).reshape(len(processes), -1)
    shares = (rounds <= (1.0 + _WITHIN) * rounds.min()).mean(axis=1)
    least = min(_ENOUGH, float(shares.max()))  # where none was calm for long, the calmest
    return tuple(process for process, share in zip(processes, shares, strict=True) if share >= least)
