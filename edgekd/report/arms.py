"""Which backend at which precision? A heat table over the anchor archs, with never-slower marks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.artefacts import Backend
from edgekd.ir.numerics import Precision
from edgekd.ir.space import Arch
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
    read = {arm: _by_anchor([reading for reading in arms.readings if reading.arm == arm]) for arm in known}
    fastest = _fastest(read)
    rows = []
    for backend in backends:
        cells = []
        for precision in precisions:
            arm = Arm(backend=backend, precision=precision)
            cells.append(_cell(arms, arm, read[arm], fastest) if arm in known else None)
        rows.append((backend, cells))
    return precisions, rows


def _by_anchor(readings: Sequence[ArmReading]) -> dict[Arch, float]:
    return {reading.arch: reading.low_us.value for reading in readings if reading.low_us is not None}


def _fastest(read: Mapping[Arm, Mapping[Arch, float]]) -> Mapping[Arch, float]:
    """The arm the others are held against: the fastest of those measured on the most anchors."""
    most = max((len(values) for values in read.values()), default=0)
    return min((values for values in read.values() if len(values) == most), key=_mean, default={})


def _mean(values: Mapping[Arch, float]) -> float:
    return math.exp(sum(map(math.log, values.values())) / len(values)) if values else math.inf


def _cell(arms: ArmsRecord, arm: Arm, read: Mapping[Arch, float], fastest: Mapping[Arch, float]) -> ArmCell:
    dropped = next((drop.reason for drop in arms.dropped if drop.arm == arm), "")
    twin = next((mark for mark in arms.never_slower if mark.arm == arm), None)
    mark = ""
    if twin is not None and not twin.faster:
        mark = f"not faster than float32 ({twin.ratio:.2f}x)" + (", smaller" if twin.smaller else "")
        if twin.regressed:
            mark += ": " + ", ".join(twin.regressed[:3])
    shared = [arch for arch in read if arch in fastest]
    if not shared:
        detail = next((reading.detail for reading in arms.readings if reading.arm == arm and reading.detail), "")
        return ArmCell("no figure", detail or dropped, -1, arm in arms.kept, mark)
    # an arm that dropped out early was measured on fewer anchors: only those are compared
    ratio = _mean({arch: read[arch] / fastest[arch] for arch in shared})
    heat = min(4, int(math.log2(ratio) * 2.5)) if ratio > 1 else 0
    title = dropped or f"geometric mean over {len(shared)} of {len(arms.anchors)} anchors"
    return ArmCell(f"{ratio:.2f}x", title, heat, arm in arms.kept, mark)
