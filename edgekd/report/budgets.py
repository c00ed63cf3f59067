"""Does the certified file meet its budgets, and with how much room? A bar a budget."""

from __future__ import annotations

from collections.abc import Sequence

from edgekd.report import svg
from edgekd.targets.verdict import Answer, LimitVerdict

__all__ = ["budget_bars"]

_WIDTH, _ROW, _BAR = 680.0, 46.0, 12.0


def budget_bars(verdicts: Sequence[LimitVerdict]) -> str:
    """Each figure as a share of its bound, the interval as a whisker. Empty where there is no budget."""
    rows = [verdict for verdict in verdicts if verdict.figure is not None and verdict.limit.bound > 0]
    if not rows:
        return ""
    parts = []
    for index, verdict in enumerate(rows):
        parts += _row(verdict, index * _ROW)
    return svg.picture(_WIDTH, len(rows) * _ROW, "figures against their budgets", parts)


def _row(verdict: LimitVerdict, top: float) -> list[str]:
    limit, figure = verdict.limit, verdict.figure
    assert figure is not None  # rows without a figure were left out
    scale = svg.Scale(0.0, limit.bound * 1.25, 0.0, _WIDTH)
    kind = {Answer.HOLDS: "good", Answer.FAILS: "bad"}.get(verdict.answer, "unsure")
    margin = "" if verdict.margin is None else f", margin {verdict.margin:.0%}"
    said = f"{verdict.answer.value}{margin}" + ("" if limit.hard else " (reported only)")
    bar = top + 20
    return [
        svg.text(0, top + 13, f"{limit}", "label"),
        svg.text(_WIDTH, top + 13, f"{figure}: {said}", "label", "end"),
        svg.rect(0, bar, _WIDTH, _BAR, "track"),
        svg.rect(0, bar, scale(figure.value), _BAR, kind, f"{limit.metric}: {figure}"),
        svg.line(scale(figure.lower), bar + _BAR / 2, scale(figure.upper), bar + _BAR / 2, "whisker"),
        svg.line(scale(limit.bound), bar - 3, scale(limit.bound), bar + _BAR + 3, "bound"),
    ]
