"""Budget bars: each figure of the certified file against its bound, with the margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.report import svg
from edgekd.targets.verdict import Answer, LimitVerdict

__all__ = ["BudgetBar", "budget_bars"]

_WIDTH, _HEIGHT = 100.0, 18.0


@dataclass(frozen=True)
class BudgetBar:
    """Bar of one budget: requirement, figure, and a bar of the two. ``bar`` is SVG, empty without a figure."""

    asked: str
    found: str
    bar: str


def budget_bars(verdicts: Sequence[LimitVerdict]) -> list[BudgetBar]:
    """Each figure as a share of its bound, the interval as a whisker. Text stands beside the bar, not in it."""
    return [BudgetBar(str(verdict.limit), _found(verdict), _bar(verdict)) for verdict in verdicts]


def _found(verdict: LimitVerdict) -> str:
    figure = str(verdict.figure) if verdict.figure is not None else "no figure"
    margin = "" if verdict.margin is None else f", margin {verdict.margin:.0%}"
    return f"{figure}: {verdict.answer.value}{margin}" + ("" if verdict.limit.hard else " (reported only)")


def _bar(verdict: LimitVerdict) -> str:
    limit, figure = verdict.limit, verdict.figure
    if figure is None or limit.bound <= 0:
        return ""
    scale = svg.Scale(0.0, limit.bound * 1.25, 0.0, _WIDTH)
    kind = {Answer.HOLDS: "good", Answer.FAILS: "bad"}.get(verdict.answer, "unsure")
    middle, thick = _HEIGHT / 2, _HEIGHT * 2 / 3
    parts = [
        svg.rect(0, middle - thick / 2, _WIDTH, thick, "track"),
        svg.rect(0, middle - thick / 2, scale(figure.value), thick, kind, f"{limit.metric}: {figure}"),
        svg.line(scale(figure.lower), middle, scale(figure.upper), middle, "whisker"),
        svg.line(scale(limit.bound), 0, scale(limit.bound), _HEIGHT, "bound"),
    ]
    return svg.picture(_WIDTH, _HEIGHT, f"{limit}: {_found(verdict)}", parts, "bar", stretched=True)
