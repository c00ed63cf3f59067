"""Pareto front of the candidates: accuracy against latency, with the budgets drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.evidence import Figure, find_figure
from edgekd.report import svg
from edgekd.report.facts import Facts
from edgekd.store.records import Accuracy
from edgekd.units import format_bytes

__all__ = ["CandidatePoint", "front_picture", "front_points"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 680.0, 400.0, 80.0, 56.0, 28.0, 16.0
_FAR = 3.0
_LETTER, _LINE = 13.0, 24.0  # size of a letter on a phone, where text is largest


@dataclass(frozen=True)
class CandidatePoint:
    """Candidate: a row of the table and a dot of the picture."""

    name: str
    what: str
    latency: Figure
    accuracy: Accuracy
    size_bytes: int | None
    role: str  # trial, finalist or chosen


def front_points(facts: Facts) -> list[CandidatePoint]:
    """Trials by their estimated accuracy, finalists by the exported file's; chosen first, then by latency."""
    points = []
    for finalist in facts.finalists:
        latency = find_figure(finalist.figures, facts.latency_metric)
        if latency is not None and finalist.accuracy is not None:
            size = finalist.artefact.size_bytes if finalist.artefact else None
            role = "chosen" if finalist.chosen else "finalist"
            points.append(
                CandidatePoint(
                    f"finalist {finalist.rank}", str(finalist.candidate), latency, finalist.accuracy, size, role
                )
            )
    for trial in facts.trials:
        latency = find_figure(trial.figures, facts.latency_metric)
        if latency is not None and trial.accuracy is not None:
            points.append(
                CandidatePoint(
                    f"trial {trial.number}", str(trial.candidate), latency, trial.accuracy, trial.size_bytes, "trial"
                )
            )
    order = {"chosen": 0, "finalist": 1, "trial": 2}
    return sorted(points, key=lambda point: (order[point.role], point.latency.value))


def front_picture(facts: Facts) -> str:
    """Draw accuracy against latency as SVG. Empty where no candidate has both."""
    points = front_points(facts)
    if not points:
        return ""
    bound = next((limit for limit in facts.limits if limit.metric == facts.latency_metric), None)
    floor = next((limit for limit in facts.limits if limit.metric == "accuracy"), None)
    xs = [point.latency.value for point in points]
    beyond = bound is not None and bound.bound > _FAR * max(xs)  # to scale, all dots would be squeezed to one side
    if bound and not beyond:
        xs.append(bound.bound)
    ys = [point.accuracy.value for point in points] + ([floor.bound] if floor else [])
    x = svg.Scale.over(xs, _LEFT, _WIDTH - _RIGHT)
    y = svg.Scale.over(ys, _HEIGHT - _BOTTOM, _TOP)
    parts = []
    if bound and not beyond:
        parts.append(svg.rect(x(bound.bound), _TOP, _WIDTH - _RIGHT - x(bound.bound), _HEIGHT - _BOTTOM - _TOP, "over"))
    if floor:
        parts.append(
            svg.rect(_LEFT, y(floor.bound), _WIDTH - _RIGHT - _LEFT, _HEIGHT - _BOTTOM - y(floor.bound), "over")
        )
    parts += _axes(x, y, facts.latency_metric)
    edge = _WIDTH - _RIGHT
    if bound and beyond:
        parts.append(svg.text(edge, _TOP - 8, f"budget {bound.written}: beyond the right edge", "bound-label", "end"))
    elif bound:
        edge = x(bound.bound)
        parts.append(svg.line(edge, _TOP, edge, _HEIGHT - _BOTTOM, "bound"))
        parts.append(svg.text(edge, _TOP - 8, f"<= {bound.written}", "bound-label", "end"))
    if floor:
        parts.append(svg.line(_LEFT, y(floor.bound), _WIDTH - _RIGHT, y(floor.bound), "bound"))
        parts.append(svg.text(edge - 5, y(floor.bound) + 20, f">= {floor.written}", "bound-label", "end"))
    front = _front(points)
    if len(front) > 1:
        parts.append(svg.polyline([(x(p.latency.value), y(p.accuracy.value)) for p in front], "curve c4"))
    for point in points:
        if point.role != "trial" and point.latency.lower < point.latency.upper:
            height = y(point.accuracy.value)
            parts.append(svg.line(x(point.latency.lower), height, x(point.latency.upper), height, "interval"))
    for point in reversed(points):
        parts.append(
            svg.circle(x(point.latency.value), y(point.accuracy.value), _radius(point), point.role, _hint(point))
        )
    parts += _names([(x(p.latency.value), y(p.accuracy.value), p.name) for p in points if p.role != "trial"])
    return svg.picture(_WIDTH, _HEIGHT, "accuracy against latency of every candidate", parts)


def _front(points: Sequence[CandidatePoint]) -> list[CandidatePoint]:
    """Return the trials that no other one beats in both latency and accuracy, by latency."""
    front: list[CandidatePoint] = []
    for point in sorted(points, key=lambda point: (point.latency.value, -point.accuracy.value)):
        if point.role == "trial" and (not front or point.accuracy.value > front[-1].accuracy.value):
            front.append(point)
    return front


def _names(dots: Sequence[tuple[float, float, str]]) -> list[str]:
    """Labels of dots, beside each or a line lower where that place is taken, at a phone page's large letters."""
    parts, taken = [], list[tuple[float, float]]()
    for x, y, name in dots:
        left = x > _WIDTH * 0.7
        start, height = x - 9 - _LETTER * len(name) if left else x + 9, y
        while any(abs(start - other) < _LETTER * len(name) and abs(height - at) < _LINE for other, at in taken):
            height += _LINE
        taken.append((start, height))
        parts.append(svg.text(x + (-9 if left else 9), height - 8, name, "name", "end" if left else "start"))
    return parts


def _axes(x: svg.Scale, y: svg.Scale, metric: str) -> list[str]:
    parts = []
    for tick in x.ticks():
        parts.append(svg.line(x(tick), _TOP, x(tick), _HEIGHT - _BOTTOM, "grid"))
        parts.append(svg.text(x(tick), _HEIGHT - _BOTTOM + 22, f"{tick:g}", "tick", "middle"))
    for tick in y.ticks():
        parts.append(svg.line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(svg.text(_LEFT - 6, y(tick) + 4, f"{tick:.4g}", "tick", "end"))
    parts.append(svg.text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, f"{metric.replace('.', ' ')}, us", "axis", "middle"))
    parts.append(svg.text(4, 18, "accuracy (validation)", "axis"))
    return parts


def _radius(point: CandidatePoint) -> float:
    return {"chosen": 7.0, "finalist": 5.5, "trial": 3.5}[point.role]


def _hint(point: CandidatePoint) -> str:
    size = f", {format_bytes(point.size_bytes)}" if point.size_bytes else ""
    accuracy = f"{point.accuracy.value:.4g} ({point.accuracy.kind.value}: {point.accuracy.method})"
    return f"{point.name}: {point.what}\n{point.latency}, accuracy {accuracy}{size}"
