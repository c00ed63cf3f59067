"""How did the finalists learn? Validation score against epoch, one line a finalist."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.report import svg
from edgekd.store.records import FinalistRecord

__all__ = ["curves_picture"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 680.0, 300.0, 62.0, 56.0, 28.0, 126.0


def curves_picture(finalists: Sequence[FinalistRecord]) -> str:
    """Empty where nothing was trained."""
    curves = {
        finalist.rank: [(point.epoch, point.validation) for point in finalist.curve if point.validation is not None]
        for finalist in finalists
    }
    curves = {rank: points for rank, points in curves.items() if points}
    if not curves:
        return ""
    x = svg.Scale.over([epoch for points in curves.values() for epoch, _ in points], _LEFT, _WIDTH - _RIGHT, 0.02)
    y = svg.Scale.over([score for points in curves.values() for _, score in points], _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for tick in y.ticks():
        parts.append(svg.line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(svg.text(_LEFT - 6, y(tick) + 4, f"{tick:.4g}", "tick", "end"))
    for tick in x.ticks():
        if tick == int(tick):
            parts.append(svg.text(x(tick), _HEIGHT - _BOTTOM + 22, f"{tick:g}", "tick", "middle"))
    parts.append(svg.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "epoch", "axis", "middle"))
    parts.append(svg.text(4, 18, "validation", "axis"))
    ends = []
    for index, (rank, points) in enumerate(curves.items()):
        parts.append(svg.polyline([(x(epoch), y(score)) for epoch, score in points], f"curve c{index % 5}"))
        ends.append((y(points[-1][1]), x(points[-1][0]), rank))
    previous = -100.0
    for height, right, rank in sorted(ends):
        previous = max(height, previous + 24)  # labels of curves that end together are moved apart
        parts.append(svg.text(right + 6, previous + 4, f"finalist {rank}", "name"))
    return svg.picture(_WIDTH, _HEIGHT, "training curves", parts)
