"""Operator profile of the winner: time by kind, from its runtime's own profiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.devices._protocol import OperatorTime

__all__ = ["OperatorRow", "operator_rows"]


@dataclass(frozen=True)
class OperatorRow:
    """All operators of one kind."""

    kind: str
    count: int
    time_us: float
    share: float


def operator_rows(operators: Sequence[OperatorTime]) -> list[OperatorRow]:
    """Operators by kind, slowest first. Empty where the runtime has no profile."""
    total = sum(operator.time_us for operator in operators)
    if not total:
        return []
    kinds: dict[str, list[float]] = {}
    for operator in operators:
        kinds.setdefault(operator.kind, []).append(operator.time_us)
    rows = [OperatorRow(kind, len(times), sum(times), sum(times) / total) for kind, times in kinds.items()]
    return sorted(rows, key=lambda row: -row.time_us)
