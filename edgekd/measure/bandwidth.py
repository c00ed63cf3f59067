"""How fast this computer's processor moves bytes: numbers read and written, timed in fresh processes.

The array is as large as what a student keeps busy, so that the figure is of the memory (a cache, mostly) that students
of that size live in. Adding one to n bytes of floats reads n and writes n; a plain copy is ten times slower at some
alignments on some machines. Each process tells its fastest of many; the figure is the median over processes. Evidence
kind: measured.
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
a, b, one = np.ones(n // 4, np.float32), np.zeros(n // 4, np.float32), np.float32(1)
calls = max(1, 4_000_000 // n)
best, end = float("inf"), time.perf_counter() + 0.2
while time.perf_counter() < end:
    begun = time.perf_counter()
    for _ in range(calls):
        np.add(a, one, out=b)
    best = min(best, (time.perf_counter() - begun) / calls)
print(2 * n / best)
"""


def measure_bandwidth(working_bytes: int, fingerprint: Digest) -> Figure:
    """Bytes a second, both arrays together ``working_bytes``. Raises Unstable where no process ends."""
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
        raise Unstable("no process could time memory", "try again on a quieter machine")
    return Figure(
        metric="memory.bandwidth",
        value=statistics.median(told),
        unit="B/s",
        kind=EvidenceKind.MEASURED,
        subject=fingerprint,
        method=f"reading and writing, {format_bytes(working_bytes)} in all, the median of {len(told)} processes' best",
        low=min(told),
        high=max(told),
        confidence=None,
    )
