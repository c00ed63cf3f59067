"""Differentiable search: expected costs over their bounds by epoch; the archs tried, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekd.evidence import EvidenceKind, Figure, find_figure
from edgekd.report import epochs, svg
from edgekd.report.facts import Facts
from edgekd.store.differentiable import CostTerm, SupernetPoint
from edgekd.store.records import Accuracy
from edgekd.units import format_bytes, format_us

__all__ = ["TriedArch", "annealing_picture", "bound_of", "tried_archs"]


@dataclass(frozen=True)
class TriedArch:
    """Trial near the trained choice. ``ratio`` is its measured 5th percentile over the predicted one."""

    number: int
    arch: str
    predicted: Figure
    measured: Figure | None
    ratio: float | None
    accuracy: Accuracy | None


def tried_archs(facts: Facts) -> list[TriedArch]:
    """Tried archs in order; empty where nothing was predicted."""
    plan, model, supernet = facts.plan, facts.latency_model, facts.supernet
    if plan is None or model is None or supernet is None:
        return []
    predicted = dict(zip(map(plan.space.at, supernet.order), supernet.predicted_us, strict=True))
    tried = []
    for trial in facts.trials:
        value, low = predicted.get(trial.candidate.arch), find_figure(trial.figures, "latency.p5")
        if value is None:
            continue
        figure = Figure(
            metric="latency.p5",
            value=value,
            unit="us",
            kind=EvidenceKind.PREDICTED,
            subject=trial.candidate.arch.digest(),
            method=f"{model.form}, fitted to {model.samples} archs on {model.deployment}",
        )
        ratio = low.value / value if low is not None and value > 0 else None
        tried.append(TriedArch(trial.number, str(trial.candidate.arch), figure, low, ratio, trial.accuracy))
    return tried


def bound_of(term: CostTerm) -> str:
    """Bound of a cost term, with its unit; empty where it was refused."""
    if term.bound is None:
        return ""
    if term.unit == "us":
        return format_us(term.bound)
    return format_bytes(term.bound) if term.unit == "B" else f"{term.bound:.4g} {term.unit}"


def annealing_picture(points: Sequence[SupernetPoint]) -> str:
    """Draw each expected cost as a share of its bound, one line a cost; empty without epochs."""
    if not points:
        return ""
    x = epochs.across([float(point.epoch) for point in points])
    shares = [share for point in points for share in point.shares.values()]
    y = epochs.upwards([0.0, 1.0, *shares])
    parts = epochs.axes(x, y, "expected cost over its bound (predicted)", lambda value: f"{100 * value:.4g} %")
    parts.append(epochs.level(y, 1.0, "bound"))
    previous = -100.0
    last = points[-1].shares
    for index, name in enumerate(sorted(last, key=lambda name: -last[name])):  # from the highest end down the page
        line = [(x(point.epoch), y(point.shares[name])) for point in points if name in point.shares]
        parts.append(svg.polyline(line, f"curve c{index % 3}"))
        previous = max(line[-1][1], previous + 24)  # labels of lines that end together are moved apart
        parts.append(svg.text(line[-1][0] + 6, previous + 4, name, "name"))
    return epochs.framed("what the supernet is expected to cost, epoch by epoch", parts)
