"""Frame of pictures with epochs on the horizontal axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekd.report import svg

__all__ = ["across", "axes", "framed", "level", "upwards"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 680.0, 300.0, 80.0, 56.0, 28.0, 140.0


def across(epochs: Sequence[float]) -> svg.Scale:
    """Horizontal scale of epochs; room is left for names at the ends of lines."""
    return svg.Scale.over(epochs, _LEFT, _WIDTH - _RIGHT, 0.02)


def upwards(values: Sequence[float]) -> svg.Scale:
    """Vertical scale of values."""
    return svg.Scale.over(values, _HEIGHT - _BOTTOM, _TOP)


def axes(x: svg.Scale, y: svg.Scale, title: str, format_value: Callable[[float], str]) -> list[str]:
    """Grid, ticks and axis titles; ``format_value`` formats a value of the vertical axis."""
    parts = []
    for tick in y.ticks():
        parts.append(svg.line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(svg.text(_LEFT - 6, y(tick) + 4, format_value(tick), "tick", "end"))
    for tick in x.ticks():
        if tick == int(tick):
            parts.append(svg.text(x(tick), _HEIGHT - _BOTTOM + 22, f"{tick:g}", "tick", "middle"))
    parts.append(svg.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "epoch", "axis", "middle"))
    parts.append(svg.text(4, 18, title, "axis"))
    return parts


def level(y: svg.Scale, value: float, kind: str) -> str:
    """Horizontal line across the whole frame."""
    return svg.line(_LEFT, y(value), _WIDTH - _RIGHT, y(value), kind)


def framed(title: str, parts: Sequence[str]) -> str:
    """Whole picture as SVG."""
    return svg.picture(_WIDTH, _HEIGHT, title, list(parts))
