"""Minimal SVG: elements with escaped text, a linear scale with round ticks; needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Scale", "circle", "line", "picture", "polyline", "rect", "text"]


@dataclass(frozen=True)
class Scale:
    """Linear scale from data to pixels. ``start`` and ``end`` are the pixels of ``low`` and ``high``."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Scale:
        """Scale over all values with a margin. Raises ValueError without values."""
        low, high = min(values), max(values)
        room = max((high - low or abs(high) or 1.0) * margin, 1e-9 * max(abs(low), abs(high)), 1e-12)
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers inside the scale, about ``count`` of them."""
        raw = (self.high - self.low) / count
        size = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * size for factor in (1, 2, 5, 10) if factor * size >= raw)
        first = math.ceil(self.low / step)
        return [index * step for index in range(first, math.floor(self.high / step) + 1)]


def _element(tag: str, attributes: dict[str, object], content: str = "") -> str:
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(_short(value)))}"' for name, value in attributes.items()
    )
    return f"<{tag}{written}>{content}</{tag}>" if content else f"<{tag}{written}/>"


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def picture(
    width: float, height: float, label: str, parts: Sequence[str], kind: str = "picture", stretched: bool = False
) -> str:
    """Whole picture that scales with the page; ``label`` describes it to screen readers.

    ``stretched`` gives up its proportions, and suits pictures without text or circles.
    """
    attributes = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria_label": label, "class_": kind}
    if stretched:
        attributes["preserveAspectRatio"] = "none"
    return _element("svg", dict(attributes), "\n".join(parts) or " ")


def text(x: float, y: float, content: str, kind: str = "label", anchor: str = "start") -> str:
    """Line of text; ``kind`` is its CSS class."""
    return _element("text", {"x": x, "y": y, "class_": kind, "text_anchor": anchor}, escape(content))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    return _element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class_": kind})


def rect(x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> str:
    """A rectangle; ``hint`` shows on hover."""
    shape = {"x": x, "y": y, "width": max(0.0, width), "height": max(0.0, height), "class_": kind}
    return _element("rect", dict(shape), _hint(hint))


def circle(x: float, y: float, radius: float, kind: str, hint: str = "") -> str:
    """A dot; ``hint`` shows on hover."""
    return _element("circle", {"cx": x, "cy": y, "r": radius, "class_": kind}, _hint(hint))


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    return _element("polyline", {"points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points), "class_": kind})


def _hint(hint: str) -> str:
    return f"<title>{escape(hint)}</title>" if hint else ""
