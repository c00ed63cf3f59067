"""Which backend at which precision? A heat table over the anchor archs, with never-slower marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.artefacts import Backend, Precision
from edgekd.store.records import Arm, ArmReading, ArmsRecord

__all__ = ["ArmCell", "arm_rows"]


@dataclass(frozen=True)
class ArmCell:
    """One arm. ``ratio`` is its low quantile over the fastest arm's, geometric mean over the anchors both have."""

    text: str
    title: str
    heat: int  # 0 fastest .. 4 slowest; -1 no figure
    kept: bool
    mark: str  # what the never-slower rule found


def arm_rows(arms: ArmsRecord) -> tuple[list[Precision], list[tuple[Backend, list[ArmCell | None]]]]:
    """Columns (precisions) and rows (backends with a cell a precision; None where the pair was no arm)."""
    known = dict.fromkeys(reading.arm for reading in arms.readings)
    precisions = [precision for precision in Precision if any(arm.precision is precision for arm in known)]
    backends = list(dict.fromkeys(arm.backend for arm in known))
    typical = {arm: _typical_us([reading for reading in arms.readings if reading.arm == arm]) for arm in known}
    fastest = min((value for value in typical.values() if value is not None), default=None)
    rows = []
    for backend in backends:
        cells = []
        for precision in precisions:
            arm = Arm(backend=backend, precision=precision)
            cells.append(_cell(arms, arm, typical[arm], fastest) if arm in known else None)
        rows.append((backend, cells))
    return precisions, rows


def _typical_us(readings: Sequence[ArmReading]) -> float | None:
    values = [reading.low_us.value for reading in readings if reading.low_us is not None]
    return math.exp(sum(map(math.log, values)) / len(values)) if values and len(values) == len(readings) else None


def _cell(arms: ArmsRecord, arm: Arm, typical: float | None, fastest: float | None) -> ArmCell:
    dropped = next((drop.reason for drop in arms.dropped if drop.arm == arm), "")
    twin = next((mark for mark in arms.never_slower if mark.arm == arm), None)
    mark = ""
    if twin is not None and not twin.faster:
        mark = f"not faster than float32 ({twin.ratio:.2f}x)" + (", smaller" if twin.smaller else "")
        if twin.regressed:
            mark += ": " + ", ".join(twin.regressed[:3])
    if typical is None or fastest is None:
        detail = next((reading.detail for reading in arms.readings if reading.arm == arm and reading.detail), "")
        return ArmCell("no figure", detail or dropped, -1, arm in arms.kept, mark)
    ratio = typical / fastest
    heat = min(4, int(math.log2(ratio) * 2.5)) if ratio > 1 else 0
    return ArmCell(
        f"{ratio:.2f}x", dropped or f"{typical:.4g} us, geometric mean over the anchors", heat, arm in arms.kept, mark
    )
