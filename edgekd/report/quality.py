"""Measurement quality: every process of the certificate as a dot, at 5th percentile, p50, p95 and mean."""

from __future__ import annotations

from edgekd.devices._protocol import Measurement
from edgekd.report import svg

__all__ = ["processes_picture"]

_WIDTH, _ROW, _LEFT, _RIGHT = 680.0, 30.0, 60.0, 16.0
_ROWS = (("p5_us", "p5"), ("p50_us", "p50"), ("p95_us", "p95"), ("mean_us", "mean"))


def processes_picture(measurement: Measurement) -> str:
    """Draw one row per statistic, one dot per fresh process. Empty where no process finished."""
    samples = measurement.processes
    if not samples:
        return ""
    values = [float(getattr(sample, field)) for sample in samples for field, _ in _ROWS]
    x = svg.Scale.over(values, _LEFT, _WIDTH - _RIGHT)
    height = _ROW * len(_ROWS) + 56
    parts = []
    for tick in x.ticks():
        parts.append(svg.line(x(tick), 4, x(tick), height - 52, "grid"))
        parts.append(svg.text(x(tick), height - 30, f"{tick:g}", "tick", "middle"))
    for row, (field, name) in enumerate(_ROWS):
        y = row * _ROW + 20
        parts.append(svg.text(_LEFT - 8, y + 4, name, "label", "end"))
        for number, sample in enumerate(samples):
            value = float(getattr(sample, field))
            parts.append(
                svg.circle(x(value), y, 4, "trial", f"process {number}: {name} {value:.4g} us, {sample.calls} calls")
            )
    parts.append(svg.text((_LEFT + _WIDTH) / 2, height - 6, "us", "axis", "middle"))
    return svg.picture(_WIDTH, height, "each process of the certifying measurement", parts)
