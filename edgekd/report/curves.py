"""Learning curves: validation score of each finalist by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.report import epochs, svg
from edgekd.store.records import FinalistRecord

__all__ = ["curves_picture"]


def curves_picture(finalists: Sequence[FinalistRecord]) -> str:
    """Draw the learning curves as SVG; empty where nothing was trained."""
    curves = {
        finalist.rank: [(point.epoch, point.validation) for point in finalist.curve if point.validation is not None]
        for finalist in finalists
    }
    curves = {rank: points for rank, points in curves.items() if points}
    if not curves:
        return ""
    x = epochs.across([epoch for points in curves.values() for epoch, _ in points])
    y = epochs.upwards([score for points in curves.values() for _, score in points])
    parts = epochs.axes(x, y, "validation", lambda value: f"{value:.4g}")
    ends = []
    for index, (rank, points) in enumerate(curves.items()):
        parts.append(svg.polyline([(x(epoch), y(score)) for epoch, score in points], f"curve c{index % 5}"))
        ends.append((y(points[-1][1]), x(points[-1][0]), rank, index % 5))
    previous = -100.0
    for height, right, rank, colour in sorted(ends):
        previous = max(height, previous + 24)  # labels of curves that end together are moved apart
        parts.append(svg.text(right + 6, previous + 4, f"finalist {rank}", f"name k{colour}"))
    return epochs.framed("training curves", parts)
