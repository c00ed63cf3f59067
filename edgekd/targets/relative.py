"""Relative limits resolved to absolute ones: `latency: {p50: 60 % of own}` and `accuracy: {drop: 2 %}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.errors import ConfigurationError, Place
from edgekd.targets.target import AccuracyFloor, Target
from edgekd.units import Duration, Points, Quantity, Size

__all__ = ["DROP", "floored", "require_absolute", "resolved"]

DROP = Points(0.02)
"""Default accuracy drop allowed to a compressed model, where the target has no accuracy limit."""


def resolved(target: Target, accuracy: float, own: Mapping[str, float]) -> Target:
    """Return the target with every relative limit as an absolute figure.

    ``own``: figures of the user's own model by metric, in microseconds or bytes; empty where the model ran nowhere.
    Raises ConfigurationError where a metric with a relative limit has none.
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
    """Return the target with an accuracy floor below ``accuracy`` in place of a drop."""
    asked = target.accuracy
    if asked is None or asked.drop is None:
        return target
    floor = round(max(0.0, accuracy - float(asked.drop)), 6)
    return target.but(accuracy=AccuracyFloor(floor=floor, report=asked.report))


def require_absolute(target: Target, where: Place = Place()) -> None:
    """Check that no limit is relative to a user's own model, where there is none. Raises ConfigurationError."""
    if target.relative:
        metric, quantity = target.relative[0]
        raise ConfigurationError.one(
            f"target {target.name} limits {metric} by one's own model ({quantity}), and there is none here",
            "write it in plain figures, or start from a model of one's own: edgekd compress",
            where,
        )
