"""How fast this computer's processor moves bytes: a copy, timed in fresh processes.

The array is as large as what a student keeps busy, so that the figure is of the memory (a cache, mostly) that students
of that size live in. A copy of n bytes reads n and writes n. Each process tells its fastest of many copies; the figure
is the median over processes. Evidence kind: measured.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from edgekd.errors import Unstable
from edgekd.evidence import EvidenceKind, Figure
from edgekd.records import Digest
from edgekd.units import format_bytes

__all__ = ["measure_bandwidth"]

_PROCESSES = 5
_DEADLINE_S = 60.0
_COPY = """
import time, sys
import numpy as np
n = int(sys.argv[1]) // 2
a, b = np.ones(n, np.uint8), np.zeros(n, np.uint8)
calls = max(1, 4_000_000 // n)
best, end = float("inf"), time.perf_counter() + 0.2
while time.perf_counter() < end:
    begun = time.perf_counter()
    for _ in range(calls):
        np.copyto(b, a)
    best = min(best, (time.perf_counter() - begun) / calls)
print(2 * n / best)
"""


def measure_bandwidth(working_bytes: int, fingerprint: Digest) -> Figure:
    """Bytes a second, both arrays of the copy together ``working_bytes``. Raises Unstable where no process ends."""
    told = []
    for _ in range(_PROCESSES):
        try:
            done = subprocess.run(
                [sys.executable, "-c", _COPY, str(max(4096, working_bytes))],
                capture_output=True,
                text=True,
                timeout=_DEADLINE_S,
                check=True,
            )
            told.append(float(done.stdout))
        except (subprocess.SubprocessError, ValueError):
            continue
    if not told:
        raise Unstable("no process could time a copy of memory", "try again on a quieter machine")
    return Figure(
        metric="memory.bandwidth",
        value=statistics.median(told),
        unit="B/s",
        kind=EvidenceKind.MEASURED,
        subject=fingerprint,
        method=f"a copy, {format_bytes(working_bytes)} in all, the median of {len(told)} processes' best",
        low=min(told),
        high=max(told),
        confidence=None,
    )
