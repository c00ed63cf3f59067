"""Limits relative to one's own model, `latency: {p50: 60 % of own}` and `accuracy: {drop: 2 %}`: what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.errors import ConfigurationError, Place
from edgekd.targets.target import AccuracyFloor, Target
from edgekd.units import Duration, Points, Quantity, Size

__all__ = ["DROP", "floored", "require_absolute", "resolved"]

DROP = Points(0.02)
"""How far a compressed model may lie below its own where the target says nothing of accuracy."""


def resolved(target: Target, accuracy: float, own: Mapping[str, float]) -> Target:
    """The target with every relative limit in plain figures.

    ``own`` has what one's own model takes, by metric: microseconds or bytes. Raises ConfigurationError where a metric
    that is asked for has none; it is empty where the model ran nowhere.
    """
    missing = [metric for metric, _ in target.relative if metric != "accuracy" and metric not in own]
    if missing:
        none = "has no such figure where it is fastest" if own else f"ran on no backend of {target.name}"
        raise ConfigurationError.one(
            f"{missing[0]} is to be a share of one's own model's, which {none}",
            "write the budget in plain figures, or allow a backend on which the model runs in float32",
        )
    budgets: dict[str, Any] = {name: getattr(target.budgets, name) for name in type(target.budgets).model_fields}
    for metric, share in target.relative:
        group, _, field = metric.partition(".")
        if group == "accuracy":
            continue
        value = float(share) * own[metric]
        quantity: Quantity = Duration(value / 1e6) if group == "latency" else Size(float(int(value)))
        budgets[group] = budgets[group].but(**{field: quantity})
    return floored(target.but(budgets=target.budgets.but(**budgets)), accuracy)


def floored(target: Target, accuracy: float) -> Target:
    """The target with an accuracy floor below ``accuracy`` in place of a drop."""
    asked = target.accuracy
    if asked is None or asked.drop is None:
        return target
    floor = round(max(0.0, accuracy - float(asked.drop)), 6)
    return target.but(accuracy=AccuracyFloor(floor=floor, report=asked.report))


def require_absolute(target: Target, where: Place = Place()) -> None:
    """Raises ConfigurationError on limits relative to one's own model, where there is none."""
    if target.relative:
        metric, quantity = target.relative[0]
        raise ConfigurationError.one(
            f"target {target.name} limits {metric} by one's own model ({quantity}), and there is none here",
            "write it in plain figures, or start from a model of one's own: edgekd compress",
            where,
        )
