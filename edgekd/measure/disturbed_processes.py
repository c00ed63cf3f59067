"""Disturbed processes: those in which the machine itself was slow, as shown by the sentinel, which never changes.

On a shared machine other work now and then takes a core's cycles for a second or two. That is no property of a model,
and no number of further processes takes it out of an interval again. So such a process is left out and counted, by the
sentinel alone: the times measured beside it play no part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.devices._protocol import Measurement, SentinelReading

__all__ = ["disturbed", "without_disturbed"]

_BEYOND = 0.05
# The sentinel's level differs by about 0.7 % (one standard deviation) between undisturbed processes of a shared machine

_FEWEST = 3  # processes, to know the usual level


def disturbed(sentinel: SentinelReading | None, rounds: int) -> tuple[int, ...]:
    """Indices of processes in which the sentinel was slower than in the median one by more than 5 %."""
    if sentinel is None or len(sentinel.p5_us) % rounds:
        return ()
    levels = np.median(np.asarray(sentinel.p5_us, dtype=np.float64).reshape(-1, rounds), axis=1)
    if len(levels) < _FEWEST:
        return ()
    return tuple(int(place) for place in np.flatnonzero(levels > (1.0 + _BEYOND) * np.median(levels)))


def without_disturbed(batch: Sequence[Measurement]) -> Sequence[Measurement]:
    """Return the batch without those processes, counted in ``disturbed``; a failed job is left as it is."""
    return [_without(measurement) for measurement in batch]


def _without(measurement: Measurement) -> Measurement:
    sentinel, rounds = measurement.sentinel, measurement.plan.rounds
    if measurement.plan.load.busy:  # it is disturbed on purpose
        return measurement
    out = set(disturbed(sentinel, rounds))
    count = len(measurement.processes)
    if sentinel is None or not out or len(sentinel.p5_us) != count * rounds:
        return measurement
    kept = [place for place in range(count) if place not in out]
    observations = [sentinel.p5_us[place * rounds : (place + 1) * rounds] for place in kept]
    return measurement.but(
        processes=tuple(measurement.processes[place] for place in kept),
        plan=measurement.plan.but(processes=len(kept)),
        sentinel=sentinel.but(p5_us=tuple(low for observation in observations for low in observation)),
        disturbed=measurement.disturbed + len(out),
    )
