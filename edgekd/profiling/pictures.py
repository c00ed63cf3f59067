"""Pictures of a device: roofline, width sweep, and a minute of sustained work."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from edgekd.profiling.record import BehaviourProfile, DeploymentProfile, MemoryProfile
from edgekd.report import svg
from edgekd.units import format_us

__all__ = ["roofline_picture", "sustained_picture", "width_sweep_picture"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 680.0, 320.0, 84.0, 56.0, 28.0, 40.0
_APART = 24.0  # pixels between two lines of text at a phone page's large letters


def roofline_picture(deployments: Sequence[DeploymentProfile], memory: MemoryProfile | None) -> str:
    """Roofline: operations a second over operations a byte moved (Williams et al. 2009), log-log; a dot a network."""
    dots = [
        (
            deployment,
            math.log10(2 * one.macs / (_bytes(deployment) * one.elements)),
            math.log10(2e-3 * one.macs / one.p5_us.value),
        )
        for deployment in deployments
        for one in (*deployment.width_sweep, *deployment.table)
        if one.macs and one.elements
    ]
    if not dots:
        return ""
    peaks = {
        id(deployment): math.log10(deployment.peak.value) for deployment in deployments if deployment.peak is not None
    }
    x = svg.Scale.over([at for _, at, _ in dots], _LEFT, _WIDTH - _RIGHT)
    y = svg.Scale.over([*(up for _, _, up in dots), *peaks.values()], _HEIGHT - _BOTTOM, _TOP)
    parts = _frame(x, y, "operations a byte moved", "G operations a second", _power, _power, _decades)
    if memory is not None and memory.streams:
        rate = math.log10(memory.streams[-1].bandwidth.value / 1e9)
        first, last = max(x.low, y.low - rate), min(x.high, y.high - rate)  # where the slope lies inside the frame
        if first < last:
            parts.append(svg.polyline([(x(at), y(rate + at)) for at in (first, last)], "curve c4"))
    names = []
    for number, deployment in enumerate(deployments):
        for owner, at, up in dots:
            if owner is deployment:
                hint = deployment.label
                parts.append(svg.circle(x(at), y(up), 3.5, f"dot d{number % 5}", hint))
        if id(deployment) in peaks:
            parts.append(
                svg.line(
                    _LEFT, y(peaks[id(deployment)]), _WIDTH - _RIGHT, y(peaks[id(deployment)]), f"c{number % 5} peak"
                )
            )
            names.append((y(peaks[id(deployment)]), number, deployment.label))
    return _picture("roofline: what the runtimes reach here", parts, names)


def width_sweep_picture(deployments: Sequence[DeploymentProfile]) -> str:
    """Width sweep: latency of one stage over its channels, a line a backend and precision."""
    drawn = [deployment for deployment in deployments if len(deployment.width_sweep) > 1]
    if not drawn:
        return ""
    x = svg.Scale.over([one.width for deployment in drawn for one in deployment.width_sweep], _LEFT, _WIDTH - _RIGHT)
    y = svg.Scale.over(
        [0.0, *(one.p5_us.value for deployment in drawn for one in deployment.width_sweep)], _HEIGHT - _BOTTOM, _TOP
    )
    parts, names = _frame(x, y, "channels", "latency.p5", lambda value: f"{value:g}", format_us), []
    for number, deployment in enumerate(drawn):
        line = [(x(one.width), y(one.p5_us.value)) for one in deployment.width_sweep]
        parts.append(svg.polyline(line, f"curve c{number % 5}"))
        parts += [
            svg.circle(*at, 2.5, f"dot d{number % 5}", f"{one.width}: {one.p5_us}")
            for at, one in zip(line, deployment.width_sweep, strict=True)
        ]
        names.append((line[-1][1], number, deployment.label))
    return _picture("width sweep: latency over channels", parts, names)


def sustained_picture(found: BehaviourProfile) -> str:
    """Sustained work: the 5th percentile of each half second, without pause."""
    if len(found.sustained) < 2:
        return ""
    x = svg.Scale.over([each.at_s for each in found.sustained], _LEFT, _WIDTH - _RIGHT, 0.02)
    y = svg.Scale.over([0.0, *(each.p5_us for each in found.sustained)], _HEIGHT - _BOTTOM, _TOP)
    parts = _frame(x, y, "seconds without pause", "latency.p5", lambda value: f"{value:g}", format_us)
    parts.append(svg.polyline([(x(each.at_s), y(each.p5_us)) for each in found.sustained], "curve c0"))
    return _picture(f"{found.probe} without pause", parts)


def _bytes(deployment: DeploymentProfile) -> int:
    return deployment.precision.activations.bits // 8


def _power(value: float) -> str:
    return f"{10**value:.3g}"


def _decades(scale: svg.Scale) -> list[float]:
    """Logarithms of 1, 2 and 5 of each power of ten inside a logarithmic scale."""
    powers = range(math.floor(scale.low), math.ceil(scale.high) + 1)
    found = [power + math.log10(digit) for power in powers for digit in (1, 2, 5)]
    inside = [at for at in found if scale.low <= at <= scale.high]
    return inside if len(inside) > 1 else scale.ticks()


def _frame(
    x: svg.Scale,
    y: svg.Scale,
    across: str,
    upwards: str,
    format_x: Callable[[float], str],
    format_y: Callable[[float], str],
    ticks: Callable[[svg.Scale], list[float]] = svg.Scale.ticks,
) -> list[str]:
    parts = []
    for tick in ticks(y):
        parts.append(svg.line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(svg.text(_LEFT - 6, y(tick) + 4, format_y(tick), "tick", "end"))
    parts += [svg.text(x(tick), _HEIGHT - _BOTTOM + 22, format_x(tick), "tick", "middle") for tick in ticks(x)]
    parts.append(svg.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, "axis", "middle"))
    parts.append(svg.text(4, 18, upwards, "axis"))
    return parts


def _picture(title: str, parts: Sequence[str], names: Sequence[tuple[float, int, str]] = ()) -> str:
    """Picture with a number at the right end of each line, moved apart, and below it what the numbers are.

    ``names`` are the height, the colour and the name of each line.
    """
    previous, found = -100.0, list(parts)
    for place, (height, colour, name) in enumerate(sorted(names), start=1):
        previous = max(height, previous + _APART)
        found.append(svg.text(_WIDTH - _RIGHT + 6, previous + 4, str(place), f"name k{colour % 5}"))
        found.append(svg.text(_LEFT, _HEIGHT + place * _APART, f"{place}  {name}", f"name k{colour % 5}"))
    return svg.picture(_WIDTH, _HEIGHT + (len(names) + 0.5) * _APART if names else _HEIGHT, title, found)
